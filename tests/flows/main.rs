//! Flows across the crates.

mod capture;
mod dms;
mod envelopes;
mod flattened;
mod foreign;
mod kill;
mod s3;
