//! Codes of errors, and the macro that lists them.

use std::fmt;

use crate::ErrorKind;

/// Code of an error: a stable name, the kind of all errors with this code, the cause in general, and the remedy.
///
/// Each crate lists its codes in its module `codes`, with the macro [`error_codes!`](crate::error_codes). Codes of
/// your own sources, sinks and jobs are made in the same way:
///
/// ```
/// use biscuit_core::{Error, ErrorKind};
///
/// mod codes {
///     biscuit_core::error_codes! {
///         EMPTY_SHOP = Data "EmptyShop",
///             cause "The shop of a sale is empty.",
///             remedy "Enter the shop in the cash register and export the day again.";
///     }
/// }
///
/// let e = Error::new(codes::EMPTY_SHOP, "the shop of a sale is empty").at("2024-02-29.csv", 7);
/// assert!(e.is(codes::EMPTY_SHOP));
/// assert_eq!((e.code(), e.kind()), ("EmptyShop", ErrorKind::Data));
/// assert_eq!(codes::ALL, [codes::EMPTY_SHOP]);
/// ```
///
/// A single code needs no macro:
///
/// ```
/// use biscuit_core::{Error, ErrorCode, ErrorKind};
///
/// const TILL_OPEN: ErrorCode = ErrorCode::new(
///     "TillOpen",
///     ErrorKind::Conflict,
///     "The till is still open.",
///     "Close the till and run again.",
/// );
/// assert_eq!(Error::new(TILL_OPEN, "till 4 is open").to_string(), "TillOpen: till 4 is open");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode {
    name: &'static str,
    kind: ErrorKind,
    cause: &'static str,
    remedy: &'static str,
}

impl ErrorCode {
    /// Creates a code. `name` is stable and in camel case, such as `NullKey`. `cause` is a sentence that describes
    /// what is wrong, `remedy` one in the imperative.
    pub const fn new(name: &'static str, kind: ErrorKind, cause: &'static str, remedy: &'static str) -> Self {
        Self { name, kind, cause, remedy }
    }

    /// Returns the name, such as `NullKey`. It is stable: reports and quarantined records contain it.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Returns the kind of all errors with this code.
    pub const fn kind(self) -> ErrorKind {
        self.kind
    }

    /// Returns what is wrong, as a sentence.
    pub const fn cause(self) -> &'static str {
        self.cause
    }

    /// Returns what to do, as a sentence in the imperative.
    pub const fn remedy(self) -> &'static str {
        self.remedy
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ErrorCode").field(&self.name).finish()
    }
}

/// Prints the name.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// Lists error codes: a documented constant for each code, and `ALL` with all of them.
///
/// An entry is the name of the constant, the [`ErrorKind`], the name of the code, its cause and its remedy;
/// [`ErrorCode`] has an example. Use the macro once in a module, usually `codes`.
#[macro_export]
macro_rules! error_codes {
    ($($constant:ident = $kind:ident $name:literal, cause $cause:literal, remedy $remedy:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`, an error of the kind `", stringify!($kind), "`. ", $cause, "\n\n", $remedy)]
            pub const $constant: $crate::ErrorCode =
                $crate::ErrorCode::new($name, $crate::ErrorKind::$kind, $cause, $remedy);
        )+

        /// All codes of this list.
        pub const ALL: &[$crate::ErrorCode] = &[$($constant),+];
    };
}
