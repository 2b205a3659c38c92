use std::fmt;
use std::str::FromStr;

use biscuit_core::Error;

use crate::codes;

/// Name of a table in a catalog, written as `database.table`.
///
/// ```
/// use biscuit_catalog::TableName;
///
/// let table: TableName = "lake.orders".parse()?;
/// assert_eq!((table.database.as_str(), table.table.as_str()), ("lake", "orders"));
/// assert_eq!("orders".parse::<TableName>().unwrap_err().code(), "InvalidTableName");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct TableName {
    /// Name of the database.
    pub database: String,
    /// Name of the table in the database.
    pub table: String,
}

impl FromStr for TableName {
    type Err = Error;

    /// Parses `database.table`.
    ///
    /// # Errors
    /// `InvalidTableName` if the text is not two names with one dot between them.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('.') {
            Some((database, table)) if !database.is_empty() && !table.is_empty() && !table.contains('.') => {
                Ok(Self { database: database.to_owned(), table: table.to_owned() })
            }
            _ => Err(Error::new(
                codes::INVALID_TABLE_NAME,
                format!("`{text}` is not the name of a catalog table; write DATABASE.TABLE"),
            )),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_name_requires_a_database() {
        let table: TableName = "lake.orders".parse().unwrap();
        assert_eq!(
            (table.database.as_str(), table.table.as_str(), table.to_string().as_str()),
            ("lake", "orders", "lake.orders")
        );
        for wrong in ["orders", ".orders", "lake.", "a.b.c", ""] {
            assert_eq!(wrong.parse::<TableName>().unwrap_err().code(), "InvalidTableName", "{wrong}");
        }
    }
}
