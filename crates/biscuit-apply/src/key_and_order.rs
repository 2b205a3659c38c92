//! Precedence of the key and the order of a merge, which several places may name.

use biscuit_change::ChangeFormat;
use biscuit_schema::Contract;

/// Key and order columns from one place. A list is empty if the place does not name any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a key and an order are all that a merge needs")]
pub struct KeyAndOrderColumns {
    /// Columns that identify an entity.
    pub key: Vec<String>,
    /// Columns that order the changes of an entity.
    pub order: Vec<String>,
}

impl KeyAndOrderColumns {
    /// Returns the part that is missing, as the name of its option: `key` or `order`.
    pub fn missing_option(&self) -> Option<&'static str> {
        match (self.key.is_empty(), self.order.is_empty()) {
            (true, _) => Some("key"),
            (false, true) => Some("order"),
            (false, false) => None,
        }
    }
}

/// All places that may name the key and the order of a merge.
///
/// The key comes from the first of: the options of the run, the contract, the records, and the earlier merges of the
/// table. So does the order, except for formats whose reader decides it: the readers of Debezium and DMS have applied
/// the options and the contract already, and name the columns in which the order is stored.
///
/// ```
/// use biscuit_apply::{KeyAndOrderColumns, KeyAndOrderSources};
///
/// let columns = |key: &str, order: &str| KeyAndOrderColumns { key: vec![key.into()], order: vec![order.into()] };
/// let mut sources = KeyAndOrderSources::default();
/// sources.options = KeyAndOrderColumns { key: vec!["id".into()], order: vec!["source.lsn".into()] };
/// sources.records = Some(columns("pk", "__source_lsn"));
/// sources.table = columns("id", "__source_lsn");
///
/// assert_eq!(sources.resolve(), columns("id", "__source_lsn"));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KeyAndOrderSources {
    /// Columns that the options of the run name.
    pub options: KeyAndOrderColumns,
    /// Columns that the contract names.
    pub contract: KeyAndOrderColumns,
    /// Columns that the reader of the records names; `None` for plain rows, whose reader does not decide the order.
    pub records: Option<KeyAndOrderColumns>,
    /// Columns of the earlier merges of the table.
    pub table: KeyAndOrderColumns,
}

impl KeyAndOrderSources {
    /// Sets the columns of a contract, if there is one.
    #[must_use]
    pub fn with_contract(mut self, contract: Option<&Contract>) -> Self {
        if let Some(contract) = contract {
            self.contract = KeyAndOrderColumns { key: contract.key.clone(), order: contract.order.clone() };
        }
        self
    }

    /// Sets the columns that the reader of a format named, such as those of
    /// [`ChangeRecords`](biscuit_change::ChangeRecords). For plain rows this changes nothing.
    #[must_use]
    pub fn with_records(mut self, format: &ChangeFormat, key: &[String], order: &[String]) -> Self {
        if !matches!(format, ChangeFormat::Rows(_)) {
            self.records = Some(KeyAndOrderColumns { key: key.to_vec(), order: order.to_vec() });
        }
        self
    }

    /// Sets the columns of the earlier merges of the table, as [`merged_by`](crate::merged_by) returns them.
    #[must_use]
    pub fn with_table(mut self, merged_by: Option<(Vec<String>, Vec<String>)>) -> Self {
        if let Some((key, order)) = merged_by {
            self.table = KeyAndOrderColumns { key, order };
        }
        self
    }

    /// Returns the key and the order. Either is empty if no place names it.
    pub fn resolve(&self) -> KeyAndOrderColumns {
        let (options, contract, table) = (&self.options, &self.contract, &self.table);
        let of_records = self.records.clone().unwrap_or_default();
        let key = first_non_empty([&options.key, &contract.key, &of_records.key, &table.key]);
        let order = match &self.records {
            Some(records) => first_non_empty([&records.order, &table.order]),
            None => first_non_empty([&options.order, &contract.order, &table.order]),
        };
        KeyAndOrderColumns { key, order }
    }
}

/// Returns the first list that is not empty.
fn first_non_empty<const N: usize>(choices: [&Vec<String>; N]) -> Vec<String> {
    choices.into_iter().find(|columns| !columns.is_empty()).cloned().unwrap_or_default()
}

/// Returns the partition columns of a merge: the named ones, or else those of the contract.
pub fn partition_columns(named: &[String], contract: Option<&Contract>) -> Vec<String> {
    match (named, contract) {
        ([], Some(contract)) => contract.partition_by.clone(),
        _ => named.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(key: &str, order: &str) -> KeyAndOrderColumns {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        KeyAndOrderColumns { key: list(key), order: list(order) }
    }

    fn resolved(options: &str, contract: &str, records: Option<&str>, table: &str) -> KeyAndOrderColumns {
        let each = |name: &str| columns(name, name);
        let sources = KeyAndOrderSources {
            options: each(options),
            contract: each(contract),
            records: records.map(each),
            table: each(table),
        };
        sources.resolve()
    }

    #[test]
    fn options_precede_the_contract_which_precedes_the_table() {
        assert_eq!(resolved("a", "b", None, "d"), columns("a", "a"));
        assert_eq!(resolved("", "b", None, "d"), columns("b", "b"));
        assert_eq!(resolved("", "", None, "d"), columns("d", "d"));
        assert_eq!(resolved("", "", None, "").missing_option(), Some("key"));
    }

    #[test]
    fn the_order_of_a_reader_precedes_the_options_that_it_has_applied() {
        assert_eq!(resolved("a", "b", Some("c"), "d"), columns("a", "c"));
        assert_eq!(resolved("", "", Some("c"), "d"), columns("c", "c"));
        // A reader that had no records names nothing: the table knows the columns that it stored before.
        assert_eq!(resolved("a", "b", Some(""), "d"), columns("a", "d"));
        assert_eq!(resolved("a", "", Some(""), "").missing_option(), Some("order"));
    }
}
