//! State of merges in addition to the rows: key metadata, quarantine, erased keys, and their commit.

pub(crate) mod commit;
pub(crate) mod erasing;
pub(crate) mod forgotten_keys;
pub(crate) mod key_metadata;
pub(crate) mod key_segment;
pub(crate) mod quarantine;
pub(crate) mod segment_file;
