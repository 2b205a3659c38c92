//! Flows across the crates.

mod capture;
