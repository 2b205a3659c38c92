//! Behaviour of the protocols through the public interface, above all the order of their steps.

mod by_age;
mod checks;
mod erasing;
mod hooked_store;
mod lab;
mod orphans;
mod retained;
mod stored;
