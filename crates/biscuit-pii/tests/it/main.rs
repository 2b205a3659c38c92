//! What detectors find, and what becomes of it.

mod cases;
mod finding;
mod redacting;
mod removing;
