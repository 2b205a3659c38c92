//! Flows across the crates.

mod capture;
mod dms;
mod flattened;
mod foreign;
mod kill;
