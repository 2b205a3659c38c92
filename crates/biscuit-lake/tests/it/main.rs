//! Tests of the `biscuit` binary, run as its users run it.

mod binary;
mod bookmark;
mod catalog;
mod ends;
mod errors;
mod explain;
mod folders;
mod merge;
mod messages;
mod pii;
mod process;
mod purge;
mod run;
mod schema;
mod secrets;
mod snapshot;
mod terminal;
