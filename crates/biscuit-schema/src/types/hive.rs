//! Types of Hive: a recursive-descent parser of the whole grammar, the canonical text form, and the mapping to Arrow.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use biscuit_core::{Error, Result};

use crate::codes;
use crate::types::limits::{ParseDepth, shorten};

/// Type of the Hive grammar, which Glue, Athena and Spark use as well. Text is read and written back without loss;
/// the names of struct fields keep their letter case.
///
/// Source: "Hive Data Types" and "Hive Data Definition Language" in the language manual of Apache Hive. The names
/// `long`, `short` and `byte` are from Spark.
///
/// ```
/// use biscuit_schema::{HiveField, HiveType};
///
/// let t: HiveType = "STRUCT< userName : varchar(20), tags: array<map<string,decimal(10, 2)>> >".parse().unwrap();
/// assert_eq!(t.to_string(), "struct<userName:varchar(20),tags:array<map<string,decimal(10,2)>>>");
///
/// let t: HiveType = "struct<a:int>".parse().unwrap();
/// assert_eq!(t, HiveType::Struct(vec![HiveField::new("a", HiveType::Int)]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HiveType {
    /// `boolean`
    Boolean,
    /// `tinyint`
    TinyInt,
    /// `smallint`
    SmallInt,
    /// `int`
    Int,
    /// `bigint`
    BigInt,
    /// `float`
    Float,
    /// `double`
    Double,
    /// `decimal(p,s)`: `p` digits (1 to 38), of which `s` are after the point. `decimal` without digits is
    /// `decimal(10,0)`.
    Decimal(u8, u8),
    /// `string`
    String,
    /// `char(n)`, 1 to 255
    Char(u32),
    /// `varchar(n)`, 1 to 65,535
    Varchar(u32),
    /// `binary`
    Binary,
    /// `date`
    Date,
    /// `timestamp`, without a zone
    Timestamp,
    /// `timestamp with local time zone`, an instant
    TimestampLocalTz,
    /// `array<t>`
    Array(Box<Self>),
    /// `map<k,v>`
    Map(Box<Self>, Box<Self>),
    /// `struct<a:t,…>`
    Struct(Vec<HiveField>),
}

/// Field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HiveField {
    /// Name of the field, as written.
    pub name: String,
    /// Type of the field.
    pub field_type: HiveType,
    /// Comment of the field in the DDL of a table.
    pub comment: Option<String>,
}

impl HiveField {
    /// Creates a field without a comment.
    pub fn new(name: impl Into<String>, field_type: HiveType) -> Self {
        Self { name: name.into(), field_type, comment: None }
    }
}

impl HiveType {
    /// Returns the Arrow type of the values: text for `char` and `varchar`, microseconds for timestamps.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::TinyInt => DataType::Int8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(p, s) => DataType::Decimal128(*p, *s as i8),
            Self::String | Self::Char(_) | Self::Varchar(_) => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampLocalTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Array(item) => DataType::List(Arc::new(Field::new("element", item.arrow(), true))),
            Self::Map(key, value) => {
                let entry =
                    Fields::from(vec![Field::new("key", key.arrow(), false), Field::new("value", value.arrow(), true)]);
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
            }
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|f| Field::new(&f.name, f.field_type.arrow(), true)).collect())
            }
        }
    }

    /// Returns the Hive type with which engines read an Arrow type from Parquet. Instants and local timestamps both
    /// become `timestamp`, because Athena and Glue have no other type. Returns `None` for types that Hive does not
    /// have, such as a time of day.
    pub fn of_arrow(t: &DataType) -> Option<Self> {
        Some(match t {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::TinyInt,
            DataType::Int16 | DataType::UInt8 => Self::SmallInt,
            DataType::Int32 | DataType::UInt16 => Self::Int,
            DataType::Int64 | DataType::UInt32 => Self::BigInt,
            DataType::UInt64 => Self::Decimal(20, 0),
            DataType::Float32 => Self::Float,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(p, s) if *s >= 0 => Self::Decimal(*p, *s as u8),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary
            }
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
                Self::Array(Box::new(Self::of_arrow(f.data_type())?))
            }
            DataType::Map(entry, _) => {
                let DataType::Struct(kv) = entry.data_type() else { return None };
                Self::Map(Box::new(Self::of_arrow(kv[0].data_type())?), Box::new(Self::of_arrow(kv[1].data_type())?))
            }
            DataType::Struct(fields) => {
                let field = |f: &Arc<Field>| {
                    let comment = f.metadata().get("comment").cloned();
                    Some(HiveField { name: f.name().clone(), field_type: Self::of_arrow(f.data_type())?, comment })
                };
                Self::Struct(fields.iter().map(field).collect::<Option<_>>()?)
            }
            DataType::Dictionary(_, value) => Self::of_arrow(value)?,
            _ => return None,
        })
    }
}

