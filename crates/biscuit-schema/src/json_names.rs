use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Most objects have few names, which are compared faster than they are hashed.
const FEW: usize = 32;

/// A name that comes twice in an object of this JSON, at any depth, with the names around it; none if there is none, or it is no JSON.
///
/// ```
/// use biscuit_schema::name_twice;
///
/// assert_eq!(name_twice(br#"{"a": 1, "b": {"c": 1, "c": 2}}"#).as_deref(), Some("b.c"));
/// assert_eq!(name_twice(br#"{"a": 1, "b": [{"c": 1}, {"c": 2}]}"#), None);
/// ```
pub fn name_twice(json: &[u8]) -> Option<String> {
    let mut twice = None;
    let mut path = Vec::new();
    let within = Within { path: &mut path, twice: &mut twice };
    // What ends early has found one, or is met where it is read.
    drop(within.deserialize(&mut serde_json::Deserializer::from_slice(json)));
    twice
}

/// Looks for names in a value.
struct Within<'a> {
    path: &'a mut Vec<String>,
    twice: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut few, mut many) = (Vec::<String>::new(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            let known = if many.is_empty() { few.contains(&name) } else { many.contains(&name) };
            if known {
                self.path.push(name);
                *self.twice = Some(self.path.join("."));
                return Err(A::Error::custom("a name comes twice"));
            }
            self.path.push(name);
            map.next_value_seed(Within { path: self.path, twice: self.twice })?;
            let name = self.path.pop().unwrap_or_default();
            if many.is_empty() && few.len() < FEW {
                few.push(name);
            } else {
                many.extend(few.drain(..));
                many.insert(name);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Within { path: self.path, twice: self.twice })?.is_some() {}
        Ok(())
    }

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
