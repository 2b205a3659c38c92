//! Tests of the tools themselves: matchers fail where they must, and faults happen where they should.

mod conformance;
mod faults;
mod matchers;
mod sinks;
