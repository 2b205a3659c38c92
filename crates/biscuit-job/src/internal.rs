//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::environment::source_place;
pub use crate::read::learn::{format_at, learn};
pub use crate::write::quarantine::quarantined_of_subjects;
