#![doc = include_str!("../README.md")]

#[cfg(feature = "catalog")]
mod catalog;
pub mod codes;
#[cfg(any(feature = "purge", feature = "catalog"))]
mod counted_client;
mod credentials;
mod environment;
mod iam_policies;
#[cfg(feature = "lake")]
mod lake;
mod metered_store;
mod options;
#[cfg(feature = "lake")]
mod personal_data;
#[cfg(feature = "purge")]
mod purge;
mod region;
mod requests;
mod s3_url;
mod sdk_settings;

pub use crate::environment::{AwsEnvironment, BucketSettings};
pub use crate::iam_policies::iam_policies;
pub use crate::options::AwsOptions;
pub use crate::region::bucket_region;
pub use crate::requests::{RequestCounts, RequestsByKind};
pub use crate::s3_url::split_s3_url;
pub use aws_config::SdkConfig;
