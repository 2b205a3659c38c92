/// What a change record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
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
    Change(Op),
    /// The image before an update (`-U`): no change by itself.
    Ignored,
    /// No code of Debezium, DMS, Flink or Paimon.
    Unknown,
}

/// Reads an operation code, in any letter case: `c r u i +I +U` upsert, `d -D` delete, `t` truncate, `-U` ignored; none
/// is an upsert.
///
/// ```
/// use biscuit_change::{parse_op, Op, ParsedOp};
///
/// assert_eq!(parse_op(Some("D")), ParsedOp::Change(Op::Delete));
/// assert_eq!(parse_op(None), ParsedOp::Change(Op::Upsert));
/// assert_eq!(parse_op(Some("x")), ParsedOp::Unknown);
/// ```
pub fn parse_op(code: Option<&str>) -> ParsedOp {
    let Some(code) = code else { return ParsedOp::Change(Op::Upsert) };
    match code.to_ascii_lowercase().as_str() {
        "c" | "r" | "u" | "i" | "+i" | "+u" => ParsedOp::Change(Op::Upsert),
        "d" | "-d" => ParsedOp::Change(Op::Delete),
        "t" => ParsedOp::Change(Op::Truncate),
        "-u" => ParsedOp::Ignored,
        _ => ParsedOp::Unknown,
    }
}
