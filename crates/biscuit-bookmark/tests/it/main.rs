//! Behaviour of bookmarks: selection of input, and memory of what was read.

mod appended;
mod cases;
mod crash;
mod lab;
mod million;
mod modes;
mod remembering;
