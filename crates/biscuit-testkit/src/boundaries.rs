//! Test values at the bounds of each type, with what readers of any format have to store.

/// A text in a column of a declared type, and its stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoundaryValue {
    /// Name of the type, as in contracts.
    pub column_type: &'static str,
    /// The value as text.
    pub text: &'static str,
    /// Stored value as text; `None` if the value is refused.
    pub stored: Option<&'static str>,
}

/// Returns values at the bounds of each type, just beyond them, and in unusual forms. Every reader must store or
/// refuse them as listed.
pub fn boundaries() -> Vec<BoundaryValue> {
    let of = |(column_type, values): &(&'static str, &'static [TextAndStored])| {
        let value = |(text, stored): &TextAndStored| BoundaryValue { column_type, text, stored: *stored };
        values.iter().map(value).collect::<Vec<_>>()
    };
    BOUNDARIES.iter().flat_map(of).collect()
}

/// A text, and the stored value as text; `None` if the text is refused.
type TextAndStored = (&'static str, Option<&'static str>);

/// A text that is stored as it is.
const fn same(text: &'static str) -> TextAndStored {
    (text, Some(text))
}

/// Values of each type.
const BOUNDARIES: [(&str, &[TextAndStored]); 15] = [
    // An integer that a float cannot represent, such as 16777217, is refused. A fraction such as 0.1 is rounded.
    ("tinyint", &[same("-128"), same("127"), ("128", None), ("-129", None), ("+5", Some("5")), ("007", Some("7"))]),
    ("smallint", &[same("-32768"), same("32767"), ("32768", None), ("-32769", None)]),
    ("int", &[same("-2147483648"), same("2147483647"), ("2147483648", None), ("1.0", Some("1")), ("1.5", None)]),
    (
        "bigint",
        &[
            same("-9223372036854775808"),
            same("9223372036854775807"),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("1e3", Some("1000")),
            (" 7 ", Some("7")),
            ("-0", Some("0")),
            ("0x10", None),
            ("seven", None),
            ("NaN", None),
        ],
    ),
    (
        "float",
        &[
            ("3.4028235e38", Some("3.4028235e38")),
            ("3.5e38", None),
            ("1e-60", None),
            ("16777216", Some("16777216.0")),
            ("16777217", None),
            ("0.1", Some("0.1")),
            same("NaN"),
            ("Infinity", Some("inf")),
        ],
    ),
    (
        "double",
        &[
            ("1.7976931348623157e308", Some("1.7976931348623157e308")),
            ("1.8e308", None),
            ("-1e400", None),
            ("5e-324", Some("5e-324")),
            ("1e-400", None),
            ("9007199254740992", Some("9007199254740992.0")),
            ("9007199254740993", None),
            ("0.1", Some("0.1")),
            same("NaN"),
            ("-Infinity", Some("-inf")),
            ("1,5", None),
        ],
    ),
    (
        "decimal(9,2)",
        &[
            same("9999999.99"),
            same("-9999999.99"),
            ("10000000.00", None),
            ("99999999.99", None),
            ("0.005", None),
            ("1e2", Some("100.00")),
            (".5", Some("0.50")),
            ("00012.50", Some("12.50")),
            ("1.500", Some("1.50")),
            ("NaN", None),
            ("Infinity", None),
        ],
    ),
    (
        "decimal(38,0)",
        &[
            same("99999999999999999999999999999999999999"),
            ("100000000000000000000000000000000000000", None),
            ("1e999", None),
            ("18446744073709551616", Some("18446744073709551616")),
        ],
    ),
    ("decimal(38,38)", &[same("0.99999999999999999999999999999999999999"), ("1", None), ("1e-39", None)]),
    (
        "boolean",
        &[same("true"), same("false"), ("1", Some("true")), ("N", Some("false")), ("2", None), ("maybe", None)],
    ),
    (
        "date",
        &[
            same("0001-01-01"),
            same("1582-10-10"),
            same("1970-01-01"),
            same("2024-02-29"),
            same("9999-12-31"),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("20240229", None),
            ("29/02/2024", None),
        ],
    ),
    (
        "time",
        &[
            same("00:00:00"),
            same("23:59:59.999999"),
            ("24:00:00", None),
            ("-01:00:00", None),
            ("838:59:59", None),
            ("12:00:00.1234567", None),
        ],
    ),
    (
        "timestamp",
        &[
            same("0001-01-01T00:00:00"),
            same("1969-12-31T23:59:59.999999"),
            same("9999-12-31T23:59:59.999999"),
            ("2024-02-29 12:00:00", Some("2024-02-29T12:00:00")),
            ("2024-02-29T12:00:00+01:00", Some("2024-02-29T11:00:00")),
            ("2024-02-29T12:00:00.1234567", None),
            ("2024-02-30T12:00:00", None),
            ("2024-02-29T24:00:00", None),
            ("99", None),
        ],
    ),
    (
        "timestamptz",
        &[
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999999Z")),
            ("2024-02-29T12:00:00+05:30", Some("2024-02-29T06:30:00Z")),
            ("2024-02-29T25:00:00Z", None),
        ],
    ),
    (
        "string",
        &[same("007"), same("+49151"), same("1e5"), same("true"), same(" x "), same("é\u{1f600}"), same("NULL")],
    ),
];
