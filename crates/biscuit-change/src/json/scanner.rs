//! One pass over a JSON object: checks that it is valid JSON without duplicate names, and lists its fields and those of
//! the objects in it. Values remain text.
//!
//! The objects of a file mostly have the same names in the same order. The scanner remembers which name came after
//! which, and compares the next bytes with the expected name instead of parsing them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use biscuit_schema::internal::MAX_DEPTH;

/// Place of a name that does not exist.
const NONE: u32 = u32::MAX;

/// Number of known names above which the scanner forgets them, so that objects with ever new names do not fill the
/// memory.
const MAX_NAMES: usize = 1 << 16;

/// Names of fields that readers ask for in every record. They are found without comparing texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownName {
    Other,
    After,
    Before,
    Collection,
    Connector,
    Database,
    Headers,
    Key,
    Op,
    Payload,
    Schema,
    Source,
    Table,
    Topic,
    UpdateDescription,
    Value,
}

impl KnownName {
    fn of(name: &str) -> Self {
        match name {
            "after" => Self::After,
            "before" => Self::Before,
            "collection" => Self::Collection,
            "connector" => Self::Connector,
            "db" => Self::Database,
            "headers" => Self::Headers,
            "key" => Self::Key,
            "op" => Self::Op,
            "payload" => Self::Payload,
            "schema" => Self::Schema,
            "source" => Self::Source,
            "table" => Self::Table,
            "topic" => Self::Topic,
            "updateDescription" => Self::UpdateDescription,
            "value" => Self::Value,
            _ => Self::Other,
        }
    }
}

/// Scanner of JSON objects. It keeps the names that it has seen, and the fields of the last object.
#[derive(Clone, Default)]
pub(crate) struct JsonScanner {
    /// Known names. The first one is the place of the outermost object; empty before the first object.
    names: Vec<FieldName>,
    by_name: HashMap<(u32, Box<str>), u32>,
    /// Number of objects so far, which marks the names of the current one.
    objects: u64,
    fields: Vec<ScannedField>,
    /// Number of times that the scanner forgot its names.
    generation: u64,
}

/// Name of a field at a place: fields of different objects have different places.
#[derive(Clone)]
struct FieldName {
    name: Box<str>,
    known: KnownName,
    /// The name as a JSON string with a colon, and its first bytes as words with masks.
    quoted: Box<[u8]>,
    words: [(u64, u64); 2],
    /// First name of the object that was the value of this field the last time.
    first: u32,
    /// Name that followed the last time.
    next: u32,
    /// Object in which the name occurred last.
    seen: u64,
    /// Value of a field `schema` the last time: the schema that the JSON converter of Kafka Connect writes into each
    /// record. It is compared as a whole, and its fields are not listed.
    schema: Box<str>,
}

/// Field of an object: its name, the span of its value, and the index of the field after it in the same object.
#[derive(Clone, Copy)]
struct ScannedField {
    name: u32,
    start: u32,
    end: u32,
    next: u32,
    known: KnownName,
}

impl FieldName {
    fn new(name: &str) -> Self {
        // A quote or backslash in a name is escaped, so that these bytes are this name and nothing else.
        let quoted: Box<[u8]> = format!("{}:", serde_json::Value::from(name)).into_bytes().into();
        let word = |from: usize| {
            let (mut bytes, mut mask) = ([0; 8], [0; 8]);
            for (at, byte) in quoted.iter().skip(from).take(8).enumerate() {
                (bytes[at], mask[at]) = (*byte, u8::MAX);
            }
            (u64::from_le_bytes(bytes), u64::from_le_bytes(mask))
        };
        let (words, known) = ([word(0), word(8)], KnownName::of(name));
        Self { name: name.into(), known, quoted, words, first: NONE, next: NONE, seen: 0, schema: "".into() }
    }

