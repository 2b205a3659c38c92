//! Values that stand for others.

pub(crate) mod audit;
pub(crate) mod conformance;
pub(crate) mod digits;
pub(crate) mod embedded;
pub(crate) mod memory;
pub(crate) mod normalize;
pub(crate) mod siv;
pub(crate) mod store;
pub(crate) mod tokenizer;
pub(crate) mod vault;
