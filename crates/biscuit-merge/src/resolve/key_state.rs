use crate::keys::record_order::RecordOrder;
use crate::target::rows::{CellLocation, RowRef};

/// A column that has another order than the rest of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnState {
    pub(crate) column: usize,
    pub(crate) order: RecordOrder,
    /// Where the value is; none for null.
    pub(crate) value: Option<RowRef>,
}

/// A key update: the row went to another key, and values of it may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyChangeState {
    /// The new key, encoded.
    pub(crate) to: std::sync::Arc<[u8]>,
    /// The order of the update.
    pub(crate) at: RecordOrder,
    /// Whether the create half was applied; then only the columns it asked for are kept, without values.
    pub(crate) applied: bool,
    /// Each column's order and value as they were before the update.
    pub(crate) columns: Vec<ColumnState>,
}

/// All that is known of one key: a row or none, and for every column the order of its value.
///
/// Each column is a register that the greatest order wins. `base` is the order of all columns that `columns` does not
/// name; where there is no row, it is the order of the delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyState {
    /// The order of the newest upsert; none where there is no row.
    pub(crate) live: Option<RecordOrder>,
    pub(crate) base: RecordOrder,
    /// Where the values of all other columns are; none for null.
    pub(crate) source: Option<RowRef>,
    pub(crate) columns: Vec<ColumnState>,
    pub(crate) key_changes: Vec<KeyChangeState>,
}

impl KeyState {
    /// A key that nobody has heard of.
    pub(crate) fn unknown() -> Self {
        Self { live: None, base: RecordOrder::oldest(), source: None, columns: vec![], key_changes: vec![] }
    }

    /// The order of a column's value, and where it is.
    pub(crate) fn column(&self, column: usize) -> (&RecordOrder, Option<RowRef>) {
        match self.columns.iter().find(|c| c.column == column) {
            Some(c) => (&c.order, c.value),
            None => (&self.base, self.source),
        }
    }

    pub(crate) fn set(&mut self, column: usize, order: &RecordOrder, value: Option<RowRef>) {
        match self.columns.iter_mut().find(|c| c.column == column) {
            Some(c) => (c.order, c.value) = (order.clone(), value),
            None => self.columns.push(ColumnState { column, order: order.clone(), value }),
        }
    }

    /// Raises the order of all columns but `except` to one record's; those that are newer stay, and the excepted keep
    /// what they have. Answers whether anything was set.
    pub(crate) fn set_all(&mut self, order: &RecordOrder, value: Option<RowRef>, except: &[usize]) -> bool {
        let raised = *order >= self.base;
        if raised {
            for &column in except {
                let (order, value) = self.column(column);
                let (order, value) = (order.clone(), value);
                self.set(column, &order, value);
            }
            (self.base, self.source) = (order.clone(), value);
        }
        let mut set = raised;
        for c in self.columns.iter_mut().filter(|c| !except.contains(&c.column) && c.order <= *order) {
            (c.order, c.value) = (order.clone(), value);
            set = true;
        }
        self.simplify();
        set
    }

    /// Sets everything older than a delete or truncate to null at its order; answers which columns were set, `None`
    /// standing for all that are not named.
    pub(crate) fn clear_older(&mut self, order: &RecordOrder) -> bool {
        let mut set = false;
        if self.base < *order {
            (self.base, self.source) = (order.clone(), None);
            set = true;
        }
        for c in self.columns.iter_mut().filter(|c| c.order < *order) {
            (c.order, c.value) = (order.clone(), None);
            set = true;
        }
        self.simplify();
        set
    }

    /// The row is gone since this order.
    pub(crate) fn remove(&mut self, order: &RecordOrder) {
        self.live = None;
        (self.base, self.source) = (order.clone(), None);
        self.columns.clear();
    }

    /// Columns that say the same as the rest of the row need no entry.
    fn simplify(&mut self) {
        let (base, source) = (&self.base, self.source);
        self.columns.retain(|c| c.order != *base || c.value != source);
    }

    /// Where every column of the row comes from.
    pub(crate) fn row(&self, columns: usize) -> CellLocation {
        if let (Some(source), true) = (self.source, self.columns.is_empty()) {
            return CellLocation::Row(source);
        }
        let mut row = vec![self.source; columns];
        for c in &self.columns {
            row[c.column] = c.value;
        }
        CellLocation::Each(row)
    }

    /// Whether the row says all of it: one order for everything, readable from its order columns.
    pub(crate) fn is_in_the_row(&self, stores_order: bool) -> bool {
        let one_order = self.live.as_ref() == Some(&self.base) && self.columns.iter().all(|c| c.order == self.base);
        let readable = self.base == RecordOrder::oldest() || (stores_order && self.base.is_plain());
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
    fn an_excepted_column_keeps_its_value_and_its_order() {
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
    fn a_late_delete_clears_only_what_is_older() {
        let mut s = KeyState::unknown();
        s.set_all(&order(1), at(1), &[]);
        s.set(0, &order(5), at(5));
        assert!(s.clear_older(&order(3)));
        assert_eq!((s.column(0), s.column(1)), ((&order(5), at(5)), (&order(3), None)));
        assert!(!s.clear_older(&order(2)));
    }
}
