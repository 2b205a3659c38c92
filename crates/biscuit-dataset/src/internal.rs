//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::encryption::keyring::reader_options;
pub use crate::engine_error::{engine_error, parquet_error};
pub use crate::files::guarded::decode_parquet;
pub use crate::files::writer::check_staged;
pub use crate::paths::column::PathValue;
pub use crate::paths::hive::{check_partition_columns, escape, partition_values, unescape};
pub use crate::paths::input_place::{check_input, split_glob};
pub use crate::paths::location::OpenByUrl;
pub use crate::paths::spelling::FolderSpelling;
pub use crate::rows::{partition_folders, rows_without_folder};
pub use crate::version::properties::{LAYER, refuse_raw};
pub use crate::version::store::as_listed;
