//! Requests to the S3 API, their bodies, and the handling of answers.

mod bucket;
mod deleting;
mod listing;
