//! Tests across the crates, on a capture of Debezium and AWS DMS.

mod capture;
#[expect(unreachable_pub, reason = "these items are public in the crate outside of the workspace")]
#[path = "../consumer/src/lib.rs"]
mod consumer;
mod damage;
mod dms;
mod documents;
mod envelopes;
mod external;
mod flattened;
mod job;
mod kill;
mod kill_s3;
mod periods_s3;
mod purge_s3;
mod s3;
