//! The S3 API on the wire: requests, their bodies, and what the answers come to.

mod bucket;
mod deleting;
mod listing;
