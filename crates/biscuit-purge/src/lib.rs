#![doc = include_str!("../README.md")]

mod any_store;
mod execute;
mod keys;
mod leavings;
mod listed;
mod listing;
mod plan;
mod rules;
#[cfg(feature = "s3")]
mod s3;
mod store;
mod store_error;
mod table_format;

pub use any_store::AnyStore;
pub use execute::{Done, Item, Pace, Report, carry_out, execute, manifest_line};
pub use keys::is_below;
pub use leavings::{Mark, is_leaving};
pub use listed::{Form, Listed, Upload};
pub use listing::{Iter, Listing};
pub use plan::{Decision, Keep, Plan, Summary};
pub use rules::{Allow, Rules, Table, refuse_other_formats};
#[cfg(feature = "s3")]
pub use s3::{LifecycleDays, LifecyclePlan, S3Store, lifecycle_prefix, lifecycle_rules, plan_lifecycle};
pub use store::{Answer, Condition, Failure, Kept, Look, PurgeStore};
pub use store_error::store_error;
pub use table_format::TableFormat;
