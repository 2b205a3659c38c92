//! Differences between two versions of a contract, and their effects on readers and on an existing table.

use std::fmt;

use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use serde::Serialize;

use crate::{Contract, ContractColumn, codes, common_type, type_name};

/// Difference between two versions of a contract.
///
/// ```
/// use biscuit_schema::ContractDifference;
///
/// let optional = ContractDifference::Added { column: "email".to_owned(), required: false };
/// let required = ContractDifference::Added { column: "email".to_owned(), required: true };
/// assert!(optional.is_backward() && optional.is_forward());
/// assert!(!required.is_backward()); // old rows have no value for the column
/// assert_eq!(required.to_string(), "`email` is new and not nullable");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ContractDifference {
    /// A column was added.
    Added {
        /// The column.
        column: String,
        /// Whether the column is not nullable and has no default, so that existing rows have no value for it.
        required: bool,
    },
    /// A column was removed.
    Removed {
        /// The column.
        column: String,
        /// Whether the column was not nullable and had no default, so that readers have no replacement for its
        /// values.
        required: bool,
    },
    /// A column was renamed. The new contract lists its former name.
    Renamed {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// The new type of a column holds every value of its old type.
    Widened {
        /// The column.
        column: String,
        /// The old type.
        from: String,
        /// The new type.
        to: String,
    },
    /// The new type of a column does not hold every value of its old type.
    Narrowed {
        /// The column.
        column: String,
        /// The old type.
        from: String,
        /// The new type.
        to: String,
    },
    /// A column became nullable.
    Loosened {
        /// The column.
        column: String,
    },
    /// A column is not nullable any more.
    Tightened {
        /// The column.
        column: String,
    },
    /// The columns are in a different order.
    Reordered,
    /// Key, order, grain or partitioning changed, so that rows have a different meaning.
    Other {
        /// Field of the contract: `key`, `order`, `grain` or `partition_by`.
        what: &'static str,
        /// The old columns.
        from: Vec<String>,
        /// The new columns.
        to: Vec<String>,
    },
}

impl ContractDifference {
    /// Returns whether a reader with the new contract can read rows of the old one.
    pub fn is_backward(&self) -> bool {
        !matches!(
            self,
            Self::Added { required: true, .. } | Self::Narrowed { .. } | Self::Tightened { .. } | Self::Other { .. }
        )
    }

    /// Returns whether a reader with the old contract can read rows of the new one.
    pub fn is_forward(&self) -> bool {
        !matches!(
            self,
            Self::Removed { required: true, .. }
                | Self::Renamed { .. }
                | Self::Widened { .. }
                | Self::Narrowed { .. }
                | Self::Loosened { .. }
                | Self::Other { .. }
        )
    }
}

impl fmt::Display for ContractDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        match self {
            Self::Added { column, required: true } => write!(f, "`{column}` is new and not nullable"),
            Self::Added { column, .. } => write!(f, "`{column}` is new"),
            Self::Removed { column, .. } => write!(f, "`{column}` is removed"),
            Self::Renamed { from, to } => write!(f, "`{from}` is renamed to `{to}`"),
            Self::Widened { column, from, to } => write!(f, "`{column}` is widened from {from} to {to}"),
            Self::Narrowed { column, from, to } => {
                write!(f, "`{column}` changes from {from} to {to}, which does not hold all values")
            }
            Self::Loosened { column } => write!(f, "`{column}` becomes nullable"),
            Self::Tightened { column } => write!(f, "`{column}` is not nullable any more"),
            Self::Reordered => f.write_str("the columns are in another order"),
            Self::Other { what, from, to } => write!(f, "{what} changes from {} to {}", list(from), list(to)),
        }
    }
}

/// Returns the differences between two versions of a contract, from the old one to the new one.
///
/// ```
/// use biscuit_schema::{Compatibility, Contract, differences};
///
/// let of = |t: &str| Contract::from_json(&format!(r#"{{"columns": [{{"name": "n", "type": "{t}"}}]}}"#));
/// let found = differences(&of("int")?, &of("bigint")?);
/// assert_eq!(found[0].to_string(), "`n` is widened from int to bigint");
/// assert!(Compatibility::Backward.broken_by(&found).is_empty());
/// assert_eq!(Compatibility::Forward.broken_by(&found).len(), 1);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
pub fn differences(old: &Contract, new: &Contract) -> Vec<ContractDifference> {
    let mut found = Vec::new();
    let mut matched: Vec<(usize, usize)> = Vec::new();
    for (at, column) in new.columns.iter().enumerate() {
        let was = |name: &str| old.columns.iter().position(|c| c.name == *name);
        // A former name identifies a column only if no column of the new contract has that name.
        let own = was(&column.name);
        let former = || column.reading.renamed_from.iter().filter(|n| new.column(n).is_none()).find_map(|n| was(n));
        let Some(before) = own.or_else(former) else {
            found.push(ContractDifference::Added { column: column.name.clone(), required: is_required(column) });
            continue;
        };
        matched.push((before, at));
        let before = &old.columns[before];
        if before.name != column.name {
            found.push(ContractDifference::Renamed { from: before.name.clone(), to: column.name.clone() });
        }
        found.extend(of_type(before, column));
        match (before.nullable, column.nullable) {
            (false, true) => found.push(ContractDifference::Loosened { column: column.name.clone() }),
            (true, false) => found.push(ContractDifference::Tightened { column: column.name.clone() }),
            _ => {}
        }
    }
    for (at, column) in old.columns.iter().enumerate() {
        if matched.iter().all(|(before, _)| *before != at) {
            found.push(ContractDifference::Removed { column: column.name.clone(), required: is_required(column) });
        }
    }
    // The pairs are in the order of the new contract, so they are sorted exactly if the old order is the same.
    if !matched.is_sorted() {
        found.push(ContractDifference::Reordered);
    }
    let others = [
        ("key", &old.key, &new.key),
        ("order", &old.order, &new.order),
        ("grain", &old.grain, &new.grain),
        ("partition_by", &old.partition_by, &new.partition_by),
    ];
    let other = |(what, from, to): (&'static str, &Vec<String>, &Vec<String>)| ContractDifference::Other {
        what,
        from: from.clone(),
        to: to.clone(),
    };
    found.extend(others.into_iter().filter(|(_, from, to)| from != to).map(other));
    found
}

