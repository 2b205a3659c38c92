//! Reports of what a run did or would do.

pub(crate) mod counts;
pub(crate) mod impact;
pub(crate) mod plan;

pub use crate::read::source::ReadReport;
pub use counts::{JobReport, OutputReport, SourceReport};
