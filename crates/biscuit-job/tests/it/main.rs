//! Jobs as their users see them: raw objects in, clean tables out, each input once.

mod appending;
mod books;
mod crash;
mod damaged;
mod encrypted;
mod formats;
mod lab;
mod merging;
mod partitions;
mod pii;
mod refusing;
mod values;