fn is_required(column: &ContractColumn) -> bool {
    !column.nullable && column.reading.default.is_none()
}

fn of_type(old: &ContractColumn, new: &ContractColumn) -> Option<ContractDifference> {
    let (a, b) = (old.column_type.arrow(), new.column_type.arrow());
    if a == b {
        return None;
    }
    let name = |t: &DataType| type_name(t).unwrap_or_else(|| t.to_string());
    let (column, from, to) = (new.name.clone(), name(a), name(b));
    // Type names are compared, because nullability of nested fields is not part of a type here.
    let widened = common_type(a, b).is_some_and(|common| name(&common) == to);
    Some(if widened {
        ContractDifference::Widened { column, from, to }
    } else {
        ContractDifference::Narrowed { column, from, to }
    })
}

/// Readers that must be able to read after a change of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compatibility {
    /// Readers with the new contract can read old rows.
    Backward,
    /// Readers with the old contract can read new rows.
    Forward,
    /// Both.
    Full,
}

impl Compatibility {
    /// Returns the differences that break this compatibility.
    pub fn broken_by<'a>(self, differences: &'a [ContractDifference]) -> Vec<&'a ContractDifference> {
        let breaks = |d: &&'a ContractDifference| match self {
            Self::Backward => !d.is_backward(),
            Self::Forward => !d.is_forward(),
            Self::Full => !d.is_backward() || !d.is_forward(),
        };
        differences.iter().filter(breaks).collect()
    }
}

/// Checks whether an existing table can change from one contract to the next, and returns the differences. Columns
/// may be added, widened, made nullable, and reordered.
///
/// # Errors
/// `IncompatibleContract`, which names each difference that is incompatible with the existing rows or with the stored
/// key metadata.
pub fn check_evolution(old: &Contract, new: &Contract) -> Result<Vec<ContractDifference>> {
    let found = differences(old, new);
    let refused = |d: &&ContractDifference| {
        !d.is_backward() || matches!(d, ContractDifference::Removed { .. } | ContractDifference::Renamed { .. })
    };
    let broken: Vec<String> = found.iter().filter(refused).map(ToString::to_string).collect();
    if broken.is_empty() {
        return Ok(found);
    }
    Err(Error::new(codes::INCOMPATIBLE_CONTRACT, broken.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(columns: &str) -> Contract {
        let columns: Vec<String> = columns
            .split(", ")
            .map(|c| {
                let (name, t) = c.split_once(' ').unwrap();
                let (t, nullable) = t.strip_suffix('!').map_or((t, true), |t| (t, false));
                format!(r#"{{"name":"{name}","type":"{t}","nullable":{nullable}}}"#)
            })
            .collect();
        Contract::from_json(&format!(r#"{{"columns":[{}]}}"#, columns.join(","))).unwrap()
    }

    #[test]
    fn each_difference_breaks_the_readers_it_affects() {
        let old = contract("id bigint!, v int, s struct<a:int>");
        for (new, backward, forward, evolves) in [
            ("id bigint!, v int, s struct<a:int>, n string", true, true, true),
            ("id bigint!, v int, s struct<a:int>, n string!", false, true, false),
            ("id bigint!, v bigint, s struct<a:int>", true, false, true),
            ("id bigint!, v smallint, s struct<a:int>", false, false, false),
            ("id bigint!, v string, s struct<a:int>", false, false, false),
            ("id bigint!, v int, s struct<a:bigint,b:string>", true, false, true),
            ("id bigint!, v int", true, true, false),
            ("v int, id bigint!, s struct<a:int>", true, true, true),
            ("id bigint, v int, s struct<a:int>", true, false, true),
            ("id bigint!, v int!, s struct<a:int>", false, true, false),
        ] {
            let new_contract = contract(new);
            let found = differences(&old, &new_contract);
            let fits = |c: Compatibility| c.broken_by(&found).is_empty();
            let got = (
                fits(Compatibility::Backward),
                fits(Compatibility::Forward),
                check_evolution(&old, &new_contract).is_ok(),
            );
            assert_eq!(got, (backward, forward, evolves), "{new}: {found:?}");
        }
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn declared_rename_is_recognised() {
        let old = contract("id bigint, mail string");
        let mut new = contract("id bigint, email string");
        new.columns[1].reading.renamed_from = vec!["mail".into()];
        assert_eq!(differences(&old, &new), [ContractDifference::Renamed { from: "mail".into(), to: "email".into() }]);
        new.key = vec!["id".into()];
        let e = check_evolution(&old, &new).unwrap_err();
        assert_eq!(e.message(), "`mail` is renamed to `email`; key changes from nothing to id");
    }
}
