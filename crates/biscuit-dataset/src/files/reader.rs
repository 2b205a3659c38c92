//! Reads footers, page indexes and pages of Parquet objects, and checks them before they are decoded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use biscuit_core::{Error, Result};
use biscuit_schema::internal::{
    check_int96, check_parquet_footer, check_parquet_pages, check_thrift, parquet_rows_at_a_time,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};

use crate::encryption::file_encryption::{FileEncryption, no_keys};
use crate::encryption::keyring::{ENCRYPTED_FOOTER, FileKeyring};
use crate::engine_error::parquet_error;
use crate::files::guarded::{catch_decoder_panic, panic_error};

/// Number of bytes that are fetched first from the end of a file. Most footers are shorter.
const FOOTER: u64 = 64 * 1024;

/// How much of a file is fetched with its footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstFetch {
    /// The end of the file, which has the footer.
    Footer,
    /// The file as a whole, which saves the requests for its columns.
    Whole,
}

/// Maximum bytes of a file that is fetched as a whole, and of all such files together, which fit into the memory for ends of
/// objects.
pub(crate) const FETCHED_WHOLE: u64 = 1024 * 1024;
pub(crate) const ALL_FETCHED_WHOLE: u64 = 16 * 1024 * 1024;

/// An object in a store.
#[derive(Debug, Clone)]
pub(crate) struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    size: u64,
    /// The end of the object, if it was fetched with the footer and is still in memory.
    end: Option<Arc<ObjectEnd>>,
}

/// An object whose footer was read, as a reader for the Parquet library.
#[derive(Debug, Clone)]
pub(crate) struct FileReader {
    pub(crate) object: ObjectReader,
    pub(crate) metadata: Arc<ParquetMetaData>,
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let bytes = self.object.get_range(range.clone()).await.map_err(external)?;
            self.check_indexes(&range, &bytes)?;
            Ok(bytes)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let found = self.object.get_ranges(&ranges).await.map_err(external)?;
            self.check_pages(&ranges, &found)?;
            Ok(found)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let metadata = self.metadata.clone();
        std::future::ready(Ok(metadata)).boxed()
    }
}

impl FileReader {
    /// Checks pages before they are decoded, because the decoder allocates memory by the sizes in their headers.
    fn check_pages(&self, ranges: &[Range<u64>], found: &[Bytes]) -> parquet::errors::Result<()> {
        let columns = self.metadata.row_groups().iter().flat_map(|group| group.columns());
        let mut columns: Vec<_> = columns.map(|column| (column.byte_range(), column)).collect();
        columns.sort_unstable_by_key(|((begin, _), _)| *begin);
        for (range, bytes) in ranges.iter().zip(found) {
            let before = columns.partition_point(|((begin, _), _)| *begin <= range.start);
            let of = before.checked_sub(1).map(|at| columns[at]);
            let of = of.filter(|((begin, length), _)| range.end <= begin.saturating_add(*length));
            let Some((_, column)) = of else { continue };
            check_parquet_pages(column, bytes).map_err(|reason| self.object.damaged_error(&reason))?;
            self.check_times(column, bytes).map_err(|e| external_error(e.in_file(&self.object.path)))?;
        }
        Ok(())
    }

    fn check_times(&self, column: &ColumnChunkMetaData, pages: &Bytes) -> Result<()> {
        check_int96(column, pages, self.metadata.file_metadata().key_value_metadata())
    }

    /// Fetches the columns of a row group that will be decoded.
    pub(crate) async fn fetch_columns(
        self,
        group: usize,
        columns: &ProjectionMask,
    ) -> parquet::errors::Result<BufferedRowGroup> {
        let group = self.metadata.row_group(group);
        let leaves = (0..group.num_columns()).filter(|leaf| columns.leaf_included(*leaf)).collect::<Vec<_>>();
        let range = |leaf: &usize| {
            let (begin, length) = group.column(*leaf).byte_range();
            begin..begin.saturating_add(length)
        };
        let ranges: Vec<_> = leaves.iter().map(range).collect();
        let found = self.object.get_ranges(&ranges).await.map_err(external)?;
        let held = leaves.into_iter().zip(ranges.into_iter().zip(found)).collect();
        Ok(BufferedRowGroup { file: self, held })
    }

