//! Requests as AWS gets them, and what its answers come to: of a service in this process, and of moto and dynalite where they are running.

mod comprehend;
mod fake;
mod servers;
mod wire;
