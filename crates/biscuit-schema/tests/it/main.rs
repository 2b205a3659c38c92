//! Tests of the public API: catalogs, coercion, and compliance with contracts.

mod catalogs;
mod coercing;
mod complying;
