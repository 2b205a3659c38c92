//! Parts of a [`ContractCheck`](crate::ContractCheck), and the findings of a
//! [`ContractCompliance`](crate::ContractCompliance).

pub use crate::contract::check::{CheckRule, CheckSeverity, CheckValue};
pub use crate::contract::compliance::CheckFinding;
