//! Structure of an Avro schema, and a check that a block contains exactly the declared number of records. The check
//! walks over the bytes of a block without decoding values.

use std::collections::HashMap;
use std::sync::Arc;

use biscuit_core::ErrorCode;
use biscuit_schema::codes::{TOO_DEEP, TOO_LARGE, TOO_MANY_COLUMNS};
use biscuit_schema::internal::{MAX_DEPTH, MAX_FIELDS};
use serde_json::Value;

use crate::codes;

/// Maximum size of a `fixed` in bytes. Even a null of this type takes that many bytes in memory.
const MAX_FIXED: u64 = 1 << 20;

/// Maximum number of records and items in a block that take no bytes (`null`), since their number is not limited by
/// the size of the block.
const MAX_EMPTY: u64 = 1 << 20;

/// Encoding of the values of a schema, as far as it is needed to skip them.
#[derive(Debug)]
enum ShapeNode {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Fixed(usize),
    Enum(usize),
    Union(Vec<Arc<AvroShape>>),
    Array(Arc<AvroShape>),
    Map(Arc<AvroShape>),
    Record(Vec<Arc<AvroShape>>),
}

/// Schema with its expanded size: a named type is declared once and counts each time it is used.
#[derive(Debug)]
pub(crate) struct AvroShape {
    node: ShapeNode,
    /// Number of types in the schema.
    fields: usize,
    /// Number of nested levels.
    depth: usize,
    /// Minimum number of bytes that a row takes in memory, even if it is null.
    width: usize,
}

/// Code and reason why a schema cannot be used.
pub(crate) type SchemaRefusal = (ErrorCode, String);

fn damaged_schema(reason: impl Into<String>) -> SchemaRefusal {
    (codes::UNREADABLE_AVRO, reason.into())
}

impl AvroShape {
    /// Analyses the schema in the header of a file. Source: Avro 1.12, "Schema Declaration" and "Names".
    pub(crate) fn from_schema(schema: &Value) -> Result<Arc<Self>, SchemaRefusal> {
        DeclaredNames::default().resolve_shape(schema, "", 0)
    }

