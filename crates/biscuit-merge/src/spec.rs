use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Columns in which a null in a change record means *not given*.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IgnoreNull {
    /// None: a null is stored.
    #[default]
    None,
    /// All columns.
    All,
    /// These columns.
    Columns(Vec<String>),
}

impl IgnoreNull {
    /// The columns of these names; `*` stands for all.
    pub fn named(columns: &[String]) -> Self {
        match columns {
            [] => Self::None,
            names if names.iter().any(|n| n == "*") => Self::All,
            names => Self::Columns(names.to_vec()),
        }
    }

    /// Whether a column is one of them.
    pub fn covers(&self, column: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Columns(names) => names.iter().any(|n| n == column),
        }
    }
}

/// Whether deletes are remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TombstonePolicy {
    /// For ever: an older record never brings a row back.
    #[default]
    Keep,
    /// Not at all: a late record brings a deleted row back, as the original `merge_and_retain_last` does it.
    Forget,
}

/// What happens to a record whose order equals the stored one and whose content differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TiePolicy {
    /// It replaces what is stored and is counted as corrected.
    #[default]
    LaterRunWins,
    /// It is an error, `AmbiguousOrder`.
    Fail,
}

/// Whether the run's records give way to what is newer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderAuthority {
    /// They do, by their order.
    #[default]
    Order,
    /// They do not: the newest record of each key in the run takes the greater of its own order and of what it replaces,
    /// a tombstone or truncate included. For reloading keys whose rows or deletes are known to be wrong.
    Reload,
}

/// How change records become rows: the merge contract's choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MergeSpec {
    /// The columns that name the entity.
    pub key: Vec<String>,
    /// The columns that order its changes, compared one after the other, by type.
    pub order: Vec<String>,
    /// Operation codes; of records with equal order, the one whose code comes later in this list wins.
    pub op_rank: Vec<String>,
    /// Columns in which a null means *not given*.
    pub ignore_null: IgnoreNull,
    /// Columns that are used but not stored.
    pub drop_columns: Vec<String>,
    /// Whether deletes are remembered.
    pub tombstones: TombstonePolicy,
    /// What happens to ties with stored rows.
    pub ties: TiePolicy,
    /// Whether records give way to what is newer.
    pub authority: OrderAuthority,
}

impl MergeSpec {
    /// A spec with these key and order columns and the default for everything else.
    ///
    /// # Errors
    /// `InvalidSpec` for an empty key or order, or a column named twice in either.
    pub fn new<K: Into<String>, O: Into<String>>(
        key: impl IntoIterator<Item = K>,
        order: impl IntoIterator<Item = O>,
    ) -> Result<Self> {
        let key: Vec<String> = key.into_iter().map(Into::into).collect();
        let order: Vec<String> = order.into_iter().map(Into::into).collect();
        for (what, columns) in [("key", &key), ("order", &order)] {
            if columns.is_empty() {
                return Err(Error::usage("InvalidSpec", format!("the {what} needs at least one column")));
            }
            if let Some((_, twice)) = columns.iter().enumerate().find(|(i, c)| columns[..*i].contains(c)) {
                return Err(Error::usage("InvalidSpec", format!("the {what} names `{twice}` twice")));
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

    /// The same spec with ranked operation codes.
    pub fn with_op_rank<S: AsRef<str>>(mut self, codes: impl IntoIterator<Item = S>) -> Self {
        self.op_rank = codes.into_iter().map(|c| c.as_ref().to_lowercase()).collect();
        self
    }

    /// The same spec with another meaning of null.
    pub fn with_ignore_null(mut self, columns: IgnoreNull) -> Self {
        self.ignore_null = columns;
        self
    }

    /// The same spec with columns that are not stored.
    pub fn with_drop_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.drop_columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same spec with another memory of deletes.
    pub fn with_tombstones(mut self, tombstones: TombstonePolicy) -> Self {
        self.tombstones = tombstones;
        self
    }

    /// The same spec with another treatment of ties.
    pub fn with_ties(mut self, ties: TiePolicy) -> Self {
        self.ties = ties;
        self
    }

    /// The same spec with another authority.
    pub fn with_authority(mut self, authority: OrderAuthority) -> Self {
        self.authority = authority;
        self
    }

    /// Checks what can be checked without data.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(name) = self.drop_columns.iter().find(|c| self.key.contains(c)) {
            return Err(Error::usage("InvalidSpec", format!("the key column `{name}` cannot be dropped")));
        }
        Ok(())
    }

    /// Whether the order of a row can be read off its stored columns.
    pub(crate) fn stores_order(&self) -> bool {
        !self.order.iter().any(|o| self.drop_columns.contains(o))
    }
}
