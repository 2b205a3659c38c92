//! The state of a key: one last-writer-wins register for each column.
//! A register takes a value if its order is not less than its own order. So the final state does not depend on the
//! order in which records are applied, and a replay changes nothing.

use crate::keys::record_order::RecordOrder;
use crate::resolve::target_rows::{CellLocation, RowRef};
use crate::spec::MergeSpec;

/// A register: a column whose order or value differs from the rest of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct ColumnState {
    /// Index of the column in the table.
    pub column: usize,
    /// Order of the value.
    pub order: RecordOrder,
    /// Location of the value; `None` for null.
    pub value: Option<RowRef>,
}

/// A key change, seen from the old key: the row moved to another key, and records of the new key may ask for its
/// values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct KeyChangeState {
    /// The new key, encoded.
    pub to: std::sync::Arc<[u8]>,
    /// Order of the key change. Both halves have it.
    pub at: RecordOrder,
    /// Whether the create half was applied. Then `columns` has only the columns that it asked for, and their values
    /// are no longer stored.
    pub applied: bool,
    /// The image: orders and values of the columns before the key change.
    pub columns: Vec<ColumnState>,
}

/// Everything that is known of a key: whether it has a row, and the order of each column.
///
/// Each column is a last-writer-wins register. `columns` has the registers whose order or value differs from the rest
/// of the row. All other columns have the order `base` and the value from the row `source`, also columns that the
/// table gets later. Without a row, `base` is the order of the delete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct KeyState {
    /// Order of the newest upsert; `None` if the key has no row.
    pub live: Option<RecordOrder>,
    /// Order of all columns that are not in `columns`; without a row, the order of the delete.
    pub base: RecordOrder,
    /// Row with the values of all other columns; `None` for nulls.
    pub source: Option<RowRef>,
    /// Columns whose order or value differs from the rest of the row.
    pub columns: Vec<ColumnState>,
    /// Key changes from this key to others that are still needed.
    pub key_changes: Vec<KeyChangeState>,
}

impl KeyState {
    /// Returns the state of a key without row and without key metadata.
    pub fn unknown() -> Self {
        Self { live: None, base: RecordOrder::oldest(), source: None, columns: vec![], key_changes: vec![] }
    }

    /// Returns the order and the value of a column.
    pub fn column(&self, column: usize) -> (&RecordOrder, Option<RowRef>) {
        match self.columns.iter().find(|c| c.column == column) {
            Some(c) => (&c.order, c.value),
            None => (&self.base, self.source),
        }
    }

    /// Sets the register of a column, whatever its order is.
    pub fn set_column(&mut self, column: usize, order: &RecordOrder, value: Option<RowRef>) {
        match self.columns.iter_mut().find(|c| c.column == column) {
            Some(c) => (c.order, c.value) = (order.clone(), value),
            None => self.columns.push(ColumnState { column, order: order.clone(), value }),
        }
    }

    /// Gives all columns except `except` to a record with this order. Registers with a greater order keep their
    /// value. Columns in `except` keep their order and value. Returns whether a register was set.
    pub fn set_all(&mut self, order: &RecordOrder, value: Option<RowRef>, except: &[usize]) -> bool {
        let raised = *order >= self.base;
        if raised {
            // `base` is about to change: write down the excepted columns that had it.
            for &column in except {
                let (order, value) = self.column(column);
                let (order, value) = (order.clone(), value);
                self.set_column(column, &order, value);
            }
            (self.base, self.source) = (order.clone(), value);
        }
        let mut set = raised;
        for c in self.columns.iter_mut().filter(|c| !except.contains(&c.column) && c.order <= *order) {
            (c.order, c.value) = (order.clone(), value);
            set = true;
        }
        self.drop_redundant_columns();
        set
    }

    /// Sets all registers that are older than a delete or truncate to null, at its order. Returns whether a register
    /// was set.
    pub fn clear_older(&mut self, order: &RecordOrder) -> bool {
        let mut set = false;
        if self.base < *order {
            (self.base, self.source) = (order.clone(), None);
            set = true;
        }
        for c in self.columns.iter_mut().filter(|c| c.order < *order) {
            (c.order, c.value) = (order.clone(), None);
            set = true;
        }
        self.drop_redundant_columns();
        set
    }

    /// Removes the row, at this order.
    pub fn remove_row(&mut self, order: &RecordOrder) {
        self.live = None;
        (self.base, self.source) = (order.clone(), None);
        self.columns.clear();
    }

    /// Removes registers that equal the rest of the row. States that mean the same have to be equal, since unchanged
    /// key metadata is recognised by comparison.
    fn drop_redundant_columns(&mut self) {
        let (base, source) = (&self.base, self.source);
        self.columns.retain(|c| c.order != *base || c.value != source);
    }

    /// Returns where the values of the row are.
    pub fn row_location(&self, columns: usize) -> CellLocation {
        if let (Some(source), true) = (self.source, self.columns.is_empty()) {
            return CellLocation::Row(source);
        }
        let mut row = vec![self.source; columns];
        for c in &self.columns {
            row[c.column] = c.value;
        }
        CellLocation::Each(row)
    }

    /// Whether the stored row alone determines the state: all columns have the order of the row, and this order can
    /// be read from its order columns. Then no key metadata is stored.
    pub fn is_in_the_row(&self, spec: &MergeSpec) -> bool {
        let one_order = self.live.as_ref() == Some(&self.base) && self.columns.iter().all(|c| c.order == self.base);
        let readable = self.base == RecordOrder::oldest() || (spec.stores_order() && self.base.is_plain());
        one_order && readable && self.key_changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: u8) -> RecordOrder {
        RecordOrder::new(1, &[n], 0)
    }

    fn at(row: u32) -> Option<RowRef> {
        Some(RowRef { table: 0, row })
    }

    #[test]
    fn excepted_column_keeps_its_value_and_order() {
        let mut s = KeyState::unknown();
        s.set_all(&order(1), at(1), &[]);
        s.set_all(&order(5), at(5), &[2]);
        assert_eq!(s.column(2), (&order(1), at(1)));
        assert_eq!(s.column(0), (&order(5), at(5)));
        s.set_all(&order(3), at(3), &[]);
        assert_eq!(s.column(2), (&order(3), at(3)));
        assert_eq!(s.column(0), (&order(5), at(5)));
    }

    #[test]
    fn late_delete_clears_only_older_columns() {
        let mut s = KeyState::unknown();
        s.set_all(&order(1), at(1), &[]);
        s.set_column(0, &order(5), at(5));
        assert!(s.clear_older(&order(3)));
        assert_eq!((s.column(0), s.column(1)), ((&order(5), at(5)), (&order(3), None)));
        assert!(!s.clear_older(&order(2)));
    }
}
