#![doc = include_str!("../README.md")]

pub mod codes;
mod comprehend;
mod dynamo;
mod error;
mod kms;

pub use crate::comprehend::ComprehendDetector;
pub use crate::dynamo::DynamoStore;
pub use crate::kms::KmsKeyProvider;
