//! JSON objects and arrays whose values remain text until their type is known.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;

use biscuit_core::{Error, Result};
use biscuit_schema::internal::{is_too_deep, name_twice, too_deep};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::codes;

/// Fields of a JSON object in their order, each value as its JSON text. Numbers keep all their digits, and duplicate
/// names are preserved.
///
/// The second field is an index by name, which is built on first use for objects with many fields.
#[derive(Debug, Default)]
pub(crate) struct JsonObject<'a>(pub(crate) Vec<(String, &'a RawValue)>, OnceCell<HashMap<String, usize>>);

/// Number of fields up to which a linear search is faster than hashing the name.
const FEW: usize = 32;

impl<'a> JsonObject<'a> {
    pub(crate) fn new(fields: Vec<(String, &'a RawValue)>) -> Self {
        Self(fields, OnceCell::new())
    }

    /// Returns the value of the first field with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        if self.0.len() <= FEW {
            return self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        }
        let index = || {
            let mut index = HashMap::with_capacity(self.0.len());
            for (i, (n, _)) in self.0.iter().enumerate() {
                index.entry(n.clone()).or_insert(i);
            }
            index
        };
        self.1.get_or_init(index).get(name).map(|i| self.0[*i].1)
    }

    /// Returns the value of a field if it exists and is not null.
    pub(crate) fn non_null(&self, name: &str) -> Option<&'a RawValue> {
        self.get(name).filter(|v| v.get() != "null")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(entry);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldVisitor).map(JsonObject::new)
    }
}

/// Parses a JSON object.
pub(crate) fn parse_object(raw: &str) -> Result<JsonObject<'_>, serde_json::Error> {
    serde_json::from_str(raw)
}

/// Parses a line that must be an object without duplicate names at any depth.
///
/// # Errors
/// `TooDeep`, `InvalidJson`, `DuplicateColumn`.
pub(crate) fn object_line<'a>(raw: &'a str, file: &str, line: u64) -> Result<JsonObject<'a>> {
    // Before parsing: the depth check is iterative, so that deep nesting cannot overflow the stack.
    if is_too_deep(raw.as_bytes()) {
        return Err(too_deep("the line").at(file, line));
    }
    let object = parse_object(raw).map_err(|e| invalid_json(&e, file, line))?;
    match name_twice(raw) {
        Some(name) => {
            Err(Error::new(biscuit_schema::codes::DUPLICATE_COLUMN, format!("the record has column `{name}` twice"))
                .with_column(name)
                .at(file, line))
        }
        None => Ok(object),
    }
}

/// Returns the error of a line that [`JsonScanner`](crate::json::scanner::JsonScanner) refuses.
pub(crate) fn refused_line(raw: &str, file: &str, line: u64) -> Error {
    object_line(raw, file, line).err().unwrap_or_else(|| Error::internal("a line was refused without a reason"))
}

/// Creates the error for a line that is not valid JSON.
pub(crate) fn invalid_json(e: &serde_json::Error, file: &str, line: u64) -> Error {
    let what = match e.classify() {
        serde_json::error::Category::Eof => "the line ends in the middle of its JSON".to_owned(),
        // The message of the library may quote the value; the position does not.
        _ => format!("the line is not the expected JSON, at character {}", e.column()),
    };
    Error::new(codes::INVALID_JSON, what).at(file, line)
}

/// Returns the items of a JSON array; `None` for anything else.
pub(crate) fn parse_items(raw: &str) -> Option<Vec<&RawValue>> {
    struct ItemVisitor<'a>(Vec<&'a RawValue>);
    impl<'de: 'a, 'a> Deserialize<'de> for ItemVisitor<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct ItemSeq;
            impl<'de> Visitor<'de> for ItemSeq {
                type Value = Vec<&'de RawValue>;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a JSON array")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                    let mut items = Vec::new();
                    while let Some(item) = seq.next_element()? {
                        items.push(item);
                    }
                    Ok(items)
                }
            }
            deserializer.deserialize_seq(ItemSeq).map(ItemVisitor)
        }
    }
    serde_json::from_str::<ItemVisitor<'_>>(raw).ok().map(|i| i.0)
}

/// Returns the text of a JSON string; `None` for anything else.
pub(crate) fn parse_string(raw: &str) -> Option<String> {
    raw.starts_with('"').then(|| serde_json::from_str(raw).ok()).flatten()
}
