//! What is read from files.

mod debezium;
mod rows;
