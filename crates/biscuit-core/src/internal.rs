//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::errors::foreign::printable_lines;
pub use crate::errors::panics::is_catching;
pub use crate::errors::secrets::hide_password_of;
