//! What is read from files.

mod damaged_avro;
mod debezium;
mod limits;
mod rows;
mod values;
