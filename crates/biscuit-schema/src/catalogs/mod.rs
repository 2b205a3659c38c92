//! Schemas as Glue, CloudFormation and Avro write them.

pub(crate) mod avro;
pub(crate) mod cloudformation;
pub(crate) mod glue;
