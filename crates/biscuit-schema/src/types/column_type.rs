//! Column types by the type names of Hive and PostgreSQL: a recursive-descent parser, and the names that it reads
//! back.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use biscuit_core::{Error, Result};

use crate::codes;
use crate::types::limits::{ParseDepth, shorten};

/// Precision of a type name beyond its Arrow type: how a change stream with the types of the database encodes the
/// values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WireType {
    /// The Arrow type is sufficient.
    Plain,
    /// A time or timestamp with this number of decimal digits below the second.
    Digits(u8),
    /// A decimal number of any size, stored as text.
    VariableDecimal,
    /// This number of bits, stored as text of `0` and `1`.
    Bits(u32),
    /// An interval, in microseconds.
    Interval,
}

/// Type of a column: its storage type, and the encoding in change streams that its name implies.
///
/// ```
/// use arrow::datatypes::DataType;
/// use biscuit_schema::ColumnType;
///
/// let amount = ColumnType::parse("numeric(12, 2)")?;
/// assert_eq!(amount.arrow(), &DataType::Decimal128(12, 2));
/// let at = ColumnType::parse("timestamp(3) with time zone")?;
/// assert_eq!(at.name().as_deref(), Some("timestamptz(3)"));
/// assert_eq!(ColumnType::parse("money").unwrap_err().code(), "UnknownType");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnType {
    arrow: DataType,
    wire: WireType,
}

impl ColumnType {
    /// Parses a type name of Hive or PostgreSQL; the front page of the crate lists them. Letter case matters only in
    /// the names of struct fields.
    ///
    /// # Errors
    /// `UnknownType`, with the part of the text that is not a type; `SchemaTooLarge`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut p = TypeParser { text, at: 0, parsed: ParseDepth::default() };
        let parsed = p.column_type()?;
        p.skip_space();
        if p.at != text.len() { Err(p.unknown_type()) } else { Ok(parsed) }
    }

    /// Creates the type of columns that are stored as this Arrow type.
    pub fn of_arrow(arrow: DataType) -> Self {
        Self { arrow, wire: WireType::Plain }
    }

    /// Returns a name that [`parse`](Self::parse) reads back as this type, or `None` if the Arrow type has no name.
    pub fn name(&self) -> Option<String> {
        match (self.wire, type_name(&self.arrow)) {
            (WireType::VariableDecimal, _) => Some("numeric".to_owned()),
            (WireType::Bits(n), _) => Some(format!("bit({n})")),
            (WireType::Interval, _) => Some("interval".to_owned()),
            (WireType::Digits(digits), Some(name)) if self.arrow != DataType::Utf8 => {
                let name = name.split('(').next().unwrap_or(&name).to_owned();
                Some(if digits == 6 { name } else { format!("{name}({digits})") })
            }
            (_, name) => name,
        }
    }

    /// Returns the Arrow type of the stored values.
    pub fn arrow(&self) -> &DataType {
        &self.arrow
    }

    /// Returns the encoding in change streams that the name implies.
    pub fn wire(&self) -> WireType {
        self.wire
    }
}

/// Recursive-descent parser over the text of a type. `at` is the byte position, and it stays at a token that was not
/// expected, so that an error shows the text from there on.
struct TypeParser<'a> {
    text: &'a str,
    at: usize,
    parsed: ParseDepth,
}

impl<'a> TypeParser<'a> {
    fn unknown_type(&self) -> Error {
        let (text, rest) = (shorten(self.text), shorten(&self.text[self.at..]));
        Error::new(
            codes::UNKNOWN_TYPE,
            format!("unknown type `{text}`, from `{rest}` on; use a type name of Hive or PostgreSQL"),
        )
    }

