//! Tests of the crate as its users see it.

mod cases;
mod crash;
mod forgetting;
mod histories;
mod lab;
mod reading;
