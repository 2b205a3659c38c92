#![doc = include_str!("../README.md")]

mod clock;
pub mod codes;
mod errors;
mod instant;
pub mod internal;
mod job;
mod object_ref;
mod outcome;
mod run;
mod sink;
mod source;

pub use clock::{Clock, SystemClock};
pub use errors::code::ErrorCode;
pub use errors::error::{Error, Result};
pub use errors::foreign::{printable, remove_quoted_text};
pub use errors::kind::ErrorKind;
pub use errors::panics::{CaughtPanic, catch_panic};
pub use errors::secrets::{hide_secret, mask_secrets};
pub use instant::{Instant, parse_duration};
pub use job::Job;
pub use object_ref::ObjectRef;
pub use outcome::Outcome;
pub use run::{CommitId, Run, RunId};
pub use sink::{Sink, WriteReceipt};
pub use source::Source;

#[doc(no_inline)]
pub use async_trait::async_trait;