    fn skip_space(&mut self) {
        self.at += self.text[self.at..].len() - self.text[self.at..].trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let rest = &self.text[self.at..];
        let found = rest.get(..token.len()).is_some_and(|r| r.eq_ignore_ascii_case(token));
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.unknown_type()) }
    }

    fn read_word(&mut self) -> &'a str {
        self.skip_space();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Parses a field name: letters, digits and underscores, or any text in backquotes, in which a doubled backquote
    /// stands for one.
    fn parse_name(&mut self) -> Result<String> {
        if !self.eat("`") {
            let name = self.read_word();
            return if name.is_empty() { Err(self.unknown_type()) } else { Ok(name.to_owned()) };
        }
        let mut name = String::new();
        loop {
            let rest = &self.text[self.at..];
            let end = rest.find('`').ok_or_else(|| self.unknown_type())?;
            name.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.text[self.at..].starts_with('`') {
                return Ok(name);
            }
            name.push('`');
            self.at += 1;
        }
    }

    fn parse_number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let start = self.at;
        self.eat("-");
        self.read_word();
        self.text[start..self.at].trim().parse().map_err(|_| self.unknown_type())
    }

    /// Parses up to two numbers in parentheses, if there are parentheses.
    fn parse_precision(&mut self) -> Result<(Option<i64>, Option<i64>)> {
        if !self.eat("(") {
            return Ok((None, None));
        }
        let first = self.parse_number()?;
        let second = if self.eat(",") { Some(self.parse_number()?) } else { None };
        self.expect(")")?;
        Ok((Some(first), second))
    }

    fn column_type(&mut self) -> Result<ColumnType> {
        self.parsed.enter()?;
        let mut t = self.parse_simple()?;
        let mut lists = 0;
        while self.eat("[") {
            self.expect("]")?;
            self.parsed.enter()?;
            lists += 1;
            t = ColumnType { arrow: list(t.arrow), wire: WireType::Plain };
        }
        // Each `[]` added a level of nesting, so the depth is restored by one level for the type and one for each
        // list.
        (0..=lists).for_each(|_| self.parsed.leave());
        Ok(t)
    }

    fn parse_simple(&mut self) -> Result<ColumnType> {
        let start = self.at;
        // In each arm the words of a type that follow its first one are optional: `double precision`, `character
        // varying(n)`.
        let word = self.read_word().to_ascii_lowercase();
        let plain = |arrow| Ok(ColumnType { arrow, wire: WireType::Plain });
        match word.as_str() {
            "boolean" | "bool" => plain(DataType::Boolean),
            "tinyint" => plain(DataType::Int8),
            "smallint" | "int2" => plain(DataType::Int16),
            "int" | "integer" | "int4" | "serial" => plain(DataType::Int32),
            "bigint" | "int8" | "bigserial" => plain(DataType::Int64),
            "float" | "real" | "float4" => plain(DataType::Float32),
            "double" => {
                self.eat("precision");
                plain(DataType::Float64)
            }
            "float8" => plain(DataType::Float64),
            "decimal" | "numeric" => self.parse_decimal(),
            "string" | "text" | "uuid" | "json" | "jsonb" | "inet" | "cidr" | "macaddr" | "xml" | "enum" => {
                plain(DataType::Utf8)
            }
            "varchar" | "char" | "character" | "bpchar" => {
                self.eat("varying");
                self.parse_precision()?;
                plain(DataType::Utf8)
            }
            "binary" | "bytea" => plain(DataType::Binary),
            "bit" => self.parse_bits(),
            "date" => plain(DataType::Date32),
            "time" | "timestamp" | "timestamptz" => self.parse_time(&word),
            "interval" => Ok(ColumnType { arrow: DataType::Int64, wire: WireType::Interval }),
            "array" | "struct" | "map" => self.parse_nested(&word),
            _ => {
                self.at = start;
                Err(self.unknown_type())
            }
        }
    }

    fn parse_decimal(&mut self) -> Result<ColumnType> {
        match self.parse_precision()? {
            (None, _) => Ok(ColumnType { arrow: DataType::Utf8, wire: WireType::VariableDecimal }),
            // The scale may be negative or exceed the precision, as in PostgreSQL: `numeric(3,5)`.
            (Some(p @ 1..=38), s) if s.unwrap_or(0).abs() <= 38 => {
                let arrow = DataType::Decimal128(p as u8, s.unwrap_or(0) as i8);
                Ok(ColumnType { arrow, wire: WireType::Plain })
            }
            _ => Err(self.unknown_type()),
        }
    }

    fn parse_bits(&mut self) -> Result<ColumnType> {
        let varying = self.eat("varying");
        let bits = match self.parse_precision()? {
            (Some(n), None) => u32::try_from(n).map_err(|_| self.unknown_type())?,
            // PostgreSQL reports this length for `bit varying` without a length.
            (None, None) if varying => i32::MAX.unsigned_abs(),
            (None, None) => 1,
            _ => return Err(self.unknown_type()),
        };
        match bits {
            0 => Err(self.unknown_type()),
            1 => Ok(ColumnType { arrow: DataType::Boolean, wire: WireType::Plain }),
            n => Ok(ColumnType { arrow: DataType::Utf8, wire: WireType::Bits(n) }),
        }
    }

    fn parse_time(&mut self, word: &str) -> Result<ColumnType> {
        let (digits, None) = self.parse_precision()? else { return Err(self.unknown_type()) };
        let digits = u8::try_from(digits.unwrap_or(6)).ok().filter(|d| *d <= 9).ok_or_else(|| self.unknown_type())?;
        let zoned =
            if self.eat("with time zone") { true } else { !self.eat("without time zone") && word == "timestamptz" };
        let unit = if digits > 6 { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
        let arrow = match (word, zoned) {
            ("time", false) => DataType::Time64(unit),
            // A time of day with an offset has no Arrow type; its text keeps both parts.
            ("time", true) => DataType::Utf8,
            (_, zoned) => DataType::Timestamp(unit, zoned.then(|| "UTC".into())),
        };
        Ok(ColumnType { arrow, wire: WireType::Digits(digits) })
    }

    fn parse_nested(&mut self, word: &str) -> Result<ColumnType> {
        self.expect("<")?;
        let arrow = match word {
            "array" => list(self.column_type()?.arrow),
            "map" => {
                let key = self.column_type()?.arrow;
                self.expect(",")?;
                map_type(key, self.column_type()?.arrow)
            }
            _ => {
                let mut fields = Vec::new();
                loop {
                    let name = self.parse_name()?;
                    if fields.iter().any(|f: &Field| f.name() == &name) {
                        return Err(self.unknown_type());
                    }
                    self.expect(":")?;
                    fields.push(Field::new(name, self.column_type()?.arrow, true));
                    if !self.eat(",") {
                        break;
                    }
                }
                DataType::Struct(Fields::from(fields))
            }
        };
        self.expect(">")?;
        Ok(ColumnType { arrow, wire: WireType::Plain })
    }
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", item, true)))
}

