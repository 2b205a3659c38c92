use std::collections::HashMap;
use std::sync::Arc;

use biscuit_schema::{MAX_DEPTH, MAX_FIELDS};
use serde_json::Value;

/// Bytes of a `fixed`: a null of it takes as many in memory.
const MAX_FIXED: u64 = 1 << 20;

/// Records and items of a block that take no bytes (`null`): their number is bounded by nothing else.
const MAX_EMPTY: u64 = 1 << 20;

/// How values of an Avro schema are written, as far as one has to know to pass over them.
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

/// A schema, and what it is in full: named types are written once and count each time that they are used.
#[derive(Debug)]
pub(crate) struct AvroShape {
    node: ShapeNode,
    /// Types within.
    fields: usize,
    /// Levels below.
    depth: usize,
    /// Bytes that a row of it takes in memory at least, null or not.
    width: usize,
}

/// Why a schema cannot be used: a stable code, and the reason.
pub(crate) type SchemaRefusal = (&'static str, String);

fn damaged(reason: impl Into<String>) -> SchemaRefusal {
    ("UnreadableAvro", reason.into())
}

impl AvroShape {
    /// Of the schema in a file's header. Source: Avro 1.12, "Schema Declaration" and "Names".
    pub(crate) fn of(schema: &Value) -> Result<Arc<Self>, SchemaRefusal> {
        DeclaredNames::default().shape(schema, "", 0)
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
        // A union is no level of the columns.
        let own_level = usize::from(!matches!(node, ShapeNode::Union(_)));
        let depth = own_level + parts.iter().map(|p| p.depth).max().unwrap_or(0);
        // Items of a list take memory of their own.
        let listed = matches!(node, ShapeNode::Array(_) | ShapeNode::Map(_));
        let width = own + if listed { 0 } else { parts.iter().map(|p| p.width).sum() };
        if fields > MAX_FIELDS {
            return Err(("TooManyColumns", format!("the schema has more than {MAX_FIELDS} columns and nested fields")));
        }
        // The record around the columns is no level of them either.
        if depth > MAX_DEPTH + 1 {
            return Err(("TooDeep", format!("the schema is nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Arc::new(Self { node, fields, depth, width }))
    }

    /// How many rows may be decoded at a time.
    pub(crate) fn batch_rows(&self) -> usize {
        ((64 << 20) / self.width.max(1)).clamp(1, 8192)
    }

    /// Checks that a block holds so many records, and nothing else.
    pub(crate) fn check(&self, block: &[u8], records: u64) -> Result<(), &'static str> {
        let mut data = BlockBytes { rest: block, empty: 0 };
        for _ in 0..records {
            let before = data.rest.len();
            data.step(self)?;
            data.count_empty(before)?;
        }
        if data.rest.is_empty() { Ok(()) } else { Err("it has bytes after its last record") }
    }
}

/// Named types that were declared so far; none for one whose declaration is not at its end.
#[derive(Debug, Default)]
struct DeclaredNames(HashMap<String, Option<Arc<AvroShape>>>);

impl DeclaredNames {
    fn shape(&mut self, schema: &Value, namespace: &str, level: usize) -> Result<Arc<AvroShape>, SchemaRefusal> {
        if level > 2 * MAX_DEPTH {
            return Err(("TooDeep", format!("the schema is nested deeper than {MAX_DEPTH} levels")));
        }
        match schema {
            Value::String(name) => self.named(name, namespace),
            Value::Array(options) => {
                let parts = options.iter().map(|o| self.shape(o, namespace, level + 1)).collect::<Result<_, _>>()?;
                AvroShape::new(ShapeNode::Union(parts))
            }
            Value::Object(_) => self.object(schema, namespace, level),
            _ => Err(damaged("its schema has a type that is neither a name nor a declaration")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<Arc<AvroShape>, SchemaRefusal> {
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
                        "UnsupportedType",
                        "its schema has a type within itself, which no column holds".to_owned(),
                    )),
                    None => Err(damaged("its schema uses a type that it does not declare")),
                };
            }
        };
        AvroShape::new(node)
    }

    fn object(&mut self, schema: &Value, namespace: &str, level: usize) -> Result<Arc<AvroShape>, SchemaRefusal> {
        let missing = |what: &str| damaged(format!("its schema has a type without `{what}`"));
        let t = schema.get("type").ok_or_else(|| missing("type"))?;
        let Some(kind) = t.as_str() else { return self.shape(t, namespace, level + 1) };
        let within = |what: &str| schema.get(what).ok_or_else(|| missing(what));
        match kind {
            "array" => AvroShape::new(ShapeNode::Array(self.shape(within("items")?, namespace, level + 1)?)),
            "map" => AvroShape::new(ShapeNode::Map(self.shape(within("values")?, namespace, level + 1)?)),
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
                            parts.push(self.shape(t, inner, level + 1)?);
                        }
                        ShapeNode::Record(parts)
                    }
                };
                let shape = AvroShape::new(node)?;
                self.0.insert(full, Some(shape.clone()));
                Ok(shape)
            }
            name => self.named(name, namespace),
        }
    }
}

