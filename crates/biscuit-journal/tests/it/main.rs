//! Behaviour of the journal through its public interface.

mod cleaning;
mod commit;
mod copying;
mod doctor;
mod durable;
mod holding;
mod interrupting;
mod observing;
mod ownership;
mod probing;
mod slow_listing;
mod table;
mod zombies;
