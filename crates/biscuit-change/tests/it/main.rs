//! Tests of the readers with whole files.

mod boundaries;
mod contracts;
mod damaged_avro;
mod debezium;
mod documents;
mod limits;
mod on_error;
mod operations;
mod parts;
mod rows;
mod values;