impl fmt::Display for HiveType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::TinyInt => f.write_str("tinyint"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal(p, s) => write!(f, "decimal({p},{s})"),
            Self::String => f.write_str("string"),
            Self::Char(n) => write!(f, "char({n})"),
            Self::Varchar(n) => write!(f, "varchar({n})"),
            Self::Binary => f.write_str("binary"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampLocalTz => f.write_str("timestamp with local time zone"),
            Self::Array(item) => write!(f, "array<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key},{value}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, field) in fields.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    match is_plain(&field.name) {
                        true => f.write_str(&field.name)?,
                        false => write!(f, "`{}`", field.name.replace('`', "``"))?,
                    }
                    write!(f, ":{}", field.field_type)?;
                    if let Some(comment) = &field.comment {
                        write!(f, " comment '{}'", comment.replace('\\', "\\\\").replace('\'', "\\'"))?;
                    }
                }
                f.write_str(">")
            }
        }
    }
}

/// Returns whether the parser reads a name without quotes. Glue has names of struct fields that contain hyphens, dots
/// and spaces.
fn is_plain(name: &str) -> bool {
    name == name.trim() && !name.is_empty() && !name.contains(['`', ':', ',', '<', '>', '\''])
}

impl FromStr for HiveType {
    type Err = Error;

    /// # Errors
    /// `UnknownType`, with the unexpected part and its position; `SchemaTooLarge`.
    fn from_str(text: &str) -> Result<Self> {
        let mut p = HiveTypeParser { text, at: 0, parsed: ParseDepth::default() };
        let parsed = p.hive_type()?;
        p.skip_space();
        if p.at == text.len() { Ok(parsed) } else { Err(p.unknown_type("text follows the type")) }
    }
}

/// Recursive-descent parser over the text of a type. `at` is the byte position up to which the text was read.
struct HiveTypeParser<'a> {
    text: &'a str,
    at: usize,
    parsed: ParseDepth,
}