    /// Returns whether the name with its colon is next in a text. Most names have at most 16 bytes, which are compared
    /// as two words.
    fn is_next(&self, text: &[u8]) -> bool {
        let Some((words, rest)) = text.split_first_chunk::<16>() else { return text.starts_with(&self.quoted) };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| words[at * 8 + byte]));
        let [first, second] = self.words;
        ((word(0) ^ first.0) & first.1) | ((word(1) ^ second.0) & second.1) == 0
            && (self.quoted.len() <= 16 || rest.starts_with(&self.quoted[16..]))
    }
}

impl fmt::Debug for JsonScanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonScanner").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl JsonScanner {
    /// Scans a text that is one object, with white space around it. Returns `None` for any other text: invalid JSON,
    /// other values, duplicate names at any depth, and nesting of more than `MAX_DEPTH` levels. The caller finds the
    /// reason.
    pub(crate) fn scan<'a>(&'a mut self, text: &'a str) -> Option<JsonValue<'a>> {
        if self.names.len() > MAX_NAMES {
            *self = Self { generation: self.generation + 1, ..Self::default() };
        }
        if self.names.is_empty() {
            self.names.push(FieldName::new(""));
        }
        self.fields.clear();
        let bytes = text.as_bytes();
        // Positions have 32 bits; records are limited to far less.
        u32::try_from(bytes.len()).ok()?;
        let start = skip_spaces(bytes, 0);
        if bytes.get(start) != Some(&b'{') {
            return None;
        }
        let end = self.scan_value(bytes, start, Place { name: 0, depth: 0, is_listed: true })?;
        (skip_spaces(bytes, end) == bytes.len()).then_some(JsonValue {
            scanner: self,
            text,
            span: (start as u32, end as u32),
            fields: (0, self.fields.len() as u32),
        })
    }

    /// Returns the end of the value at `at`.
    fn scan_value(&mut self, text: &[u8], at: usize, place: Place) -> Option<usize> {
        match text.get(at)? {
            b'"' => string_end(text, at + 1),
            b'{' => self.scan_object(text, at + 1, place.inside()?),
            b'[' => self.scan_array(text, at + 1, place.inside()?),
            b't' => literal_end(text, at, b"true"),
            b'f' => literal_end(text, at, b"false"),
            b'n' => literal_end(text, at, b"null"),
            _ => number_end(text, at),
        }
    }

    fn scan_array(&mut self, text: &[u8], at: usize, place: Place) -> Option<usize> {
        // Objects in arrays are only checked: no reader asks for their fields.
        let place = Place { is_listed: false, ..place };
        let mut at = skip_spaces(text, at);
        if text.get(at) == Some(&b']') {
            return Some(at + 1);
        }
        loop {
            at = skip_spaces(text, self.scan_value(text, at, place)?);
            match text.get(at)? {
                b',' => at = skip_spaces(text, at + 1),
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn scan_object(&mut self, text: &[u8], at: usize, place: Place) -> Option<usize> {
        self.objects += 1;
        let object = self.objects;
        let mut at = skip_spaces(text, at);
        if text.get(at) == Some(&b'}') {
            return Some(at + 1);
        }
        let mut previous = NONE;
        loop {
            let expected = if previous == NONE { self.name(place.name).first } else { self.name(previous).next };
            let name = match self.names.get(expected as usize) {
                Some(known) if known.is_next(&text[at..]) => {
                    at += known.quoted.len();
                    expected
                }
                _ => {
                    let (name, end) = self.parse_name(text, at, place.name)?;
                    at = end;
                    match previous {
                        NONE => self.names[place.name as usize].first = name,
                        previous => self.names[previous as usize].next = name,
                    }
                    name
                }
            };
            let known = &mut self.names[name as usize];
            if std::mem::replace(&mut known.seen, object) == object {
                return None;
            }
            at = skip_spaces(text, at);
            at = skip_spaces(text, self.scan_field(text, at, Place { name, ..place })?);
            match text.get(at)? {
                b',' => at = skip_spaces(text, at + 1),
                b'}' => return Some(at + 1),
                _ => return None,
            }
            previous = name;
        }
    }

    /// Scans the value of a field, and lists it. Returns the end of the value.
    fn scan_field(&mut self, text: &[u8], start: usize, place: Place) -> Option<usize> {
        if !place.is_listed {
            return self.scan_value(text, start, place);
        }
        let index = self.fields.len();
        let known = &self.names[place.name as usize];
        let at = start as u32;
        self.fields.push(ScannedField { name: place.name, start: at, end: at, next: 0, known: known.known });
        let end = match known.known == KnownName::Schema && text.get(start) == Some(&b'{') {
            // The schema of the record before. It is a whole object, so that it cannot end later.
            true if !known.schema.is_empty() && text[start..].starts_with(known.schema.as_bytes()) => {
                start + known.schema.len()
            }
            true => {
                let end = self.scan_value(text, start, Place { is_listed: false, ..place })?;
                let schema = std::str::from_utf8(&text[start..end]).ok()?;
                self.names[place.name as usize].schema = schema.into();
                end
            }
            false => self.scan_value(text, start, place)?,
        };
        let next = self.fields.len() as u32;
        let field = &mut self.fields[index];
        (field.end, field.next) = (end as u32, next);
        Some(end)
    }

    /// Parses a name that was not expected, up to its colon.
    fn parse_name(&mut self, text: &[u8], at: usize, place: u32) -> Option<(u32, usize)> {
        if text.get(at) != Some(&b'"') {
            return None;
        }
        let end = string_end(text, at + 1)?;
        let quoted = std::str::from_utf8(&text[at..end]).ok()?;
        let name: Cow<'_, str> = match quoted.contains('\\') {
            true => serde_json::from_str::<String>(quoted).ok()?.into(),
            false => quoted[1..quoted.len() - 1].into(),
        };
        let colon = skip_spaces(text, end);
        if text.get(colon) != Some(&b':') {
            return None;
        }
        let key = (place, Box::from(name.as_ref()));
        let next = self.names.len() as u32;
        let id = *self.by_name.entry(key).or_insert(next);
        if id == next {
            self.names.push(FieldName::new(&name));
        }
        Some((id, colon + 1))
    }

    fn name(&self, name: u32) -> &FieldName {
        &self.names[name as usize]
    }
}

/// Where a value is.
#[derive(Clone, Copy)]
struct Place {
    /// Name of the field whose value it is in.
    name: u32,
    depth: usize,
    /// Whether the fields of objects are listed.
    is_listed: bool,
}

impl Place {
    /// Returns the place inside of an object or array; `None` if it is too deep.
    fn inside(self) -> Option<Self> {
        (self.depth < MAX_DEPTH).then_some(Self { depth: self.depth + 1, ..self })
    }
}

/// Value of a scanned object, as JSON text.
#[derive(Clone, Copy)]
pub(crate) struct JsonValue<'a> {
    scanner: &'a JsonScanner,
    text: &'a str,
    span: (u32, u32),
    /// Fields of the value, if it is an object outside of arrays.
    fields: (u32, u32),
}

