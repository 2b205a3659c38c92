#![doc = include_str!("../README.md")]

mod context;
mod function;
mod functions;

pub use crate::functions::PiiFunctions;
