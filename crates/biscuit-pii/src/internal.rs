//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::detect::overlap::without_overlaps;
pub use crate::protect::protector::{hash_texts, mask_texts};
