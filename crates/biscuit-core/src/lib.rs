#![doc = include_str!("../README.md")]

mod clock;
pub mod codes;
mod error;
mod error_code;
mod foreign;
mod instant;
mod job;
mod panics;
mod run;
mod secrets;
mod sink;
mod source;

pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use error_code::ErrorCode;
pub use foreign::{printable, printable_lines, unquoted};
pub use instant::{Instant, parse_duration};
pub use job::Job;
pub use panics::{CaughtPanic, catch_panic, is_catching};
pub use run::{Run, RunId};
pub use secrets::{hide_password_of, hide_secret, mask_secrets};
pub use sink::{CommitId, Sink, SinkOutcome, WriteReceipt};
pub use source::Source;

#[doc(no_inline)]
pub use async_trait::async_trait;
