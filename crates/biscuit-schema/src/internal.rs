//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::infer::json_names::name_twice;
pub use crate::parquet_files::footer::check_parquet_footer;
pub use crate::parquet_files::impossible::impossible_values;
#[cfg(feature = "parquet")]
pub use crate::parquet_files::int96::{check_int96, int96_as_micros};
#[cfg(feature = "parquet")]
pub use crate::parquet_files::pages::{check_parquet_pages, parquet_rows_at_a_time};
pub use crate::parquet_files::thrift::check_thrift;
pub use crate::types::column_type::WireType;
pub use crate::types::common::{plain_type, stored_type, written_type};
pub use crate::types::limits::{MAX_DEPTH, MAX_FIELDS, check_size, is_too_deep, too_deep};
pub use crate::types::text::text_type;
pub use crate::types::union::{check_names, column_index};
#[cfg(feature = "parquet")]
pub use crate::types::uuid::UuidColumns;
#[cfg(feature = "parquet")]
pub use crate::values::calendar::{differs_by_calendar, has_legacy_calendar, legacy_calendar};
pub use crate::values::coercion::default_values;
pub use crate::values::conform::{align, cast_exactly, conform};
pub use crate::values::iso::{iso_date, iso_date_time, iso_time};
pub use crate::values::reading_rules::{BytesInText, hex_bytes, hex_text};
