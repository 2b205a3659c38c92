//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::foreign::printable_lines;
pub use crate::panics::is_catching;
pub use crate::secrets::hide_password_of;
