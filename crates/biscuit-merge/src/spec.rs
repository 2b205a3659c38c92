//! The specification of a merge: key, order, and the choices of the merge contract.

use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Columns in which a null of a change record means *unchanged value* instead of null.
///
/// ```
/// use biscuit_merge::IgnoreNull;
///
/// let some = IgnoreNull::named(&["email".to_owned()]);
/// assert!(some.covers("email") && !some.covers("name"));
/// assert_eq!(IgnoreNull::named(&["*".to_owned()]), IgnoreNull::All);
/// assert_eq!(IgnoreNull::named(&[]), IgnoreNull::None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IgnoreNull {
    /// No column: nulls are stored.
    #[default]
    None,
    /// All columns.
    All,
    /// The columns with these names.
    Columns(Vec<String>),
}

impl IgnoreNull {
    /// Returns the columns with these names. `*` means all columns, an empty list none.
    pub fn named(columns: &[String]) -> Self {
        match columns {
            [] => Self::None,
            names if names.iter().any(|n| n == "*") => Self::All,
            names => Self::Columns(names.to_vec()),
        }
    }

    /// Returns whether a null in `column` means *unchanged value*.
    pub fn covers(&self, column: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Columns(names) => names.iter().any(|n| n == column),
        }
    }
}

/// How long tombstones are remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TombstonePolicy {
    /// For ever: an older record never restores the row.
    #[default]
    Keep,
    /// Not at all: a late record restores a deleted row, as in the original `merge_and_retain_last`.
    Forget,
}

/// Handling of a record that has the order of stored content and different values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TiePolicy {
    /// The record replaces the stored content. Its verdict is *corrected*.
    #[default]
    LaterRunWins,
    /// The run fails with `AmbiguousOrder`.
    Fail,
}

/// Whether the records of a run yield to newer stored content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OrderAuthority {
    /// They do: the greater order wins.
    #[default]
    Order,
    /// They do not. The newest record of each key in the run gets the greater of two orders: its own, and that of the
    /// row, tombstone or truncate that it replaces. For reloading keys whose rows or deletes are known to be wrong.
    Reload,
}

/// How change records become rows.
///
/// ```
/// use biscuit_merge::{IgnoreNull, MergeSpec};
///
/// let spec = MergeSpec::new(["customer", "order_no"], ["lsn"])?
///     .with_ignore_null(IgnoreNull::All)
///     .with_drop_columns(["lsn"]);
/// assert!(spec.is_repeatable());
/// assert!(!spec.stores_order());
///
/// let twice = MergeSpec::new(["id", "id"], ["lsn"]);
/// assert_eq!(twice.unwrap_err().code(), "InvalidArguments");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct MergeSpec {
    /// Columns that identify an entity.
    pub key: Vec<String>,
    /// Columns that order the changes of an entity. They are compared one after the other, each by its type.
    pub order: Vec<String>,
    /// Operation codes in lower case. Of two records with equal order columns, the record whose code is later in this
    /// list wins. Default: empty, so that codes are not compared.
    pub op_rank: Vec<String>,
    /// Columns in which a null means *unchanged value*. Default: none.
    pub ignore_null: IgnoreNull,
    /// Columns of the records that are used, for example as order, and not stored. Default: none.
    pub drop_columns: Vec<String>,
    /// How long tombstones are remembered. Default: for ever.
    pub tombstones: TombstonePolicy,
    /// Handling of a record with the order of stored content and different values. Default: the later run wins.
    pub ties: TiePolicy,
    /// Whether the records yield to newer stored content. Default: they do.
    pub authority: OrderAuthority,
}

impl MergeSpec {
    /// Creates a specification with these key and order columns, and defaults for everything else.
    ///
    /// # Errors
    /// `InvalidArguments` if the key or the order is empty, or names a column twice.
    pub fn new<K: Into<String>, O: Into<String>>(
        key: impl IntoIterator<Item = K>,
        order: impl IntoIterator<Item = O>,
    ) -> Result<Self> {
        let key: Vec<String> = key.into_iter().map(Into::into).collect();
        let order: Vec<String> = order.into_iter().map(Into::into).collect();
        for (what, columns) in [("key", &key), ("order", &order)] {
            if columns.is_empty() {
                return Err(Error::new(
                    biscuit_core::codes::INVALID_ARGUMENTS,
                    format!("the {what} is empty; name at least one column"),
                ));
            }
            if let Some((_, twice)) = columns.iter().enumerate().find(|(i, c)| columns[..*i].contains(c)) {
                return Err(Error::new(
                    biscuit_core::codes::INVALID_ARGUMENTS,
                    format!("the {what} names the column `{twice}` twice"),
                ));
            }
        }
        Ok(Self {
            key,
            order,
            op_rank: vec![],
            ignore_null: IgnoreNull::None,
            drop_columns: vec![],
            tombstones: TombstonePolicy::Keep,
            ties: TiePolicy::LaterRunWins,
            authority: OrderAuthority::Order,
        })
    }

    /// Ranks operation codes, in any case. Of two records with equal order columns, the record whose code is later in
    /// the list wins. A record with a code that is not in the list is invalid. Default: codes are not compared.
    pub fn with_op_rank<S: AsRef<str>>(mut self, codes: impl IntoIterator<Item = S>) -> Self {
        self.op_rank = codes.into_iter().map(|c| c.as_ref().to_lowercase()).collect();
        self
    }

    /// Sets the columns in which a null means *unchanged value*. Default: none, so that nulls are stored.
    pub fn with_ignore_null(mut self, columns: IgnoreNull) -> Self {
        self.ignore_null = columns;
        self
    }

    /// Sets columns of the records that are used and not stored. A key column cannot be dropped. Default: none.
    pub fn with_drop_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.drop_columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how long tombstones are remembered. Default: for ever.
    pub fn with_tombstones(mut self, tombstones: TombstonePolicy) -> Self {
        self.tombstones = tombstones;
        self
    }

    /// Sets what happens to a record with the order of stored content and different values. Default: the later run
    /// wins.
    pub fn with_ties(mut self, ties: TiePolicy) -> Self {
        self.ties = ties;
        self
    }

    /// Sets whether the records yield to newer stored content. Default: they do.
    pub fn with_authority(mut self, authority: OrderAuthority) -> Self {
        self.authority = authority;
        self
    }

    /// Returns whether merging the same records again changes nothing, even after other records were merged. This does
    /// not hold for a reload, whose records replace newer rows, and without tombstones, since an older record then
    /// restores a deleted row.
    pub fn is_repeatable(&self) -> bool {
        self.authority == OrderAuthority::Order && self.tombstones == TombstonePolicy::Keep
    }

    /// Checks the part of the specification that does not depend on data.
    pub fn check(&self) -> Result<()> {
        if let Some(name) = self.drop_columns.iter().find(|c| self.key.contains(c)) {
            return Err(Error::new(
                biscuit_core::codes::INVALID_ARGUMENTS,
                format!("the key column `{name}` cannot be dropped; remove it from the columns to drop"),
            ));
        }
        Ok(())
    }

    /// Whether the order of a row can be read from its stored columns, because no order column is dropped.
    pub fn stores_order(&self) -> bool {
        !self.order.iter().any(|o| self.drop_columns.contains(o))
    }
}
