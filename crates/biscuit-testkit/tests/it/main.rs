//! The tools are tested themselves: matchers fail where they have to, faults strike where they should.

mod conformance;
mod faults;
mod matchers;
mod sinks;
