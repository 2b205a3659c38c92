//! Limits of depth and width for schemas and JSON from outside, and checks that do not recurse.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use biscuit_core::{Error, Result};

use crate::codes;

/// Maximum depth of nested values: JSON in a line of input, and types in a schema, a contract or a type name.
///
/// Code for nested values recurses once or several times for each level. 64 levels take less than a quarter of a
/// stack of 2 MiB, the stack size of threads in an asynchronous runtime, even without optimization.
pub const MAX_DEPTH: usize = 64;

/// Maximum number of columns of a table, including the fields of structs, lists and maps.
pub const MAX_FIELDS: usize = 10_000;

/// Returns whether a JSON text is nested deeper than [`MAX_DEPTH`]. It does not recurse. Text that is not JSON is
/// left to the parser.
///
/// ```
/// use biscuit_schema::internal::{MAX_DEPTH, is_too_deep};
///
/// let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
/// assert!(!is_too_deep(nested(MAX_DEPTH).as_bytes()));
/// assert!(is_too_deep(nested(MAX_DEPTH + 1).as_bytes()));
/// assert!(!is_too_deep(format!("\"{}\\\"[\"", "[".repeat(100)).as_bytes()));
/// ```
pub fn is_too_deep(json: &[u8]) -> bool {
    // Text with at most `MAX_DEPTH` brackets cannot be too deep. Most lines of input return here, after one fast
    // scan.
    if json.iter().filter(|b| matches!(b, b'[' | b'{')).take(MAX_DEPTH + 1).count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in json {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Returns at most the first 200 characters of a text, for a message.
pub(crate) fn shorten(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Depth and number of types that a type parser has read. The parser recurses for each level and compares the names
/// of each struct, so both are limited.
#[derive(Debug, Default)]
pub(crate) struct ParseDepth {
    depth: usize,
    fields: usize,
}

impl ParseDepth {
    /// Enters a level. The caller leaves it with [`leave`](Self::leave).
    ///
    /// # Errors
    /// `SchemaTooLarge`.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        self.fields += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::new(codes::SCHEMA_TOO_LARGE, too_deep("the type").message()));
        }
        if self.fields > MAX_FIELDS {
            return Err(Error::new(
                codes::SCHEMA_TOO_LARGE,
                format!("the type has more than {MAX_FIELDS} nested fields"),
            ));
        }
        Ok(())
    }

    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }
}

/// Returns the error for JSON that is nested too deep. The caller adds the place.
pub fn too_deep(what: &str) -> Error {
    Error::new(codes::TOO_DEEP, format!("{what} is nested deeper than {MAX_DEPTH} levels"))
}

/// Checks that a schema has at most [`MAX_FIELDS`] columns and nested fields, in at most [`MAX_DEPTH`] levels.
/// Messages name the schema by `what`.
///
/// # Errors
/// `TooManyColumns`, `TooDeep`.
pub fn check_size(schema: &Schema, what: &str) -> Result<()> {
    check_fields(schema.fields(), what)
}

/// Like [`check_size`], for one type.
///
/// # Errors
/// See [`check_size`].
pub(crate) fn check_type_size(t: &DataType, what: &str) -> Result<()> {
    check_all(child_fields(t).map(|f| (1, f)), what)
}

fn check_fields(fields: &Fields, what: &str) -> Result<()> {
    check_all(fields.iter().map(|f| (1, f.as_ref())), what)
}

/// Depth-first traversal with an explicit stack. A type can share the same part many times (`Arc`), so that its
/// number of fields is exponential in its size; the traversal ends at the limit.
fn check_all<'a>(fields: impl Iterator<Item = (usize, &'a Field)>, what: &str) -> Result<()> {
    let mut todo: Vec<(usize, &Field)> = fields.collect();
    let mut met = todo.len();
    while let Some((depth, field)) = todo.pop() {
        if met > MAX_FIELDS {
            let message = format!("{what} has more than {MAX_FIELDS} columns and nested fields");
            return Err(Error::new(codes::TOO_MANY_COLUMNS, message));
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(what));
        }
        let before = todo.len();
        todo.extend(child_fields(field.data_type()).map(|child| (depth + 1, child)));
        met += todo.len() - before;
    }
    if met > MAX_FIELDS {
        let message = format!("{what} has more than {MAX_FIELDS} columns and nested fields");
        return Err(Error::new(codes::TOO_MANY_COLUMNS, message));
    }
    Ok(())
}

fn child_fields(t: &DataType) -> Box<dyn Iterator<Item = &Field> + '_> {
    match t {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _)
        | DataType::RunEndEncoded(_, f) => Box::new(std::iter::once(f.as_ref())),
        // The struct of map entries counts neither as a level nor as a field.
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(fields) => Box::new(fields.iter().map(AsRef::as_ref)),
            _ => Box::new(std::iter::once(entry.as_ref())),
        },
        DataType::Struct(fields) => Box::new(fields.iter().map(AsRef::as_ref)),
        DataType::Union(fields, _) => Box::new(fields.iter().map(|(_, f)| f.as_ref())),
        DataType::Dictionary(_, value) => child_fields(value),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> DataType {
        (0..levels).fold(DataType::Int32, |t, _| DataType::List(Field::new("element", t, true).into()))
    }

    #[test]
    fn schema_at_the_limits_is_accepted_and_beyond_is_refused() {
        let of = |t: DataType| check_size(&Schema::new(vec![Field::new("v", t, true)]), "it").map_err(|e| e.code());
        assert_eq!(of(nested(MAX_DEPTH - 1)), Ok(()));
        assert_eq!(of(nested(MAX_DEPTH)), Err("TooDeep"));
        let wide = |n: usize| {
            let fields = (0..n).map(|i| Field::new(i.to_string(), DataType::Int32, true)).collect::<Vec<_>>();
            check_size(&Schema::new(fields), "it").map_err(|e| e.code())
        };
        assert_eq!((wide(MAX_FIELDS), wide(MAX_FIELDS + 1)), (Ok(()), Err("TooManyColumns")));
    }

    #[test]
    fn exponentially_large_type_is_refused_at_the_limit() {
        let twice = |t: DataType| DataType::Struct(["a", "b"].map(|n| Field::new(n, t.clone(), true)).to_vec().into());
        let doubled = (0..60).fold(DataType::Int32, |t, _| twice(t));
        assert_eq!(check_type_size(&doubled, "it").unwrap_err().code(), "TooManyColumns");
    }
}
