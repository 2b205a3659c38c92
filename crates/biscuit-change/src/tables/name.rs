use std::collections::BTreeSet;
use std::fmt;

use biscuit_core::{Error, Result};

/// The name of a table in change files: its schema or database, where the records say one, and its own name. Either may contain
/// any character, dots included.
///
/// It is shown as `schema.table`; a part that contains a dot or a quote is in double quotes, so that two tables never have one name.
///
/// ```
/// use biscuit_change::TableName;
///
/// assert_eq!(TableName::new(Some("public"), "orders").to_string(), "public.orders");
/// assert_eq!(TableName::new(Some("a"), "b.c").to_string(), "a.\"b.c\"");
/// assert_eq!(TableName::new(Some("a.b"), "c").to_string(), "\"a.b\".c");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceTable {
    /// The database that the schema is in, where the records say both. It is part of what tells tables apart, and not of how they are shown.
    pub database: Option<String>,
    /// The schema or database; none where the records do not say it.
    pub schema: Option<String>,
    /// The table; empty where the records do not say it.
    pub table: String,
}

impl SourceTable {
    /// A name of these parts.
    pub fn new(schema: Option<&str>, table: &str) -> Self {
        Self { database: None, schema: schema.map(str::to_owned), table: table.to_owned() }
    }

    /// Whether this table is meant by a name that somebody wrote: as it is shown, as `schema.table` without quotes, or without its
    /// schema.
    pub fn is_meant_by(&self, wanted: &str) -> bool {
        let plain = |wanted: &str| match &self.schema {
            Some(schema) => {
                wanted.strip_prefix(schema.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(&self.table)
            }
            // Records that do not say a schema are those of the table, whatever schema was named.
            None => wanted.rsplit('.').next() == Some(&self.table),
        };
        let in_database =
            self.database.as_deref().and_then(|database| wanted.strip_prefix(database)?.strip_prefix('.'));
        wanted == self.table
            || plain(wanted)
            || in_database.is_some_and(plain)
            || wanted == self.to_string()
            || wanted == self.full()
    }

    /// The name with that of its database, where there is one.
    pub fn full(&self) -> String {
        match &self.database {
            Some(database) => format!("{}.{self}", part(database)),
            None => self.to_string(),
        }
    }
}

/// A part of a name as it is shown.
fn part(text: &str) -> String {
    match text.contains(['.', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

impl fmt::Display for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{}.{}", part(schema), part(&self.table)),
            None => f.write_str(&part(&self.table)),
        }
    }
}

/// Refuses records of several tables where those of one are wanted. Records without a schema are those of the table of that name.
///
/// # Errors
/// `SeveralTables`.
pub(crate) fn check_one(tables: &BTreeSet<SourceTable>) -> Result<()> {
    if is_one(tables) {
        return Ok(());
    }
    let databases: BTreeSet<&String> = tables.iter().filter_map(|t| t.database.as_ref()).collect();
    let name = if databases.len() > 1 { SourceTable::full } else { SourceTable::to_string };
    let names: Vec<String> = tables.iter().map(name).collect();
    Err(Error::usage("SeveralTables", format!("the files have several tables, name one of {}", names.join(", "))))
}

/// Whether these are names of one table.
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
    fn names_that_look_alike_are_told_apart() {
        let (one, other) = (SourceTable::new(Some("a"), "b.c"), SourceTable::new(Some("a.b"), "c"));
        assert!(one.is_meant_by("a.b.c") && other.is_meant_by("a.b.c"));
        assert!(one.is_meant_by("a.\"b.c\"") && !other.is_meant_by("a.\"b.c\""));
        assert!(!is_one(&BTreeSet::from([one, other])));
    }

    #[test]
    fn a_name_without_a_schema_is_that_of_the_table() {
        let name = SourceTable::new(None, "orders");
        assert!(name.is_meant_by("orders") && name.is_meant_by("public.orders") && !name.is_meant_by("orders.public"));
        assert!(is_one(&BTreeSet::from([name.clone(), SourceTable::new(Some("public"), "orders")])));
        let two = [SourceTable::new(Some("public"), "orders"), SourceTable::new(Some("audit"), "orders"), name];
        assert_eq!(check_one(&BTreeSet::from(two)).unwrap_err().code(), "SeveralTables");
    }
}
