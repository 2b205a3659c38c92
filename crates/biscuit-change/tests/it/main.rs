//! What is read from files.

mod damaged_avro;
mod debezium;
mod rows;