    fn new(node: ShapeNode) -> Result<Arc<Self>, SchemaRefusal> {
        let (parts, own): (&[Arc<Self>], usize) = match &node {
            ShapeNode::Union(parts) | ShapeNode::Record(parts) => (parts, 0),
            ShapeNode::Array(item) | ShapeNode::Map(item) => (std::slice::from_ref(item), 8),
            ShapeNode::Fixed(size) => (&[], *size),
            ShapeNode::Null => (&[], 0),
            _ => (&[], 8),
        };
        let fields = 1 + parts.iter().map(|p| p.fields).sum::<usize>();
        // A union does not add a level to the columns.
        let own_level = usize::from(!matches!(node, ShapeNode::Union(_)));
        let depth = own_level + parts.iter().map(|p| p.depth).max().unwrap_or(0);
        // The items of a list are stored apart, so they do not add to the width of a row.
        let listed = matches!(node, ShapeNode::Array(_) | ShapeNode::Map(_));
        let width = own + if listed { 0 } else { parts.iter().map(|p| p.width).sum() };
        if fields > MAX_FIELDS {
            return Err((TOO_MANY_COLUMNS, format!("the schema has more than {MAX_FIELDS} columns and nested fields")));
        }
        // The outermost record does not count as a level either.
        if depth > MAX_DEPTH + 1 {
            return Err((TOO_DEEP, format!("the schema is nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Arc::new(Self { node, fields, depth, width }))
    }

    /// Returns how many rows are decoded at a time: about 64 MiB of fixed-width data, and at most 8192 rows.
    pub(crate) fn batch_rows(&self) -> usize {
        ((64 << 20) / self.width.max(1)).clamp(1, 8192)
    }

    /// Checks that a block contains exactly this number of records.
    pub(crate) fn check_block(&self, block: &[u8], records: u64) -> Result<(), &'static str> {
        let mut data = BlockBytes { rest: block, empty: 0 };
        for _ in 0..records {
            let before = data.rest.len();
            data.skip_value(self)?;
            data.count_empty(before)?;
        }
        if data.rest.is_empty() { Ok(()) } else { Err("it has bytes after its last record") }
    }
}

/// Named types that are declared so far. `None` is a type whose declaration has not ended, so that a use of it is a
/// recursion.
#[derive(Debug, Default)]
struct DeclaredNames(HashMap<String, Option<Arc<AvroShape>>>);

impl DeclaredNames {
    fn resolve_shape(
        &mut self,
        schema: &Value,
        namespace: &str,
        level: usize,
    ) -> Result<Arc<AvroShape>, SchemaRefusal> {
        // Bounds the recursion of this function. Unions take a level here but not in the columns, hence twice the
        // depth.
        if level > 2 * MAX_DEPTH {
            return Err((TOO_DEEP, format!("the schema is nested deeper than {MAX_DEPTH} levels")));
        }
        match schema {
            Value::String(name) => self.resolve_name(name, namespace),
            Value::Array(options) => {
                let parts =
                    options.iter().map(|o| self.resolve_shape(o, namespace, level + 1)).collect::<Result<_, _>>()?;
                AvroShape::new(ShapeNode::Union(parts))
            }
            Value::Object(_) => self.resolve_object(schema, namespace, level),
            _ => Err(damaged_schema("the schema has a type that is neither a name nor a declaration")),
        }
    }

    fn resolve_name(&mut self, name: &str, namespace: &str) -> Result<Arc<AvroShape>, SchemaRefusal> {
        let node = match name {
            "null" => ShapeNode::Null,
            "boolean" => ShapeNode::Boolean,
            "int" => ShapeNode::Int,
            "long" => ShapeNode::Long,
            "float" => ShapeNode::Float,
            "double" => ShapeNode::Double,
            "bytes" | "string" => ShapeNode::Bytes,
            _ => {
                let full = full_name(name, namespace);
                return match self.0.get(&full).or_else(|| self.0.get(name)) {
                    Some(Some(shape)) => Ok(shape.clone()),
                    Some(None) => Err((
                        codes::UNSUPPORTED_TYPE,
                        "the schema has a recursive type, which cannot be a column".to_owned(),
                    )),
                    None => Err(damaged_schema("the schema uses a type that it does not declare")),
                };
            }
        };
        AvroShape::new(node)
    }

    fn resolve_object(
        &mut self,
        schema: &Value,
        namespace: &str,
        level: usize,
    ) -> Result<Arc<AvroShape>, SchemaRefusal> {
        let missing = |what: &str| damaged_schema(format!("the schema has a type without `{what}`"));
        let t = schema.get("type").ok_or_else(|| missing("type"))?;
        let Some(kind) = t.as_str() else { return self.resolve_shape(t, namespace, level + 1) };
        let within = |what: &str| schema.get(what).ok_or_else(|| missing(what));
        match kind {
            "array" => AvroShape::new(ShapeNode::Array(self.resolve_shape(within("items")?, namespace, level + 1)?)),
            "map" => AvroShape::new(ShapeNode::Map(self.resolve_shape(within("values")?, namespace, level + 1)?)),
            "record" | "error" | "enum" | "fixed" => {
                let name = within("name")?.as_str().ok_or_else(|| missing("name"))?;
                let own = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
                let full = full_name(name, own);
                self.0.insert(full.clone(), None);
                let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
                let node = match kind {
                    "enum" => ShapeNode::Enum(within("symbols")?.as_array().ok_or_else(|| missing("symbols"))?.len()),
                    "fixed" => ShapeNode::Fixed(fixed_size(within("size")?)?),
                    _ => {
                        let fields = within("fields")?.as_array().ok_or_else(|| missing("fields"))?;
                        let mut parts = Vec::new();
                        for field in fields {
                            let t = field.get("type").ok_or_else(|| missing("type"))?;
                            parts.push(self.resolve_shape(t, inner, level + 1)?);
                        }
                        ShapeNode::Record(parts)
                    }
                };
                let shape = AvroShape::new(node)?;
                self.0.insert(full, Some(shape.clone()));
                Ok(shape)
            }
            name => self.resolve_name(name, namespace),
        }
    }
}

fn fixed_size(size: &Value) -> Result<usize, SchemaRefusal> {
    let size = size.as_u64().ok_or_else(|| damaged_schema("the schema has a `fixed` without a size"))?;
    match usize::try_from(size) {
        Ok(fits) if size <= MAX_FIXED => Ok(fits),
        _ => Err((TOO_LARGE, format!("the schema has a `fixed` of more than {MAX_FIXED} bytes"))),
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// Cursor over the rest of a block.
struct BlockBytes<'a> {
    rest: &'a [u8],
    /// Number of items so far that took no bytes.
    empty: u64,
}

const ENDS: &str = "it ends in the middle of a record";
const NO_NUMBER: &str = "it contains an invalid number";

impl BlockBytes<'_> {
    /// Skips a value. The recursion is as deep as the schema, which is limited.
    fn skip_value(&mut self, shape: &AvroShape) -> Result<(), &'static str> {
        match &shape.node {
            ShapeNode::Null => Ok(()),
            ShapeNode::Boolean => self.skip_bytes(1),
            ShapeNode::Int => i32::try_from(self.read_long()?).map(drop).map_err(|_| NO_NUMBER),
            ShapeNode::Long => self.read_long().map(drop),
            ShapeNode::Float => self.skip_bytes(4),
            ShapeNode::Double => self.skip_bytes(8),
            ShapeNode::Bytes => self.skip_sized_bytes(),
            ShapeNode::Fixed(size) => self.skip_bytes(*size as u64),
            ShapeNode::Enum(symbols) => match usize::try_from(self.read_long()?) {
                Ok(symbol) if symbol < *symbols => Ok(()),
                _ => Err("it contains an enum symbol that the schema does not have"),
            },
            ShapeNode::Union(parts) => {
                let part = usize::try_from(self.read_long()?).ok().and_then(|i| parts.get(i));
                self.skip_value(part.ok_or("it contains a branch of a union that the schema does not have")?)
            }
            ShapeNode::Record(parts) => parts.iter().try_for_each(|part| self.skip_value(part)),
            ShapeNode::Array(item) => self.skip_items(item, false),
            ShapeNode::Map(value) => self.skip_items(value, true),
        }
    }

    /// Skips an array or a map: blocks of items, each with its count, until a count of zero.
    fn skip_items(&mut self, item: &AvroShape, keys: bool) -> Result<(), &'static str> {
        loop {
            let count = self.read_long()?;
            if count == 0 {
                return Ok(());
            }
            // A negative count is followed by the size of its items in bytes.
            if count < 0 && self.read_long()? < 0 {
                return Err("it contains a list with a negative size");
            }
            for _ in 0..count.unsigned_abs() {
                let before = self.rest.len();
                if keys {
                    self.skip_sized_bytes()?;
                }
                self.skip_value(item)?;
                self.count_empty(before)?;
            }
        }
    }

    /// Counts an item that took no bytes; `before` is the number of bytes that remained before the item.
    fn count_empty(&mut self, before: usize) -> Result<(), &'static str> {
        self.empty += u64::from(self.rest.len() == before);
        if self.empty > MAX_EMPTY { Err("it has too many items without content") } else { Ok(()) }
    }

