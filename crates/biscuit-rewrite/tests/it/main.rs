//! Tests of biscuit-rewrite.

mod compacting;
mod differential;
mod encrypted;
mod erasing;
mod following;
mod lab;
mod memory;
mod rows_writer;
mod splicing;