    /// Checks page indexes before they are decoded. The Parquet library reads single ranges only for page indexes;
    /// pages are read by several ranges at a time.
    fn check_indexes(&self, range: &Range<u64>, bytes: &Bytes) -> parquet::errors::Result<()> {
        let within = |(at, length): (Option<i64>, Option<i32>)| {
            let begin = u64::try_from(at?).ok()?.checked_sub(range.start)?;
            let begin = usize::try_from(begin).ok()?;
            bytes.get(begin..begin.checked_add(usize::try_from(length?).ok()?)?)
        };
        let clear =
            self.metadata.row_groups().iter().flat_map(|g| g.columns()).filter(|c| c.crypto_metadata().is_none());
        for column in clear {
            let offsets = (column.offset_index_offset(), column.offset_index_length());
            let bounds = (column.column_index_offset(), column.column_index_length());
            for index in [offsets, bounds].into_iter().filter_map(within) {
                check_thrift(index)
                    .map_err(|reason| self.object.damaged_error(&format!("a page index is damaged: {reason}")))?;
            }
        }
        Ok(())
    }
}

/// A file with columns of one row group in memory.
pub(crate) struct BufferedRowGroup {
    file: FileReader,
    /// Range in the file and bytes of each column, by leaf index.
    held: BTreeMap<usize, (Range<u64>, Bytes)>,
}

impl BufferedRowGroup {
    /// Returns the number of rows that may be decoded at a time, at most `wanted`. Rows with large values are decoded
    /// a few at a time.
    pub(crate) fn rows_at_a_time(&self, group: usize, wanted: usize) -> parquet::errors::Result<usize> {
        let group = self.file.metadata.row_group(group);
        let columns = self.held.iter().map(|(leaf, (_, bytes))| (group.column(*leaf), bytes.clone()));
        let checked = columns.clone().try_for_each(|(column, pages)| self.file.check_times(column, &pages));
        checked.map_err(external_error)?;
        parquet_rows_at_a_time(group, columns, wanted).map_err(|reason| external_error(damaged_file(&reason)))
    }

    fn buffered_part(&self, wanted: &Range<u64>) -> Option<Bytes> {
        let (range, bytes) =
            self.held.values().find(|(held, _)| held.start <= wanted.start && wanted.end <= held.end)?;
        let at = |n: u64| usize::try_from(n - range.start).ok().filter(|n| *n <= bytes.len());
        Some(bytes.slice(at(wanted.start)?..at(wanted.end)?))
    }
}

impl AsyncFileReader for BufferedRowGroup {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        match self.buffered_part(&range) {
            Some(bytes) => std::future::ready(Ok(bytes)).boxed(),
            None => self.file.get_bytes(range),
        }
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        match ranges.iter().map(|range| self.buffered_part(range)).collect() {
            Some(bytes) => std::future::ready(Ok(bytes)).boxed(),
            None => self.file.get_byte_ranges(ranges),
        }
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.file.get_metadata(options)
    }
}

impl ObjectReader {
    /// Creates a reader of an object of `size` bytes.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, path: Path, size: u64) -> Self {
        Self { store, path, size, end: None }
    }

    /// Keeps the end of the object in memory, while there is room for it.
    pub(crate) fn with_end(mut self, from: u64, bytes: Bytes) -> Self {
        self.end = ObjectEnd::hold(from, bytes).map(Arc::new);
        self
    }

    async fn get_range(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        match self.end.as_ref().and_then(|end| end.slice(&range)) {
            Some(bytes) => Ok(bytes),
            None => self.store.get_range(&self.path, range).await,
        }
    }

    pub(crate) async fn get_ranges(&self, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        match self.end.as_ref().and_then(|end| ranges.iter().map(|range| end.slice(range)).collect()) {
            Some(found) => Ok(found),
            None => self.store.get_ranges(&self.path, ranges).await,
        }
    }

    /// Error for damage that was found before a decoder read the bytes. The message quotes nothing of the file.
    fn damaged_error(&self, reason: &str) -> ParquetError {
        external_error(damaged_file(reason).in_file(&self.path))
    }
}

fn damaged_file(reason: &str) -> Error {
    Error::new(biscuit_schema::codes::UNREADABLE_PARQUET, format!("the file cannot be read as Parquet: {reason}"))
}

fn external_error(e: Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

/// Bytes of ends of objects that may be in memory in this process.
const ENDS: usize = 64 * 1024 * 1024;

/// Bytes of ends of objects that are in memory.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The end of an object, in memory. A small object is read with one request this way.
#[derive(Debug)]
struct ObjectEnd {
    from: u64,
    bytes: Bytes,
}

impl ObjectEnd {
    /// Holds the bytes, unless too many bytes of other objects are held.
    fn hold(from: u64, bytes: Bytes) -> Option<Self> {
        let fits = |held: usize| held.checked_add(bytes.len()).filter(|all| *all <= ENDS);
        HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Self { from, bytes })
    }

    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        slice_of(self.from, &self.bytes, range)
    }
}

impl Drop for ObjectEnd {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Returns a range of an object from bytes that begin at `from`, if they contain it.
fn slice_of(from: u64, bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let at = |n: u64| n.checked_sub(from).and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= bytes.len());
    let (begin, end) = (at(range.start)?, at(range.end)?);
    (begin <= end).then(|| bytes.slice(begin..end))
}

