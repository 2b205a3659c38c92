use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Fields of a JSON object in the order of the text, including repeated names. Values are kept as text.
pub(crate) struct JsonFields<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = JsonFields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(field) = map.next_entry()? {
                    all.push(field);
                }
                Ok(JsonFields(all))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Finds a field name that occurs twice in one object, at any depth, and returns its path. Returns `None` if there is
/// none, or if the text is not JSON.
///
/// ```
/// use biscuit_schema::internal::name_twice;
///
/// assert_eq!(name_twice(r#"{"a": 1e400, "b": {"c": 1, "c": 2}}"#).as_deref(), Some("b.c"));
/// assert_eq!(name_twice(r#"{"a": 1, "b": [{"c": 1}, {"c": 2}]}"#), None);
/// ```
pub fn name_twice(json: &str) -> Option<String> {
    let json = json.trim_start();
    if json.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        return items.iter().find_map(|item| name_twice(item.get()));
    }
    if !json.starts_with('{') {
        return None;
    }
    let JsonFields(fields) = serde_json::from_str(json).ok()?;
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    // After sorting, equal names are adjacent.
    names.sort_unstable();
    if let Some(repeated) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(repeated[0].to_owned());
    }
    fields.iter().find_map(|(name, value)| Some(format!("{name}.{}", name_twice(value.get())?)))
}
