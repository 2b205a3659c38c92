//! Datasets: what is written is read back, by Hive's rules, in bounded memory, as one step.

mod damaged;
mod encrypted;
mod lake;
mod reading;
mod writing;
