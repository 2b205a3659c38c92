//! Behaviour of merges: cases of the contract, properties, crashes and races.

mod adopt;
mod bad_input;
mod buffered;
mod cases;
mod contract;
mod crash;
mod depth;
mod encrypted;
mod external_files;
mod failover;
mod files;
mod found_files;
mod key_updates;
mod lake;
mod pause;
mod properties;
mod quarantine;
mod sinks;
mod small_files;
mod zoo;
