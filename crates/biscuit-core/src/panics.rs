use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// How many calls of [`catch_panic`] are under way on this thread.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// A panic that was caught. It has no message: a panic of a decoder may quote the data that it was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaughtPanic;

impl fmt::Display for CaughtPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the decoder panicked on damaged data")
    }
}

impl std::error::Error for CaughtPanic {}

/// Runs a decoder of a library on data from outside, and makes a panic in it a value that the caller reports as unreadable input.
/// What the decoder has worked on must not be used again after a panic.
///
/// The panic hook runs before the panic is caught; a hook that asks [`is_catching`] can be silent about it.
///
/// ```
/// use biscuit_core::{CaughtPanic, catch_panic};
///
/// let damaged: &[u8] = &[1, 2];
/// assert_eq!(catch_panic(|| damaged[0]), Ok(1));
/// assert_eq!(catch_panic(|| damaged[damaged.len()]), Err(CaughtPanic));
/// ```
///
/// # Errors
/// [`CaughtPanic`] if it panicked.
pub fn catch_panic<T>(decode: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
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
        // The payload is data of the panic, and may panic itself when it is dropped.
        std::mem::forget(payload);
        CaughtPanic
    })
}

/// Whether this thread runs a decoder whose panics are caught.
pub fn is_catching() -> bool {
    CATCHING.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_value_and_ends_the_catching() {
        assert!(!is_catching());
        assert_eq!(catch_panic(is_catching), Ok(true));
        let nested = catch_panic(|| catch_panic(|| panic!("value 7")).map(|()| false).unwrap_or(is_catching()));
        assert_eq!(nested, Ok(true));
        assert!(!is_catching() && !CaughtPanic.to_string().contains('7'));
    }
}
