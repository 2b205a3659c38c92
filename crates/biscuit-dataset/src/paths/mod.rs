//! Hive paths, locations, path templates, and checks of places of input.

pub(crate) mod column;
pub(crate) mod hive;
pub(crate) mod input_place;
pub(crate) mod location;
pub(crate) mod spelling;
pub(crate) mod template;
