//! Operations of change records, and the operation codes of the common tools.

use std::collections::BTreeMap;

use biscuit_core::{Error, Result};

use crate::codes;

/// Operation of a change record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new operation does not compile until each match decides what it does")]
pub enum ChangeOp {
    /// Inserts the row, or replaces its present columns.
    Upsert,
    /// Deletes the row of the key.
    Delete,
    /// Deletes all rows of the table that are older.
    Truncate,
}

/// Meaning of an operation code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParsedOp {
    /// A change of the table.
    Change(ChangeOp),
    /// Image before an update (`-U`), which is not a change by itself.
    Ignored,
    /// Code that [`parse_op`] does not know.
    Unknown,
}

/// List of the known codes for messages.
pub const KNOWN_CODES: &str = "c, r, u, i, d, t, b, +I, +U, -U, -D, insert, update, upsert, delete, truncate, update_preimage, update_postimage, 1 to 4 of SQL Server";

/// Parses an operation code in any letter case. `None`, a row without a code, is an upsert.
///
/// | tool | upsert | delete | truncate | ignored |
/// | --- | --- | --- | --- | --- |
/// | Debezium | `c` `r` `u` | `d` | `t` | |
/// | AWS DMS, GoldenGate | `I` `U` | `D` | `T` | |
/// | Flink, Paimon, Hudi | `+I` `+U` | `-D` | | `-U` |
/// | Qlik Replicate | `I` `U` | `D` | | `B` |
/// | Delta Lake's change data feed | `insert` `update_postimage` | `delete` | | `update_preimage` |
/// | Maxwell, Snowflake, Oracle and others | `insert` `update` `upsert` `bootstrap-insert` | `delete` | `truncate` | |
/// | SQL Server's `__$operation` | `2` `4` | `1` | | `3` |
///
/// ```
/// use biscuit_merge::{parse_op, ChangeOp, ParsedOp};
///
/// assert_eq!(parse_op(Some("D")), ParsedOp::Change(ChangeOp::Delete));
/// assert_eq!(parse_op(Some("update_preimage")), ParsedOp::Ignored);
/// assert_eq!(parse_op(None), ParsedOp::Change(ChangeOp::Upsert));
/// assert_eq!(parse_op(Some("x")), ParsedOp::Unknown);
/// ```
pub fn parse_op(code: Option<&str>) -> ParsedOp {
    let Some(code) = code else { return ParsedOp::Change(ChangeOp::Upsert) };
    match code.to_ascii_lowercase().as_str() {
        "c" | "r" | "u" | "i" | "+i" | "+u" | "2" | "4" => ParsedOp::Change(ChangeOp::Upsert),
        "insert" | "update" | "upsert" | "update_postimage" | "bootstrap-insert" => ParsedOp::Change(ChangeOp::Upsert),
        "d" | "-d" | "1" | "delete" => ParsedOp::Change(ChangeOp::Delete),
        "t" | "truncate" => ParsedOp::Change(ChangeOp::Truncate),
        "-u" | "b" | "3" | "update_preimage" => ParsedOp::Ignored,
        _ => ParsedOp::Unknown,
    }
}

/// Returns whether a code in lower case means an update of an existing row. Only then is the placeholder certain to
/// mean an unchanged value.
pub(crate) fn is_update(code: &str) -> bool {
    matches!(code, "u" | "+u" | "4" | "update" | "update_postimage")
}

/// User-defined operation codes. They take precedence over the codes that [`parse_op`] knows.
///
/// ```
/// use biscuit_merge::{ChangeOp, OpMap, ParsedOp};
///
/// let map = OpMap::parse(["X=delete", "neu=upsert"]).unwrap();
/// assert_eq!(map.read(Some("x")), ParsedOp::Change(ChangeOp::Delete));
/// assert_eq!(map.read(Some("U")), ParsedOp::Change(ChangeOp::Upsert));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpMap(BTreeMap<String, ParsedOp>);

impl OpMap {
    /// Parses entries of the form `CODE=upsert`, `CODE=delete`, `CODE=truncate` or `CODE=ignore`.
    ///
    /// # Errors
    /// `InvalidOpMap` for an entry of another form, and for a code with two meanings.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut map = BTreeMap::new();
        for entry in entries {
            let entry = entry.as_ref();
            let invalid = || {
                let message = format!("`{entry}` is not CODE=upsert, CODE=delete, CODE=truncate or CODE=ignore");
                Error::new(codes::INVALID_OP_MAP, message)
            };
            let (code, meaning) = entry.rsplit_once('=').ok_or_else(invalid)?;
            let parsed = match meaning.trim() {
                "upsert" => ParsedOp::Change(ChangeOp::Upsert),
                "delete" => ParsedOp::Change(ChangeOp::Delete),
                "truncate" => ParsedOp::Change(ChangeOp::Truncate),
                "ignore" => ParsedOp::Ignored,
                _ => return Err(invalid()),
            };
            let code = code.trim().to_ascii_lowercase();
            if code.is_empty() || map.insert(code, parsed).is_some_and(|other| other != parsed) {
                return Err(invalid());
            }
        }
        Ok(Self(map))
    }

    /// Returns the meaning of a code. `None`, a row without a code, is an upsert.
    pub fn read(&self, code: Option<&str>) -> ParsedOp {
        let own = code.and_then(|code| self.0.get(&code.to_ascii_lowercase()));
        own.copied().unwrap_or_else(|| parse_op(code))
    }
}
