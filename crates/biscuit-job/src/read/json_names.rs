//! Finds the names in JSON lines that a schema does not have, without building values: a serde visitor that descends
//! only into objects whose names matter.

use std::collections::HashMap;
use std::fmt;

use arrow::datatypes::{DataType, Schema};
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Names that a JSON value may contain.
#[derive(Debug)]
pub(crate) enum JsonNames {
    /// The names do not matter, because the value is a scalar or text.
    Any,
    /// Names of the values of a map; the keys of the map can be anything.
    Values(Box<JsonNames>),
    /// Names of an object.
    Object(JsonObjectNames),
}

#[derive(Debug, Default)]
/// The known names of an object, with what is known about the value of each.
pub(crate) struct JsonObjectNames {
    /// Path of the object, with a dot at the end: `address.` for the fields of the column `address`. Empty for the
    /// line itself.
    path: String,
    /// Index into `below`, by name.
    at: HashMap<String, usize>,
    below: Vec<JsonNames>,
}

/// Names in lines that are not in the schema.
#[derive(Debug, Default)]
pub(crate) struct NewNames {
    /// Names in the object of the line.
    pub(crate) top: Vec<String>,
    /// Paths of names in nested objects, such as `address.street`.
    pub(crate) nested: Vec<String>,
}

impl JsonNames {
    /// Returns the names of a schema.
    pub(crate) fn from_schema(schema: &Schema) -> Self {
        Self::for_object("", schema.fields())
    }

    fn for_object(path: &str, fields: &arrow::datatypes::Fields) -> Self {
        let mut object = JsonObjectNames { path: path.to_owned(), ..JsonObjectNames::default() };
        for field in fields {
            object.add_name(field.name(), Self::for_type(&format!("{path}{}.", field.name()), field.data_type()));
        }
        Self::Object(object)
    }

    fn for_type(path: &str, t: &DataType) -> Self {
        match t {
            DataType::Struct(fields) => Self::for_object(path, fields),
            // The path of the items of a list is the path of the list.
            DataType::List(item) => Self::for_type(path, item.data_type()),
            DataType::Map(entry, _) => match entry.data_type() {
                DataType::Struct(kv) if kv.len() == 2 => {
                    Self::Values(Box::new(Self::for_type(path, kv[1].data_type())))
                }
                _ => Self::Any,
            },
            _ => Self::Any,
        }
    }

    /// Returns the names in these lines that are not known. They become known, so each name is returned only once.
    pub(crate) fn find_new(&mut self, lines: &[u8]) -> NewNames {
        let mut new = NewNames::default();
        for line in lines.split(|b| *b == b'\n') {
            // Invalid JSON is reported when the line is decoded.
            let _ =
                NameVisitor { names: self, new: &mut new }.deserialize(&mut serde_json::Deserializer::from_slice(line));
        }
        new
    }
}

impl JsonObjectNames {
    fn add_name(&mut self, name: &str, below: JsonNames) -> usize {
        self.at.insert(name.to_owned(), self.below.len());
        self.below.push(below);
        self.below.len() - 1
    }
}

/// Visits a value and records its unknown names.
struct NameVisitor<'a> {
    names: &'a mut JsonNames,
    new: &'a mut NewNames,
}

impl<'de> DeserializeSeed<'de> for NameVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.names {
            JsonNames::Any => value.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for NameVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match self.names {
            JsonNames::Object(object) => {
                while let Some(at) = map.next_key_seed(KeySeed { object, new: self.new })? {
                    map.next_value_seed(NameVisitor { names: &mut object.below[at], new: self.new })?;
                }
            }
            JsonNames::Values(names) => {
                while map.next_key::<IgnoredAny>()?.is_some() {
                    map.next_value_seed(NameVisitor { names, new: self.new })?;
                }
            }
            JsonNames::Any => while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(NameVisitor { names: self.names, new: self.new })?.is_some() {}
        Ok(())
    }

    // A scalar in place of an object contains no names.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Deserializes a key to its index in the object. An unknown name is recorded and added.
struct KeySeed<'a> {
    object: &'a mut JsonObjectNames,
    new: &'a mut NewNames,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<usize, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        if let Some(at) = self.object.at.get(name) {
            return Ok(*at);
        }
        match self.object.path.as_str() {
            "" => self.new.top.push(name.to_owned()),
            path => self.new.nested.push(format!("{path}{name}")),
        }
        Ok(self.object.add_name(name, JsonNames::Any))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Fields};

    use super::*;

    #[test]
    fn unknown_names_are_found_once_at_any_depth() {
        let address = DataType::Struct(Fields::from(vec![Field::new("zip", DataType::Utf8, true)]));
        let list = DataType::List(Field::new("item", address, true).into());
        let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true), Field::new("addresses", list, true)]);
        let mut names = JsonNames::from_schema(&schema);
        let lines =
            b"{\"id\":1,\"addresses\":[{\"zip\":1,\"no\":{\"x\":1}}]}\nnone\n{\"ID\":1,\"a\\tb\":[{}],\"addresses\":7}";
        let new = names.find_new(lines);
        assert_eq!((new.top, new.nested), (vec!["ID".to_owned(), "a\tb".to_owned()], vec!["addresses.no".to_owned()]));
        assert!(names.find_new(lines).top.is_empty());
    }
}
