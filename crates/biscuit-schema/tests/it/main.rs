//! Contracts as their users see them: what comes in, what goes out, what is lost on the way.

mod catalogs;
mod coercing;
mod complying;
