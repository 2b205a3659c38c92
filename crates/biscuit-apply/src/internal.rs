//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::changes::found_files::input_failed;
pub use crate::key_and_order::partition_columns;
pub use crate::periods::period_state::{PeriodBase, PeriodRunContext, PeriodState, PeriodStates};
pub use crate::periods::retraction::{EffectiveTimes, KeyAndOrder, RetractedRecord, RetractionSet, key_and_order};
pub use crate::sink::check_repeatable;
pub use crate::state::erasing::{ErasedState, erased_state};
pub use crate::state::forgotten_keys::ErasedKeys;
pub use crate::state::key_segment::{StoredKeyMetadata, stored_key_metadata};
pub use crate::table::stored_spec::stored_spec;
