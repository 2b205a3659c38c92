//! Behaviour of the reduction: cases of the merge contract as data, keys and orders of all types, properties against a
//! plain replay, and invalid input. No table is needed: rows are batches, and what is remembered is in memory.

mod bad_input;
mod cases;
mod keys_and_orders;
mod memory;
mod properties;
mod replay;
mod rows;
