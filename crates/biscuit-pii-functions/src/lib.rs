#![doc = include_str!("../README.md")]

mod function;
mod functions;

pub use crate::functions::PiiFunctions;
