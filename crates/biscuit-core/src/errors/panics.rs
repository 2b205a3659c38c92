use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Number of calls of [`catch_panic`] that run on this thread. It is a count because the calls can be nested.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// A caught panic. It has no message, because the panic message of a decoder may quote the data that it decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaughtPanic;

impl fmt::Display for CaughtPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the decoder panicked on damaged data")
    }
}

impl std::error::Error for CaughtPanic {}

/// Runs a decoder on untrusted data and returns a panic of the decoder as an error, which the caller reports as
/// unreadable input. After a panic, the caller must not use the values again that the decoder has modified.
///
/// The panic hook runs before the panic is caught. A hook can call [`is_catching`] to print nothing for such a panic.
///
/// ```
/// use biscuit_core::catch_panic;
///
/// let damaged: &[u8] = &[1, 2];
/// assert_eq!(catch_panic(|| damaged[0]), Ok(1));
/// assert!(catch_panic(|| damaged[damaged.len()]).is_err());
/// ```
///
/// # Errors
/// [`CaughtPanic`] if `decode` panicked.
pub fn catch_panic<T>(decode: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
    // The guard decrements the count on every path, also if the closure unwinds through this function.
    struct CatchUnwind;
    impl Drop for CatchUnwind {
        fn drop(&mut self) {
            CATCHING.set(CATCHING.get() - 1);
        }
    }
    CATCHING.set(CATCHING.get() + 1);
    let catching = CatchUnwind;
    let done = catch_unwind(AssertUnwindSafe(decode));
    drop(catching);
    done.map_err(|payload| {
        // The payload is an arbitrary value, and its destructor may panic as well. Leaking it is the only safe way to
        // discard it.
        std::mem::forget(payload);
        CaughtPanic
    })
}

/// Returns whether this thread is inside a call of [`catch_panic`].
pub fn is_catching() -> bool {
    CATCHING.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caught_panic_is_a_value_and_ends_catching() {
        assert!(!is_catching());
        assert_eq!(catch_panic(is_catching), Ok(true));
        let nested = catch_panic(|| catch_panic(|| panic!("value 7")).map(|()| false).unwrap_or(is_catching()));
        assert_eq!(nested, Ok(true));
        assert!(!is_catching() && !CaughtPanic.to_string().contains('7'));
    }
}
