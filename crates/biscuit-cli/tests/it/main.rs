//! The binary as its users run it.

mod binary;
mod bookmark;
mod catalog;
mod errors;
mod folders;
mod merge;
mod pii;
mod process;
mod purge;
mod run;
mod schema;
mod snapshot;
