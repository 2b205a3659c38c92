//! The error of a job that contradicts itself or cannot be read.

use biscuit_core::Error;

use crate::codes;

pub(crate) fn invalid_spec(message: impl Into<String>) -> Error {
    Error::new(codes::INVALID_JOB, message)
}
