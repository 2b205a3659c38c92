//! Panics: their places are remembered, and nothing is printed of them where they happen. Their messages may quote values of rows.

use std::panic::PanicHookInfo;
use std::sync::Mutex;

use biscuit_core::Error;

/// Panics beyond these are not remembered.
const MOST: usize = 8;

static SEEN: Mutex<Vec<ThreadPanic>> = Mutex::new(Vec::new());

/// A panic of any thread.
#[derive(Debug, Clone)]
pub(crate) struct ThreadPanic {
    /// Crate, file and line.
    pub(crate) place: String,
    /// Its message, for those who may see values.
    pub(crate) message: String,
}

/// From here on panics are remembered instead of being printed.
pub(crate) fn remember() {
    std::panic::set_hook(Box::new(|panic| {
        // A decoder that panics over damaged input is an error that names the file.
        if biscuit_core::is_catching() {
            return;
        }
        let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() < MOST {
            seen.push(defect(panic));
        }
    }));
}

/// The panics until now, in their order.
pub(crate) fn seen() -> Vec<ThreadPanic> {
    SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// The error of a command that panicked.
pub(crate) fn error() -> Error {
    Error::internal("the command ended by a defect of Biscuit; please report it with its place")
}

fn defect(panic: &PanicHookInfo<'_>) -> ThreadPanic {
    let place = panic.location().map(|at| format!("{}:{}", portable(at.file()), at.line()));
    ThreadPanic {
        place: place.unwrap_or_else(|| "an unknown place".to_owned()),
        message: panic.payload_as_str().unwrap_or_default().to_owned(),
    }
}

/// The file without the folder in which its crate was compiled.
fn portable(file: &str) -> &str {
    let below_registry = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    let below_crates = file.rsplit_once("/crates/");
    below_registry.or(below_crates).map_or(file, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_no_folder_of_the_machine_that_compiled_it() {
        let registry = "/home/me/.cargo/registry/src/index-1949cf8c6b5b557f/parquet-59.3.0/src/file/reader.rs";
        assert_eq!(portable(registry), "parquet-59.3.0/src/file/reader.rs");
        assert_eq!(portable("/build/biscuit/crates/biscuit-cli/src/main.rs"), "biscuit-cli/src/main.rs");
        assert_eq!(portable("crates/biscuit-cli/src/main.rs"), "crates/biscuit-cli/src/main.rs");
    }
}
