//! The commands, one file for each, in folders by purpose: their options, the call of the crate, and the text of the
//! report.

pub(crate) mod bookmark;
pub(crate) mod catalog;
pub(crate) mod dispatch;
pub(crate) mod inspect;
pub(crate) mod maintain;
pub(crate) mod pii;
pub(crate) mod write;
