//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::avro::chunks::{AvroChunk, AvroChunks};
pub use crate::columnar::rows::{FileRows, to_stored_types};
pub use crate::csv::dialect::CheckedCsv;
pub use crate::files::chunks::{MAX_RECORD, RecordSeparation, TextChunk, TextChunks, TextSettings, read_error};
pub use crate::files::decompress::{DecodedRows, FileCompression, decompression_error};
pub use crate::files::encoding::Utf8Text;
pub use crate::files::parts::{ChunkReader, TableChunkReader, TextForm};
pub use crate::json::layout::{JsonLayout, JsonValues};
pub use crate::records::refused::parquet_row;
