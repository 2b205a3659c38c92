//! Tests of the public API of the crate.

mod cases;
mod crash;
mod forgetting;
mod histories;
mod lab;
mod reading;
mod sinks;
