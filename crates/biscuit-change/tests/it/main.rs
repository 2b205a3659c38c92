//! What is read from files.

mod boundaries;
mod contracts;
mod damaged_avro;
mod debezium;
mod limits;
mod operations;
mod rows;
mod values;
