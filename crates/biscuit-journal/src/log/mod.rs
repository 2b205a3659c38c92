//! The log: commit records, done marks, checkpoints, the head that is computed from them, and the names of their
//! objects.
//!
//! Every object of the log is immutable: it is created if absent and never overwritten. For a version `v` there can
//! be
//!
//! - `v.json`, the record: it exists from the commit on and contains everything that is to be true,
//! - `v.done`, the done mark: it exists from the moment when all files of the record have their final names,
//! - `v.checkpoint`, a summary of all records up to `v`, which replaces reading them one by one.
//!
//! Invariants that readers rely on:
//!
//! 1. A record `v + 1` is put only after `v.done` exists. So only the newest version can be unfinished.
//! 2. A checkpoint is written only for a finished version. A record at or below the newest checkpoint that has no
//!    done mark is void: it is not part of the state and must not be carried out.
//! 3. Old records are deleted before their done marks, and both only below a checkpoint.

pub(crate) mod head;
pub(crate) mod journal_store;
pub(crate) mod layout;
pub(crate) mod pointer;
pub(crate) mod record;
pub(crate) mod writer_ids;
