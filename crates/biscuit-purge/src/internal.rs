//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::execute::execute_in;
pub use crate::keys::is_below;
pub use crate::rules::refuse_other_formats;
#[cfg(feature = "s3")]
pub use crate::s3::lifecycle_prefix;
pub use crate::stores::store_error::store_error;
