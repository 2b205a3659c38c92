//! Lifecycle rules of a bucket that a table needs. Needs the feature `s3`.

pub use crate::s3::{LifecycleDays, LifecyclePlan, lifecycle_rules, plan_lifecycle};