impl<'a> JsonValue<'a> {
    /// Returns the JSON text of the value.
    pub(crate) fn raw(self) -> &'a str {
        &self.text[self.span()]
    }

    /// Returns where the value is in the scanned text.
    pub(crate) fn span(self) -> std::ops::Range<usize> {
        self.span.0 as usize..self.span.1 as usize
    }

    pub(crate) fn is_null(self) -> bool {
        self.raw() == "null"
    }

    pub(crate) fn is_object(self) -> bool {
        self.text.as_bytes().get(self.span.0 as usize) == Some(&b'{')
    }

    /// Returns the generation of the numbers of names: after the scanner forgot its names, the numbers have other names.
    pub(crate) fn generation(self) -> u64 {
        self.scanner.generation
    }

    /// Returns the fields of an object in their order. Empty for other values, for objects inside of arrays, and for
    /// the object of a field `schema`.
    pub(crate) fn fields(self) -> JsonFields<'a> {
        JsonFields { object: self, at: self.fields.0 }
    }

    /// Returns the values of some fields of an object.
    pub(crate) fn pick<const N: usize>(self, names: [KnownName; N]) -> [Option<Self>; N] {
        let mut values = [None; N];
        let mut fields = self.fields();
        while let Some(known) = fields.known() {
            match names.iter().position(|name| *name == known) {
                Some(at) => values[at] = fields.next().map(|field| field.value),
                None => fields.skip_field(),
            }
        }
        values
    }

    /// Returns the value of a field of an object.
    pub(crate) fn get(self, name: &str) -> Option<Self> {
        self.fields().find(|field| field.name() == name).map(|field| field.value)
    }

    /// Returns the value of a field if it exists and is not null.
    pub(crate) fn non_null(self, name: &str) -> Option<Self> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// Returns the value of the field whose name has this number. The number must be of the same generation.
    pub(crate) fn get_by_id(self, id: usize) -> Option<Self> {
        let mut fields = self.fields();
        while fields.at < self.fields.1 {
            let field = &self.scanner.fields[fields.at as usize];
            if field.name as usize == id {
                return fields.next().map(|field| field.value);
            }
            fields.at = field.next;
        }
        None
    }

    /// Returns the number of the name of a field.
    pub(crate) fn id_of(self, name: &str) -> Option<usize> {
        self.fields().find(|field| field.name() == name).map(|field| field.id)
    }

    /// Returns the text of a string; `None` for any other value.
    pub(crate) fn as_text(self) -> Option<Cow<'a, str>> {
        string_text(self.raw())
    }

    /// Returns the text of a field that is a string.
    pub(crate) fn text_of(self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.as_text()
    }
}

