//! Requests to AWS services and the handling of their responses, with a service in this process, and with moto and
//! dynalite if they are running.

mod comprehend;
mod fake;
mod servers;
mod wire;
