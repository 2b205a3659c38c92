//! Rules that assign types to columns by their names.

use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::contract::column::ContractColumn;
use crate::values::reading_rules::ReadingRules;
use crate::{ColumnType, Contract, codes};

/// Rule that assigns a type to columns, by their name and optionally by the type of the input.
///
/// ```
/// use biscuit_schema::{ColumnType, Contract, ContractColumn, NamingRule, apply_rules};
///
/// let column = |name: &str, t: &str| ColumnType::parse(t).map(|t| ContractColumn::new(name, t));
/// let mut contract = Contract::new([column("unit_price", "double")?, column("list_price", "string")?])?;
/// let rule = NamingRule::new("*_price", "decimal(18,2)").when("double");
/// assert_eq!(apply_rules(&mut contract, &[rule])?, ["unit_price"]);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
#[non_exhaustive]
pub struct NamingRule {
    /// Pattern of column names. `*` stands for any number of characters, as in `*_datetime`. Letter case does not
    /// matter.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Type that the column must have in the input. Default: any type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Type that the columns get.
    #[serde(rename = "type")]
    pub column_type: String,
    /// Rules for the conversion of values to the type.
    #[serde(default)]
    pub reading: ReadingRules,
}

impl NamingRule {
    /// Creates a rule for the columns whose names match `pattern`.
    pub fn new(pattern: &str, column_type: &str) -> Self {
        let (pattern, column_type) = (pattern.to_owned(), column_type.to_owned());
        Self { pattern, when: None, column_type, reading: ReadingRules::default() }
    }

    /// Restricts the rule to columns that have this type in the input.
    pub fn when(mut self, column_type: &str) -> Self {
        self.when = Some(column_type.to_owned());
        self
    }

    /// Sets the rules for the conversion of values.
    pub fn with_reading(mut self, reading: ReadingRules) -> Self {
        self.reading = reading;
        self
    }

    fn matches_column(&self, column: &ContractColumn) -> Result<bool> {
        let came = match &self.when {
            Some(t) => ColumnType::parse(t)?.arrow() == column.column_type.arrow(),
            None => true,
        };
        Ok(came && matches_pattern(&column.name.to_lowercase(), &self.pattern.to_lowercase()))
    }
}

/// Returns the rules that most raw-to-clean jobs need: `*_datetime` is a timestamp and `*_date` is a date. `zip`,
/// `*_zip` and similar names are text, because their leading zeros are significant.
pub fn default_rules() -> Vec<NamingRule> {
    let mut rules = vec![NamingRule::new("*_datetime", "timestamp"), NamingRule::new("*_date", "date")];
    for text in ["zip", "*_zip", "zip_code", "*_zip_code", "zipcode", "postal_code", "*_postal_code"] {
        rules.push(NamingRule::new(text, "string"));
    }
    rules
}

/// Applies the rules to the columns of a contract. The first matching rule of a column counts, and replaces its type
/// and reading rules; its default and its former names are kept. Returns the names of the changed columns.
///
/// ```
/// use arrow::datatypes::DataType;
/// use biscuit_schema::{ColumnType, Contract, ContractColumn, apply_rules, default_rules};
///
/// let column = |name: &str, t: &str| ColumnType::parse(t).map(|t| ContractColumn::new(name, t));
/// let mut contract = Contract::new([column("birth_date", "string")?, column("zip", "int")?])?;
/// assert_eq!(apply_rules(&mut contract, &default_rules())?, ["birth_date", "zip"]);
/// assert_eq!(contract.column("birth_date").unwrap().column_type.arrow(), &DataType::Date32);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
///
/// # Errors
/// `UnknownType` if the type of a rule is unknown.
pub fn apply_rules(contract: &mut Contract, rules: &[NamingRule]) -> Result<Vec<String>> {
    let mut typed = Vec::new();
    for column in &mut contract.columns {
        for rule in rules {
            if rule.matches_column(column)? {
                let t = ColumnType::parse(&rule.column_type).map_err(|e| {
                    Error::new(codes::UNKNOWN_TYPE, format!("the rule for `{}`: {}", rule.pattern, e.message()))
                })?;
                (column.column_type, column.hive) = (t, None);
                let (default, renamed_from) =
                    (column.reading.default.take(), std::mem::take(&mut column.reading.renamed_from));
                column.reading = ReadingRules { default, renamed_from, ..rule.reading.clone() };
                typed.push(column.name.clone());
                break;
            }
        }
    }
    Ok(typed)
}

/// Returns whether a name matches a pattern in which `*` is the only wildcard. The parts between the wildcards are
/// searched from left to right; the earliest match of each part is sufficient.
fn matches_pattern(name: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, middle) = parts.split_last().unwrap_or((&"", &[]));
    for part in middle {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_typed_by_name_and_input_type() {
        let names = ["order_datetime", "birth_date", "update", "zip", "ship_zip", "amount", "count"];
        let types = ["string", "string", "string", "bigint", "bigint", "double", "bigint"];
        let columns = names.iter().zip(types).map(|(n, t)| ContractColumn::new(*n, ColumnType::parse(t).unwrap()));
        let mut contract = Contract::new(columns).unwrap();
        let mut rules = default_rules();
        rules.push(NamingRule::new("*", "decimal(15,2)").when("double"));
        let typed = apply_rules(&mut contract, &rules).unwrap();
        assert_eq!(typed, ["order_datetime", "birth_date", "zip", "ship_zip", "amount"]);
        let types: Vec<_> = contract.columns.iter().map(|c| c.hive_type().unwrap().to_string()).collect();
        assert_eq!(types, ["timestamp", "date", "string", "string", "string", "decimal(15,2)", "bigint"]);
    }

    #[test]
    fn star_matches_any_characters() {
        for (name, pattern, is) in [
            ("a_date", "*_date", true),
            ("_date", "*_date", true),
            ("date", "*_date", false),
            ("abc", "a*c", true),
            ("abcd", "a*c", false),
            ("axbyc", "a*b*c", true),
            ("aa", "a*a*a", false),
            ("x", "*", true),
        ] {
            assert_eq!(matches_pattern(name, pattern), is, "{name} {pattern}");
        }
    }
}
