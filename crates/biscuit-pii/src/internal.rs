//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::overlap::without_overlaps;
pub use crate::protect::{hash_texts, mask_texts};
