//! Purges of a folder: by age, of orphan files, of retained files, and by a stored plan.
//!
//! Every way has the same order: probe the store, list the folder, read the journals of all tables around and within,
//! plan, and only then delete. The order is what keeps live files.
//!
//! - **The probe is first.** It reads the clock of the store. Objects that were modified since then are kept, so that
//!   an object that is written during the listing is never old.
//! - **The journals are read after the listing.** A file is published only after its version is committed. So each
//!   listed file of a table is named by the journal as it is after the listing. A journal that was read before the
//!   listing does not name a file that was committed and published in between: the plan would delete a live file.
//! - **Staged files are kept.** A plan by age keeps everything below a state root. A plan of orphans contains a staged
//!   file only if a later version is done, since its run can no longer commit then. Its age does not prove that: a run
//!   may sleep.
//! - **The plan is complete before the first delete**, and a delete depends on the listed object. A file that a run
//!   publishes after the listing is in no plan.

pub(crate) mod by_age;
pub(crate) mod event;
pub(crate) mod folder;
pub(crate) mod orphans;
pub(crate) mod planned;
pub(crate) mod release;
pub(crate) mod retained;
pub(crate) mod stored;
pub(crate) mod target;
