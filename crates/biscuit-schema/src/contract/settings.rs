//! Settings of a contract for the whole table, and the error of an inconsistent contract.

use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::codes;

/// Settings of a Debezium connector, with the names and values of the connector. The connector has the same
/// defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DebeziumSettings {
    /// `decimal.handling.mode`: `precise`, `double` or `string`.
    #[serde(rename = "decimal.handling.mode", default = "default_precise")]
    pub decimal: String,
    /// `time.precision.mode`: `adaptive`, `adaptive_time_microseconds`, `connect`, `isostring`, `microseconds` or
    /// `nanoseconds`.
    #[serde(rename = "time.precision.mode", default = "default_adaptive")]
    pub time: String,
    /// `binary.handling.mode`: `bytes`, `base64`, `base64-url-safe` or `hex`.
    #[serde(rename = "binary.handling.mode", default = "default_bytes")]
    pub binary: String,
    /// `interval.handling.mode`: `numeric` or `string`.
    #[serde(rename = "interval.handling.mode", default = "default_numeric")]
    pub interval: String,
}

fn default_precise() -> String {
    "precise".into()
}

fn default_adaptive() -> String {
    "adaptive".into()
}

fn default_bytes() -> String {
    "bytes".into()
}

fn default_numeric() -> String {
    "numeric".into()
}

impl Default for DebeziumSettings {
    fn default() -> Self {
        Self {
            decimal: default_precise(),
            time: default_adaptive(),
            binary: default_bytes(),
            interval: default_numeric(),
        }
    }
}

impl DebeziumSettings {
    pub(crate) fn check(&self) -> Result<()> {
        let known: [(&str, &str, &[&str]); 4] = [
            ("decimal.handling.mode", &self.decimal, &["precise", "double", "string"]),
            (
                "time.precision.mode",
                &self.time,
                &["adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"],
            ),
            ("binary.handling.mode", &self.binary, &["bytes", "base64", "base64-url-safe", "hex"]),
            ("interval.handling.mode", &self.interval, &["numeric", "string"]),
        ];
        match known.iter().find(|(_, v, all)| !all.contains(v)) {
            Some((name, v, all)) => {
                Err(invalid_contract(format!("`{name}` is `{v}`; the values of Debezium are {}", all.join(", "))))
            }
            None => Ok(()),
        }
    }
}

/// Layer of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DatasetLayer {
    /// Data as it arrived. Rows are added; the data is never replaced, merged into or purged.
    Raw,
    /// Typed and cleaned data.
    Clean,
    /// Data for a specific purpose.
    Curated,
}

pub(crate) fn invalid_contract(message: String) -> Error {
    Error::new(codes::INVALID_CONTRACT, message)
}