impl<'a> HiveTypeParser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn unknown_type(&self, what: &str) -> Error {
        let message = format!("`{}` is not a Hive type: {what}, at `{}`", shorten(self.text), shorten(self.rest()));
        Error::new(codes::UNKNOWN_TYPE, message)
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().get(..token.len()).is_some_and(|r| r.eq_ignore_ascii_case(token));
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.unknown_type(&format!("`{token}` is missing"))) }
    }

    fn read_word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn parse_number(&mut self, from: u32, to: u32) -> Result<u32> {
        let before = self.at;
        match self.read_word().parse().ok().filter(|n| (from..=to).contains(n)) {
            Some(n) => Ok(n),
            None => {
                self.at = before;
                Err(self.unknown_type(&format!("a number from {from} to {to} is missing")))
            }
        }
    }

    fn parse_length(&mut self, maximum: u32) -> Result<u32> {
        self.expect("(")?;
        let length = self.parse_number(1, maximum)?;
        self.expect(")")?;
        Ok(length)
    }

    fn parse_decimal(&mut self) -> Result<HiveType> {
        if !self.eat("(") {
            return Ok(HiveType::Decimal(10, 0));
        }
        let precision = self.parse_number(1, 38)?;
        let scale = if self.eat(",") { self.parse_number(0, precision)? } else { 0 };
        self.expect(")")?;
        Ok(HiveType::Decimal(precision as u8, scale as u8))
    }

    fn parse_timestamp(&mut self) -> Result<HiveType> {
        // The zone consists of several words, so the position is restored if one of them differs.
        let zones = [
            ("with local time zone", HiveType::TimestampLocalTz),
            ("with time zone", HiveType::TimestampLocalTz),
            ("without time zone", HiveType::Timestamp),
        ];
        for (words, t) in zones {
            let before = self.at;
            if words.split(' ').all(|word| self.read_word().eq_ignore_ascii_case(word)) {
                return Ok(t);
            }
            self.at = before;
        }
        Ok(HiveType::Timestamp)
    }

    fn hive_type(&mut self) -> Result<HiveType> {
        self.parsed.enter()?;
        let parsed = self.parse_type();
        self.parsed.leave();
        parsed
    }

    fn parse_type(&mut self) -> Result<HiveType> {
        self.skip_space();
        let start = self.at;
        match self.read_word().to_ascii_lowercase().as_str() {
            "boolean" => Ok(HiveType::Boolean),
            "tinyint" | "byte" => Ok(HiveType::TinyInt),
            "smallint" | "short" => Ok(HiveType::SmallInt),
            "int" | "integer" => Ok(HiveType::Int),
            "bigint" | "long" => Ok(HiveType::BigInt),
            "float" | "real" => Ok(HiveType::Float),
            "double" => {
                self.eat("precision");
                Ok(HiveType::Double)
            }
            "decimal" | "dec" | "numeric" => self.parse_decimal(),
            "string" => Ok(HiveType::String),
            "char" => Ok(HiveType::Char(self.parse_length(255)?)),
            "varchar" => Ok(HiveType::Varchar(self.parse_length(65_535)?)),
            "binary" => Ok(HiveType::Binary),
            "date" => Ok(HiveType::Date),
            "timestamp" => self.parse_timestamp(),
            "timestamplocaltz" | "timestamp_ltz" => Ok(HiveType::TimestampLocalTz),
            "timestamp_ntz" => Ok(HiveType::Timestamp),
            "array" => {
                self.expect("<")?;
                let item = self.hive_type()?;
                self.expect(">")?;
                Ok(HiveType::Array(Box::new(item)))
            }
            "map" => {
                self.expect("<")?;
                let key = self.hive_type()?;
                self.expect(",")?;
                let value = self.hive_type()?;
                self.expect(">")?;
                Ok(HiveType::Map(Box::new(key), Box::new(value)))
            }
            "struct" => self.parse_fields(),
            "uniontype" => Err(self.refused_type(start, "Parquet has no unions")),
            "interval_year_month" | "interval_day_time" => {
                Err(self.refused_type(start, "Hive does not store intervals"))
            }
            "void" => Err(self.refused_type(start, "Hive does not store values of this type")),
            _ => Err(self.refused_type(start, "the name of the type is unknown")),
        }
    }

    fn refused_type(&mut self, start: usize, reason: &str) -> Error {
        self.at = start;
        self.unknown_type(reason)
    }

    fn parse_fields(&mut self) -> Result<HiveType> {
        self.expect("<")?;
        let mut fields: Vec<HiveField> = Vec::new();
        loop {
            let name = self.parse_name()?;
            // Hive does not distinguish letter case, so these names would be one field in Hive and two fields in
            // other readers.
            if fields.iter().any(|f| f.name.eq_ignore_ascii_case(&name)) {
                return Err(self.unknown_type(&format!("the field `{name}` occurs twice")));
            }
            self.expect(":")?;
            let field_type = self.hive_type()?;
            let comment = if self.eat("comment") { Some(self.parse_quoted()?) } else { None };
            fields.push(HiveField { name, field_type, comment });
            if !self.eat(",") {
                break;
            }
        }
        self.expect(">")?;
        Ok(HiveType::Struct(fields))
    }

    /// Parses the name of a field: all text up to the colon, or a text in backquotes, in which a doubled backquote
    /// stands for one.
    fn parse_name(&mut self) -> Result<String> {
        self.skip_space();
        if !self.eat("`") {
            let end = self.rest().find([':', ',', '<', '>', '`']).unwrap_or(self.rest().len());
            let name = self.rest()[..end].trim().to_owned();
            if name.is_empty() {
                return Err(self.unknown_type("the name of a field is missing"));
            }
            self.at += end;
            return Ok(name);
        }
        let mut name = String::new();
        loop {
            let Some(end) = self.rest().find('`') else {
                return Err(self.unknown_type("the closing backquote of a name is missing"));
            };
            name.push_str(&self.rest()[..end]);
            self.at += end + 1;
            match self.rest().strip_prefix('`') {
                Some(_) => {
                    name.push('`');
                    self.at += 1;
                }
                None if name.is_empty() => return Err(self.unknown_type("the name of a field is empty")),
                None => return Ok(name),
            }
        }
    }

    /// Parses a text in single quotes, in which a backslash escapes the next character.
    fn parse_quoted(&mut self) -> Result<String> {
        self.expect("'")?;
        let (mut text, mut escaped) = (String::new(), false);
        for (i, c) in self.rest().char_indices() {
            match (escaped, c) {
                (false, '\\') => escaped = true,
                (false, '\'') => {
                    self.at += i + 1;
                    return Ok(text);
                }
                _ => {
                    text.push(c);
                    escaped = false;
                }
            }
        }
        Err(self.unknown_type("the closing quote of a comment is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        text.parse::<HiveType>().map_or_else(|e| e.code().to_owned(), |t| t.to_string())
    }

    /// Type names from the tests of Glue Biscuit, the predecessor of these crates, including those that the
    /// predecessor does not read correctly.
    #[test]
    fn hive_types_are_read_and_invalid_types_are_refused() {
        for same in [
            "string",
            "tinyint",
            "smallint",
            "int",
            "bigint",
            "date",
            "timestamp",
            "decimal(38,2)",
            "boolean",
            "double",
            "float",
            "binary",
            "char(3)",
            "varchar(200)",
            "map<string,bigint>",
            "array<int>",
            "array<array<int>>",
            "struct<name:string,age:int>",
            "array<struct<key:string,value:string>>",
            "array<decimal(5,1)>",
            "struct<a:array<int>>",
            "struct<userName:string>",
            "struct<a:struct<b:int,c:int>>",
            "struct<a:array<struct<x:int>>>",
            "struct<a:decimal(10,2)>",
            "timestamp with local time zone",
            "map<string,array<struct<a:map<int,decimal(3,1)>,b:char(1)>>>",
        ] {
            assert_eq!(parse(same), same);
        }
        for (text, want) in [
            ("integer", "int"),
            ("long", "bigint"),
            ("decimal", "decimal(10,0)"),
            ("decimal(5)", "decimal(5,0)"),
            ("decimal(10, 2)", "decimal(10,2)"),
            (" struct<a: int> ", "struct<a:int>"),
            ("timestamp with time zone", "timestamp with local time zone"),
            ("timestamp without time zone", "timestamp"),
            ("DOUBLE PRECISION", "double"),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
        for bad in [
            "",
            "mood",
            "decimal(10,2)junk",
            "struct<>",
            "struct<a>",
            "struct<a:int",
            "array<>",
            "map<int>",
            "decimal(39,0)",
            "decimal(3,4)",
            "char",
            "char(256)",
            "varchar(0)",
            "struct<a:int,A:int>",
            "uniontype<int,string>",
            "void",
            "int,",
        ] {
            assert_eq!(parse(bad), "UnknownType", "{bad}");
        }
    }

    #[test]
    fn field_names_and_comments_are_read_back() {
        for same in [
            "struct<`a:b`:int,`c``d`:int>",
            "struct<user-name:string,has space:int>",
            "struct<a:int comment 'it\\'s, <b>',b:string>",
        ] {
            assert_eq!(parse(same), same);
        }
    }

    #[test]
    fn hive_types_correspond_to_arrow_types() {
        let arrow = |t: &str| t.parse::<HiveType>().unwrap().arrow();
        assert_eq!(arrow("tinyint"), DataType::Int8);
        assert_eq!(arrow("decimal(38,2)"), DataType::Decimal128(38, 2));
        for t in ["struct<name:string,age:int>", "array<struct<key:string,value:string>>", "map<string,date>"] {
            assert_eq!(HiveType::of_arrow(&arrow(t)).unwrap().to_string(), t);
        }
        assert_eq!(HiveType::of_arrow(&DataType::Time64(TimeUnit::Microsecond)), None);
    }
}
