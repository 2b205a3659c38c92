#![doc = include_str!("../README.md")]

#[cfg(feature = "catalog")]
mod catalog;
pub mod codes;
#[cfg(any(feature = "purge", feature = "catalog"))]
mod counted_client;
mod environment;
mod iam_policies;
#[cfg(feature = "lake")]
mod key_file;
#[cfg(feature = "lake")]
mod lake;
#[cfg(feature = "purge")]
mod purge;
mod requests;
mod s3_url;
mod sdk;

pub use crate::environment::AwsEnvironment;
pub use crate::iam_policies::iam_policies;
pub use crate::requests::counts::{RequestCounts, RequestsByKind};
pub use crate::s3_url::split_s3_url;
pub use crate::sdk::bucket_settings::BucketSettings;
pub use crate::sdk::options::AwsOptions;
pub use crate::sdk::region::bucket_region;
pub use aws_config::SdkConfig;
