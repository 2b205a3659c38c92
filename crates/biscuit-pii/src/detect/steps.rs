//! Number of bytes that detectors read, for the test that it grows linearly with the text.

#[cfg(test)]
thread_local! {
    /// Number of bytes that detectors have read.
    pub(crate) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts the bytes that a detector reads, for the test that their number grows linearly with the text.
pub(crate) fn steps(bytes: usize) {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + 1 + bytes as u64));
    #[cfg(not(test))]
    let _ = bytes;
}