    fn skip_sized_bytes(&mut self) -> Result<(), &'static str> {
        let length = self.read_long()?;
        self.skip_bytes(u64::try_from(length).map_err(|_| "it contains text with a negative length")?)
    }

    fn skip_bytes(&mut self, bytes: u64) -> Result<(), &'static str> {
        let bytes = usize::try_from(bytes).map_err(|_| ENDS)?;
        self.rest = self.rest.get(bytes..).ok_or(ENDS)?;
        Ok(())
    }

    fn read_long(&mut self) -> Result<i64, &'static str> {
        let mut at = 0;
        let value = crate::avro::header::read_long(self.rest, &mut at);
        self.rest = &self.rest[at..];
        value.ok_or(if self.rest.is_empty() { ENDS } else { NO_NUMBER })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(schema: &str) -> Result<Arc<AvroShape>, SchemaRefusal> {
        AvroShape::from_schema(&serde_json::from_str(schema).unwrap())
    }

    fn record(fields: &str) -> Arc<AvroShape> {
        shape(&format!(r#"{{"type":"record","name":"n.r","fields":[{fields}]}}"#)).unwrap()
    }

    #[test]
    fn block_must_contain_exactly_its_records() {
        let s = record(r#"{"name":"a","type":"long"},{"name":"b","type":["null","string"]}"#);
        let two = [2, 0, 4, 2, 2, b'x'];
        assert_eq!(s.check_block(&two, 2), Ok(()));
        assert_eq!(s.check_block(&two, 1), Err("it has bytes after its last record"));
        assert_eq!(s.check_block(&two, 3), Err(ENDS));
        assert_eq!(s.check_block(&two[..5], 2), Err(ENDS));
        assert_eq!(s.check_block(&[2, 4], 1), Err("it contains a branch of a union that the schema does not have"));
        assert_eq!(s.check_block(&[2, 2, 1], 1), Err("it contains text with a negative length"));
        assert_eq!(s.check_block(&[0x80; 12], 1), Err(NO_NUMBER));
    }

    #[test]
    fn lists_of_empty_items_are_limited_by_number_and_others_by_bytes() {
        let nulls = record(r#"{"name":"a","type":{"type":"array","items":"null"}}"#);
        assert_eq!(nulls.check_block(&[6, 0], 1), Ok(()));
        // The greatest possible count.
        let endless = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert_eq!(nulls.check_block(&endless, 1), Err("it has too many items without content"));
        let longs = record(r#"{"name":"a","type":{"type":"map","values":"long"}}"#);
        assert_eq!(longs.check_block(&endless, 1), Err(ENDS));
        assert_eq!(longs.check_block(&[1, 6, 2, b'k', 8, 0], 1), Ok(()), "a negative count is followed by the size");
    }

    #[test]
    fn type_names_are_resolved_in_their_namespaces() {
        let s = record(
            r#"{"name":"a","type":{"type":"fixed","name":"f","size":2}},{"name":"b","type":"f"},{"name":"c","type":"n.f"}"#,
        );
        assert_eq!(s.check_block(&[0; 6], 1), Ok(()));
        assert_eq!(
            shape(r#"{"type":"record","name":"r","fields":[{"name":"a","type":"x"}]}"#).unwrap_err().0,
            codes::UNREADABLE_AVRO
        );
    }

    #[test]
    fn recursive_and_oversized_schemas_are_refused() {
        let code = |schema: &str| shape(schema).map(drop).map_err(|(code, _)| code.name());
        let inside = r#"{"type":"record","name":"r","fields":[{"name":"a","type":["null","r"]}]}"#;
        assert_eq!(code(inside), Err("UnsupportedType"));
        assert_eq!(code(r#"{"type":"fixed","name":"f","size":2000000000}"#), Err("TooLarge"));
        // Each type uses the one before it twice, so that the expanded size doubles.
        let doubled = (1..40).fold(r#"{"type":"record","name":"r0","fields":[]}"#.to_owned(), |t, i| {
            let before = i - 1;
            format!(r#"{{"type":"record","name":"r{i}","fields":[{{"name":"a","type":{t}}},{{"name":"b","type":"r{before}"}}]}}"#)
        });
        assert_eq!(code(&doubled), Err("TooManyColumns"));
    }
}