impl fmt::Debug for JsonValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsonValue")
    }
}

/// Field of a scanned object.
#[derive(Clone, Copy)]
pub(crate) struct JsonField<'a> {
    /// Number of the name: the same name at the same place has the same number in a generation of a scanner.
    pub(crate) id: usize,
    pub(crate) value: JsonValue<'a>,
}

impl<'a> JsonField<'a> {
    pub(crate) fn name(self) -> &'a str {
        &self.value.scanner.names[self.id].name
    }
}

/// Values by the names of a scanner.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    /// Values by the number of the name; `None` if the name has no value.
    values: Vec<Option<T>>,
    /// Generation of the numbers.
    generation: u64,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { values: vec![], generation: 0 }
    }
}

impl<T: Copy> ByName<T> {
    /// Returns the value of the name of a field.
    pub(crate) fn get(&self, field: JsonField<'_>) -> Option<T> {
        match self.generation == field.value.generation() {
            true => self.values.get(field.id).copied().flatten(),
            false => None,
        }
    }

    /// Sets the value of the name of a field.
    pub(crate) fn set(&mut self, field: JsonField<'_>, value: T) {
        if self.generation != field.value.generation() {
            *self = Self { values: vec![], generation: field.value.generation() };
        }
        if self.values.len() <= field.id {
            self.values.resize(field.id + 1, None);
        }
        self.values[field.id] = Some(value);
    }
}

/// Iterator over the fields of an object.
#[derive(Clone)]
pub(crate) struct JsonFields<'a> {
    object: JsonValue<'a>,
    at: u32,
}

impl JsonFields<'_> {
    /// Returns the name of the next field; `None` at the end.
    fn known(&self) -> Option<KnownName> {
        (self.at < self.object.fields.1).then(|| self.object.scanner.fields[self.at as usize].known)
    }

    fn skip_field(&mut self) {
        self.at = self.object.scanner.fields[self.at as usize].next;
    }
}

impl<'a> Iterator for JsonFields<'a> {
    type Item = JsonField<'a>;

    fn next(&mut self) -> Option<JsonField<'a>> {
        if self.at >= self.object.fields.1 {
            return None;
        }
        let field = self.object.scanner.fields[self.at as usize];
        let fields = (self.at + 1, field.next);
        self.at = field.next;
        let value = JsonValue { span: (field.start, field.end), fields, ..self.object };
        Some(JsonField { id: field.name as usize, value })
    }
}

/// Returns the text of a JSON string; `None` for any other value.
pub(crate) fn string_text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    match inner.contains('\\') {
        true => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
        false => Some(Cow::Borrowed(inner)),
    }
}