fn fixed_size(size: &Value) -> Result<usize, SchemaRefusal> {
    let size = size.as_u64().ok_or_else(|| damaged("its schema has a `fixed` without a size"))?;
    match usize::try_from(size) {
        Ok(fits) if size <= MAX_FIXED => Ok(fits),
        _ => Err(("TooLarge", format!("the schema has a `fixed` of more than {MAX_FIXED} bytes"))),
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// What is left of a block.
struct BlockBytes<'a> {
    rest: &'a [u8],
    /// Items so far that took no bytes.
    empty: u64,
}

const ENDS: &str = "it ends in the middle of a record";
const NO_NUMBER: &str = "it holds a number that is none";

impl BlockBytes<'_> {
    /// Passes over a value. Nested as deep as its schema, which is bounded.
    fn step(&mut self, shape: &AvroShape) -> Result<(), &'static str> {
        match &shape.node {
            ShapeNode::Null => Ok(()),
            ShapeNode::Boolean => self.pass(1),
            ShapeNode::Int => i32::try_from(self.long()?).map(drop).map_err(|_| NO_NUMBER),
            ShapeNode::Long => self.long().map(drop),
            ShapeNode::Float => self.pass(4),
            ShapeNode::Double => self.pass(8),
            ShapeNode::Bytes => self.step_bytes(),
            ShapeNode::Fixed(size) => self.pass(*size as u64),
            ShapeNode::Enum(symbols) => match usize::try_from(self.long()?) {
                Ok(symbol) if symbol < *symbols => Ok(()),
                _ => Err("it holds a symbol that its schema does not have"),
            },
            ShapeNode::Union(parts) => {
                let part = usize::try_from(self.long()?).ok().and_then(|i| parts.get(i));
                self.step(part.ok_or("it holds a part of a union that its schema does not have")?)
            }
            ShapeNode::Record(parts) => parts.iter().try_for_each(|part| self.step(part)),
            ShapeNode::Array(item) => self.items(item, false),
            ShapeNode::Map(value) => self.items(value, true),
        }
    }

    fn items(&mut self, item: &AvroShape, keys: bool) -> Result<(), &'static str> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            // A negative count is followed by the bytes of its items.
            if count < 0 && self.long()? < 0 {
                return Err("it holds a list of a negative size");
            }
            for _ in 0..count.unsigned_abs() {
                let before = self.rest.len();
                if keys {
                    self.step_bytes()?;
                }
                self.step(item)?;
                self.count_empty(before)?;
            }
        }
    }

    fn count_empty(&mut self, before: usize) -> Result<(), &'static str> {
        self.empty += u64::from(self.rest.len() == before);
        if self.empty > MAX_EMPTY { Err("it has more items without content than a block may have") } else { Ok(()) }
    }

    fn step_bytes(&mut self) -> Result<(), &'static str> {
        let length = self.long()?;
        self.pass(u64::try_from(length).map_err(|_| "it holds a text of a negative length")?)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), &'static str> {
        let bytes = usize::try_from(bytes).map_err(|_| ENDS)?;
        self.rest = self.rest.get(bytes..).ok_or(ENDS)?;
        Ok(())
    }

    fn long(&mut self) -> Result<i64, &'static str> {
        let mut at = 0;
        let value = crate::avro::header::long(self.rest, &mut at);
        self.rest = &self.rest[at..];
        value.ok_or(if self.rest.is_empty() { ENDS } else { NO_NUMBER })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(schema: &str) -> Result<Arc<AvroShape>, SchemaRefusal> {
        AvroShape::of(&serde_json::from_str(schema).unwrap())
    }

    fn record(fields: &str) -> Arc<AvroShape> {
        shape(&format!(r#"{{"type":"record","name":"n.r","fields":[{fields}]}}"#)).unwrap()
    }

    #[test]
    fn a_block_holds_its_records_and_nothing_else() {
        let s = record(r#"{"name":"a","type":"long"},{"name":"b","type":["null","string"]}"#);
        let two = [2, 0, 4, 2, 2, b'x'];
        assert_eq!(s.check(&two, 2), Ok(()));
        assert_eq!(s.check(&two, 1), Err("it has bytes after its last record"));
        assert_eq!(s.check(&two, 3), Err(ENDS));
        assert_eq!(s.check(&two[..5], 2), Err(ENDS));
        assert_eq!(s.check(&[2, 4], 1), Err("it holds a part of a union that its schema does not have"));
        assert_eq!(s.check(&[2, 2, 1], 1), Err("it holds a text of a negative length"));
        assert_eq!(s.check(&[0x80; 12], 1), Err(NO_NUMBER));
    }

    #[test]
    fn lists_of_nothing_are_bounded_and_lists_of_something_by_their_bytes() {
        let nulls = record(r#"{"name":"a","type":{"type":"array","items":"null"}}"#);
        assert_eq!(nulls.check(&[6, 0], 1), Ok(()));
        // The greatest number that a count can be.
        let endless = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert_eq!(nulls.check(&endless, 1), Err("it has more items without content than a block may have"));
        let longs = record(r#"{"name":"a","type":{"type":"map","values":"long"}}"#);
        assert_eq!(longs.check(&endless, 1), Err(ENDS));
        assert_eq!(longs.check(&[1, 6, 2, b'k', 8, 0], 1), Ok(()), "a negative count and the size");
    }

    #[test]
    fn names_are_found_in_their_namespaces() {
        let s = record(
            r#"{"name":"a","type":{"type":"fixed","name":"f","size":2}},{"name":"b","type":"f"},{"name":"c","type":"n.f"}"#,
        );
        assert_eq!(s.check(&[0; 6], 1), Ok(()));
        assert_eq!(
            shape(r#"{"type":"record","name":"r","fields":[{"name":"a","type":"x"}]}"#).unwrap_err().0,
            "UnreadableAvro"
        );
    }

    #[test]
    fn schemas_that_are_too_much_are_refused() {
        let code = |schema: &str| shape(schema).map(drop).map_err(|(code, _)| code);
        let inside = r#"{"type":"record","name":"r","fields":[{"name":"a","type":["null","r"]}]}"#;
        assert_eq!(code(inside), Err("UnsupportedType"));
        assert_eq!(code(r#"{"type":"fixed","name":"f","size":2000000000}"#), Err("TooLarge"));
        // Each type names the one before twice.
        let doubled = (1..40).fold(r#"{"type":"record","name":"r0","fields":[]}"#.to_owned(), |t, i| {
            let before = i - 1;
            format!(r#"{{"type":"record","name":"r{i}","fields":[{{"name":"a","type":{t}}},{{"name":"b","type":"r{before}"}}]}}"#)
        });
        assert_eq!(code(&doubled), Err("TooManyColumns"));
    }
}