fn map_type(key: DataType, value: DataType) -> DataType {
    let entry = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
}

/// Returns the type name that [`ColumnType::parse`] reads back as this Arrow type, or `None` if the type has no name.
pub fn type_name(t: &DataType) -> Option<String> {
    let digits = |unit: &TimeUnit| if *unit == TimeUnit::Nanosecond { "(9)" } else { "" };
    Some(match t {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Time64(u) => format!("time{}", digits(u)),
        DataType::Timestamp(u @ (TimeUnit::Microsecond | TimeUnit::Nanosecond), None) => {
            format!("timestamp{}", digits(u))
        }
        DataType::Timestamp(u @ (TimeUnit::Microsecond | TimeUnit::Nanosecond), Some(z)) if &**z == "UTC" => {
            format!("timestamptz{}", digits(u))
        }
        DataType::List(item) => format!("array<{}>", type_name(item.data_type())?),
        DataType::Struct(fields) => {
            let fields: Option<Vec<_>> = fields
                .iter()
                .map(|f| Some(format!("{}:{}", quoted_name(f.name()), type_name(f.data_type())?)))
                .collect();
            format!("struct<{}>", fields?.join(","))
        }
        DataType::Map(entry, false) => {
            let DataType::Struct(kv) = entry.data_type() else { return None };
            format!("map<{},{}>", type_name(kv[0].data_type())?, type_name(kv[1].data_type())?)
        }
        _ => return None,
    })
}

/// Returns a field name, in backquotes if the parser requires them.
fn quoted_name(name: &str) -> String {
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if is_plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_name_is_read_back() {
        for name in ["a", "first name", "a.b", "a-b", "@t", "a,b", "a:b", "a>b", "a(b)", "a`b", "`", "", "ü", " x "] {
            let t = DataType::Struct(vec![Field::new(name, DataType::Int64, true)].into());
            let text = type_name(&t).expect("the type has a name");
            assert_eq!(ColumnType::parse(&text).expect(&text).arrow(), &t, "{text}");
        }
    }

    #[test]
    fn type_names_of_hive_and_postgresql_are_equivalent() {
        for (a, b) in [
            ("integer", "INT"),
            ("character varying(200)", "string"),
            ("character(11)", "text"),
            ("double precision", "double"),
            ("text[]", "array<string>"),
            ("timestamp without time zone", "timestamp"),
            ("timestamp(3) with time zone", "timestamptz(3)"),
            ("numeric( 12 , 2 )", "decimal(12,2)"),
        ] {
            assert_eq!(ColumnType::parse(a).unwrap(), ColumnType::parse(b).unwrap(), "{a} {b}");
        }
    }

    #[test]
    fn nested_type_names_are_read_back() {
        for t in ["struct<a:struct<B:int,c:decimal(10,2)>,d:array<map<string,timestamptz>>>", "time(9)", "timestamp(9)"]
        {
            assert_eq!(type_name(ColumnType::parse(t).unwrap().arrow()).as_deref(), Some(t));
        }
    }

    #[test]
    fn unknown_type_is_refused() {
        for bad in [
            "",
            "mood",
            "decimal(10,2)junk",
            "decimal(39,0)",
            "struct<>",
            "struct<a:int,a:int>",
            "array<int",
            "bit(0)",
            "time(10)",
        ] {
            assert_eq!(ColumnType::parse(bad).unwrap_err().code(), "UnknownType", "{bad}");
        }
    }

    #[test]
    fn type_name_decides_the_wire_type() {
        let wire = |t| ColumnType::parse(t).unwrap().wire();
        assert_eq!(wire("timestamp(3)"), WireType::Digits(3));
        assert_eq!(wire("numeric"), WireType::VariableDecimal);
        assert_eq!(wire("bit(3)"), WireType::Bits(3));
    }
}
