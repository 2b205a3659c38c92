//! Flows across the crates.

mod capture;
mod kill;
