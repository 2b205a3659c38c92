#![doc = include_str!("../README.md")]

mod clock;
pub mod codes;
mod error;
mod error_code;
mod error_kind;
mod foreign;
mod instant;
pub mod internal;
mod job;
mod panics;
mod run;
mod secrets;
mod sink;
mod source;

pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use error_code::ErrorCode;
pub use error_kind::ErrorKind;
pub use foreign::{printable, unquoted};
pub use instant::{Instant, parse_duration};
pub use job::Job;
pub use panics::{CaughtPanic, catch_panic};
pub use run::{CommitId, Run, RunId};
pub use secrets::{hide_secret, mask_secrets};
pub use sink::{Sink, SinkOutcome, WriteReceipt};
pub use source::Source;

#[doc(no_inline)]
pub use async_trait::async_trait;