fn skip_spaces(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn literal_end(text: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    text[at..].starts_with(literal).then_some(at + literal.len())
}

/// Returns the end of a number: `-`, digits without a leading zero, fraction, exponent.
fn number_end(text: &[u8], at: usize) -> Option<usize> {
    let digits_end = |from: usize| {
        let count = text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    let begin = at + usize::from(text.get(at) == Some(&b'-'));
    let mut end = if text.get(begin) == Some(&b'0') { begin + 1 } else { digits_end(begin)? };
    if text.get(end) == Some(&b'.') {
        end = digits_end(end + 1)?;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        end = digits_end(end + 1 + sign)?;
    }
    Some(end)
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// Returns a word whose lowest set bit is in the first byte of `word` that ends a plain part of a string: a quote, a
/// backslash or a control character.
fn special_bytes(word: u64) -> u64 {
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    is_zero(word ^ (ONES * u64::from(b'"'))) | is_zero(word ^ (ONES * u64::from(b'\\'))) | below_space
}

/// Returns the end of a string, after its closing quote. `at` is after the opening one.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        // Eight bytes at a time; the last ones of the text one by one.
        while let Some(word) = text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()) {
            let special = special_bytes(u64::from_le_bytes(word));
            if special != 0 {
                at += special.trailing_zeros() as usize / 8;
                break;
            }
            at += 8;
        }
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at + 1)?,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// Returns the end of an escape sequence; `at` is after the backslash.
fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => text.get(at + 1..at + 5).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit)).map(|_| at + 5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::object::object_line;

    /// Returns the fields of an object and of the objects in it, as `path=value`.
    fn scanned(value: JsonValue<'_>, path: &str, all: &mut Vec<String>) {
        for field in value.fields() {
            let path = format!("{path}.{}", field.name());
            all.push(format!("{path}={}", field.value.raw()));
            scanned(field.value, &path, all);
        }
    }

    fn parsed(raw: &str, path: &str, all: &mut Vec<String>) {
        let Ok(object) = object_line(raw, "a", 1) else { return };
        for (name, value) in object.0 {
            let inside = format!("{path}.{name}");
            all.push(format!("{inside}={}", value.get()));
            if name != "schema" {
                parsed(value.get(), &inside, all);
            }
        }
    }

    fn check(scanner: &mut JsonScanner, text: &str) {
        let expected = object_line(text, "a", 1).is_ok().then(|| {
            let mut all = Vec::new();
            parsed(text, "", &mut all);
            all
        });
        let found = scanner.scan(text).map(|value| {
            let mut all = Vec::new();
            scanned(value, "", &mut all);
            all
        });
        assert_eq!(found, expected, "{text}");
    }

    /// JSON with few names, so that they repeat within and between objects.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("-0.5e+3".to_owned()),
            (0_u64..1000).prop_map(|number| number.to_string()),
            "[a-z\\u{e4} ]{0,20}".prop_map(|text| format!("\"{text}\"")),
            Just(r#""\"\\\/\u00e4\ud83d\ude00\n""#.to_owned()),
            Just("{}".to_owned()),
            Just("[]".to_owned()),
        ];
        let name = prop::sample::select(vec![
            "a",
            "b",
            "schema",
            "long name",
            r"\u0061",
            "\u{e4}",
            r#"a\":1,\"b"#,
            r"\n",
            r"\\",
        ]);
        let space = prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\t\r ")];
        let object = move |inner: BoxedStrategy<String>| {
            let field = (space.clone(), name.clone(), space.clone(), inner, space.clone());
            let field = field.prop_map(|(a, name, b, value, c)| format!("{a}\"{name}\"{b}:{c}{value}{a}"));
            prop::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(",")))
        };
        let of_object = object.clone();
        let inner = leaf.prop_recursive(4, 24, 4, move |inner| {
            let list = prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" ,")));
            prop_oneof![of_object(inner.boxed()), list]
        });
        object(inner.boxed())
    }

    proptest! {
        #[test]
        fn scanner_agrees_with_the_parser(
            texts in prop::collection::vec(json(), 1..8),
            damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\"\\{}[]:,09.-eE+u \n\x01nx".to_vec())), 0..3),
        ) {
            // One scanner, since the names of a text are expected in the next one.
            let mut scanner = JsonScanner::default();
            for text in &texts {
                check(&mut scanner, text);
            }
            for (at, byte) in damage {
                for text in &texts {
                    let mut bytes = text.clone().into_bytes();
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                    if let Ok(damaged) = String::from_utf8(bytes) {
                        check(&mut scanner, &damaged);
                    }
                    check(&mut scanner, &text[..text.floor_char_boundary(at)]);
                }
                check(&mut scanner, &texts[0]);
            }
        }
    }

    #[test]
    fn text_that_is_not_one_object_is_refused() {
        let mut scanner = JsonScanner::default();
        for text in
            ["", " ", "1", "[]", "null", "\"a\"", "{}{}", "{} x", "{", "{\"a\"", "{\"a\":", "{\"a\":-", "{\"a\":1,}"]
        {
            assert!(scanner.scan(text).is_none(), "{text}");
        }
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(scanner.scan(&nested(MAX_DEPTH)).is_some() && scanner.scan(&nested(MAX_DEPTH + 1)).is_none());
        check(&mut scanner, &nested(MAX_DEPTH));
        check(&mut scanner, &nested(MAX_DEPTH + 1));
    }

    #[test]
    fn repeated_schema_is_compared_as_a_whole() {
        let mut scanner = JsonScanner::default();
        for schema in ["{\"a\":[1]}", "{\"a\":[1]}", "{\"a\":[1],\"b\":2}", "{\"a\":[1]}", "null", "{\"a\":[1]}"] {
            let text = format!("{{\"schema\":{schema},\"payload\":{{\"a\":1}}}}");
            let value = scanner.scan(&text).expect("the text is an object");
            assert_eq!(value.get("schema").map(JsonValue::raw), Some(schema));
            assert_eq!(value.get("payload").and_then(|payload| payload.get("a")).map(JsonValue::raw), Some("1"));
        }
        assert!(scanner.scan("{\"schema\":{\"a\":[1]},\"payload\":{}}}").is_none());
        assert!(scanner.scan("{\"schema\":{\"a\":[1]}5}").is_none());
    }

    #[test]
    fn name_with_a_quote_is_not_expected_as_two_fields() {
        let mut scanner = JsonScanner::default();
        for text in [r#"{"a\":1,\"b":2}"#, r#"{"a":1,"b":2}"#, r#"{"a\":1,\"b":2}"#, r#"{"\n":1}"#, "{\"\n\":1}"] {
            check(&mut scanner, text);
        }
    }

    #[test]
    fn values_by_name_end_with_the_names() {
        let mut scanner = JsonScanner::default();
        let mut known = ByName::default();
        let value = scanner.scan("{\"a\":1,\"b\":2}").expect("the text is an object");
        value.fields().zip(["a", "b"]).for_each(|(field, name)| known.set(field, name));
        assert_eq!(value.fields().map(|field| known.get(field)).collect::<Vec<_>>(), [Some("a"), Some("b")]);
        scanner.names.resize_with(MAX_NAMES + 1, || FieldName::new(""));
        let value = scanner.scan("{\"b\":1,\"a\":2}").expect("the text is an object");
        assert!(value.fields().all(|field| known.get(field).is_none()));
        value.fields().zip(["b"]).for_each(|(field, name)| known.set(field, name));
        assert_eq!(value.fields().map(|field| known.get(field)).collect::<Vec<_>>(), [Some("b"), None]);
    }

    #[test]
    fn scanner_that_knows_too_many_names_forgets_them() {
        let mut scanner = JsonScanner::default();
        let generation = |scanner: &mut JsonScanner, text: &str| scanner.scan(text).map(JsonValue::generation);
        let many = |first: usize| {
            let fields: Vec<_> = (first..first + MAX_NAMES).map(|name| format!("\"{name}\":1")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert_eq!(generation(&mut scanner, &many(0)), Some(0));
        assert_eq!(generation(&mut scanner, "{\"a\":1}"), Some(1));
        assert_eq!(scanner.names.len(), 2);
    }
}
