//! The commands, one file for each: their options, the call of the crate, and the text of the report.

pub(crate) mod adopt;
pub(crate) mod bookmark;
pub(crate) mod catalog;
pub(crate) mod compact;
pub(crate) mod dispatch;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod forget;
pub(crate) mod history;
pub(crate) mod lifecycle;
pub(crate) mod merge;
pub(crate) mod periods;
pub(crate) mod pii;
pub(crate) mod purge;
pub(crate) mod quarantine;
pub(crate) mod recover;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod snapshot;
pub(crate) mod verify;
