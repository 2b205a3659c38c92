//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::encode::session::session;
pub use crate::plan::choice::{default_rows, has_sound_statistics};
