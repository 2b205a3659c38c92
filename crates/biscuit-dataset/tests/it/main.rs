//! Datasets: written rows are read back, in Hive paths, in bounded memory, with each change as one step.

mod damaged;
mod encrypted;
mod lake;
mod reading;
mod sinks;
mod writing;
