//! Panics. A hook remembers the place of each panic instead of printing it, and the report of the command lists the
//! places.
//!
//! The message of a panic may quote values of rows, so that it is shown only with `--show-values`.

use std::panic::PanicHookInfo;
use std::sync::Mutex;

use biscuit_core::Error;

/// Maximum number of panics that are remembered.
const MOST: usize = 8;

static SEEN: Mutex<Vec<ThreadPanic>> = Mutex::new(Vec::new());

/// A panic of any thread of the process.
#[derive(Debug, Clone)]
pub(crate) struct ThreadPanic {
    /// Crate, file and line of the panic.
    pub(crate) place: String,
    /// Message of the panic, which may contain values.
    pub(crate) message: String,
}

/// Installs the hook: from now on panics are remembered instead of being printed.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|panic| {
        // The panic of a decoder on damaged input is caught, and becomes an error that names the file.
        if biscuit_core::internal::is_catching() {
            return;
        }
        let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() < MOST {
            seen.push(describe_panic(panic));
        }
    }));
}

/// Returns the panics so far, in their order.
pub(crate) fn recorded_panics() -> Vec<ThreadPanic> {
    SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// Returns the error of a command that panicked.
pub(crate) fn panic_error() -> Error {
    Error::internal("the command stopped because of a defect in Biscuit; please report it together with its place")
}

fn describe_panic(panic: &PanicHookInfo<'_>) -> ThreadPanic {
    let place = panic.location().map(|at| format!("{}:{}", portable_path(at.file()), at.line()));
    ThreadPanic {
        place: place.unwrap_or_else(|| "an unknown place".to_owned()),
        message: panic.payload_as_str().unwrap_or_default().to_owned(),
    }
}

/// Returns the path of a source file without the folder in which its crate was compiled.
fn portable_path(file: &str) -> &str {
    let below_registry = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    let below_crates = file.rsplit_once("/crates/");
    below_registry.or(below_crates).map_or(file, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_of_a_panic_does_not_contain_the_build_folder() {
        let registry = "/home/me/.cargo/registry/src/index-1949cf8c6b5b557f/parquet-59.3.0/src/file/reader.rs";
        assert_eq!(portable_path(registry), "parquet-59.3.0/src/file/reader.rs");
        assert_eq!(portable_path("/build/biscuit/crates/biscuit-lake/src/main.rs"), "biscuit-lake/src/main.rs");
        assert_eq!(portable_path("crates/biscuit-lake/src/main.rs"), "crates/biscuit-lake/src/main.rs");
    }
}
