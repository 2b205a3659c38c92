//! What detectors find, and what becomes of it.

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