/// The end of an object, which is fetched once and kept.
struct ObjectTail<'a> {
    object: &'a ObjectReader,
    held: Option<(u64, Bytes)>,
    /// Whether the object ends as a file with an encrypted footer does.
    encrypted: bool,
    /// Bytes at the end of the object that are fetched first.
    first: u64,
}

impl ObjectTail<'_> {
    async fn get(&mut self, range: Range<u64>) -> parquet::errors::Result<Bytes> {
        if let Some(held) = self.held.as_ref().and_then(|(from, bytes)| slice_of(*from, bytes, &range)) {
            return Ok(held);
        }
        let bytes = self.object.store.get_range(&self.object.path, range.clone()).await.map_err(external)?;
        // A footer that is longer than the bytes in memory begins before them.
        if self.held.as_ref().is_none_or(|(from, _)| range.start < *from) {
            self.held = Some((range.start, bytes.clone()));
        }
        Ok(bytes)
    }

    /// Checks the footer before it is decoded, unless it is encrypted. A file without a footer is left to the
    /// decoder, which reports it.
    async fn check_footer(&mut self) -> parquet::errors::Result<()> {
        let size = self.object.size;
        // A Parquet file ends with the footer, its length in four bytes, and the magic `PAR1` (`PARE` if encrypted).
        let end = self.get(size.saturating_sub(self.first)..size).await?;
        self.encrypted = end.ends_with(ENCRYPTED_FOOTER);
        let Some((rest, magic)) = end.split_last_chunk::<4>().filter(|(_, magic)| *magic == b"PAR1") else {
            return Ok(());
        };
        debug_assert_eq!(magic, b"PAR1");
        let length = rest.last_chunk::<4>().map(|length| u64::from(u32::from_le_bytes(*length)));
        let Some(begin) = length.and_then(|length| (size - 8).checked_sub(length)) else { return Ok(()) };
        let footer = self.get(begin..size).await?;
        let footer = footer.get(..footer.len().saturating_sub(8)).unwrap_or_default();
        check_parquet_footer(footer, size).map_err(|reason| self.object.damaged_error(&reason))
    }
}

impl MetadataFetch for &mut ObjectTail<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.get(range).boxed()
    }
}

/// A footer of a file.
pub(crate) struct ParquetFooter {
    pub(crate) metadata: Arc<ParquetMetaData>,
    /// Whether the footer is encrypted in the file.
    pub(crate) encrypted: bool,
    /// The end of the file that was fetched, and where it begins.
    pub(crate) end: Option<(u64, Bytes)>,
}

/// Reads the footer of a file.
///
/// # Errors
/// `NoFileKeys` if the footer is encrypted and there are no keys; the errors of the keys; `UnreadableParquet`; the
/// errors of the store.
pub(crate) async fn fetch_footer(
    object: &ObjectReader,
    place: &str,
    keys: Option<&FileEncryption>,
    first: FirstFetch,
) -> Result<ParquetFooter> {
    let first = if first == FirstFetch::Whole { object.size } else { FOOTER };
    let mut tail = ObjectTail { object, held: None, encrypted: false, first };
    if object.size > 0 {
        tail.check_footer().await.map_err(|e| parquet_error(place, e))?;
    }
    let decode = decode_footer(&mut tail, place, keys);
    let read = catch_decoder_panic(decode).await.map_err(|e| parquet_error(place, panic_error(e)))??;
    let encrypted = tail.encrypted;
    match read {
        Err(_) if encrypted && keys.is_none() => Err(no_keys(place, None)),
        read => {
            let metadata = Arc::new(read.map_err(|e| parquet_error(place, e))?);
            Ok(ParquetFooter { metadata, encrypted, end: tail.held })
        }
    }
}

async fn decode_footer(
    tail: &mut ObjectTail<'_>,
    place: &str,
    keys: Option<&FileEncryption>,
) -> Result<parquet::errors::Result<ParquetMetaData>> {
    let size = tail.object.size;
    let reader = || ParquetMetaDataReader::new().with_prefetch_hint(usize::try_from(FOOTER).ok());
    Ok(match keys {
        None => reader().load_and_finish(tail, size).await,
        Some(keys) => {
            let keyring = FileKeyring::new(place, keys)?;
            // The Parquet library cannot wait for keys. Each round fetches the keys that the last one missed, until
            // none is missing.
            loop {
                let reader = reader().with_decryption_properties(Some(keyring.properties.clone()));
                let read = reader.load_and_finish(&mut *tail, size).await;
                if !keyring.fetch_missing().await? {
                    break read;
                }
            }
        }
    })
}
