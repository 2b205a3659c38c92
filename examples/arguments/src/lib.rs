#![doc = include_str!("../README.md")]

mod arguments;

pub use arguments::{Argument, Arguments, ParsedArguments, Secret};
