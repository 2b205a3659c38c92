//! Names of source tables: how they are compared, shown and matched by names that a user gave.

use std::collections::BTreeSet;
use std::fmt;

use biscuit_core::{Error, Result};

use crate::codes;

/// Name of a table in change files: its schema or database, if the records contain one, and its own name. Both may
/// contain any character, including dots.
///
/// The name is shown as `schema.table`. A part that contains a dot or a quote is shown in double quotes, so that two
/// tables never have the same text.
///
/// ```
/// use biscuit_change::SourceTable;
///
/// assert_eq!(SourceTable::new(Some("public"), "orders").to_string(), "public.orders");
/// assert_eq!(SourceTable::new(Some("a"), "b.c").to_string(), "a.\"b.c\"");
/// assert_eq!(SourceTable::new(Some("a.b"), "c").to_string(), "\"a.b\".c");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SourceTable {
    /// Database of the schema, if the records contain both. It distinguishes tables, but `Display` does not show it.
    pub database: Option<String>,
    /// Schema or database; `None` if the records do not contain it.
    pub schema: Option<String>,
    /// Name of the table; empty if the records do not contain it.
    pub table: String,
}

impl SourceTable {
    /// Creates a name without a database.
    pub fn new(schema: Option<&str>, table: &str) -> Self {
        Self { database: None, schema: schema.map(str::to_owned), table: table.to_owned() }
    }

    /// Returns whether a name that a user wrote means this table: the name as it is shown, `schema.table` or
    /// `database.schema.table` without quotes, or the name without the schema.
    pub fn is_meant_by(&self, wanted: &str) -> bool {
        let plain = |wanted: &str| match &self.schema {
            Some(schema) => {
                wanted.strip_prefix(schema.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(&self.table)
            }
            // A record without a schema matches any schema in the name.
            None => wanted.rsplit('.').next() == Some(&self.table),
        };
        let in_database =
            self.database.as_deref().and_then(|database| wanted.strip_prefix(database)?.strip_prefix('.'));
        wanted == self.table
            || plain(wanted)
            || in_database.is_some_and(plain)
            || wanted == self.to_string()
            || wanted == self.full_name()
    }

    /// Returns the name with the database in front, if there is one.
    pub fn full_name(&self) -> String {
        match &self.database {
            Some(database) => format!("{}.{self}", quote_part(database)),
            None => self.to_string(),
        }
    }
}

/// Quotes a part of a name if it contains a dot or a quote.
fn quote_part(text: &str) -> String {
    match text.contains(['.', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

impl fmt::Display for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{}.{}", quote_part(schema), quote_part(&self.table)),
            None => f.write_str(&quote_part(&self.table)),
        }
    }
}

/// Refuses records of several tables. Records without a schema belong to the table of the same name.
///
/// # Errors
/// `SeveralTables`.
pub(crate) fn check_one(tables: &BTreeSet<SourceTable>) -> Result<()> {
    if is_one(tables) {
        return Ok(());
    }
    let databases: BTreeSet<&String> = tables.iter().filter_map(|t| t.database.as_ref()).collect();
    let name = if databases.len() > 1 { SourceTable::full_name } else { SourceTable::to_string };
    let names: Vec<String> = tables.iter().map(name).collect();
    Err(Error::new(
        codes::SEVERAL_TABLES,
        format!("the files have records of several tables; name one of {}", names.join(", ")),
    ))
}

/// Returns whether all names mean one table: names without schema or database match any.
pub(crate) fn is_one(tables: &BTreeSet<SourceTable>) -> bool {
    let schemas: BTreeSet<&String> = tables.iter().filter_map(|t| t.schema.as_ref()).collect();
    let databases: BTreeSet<&String> = tables.iter().filter_map(|t| t.database.as_ref()).collect();
    tables.iter().all(|t| Some(&t.table) == tables.first().map(|first| &first.table))
        && schemas.len() < 2
        && databases.len() < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_are_told_apart() {
        let (one, other) = (SourceTable::new(Some("a"), "b.c"), SourceTable::new(Some("a.b"), "c"));
        assert!(one.is_meant_by("a.b.c") && other.is_meant_by("a.b.c"));
        assert!(one.is_meant_by("a.\"b.c\"") && !other.is_meant_by("a.\"b.c\""));
        assert!(!is_one(&BTreeSet::from([one, other])));
    }

    #[test]
    fn name_without_a_schema_matches_any_schema() {
        let name = SourceTable::new(None, "orders");
        assert!(name.is_meant_by("orders") && name.is_meant_by("public.orders") && !name.is_meant_by("orders.public"));
        assert!(is_one(&BTreeSet::from([name.clone(), SourceTable::new(Some("public"), "orders")])));
        let two = [SourceTable::new(Some("public"), "orders"), SourceTable::new(Some("audit"), "orders"), name];
        assert_eq!(check_one(&BTreeSet::from(two)).unwrap_err().code(), "SeveralTables");
    }
}
