#![doc = include_str!("../README.md")]

mod execute;
mod plan;
mod store_error;

pub use execute::{Kept, Report, execute};
pub use plan::{Listed, Plan};
pub use store_error::store_error;
