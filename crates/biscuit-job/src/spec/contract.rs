//! Contracts in a job: how the rows of a source or of an output get their types.

use biscuit_core::Result;
use biscuit_schema::{Contract, NamingRule};
use serde::Deserialize;
use toml::Value;

use crate::spec::error::invalid_spec;

/// A contract, or the path of its file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ContractSpec {
    /// Path of a TOML or JSON file.
    File(String),
    /// The contract itself, as written in a job file. It is read when the job runs.
    Inline(Value),
    /// The contract itself, as a program declares it. Its consistency is checked when the job runs.
    #[serde(skip)]
    Declared(Box<Contract>),
}

impl From<Contract> for ContractSpec {
    fn from(contract: Contract) -> Self {
        Self::Declared(Box::new(contract))
    }
}

/// Returns the contract of a spec. `read` reads the contract file.
pub(crate) fn read_contract(spec: &ContractSpec, read: impl Fn(&str) -> Result<String>) -> Result<Contract> {
    match spec {
        ContractSpec::File(path) => {
            let text = read(path)?;
            let json = text.trim_start().starts_with('{');
            let contract = if json { Contract::from_json(&text) } else { Contract::from_toml(&text) };
            contract.map_err(|e| e.in_file(path))
        }
        ContractSpec::Inline(value) => {
            let text = toml::to_string(value).map_err(|e| invalid_spec(e.to_string()))?;
            Contract::from_toml(&text)
        }
        ContractSpec::Declared(contract) => {
            contract.check()?;
            Ok(contract.as_ref().clone())
        }
    }
}

/// How columns without a contract get their types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RulesText")]
#[non_exhaustive]
pub enum RulesSpec {
    /// By the default rules, which match the names of columns.
    #[default]
    Usual,
    /// By the values alone.
    None,
    /// By the given rules.
    Listed(Vec<NamingRule>),
}

#[derive(Deserialize)]
#[serde(untagged)]
/// Rules as written in a job file.
enum RulesText {
    Named(String),
    Listed(Vec<NamingRule>),
}

impl TryFrom<RulesText> for RulesSpec {
    type Error = String;

    fn try_from(text: RulesText) -> Result<Self, String> {
        match text {
            RulesText::Named(name) if name == "default" => Ok(Self::Usual),
            RulesText::Named(name) if name == "none" => Ok(Self::None),
            RulesText::Named(name) => Err(format!("unknown rules `{name}`; use `default`, `none` or a list of rules")),
            RulesText::Listed(rules) => Ok(Self::Listed(rules)),
        }
    }
}
