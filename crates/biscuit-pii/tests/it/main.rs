//! Detection and treatment of personal data.

mod cases;
mod encrypting;
mod finding;
mod keys;
mod parquet_keys;
mod policies;
mod redacting;
mod removing;
mod tokens;
mod vectors;
