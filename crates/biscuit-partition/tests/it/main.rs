//! Tests of the crate as its users see it.

mod cases;
mod crash;
mod histories;
mod lab;
mod reading;
