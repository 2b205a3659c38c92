#![doc = include_str!("../README.md")]

pub mod codes;
mod execute;
pub mod internal;
mod keys;
mod leftovers;
#[cfg(feature = "s3")]
pub mod lifecycle;
mod listed;
mod listing;
mod plan;
mod rules;
#[cfg(feature = "s3")]
mod s3;
mod stores;
mod table_format;

pub use execute::{DeleteCounts, DeleteItem, DeleteOptions, PurgeReport, carry_out, execute, manifest_line};
pub use leftovers::{JobMarker, is_leftover};
pub use listed::{ListedObject, ListedVersions, MultipartUpload, VersionKind};
pub use listing::{Iter, ObjectListing};
pub use plan::{KeepReason, PlanSummary, PurgeDecision, PurgePlan};
pub use rules::{AllowedDeletes, ProtectedTable, PurgeRules};
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use stores::any_store::AnyStore;
pub use stores::store::{DeleteCondition, DeleteFailure, DeleteOutcome, KeptReason, PurgeStore, StoreProbe};
pub use table_format::ForeignTableFormat;
