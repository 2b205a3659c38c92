//! What a bookmark selects and remembers, by the cases of its contract.

mod appended;
mod cases;
mod crash;
mod lab;
mod million;
mod modes;
mod remembering;
