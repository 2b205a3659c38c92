//! What a merge keeps beside the rows: key metadata, quarantine, forgotten keys.

pub(crate) mod commit;
pub(crate) mod erasing;
pub(crate) mod forgotten_keys;
pub(crate) mod key_segment;
pub(crate) mod quarantine;
