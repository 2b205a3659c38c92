//! Path templates: names from data become parts of a path and cannot leave it.

use std::collections::BTreeMap;

use biscuit_core::{Error, Result};
use biscuit_journal::internal::MAX_NAME;

use crate::codes;
use crate::paths::hive::escape;

/// A path or URL with placeholders for names from data, such as `s3://bucket/lake/{schema}/{table}`.
///
/// A name becomes a part of one path segment: other characters are escaped as in partition folders, and a name that
/// cannot be a folder is refused. Therefore the result is always below the folder in front of the first placeholder.
///
/// ```
/// use biscuit_dataset::PathTemplate;
///
/// let target = PathTemplate::new("lake/{schema}/{table}");
/// assert_eq!(target.fill(&[("schema", "public"), ("table", "a/b")])?, "lake/public/a%2Fb");
/// assert_eq!(target.fill(&[("schema", ".."), ("table", "t")]).unwrap_err().code(), "InvalidName");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate(String);

impl PathTemplate {
    /// Creates a template from a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns whether the template contains the placeholder `place`.
    pub fn has_placeholder(&self, place: &str) -> bool {
        self.0.contains(&format!("{{{place}}}"))
    }

    /// Fills the placeholders with names. Braces with another content remain as they are.
    ///
    /// # Errors
    /// `InvalidName` for a name that is empty, begins with a dot, or begins or ends with a space; `NameTooLong` for a
    /// segment of more than 255 bytes.
    pub fn fill(&self, names: &[(&str, &str)]) -> Result<String> {
        let names: BTreeMap<&str, &str> = names.iter().copied().collect();
        // A single pass, so that a name that looks like a placeholder is not filled.
        let (mut out, mut rest) = (String::new(), self.0.as_str());
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            out.push_str(before);
            let place = from[1..].split_once('}').and_then(|(place, after)| Some((place, names.get(place)?, after)));
            match place {
                Some((place, name, after)) => {
                    out.push_str(&escape_segment(place, name)?);
                    rest = after;
                }
                None => {
                    out.push('{');
                    rest = &from[1..];
                }
            }
        }
        out.push_str(rest);
        match out.split('/').find(|segment| segment.len() > MAX_NAME) {
            None => Ok(out),
            Some(long) => {
                let message = format!(
                    "a name from the data makes a path segment of {} bytes in `{}`; the maximum is {MAX_NAME}",
                    long.len(),
                    self.0
                );
                Err(Error::new(biscuit_core::codes::NAME_TOO_LONG, message))
            }
        }
    }
}

/// Escapes a name as a part of a segment.
fn escape_segment(place: &str, name: &str) -> Result<String> {
    let refused = |what: &str| {
        let message = format!("the {place} of the records is {what}, which cannot be part of a path");
        Err(Error::new(codes::INVALID_NAME, message).with_detail("name", name))
    };
    match name {
        "" => refused("empty"),
        _ if name.starts_with('.') => refused("a name that begins with a dot"),
        _ if name.trim() != name => refused("a name that begins or ends with a space"),
        _ => Ok(escape(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(schema: &str, table: &str) -> Result<String, &'static str> {
        let template = PathTemplate::new("lake/{schema}/x-{table}");
        template.fill(&[("schema", schema), ("table", table)]).map_err(|e| e.code())
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(fill("public", "orders").unwrap(), "lake/public/x-orders");
        assert_eq!(fill("a/b", "c\\d").unwrap(), "lake/a%2Fb/x-c%5Cd");
        assert_eq!(fill("a\n", "b"), Err("InvalidName"));
        assert_eq!(fill("a\u{1}b", "%2e%2e").unwrap(), "lake/a%01b/x-%252e%252e");
        for name in ["", ".", "..", "../x", ".biscuit", " ", " a", "a "] {
            assert_eq!(fill(name, "t"), Err("InvalidName"), "{name}");
            assert_eq!(fill("s", name), Err("InvalidName"), "{name}");
        }
    }

    #[test]
    fn name_that_looks_like_a_placeholder_is_not_filled() {
        assert_eq!(fill("{table}", "t").unwrap(), "lake/%7Btable}/x-t");
        assert_eq!(PathTemplate::new("{a}/{b").fill(&[("b", "x")]).unwrap(), "{a}/{b");
    }

    #[test]
    fn segments_have_the_maximum_length_of_file_systems() {
        assert!(fill(&"x".repeat(255), "t").is_ok());
        assert_eq!(fill(&"x".repeat(256), "t"), Err("NameTooLong"));
        assert_eq!(fill("s", &"x".repeat(254)), Err("NameTooLong"));
    }
}
