#![doc = include_str!("../README.md")]

mod doctor;
mod head;
mod interrupt;
mod journal;
mod leavings;
mod names;
mod observe;
mod ownership;
mod pointer;
mod probe;
mod protect;
mod publish;
mod record;
mod replace;
mod stage;
mod stager;
mod storage;

pub use biscuit_purge::{TableFormat, store_error};
pub use doctor::{Ability, Shown, examine};
pub use head::{Head, HeldFile, LiveFile};
pub use interrupt::Interrupt;
pub use journal::{Diverged, Foreign, Journal, JournalOptions, Nonces, OtherFormats, RandomNonces, Recovered, Writers};
pub use leavings::{Leftovers, Superseded};
pub use names::{MAX_KEY, MAX_NAME, biscuit_nonce, default_state_root, is_hidden};
pub use observe::Observed;
pub use ownership::{fold_name, table_format_around};
pub use protect::{tables_around, tables_within};
pub use record::{Exception, Held, PastVersion, Published, Record, Retired, StateFile};
pub use replace::{Committed, Outcome, Replace};
pub use stage::{StagedFile, StagedWriter};
pub use stager::Stager;
pub use storage::{Durability, LocalDisk, Storage, StoreIsDurable};
