use std::collections::BTreeMap;

use biscuit_core::{Error, Result};

/// What a change record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeOp {
    /// The row is there from now on, as the record says.
    Upsert,
    /// The row of this key is gone.
    Delete,
    /// All rows are gone.
    Truncate,
}

/// What an operation code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParsedOp {
    /// A change of the table.
    Change(ChangeOp),
    /// The image before an update (`-U`): no change by itself.
    Ignored,
    /// No code of the tools that [`parse_op`] knows.
    Unknown,
}

/// The codes that are known, for messages.
pub(crate) const KNOWN_CODES: &str = "c, r, u, i, d, t, b, +I, +U, -U, -D, insert, update, upsert, delete, truncate, update_preimage, update_postimage, 1 to 4 of SQL Server";

/// Reads an operation code, in any letter case; a row without one is an upsert.
///
/// | tool | upsert | delete | truncate | ignored |
/// | --- | --- | --- | --- | --- |
/// | Debezium | `c` `r` `u` | `d` | `t` | |
/// | AWS DMS, GoldenGate | `I` `U` | `D` | `T` | |
/// | Flink, Paimon, Hudi | `+I` `+U` | `-D` | | `-U` |
/// | Qlik Replicate | `I` `U` | `D` | | `B` |
/// | Delta Lake's change data feed | `insert` `update_postimage` | `delete` | | `update_preimage` |
/// | Maxwell, Snowflake, Oracle and others by word | `insert` `update` `upsert` `bootstrap-insert` | `delete` | `truncate` | |
/// | SQL Server's `__$operation` | `2` `4` | `1` | | `3` |
///
/// ```
/// use biscuit_change::{parse_op, Op, ParsedOp};
///
/// assert_eq!(parse_op(Some("D")), ParsedOp::Change(Op::Delete));
/// assert_eq!(parse_op(Some("update_preimage")), ParsedOp::Ignored);
/// assert_eq!(parse_op(None), ParsedOp::Change(Op::Upsert));
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

/// Whether a code in lower case is that of an update, whose row was there before.
pub(crate) fn is_update(code: &str) -> bool {
    matches!(code, "u" | "+u" | "4" | "update" | "update_postimage")
}

/// Codes of other tools, and what they say: those come before the ones that [`parse_op`] knows.
///
/// ```
/// use biscuit_change::{Op, OpMap, ParsedOp};
///
/// let map = OpMap::parse(["X=delete", "neu=upsert"]).unwrap();
/// assert_eq!(map.read(Some("x")), ParsedOp::Change(Op::Delete));
/// assert_eq!(map.read(Some("U")), ParsedOp::Change(Op::Upsert));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpMap(BTreeMap<String, ParsedOp>);

impl OpMap {
    /// Codes as `CODE=upsert`, `CODE=delete`, `CODE=truncate` or `CODE=ignore`.
    ///
    /// # Errors
    /// `InvalidOpMap`.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut map = BTreeMap::new();
        for entry in entries {
            let entry = entry.as_ref();
            let invalid = || {
                let message = format!("`{entry}` is not CODE=upsert, CODE=delete, CODE=truncate or CODE=ignore");
                Error::usage("InvalidOpMap", message)
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

    /// What a code says; a row without one is an upsert.
    pub fn read(&self, code: Option<&str>) -> ParsedOp {
        let own = code.and_then(|code| self.0.get(&code.to_ascii_lowercase()));
        own.copied().unwrap_or_else(|| parse_op(code))
    }
}
