use std::ops::Range;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::store_error;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::encryption::{Encryption, no_keys};
use crate::keyring::{ENCRYPTED_FOOTER, Keyring};

/// Bytes that are fetched from the end at first: most footers are shorter.
const FOOTER: usize = 64 * 1024;

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct ObjectReader {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) size: u64,
}

/// One object whose footer was read, as the Parquet reader wants it.
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
        self.object.store.get_range(&self.object.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.object.store.get_ranges(&self.object.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let metadata = self.metadata.clone();
        std::future::ready(Ok(metadata)).boxed()
    }
}

/// The end of an object, which is fetched once.
struct Tail<'a> {
    object: &'a ObjectReader,
    held: Option<(u64, Bytes)>,
}

impl Tail<'_> {
    async fn get(&mut self, range: Range<u64>) -> parquet::errors::Result<Bytes> {
        let slice = |(from, bytes): &(u64, Bytes)| {
            let at = |n: u64| n.checked_sub(*from).and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= bytes.len());
            Some(bytes.slice(at(range.start)?..at(range.end)?))
        };
        if let Some(held) = self.held.as_ref().and_then(slice) {
            return Ok(held);
        }
        let bytes = self.object.store.get_range(&self.object.path, range.clone()).await.map_err(external)?;
        // A footer that is longer than what is held begins before it.
        if self.held.as_ref().is_none_or(|(from, _)| range.start < *from) {
            self.held = Some((range.start, bytes.clone()));
        }
        Ok(bytes)
    }

    fn has_encrypted_footer(&self) -> bool {
        let end = self.held.as_ref().filter(|(from, bytes)| from + bytes.len() as u64 == self.object.size);
        end.is_some_and(|(_, bytes)| bytes.ends_with(ENCRYPTED_FOOTER))
    }
}

impl MetadataFetch for &mut Tail<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.get(range).boxed()
    }
}

/// A footer.
pub(crate) struct Footer {
    pub(crate) metadata: Arc<ParquetMetaData>,
    /// Whether it is encrypted in the file.
    pub(crate) encrypted: bool,
}

/// What a failure of the Parquet library means: a store's error stays one, anything else is a file that is damaged.
pub fn parquet_error(place: &str, e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(e) => store_error("read", place, *e),
            Err(inner) => match inner.downcast::<Error>() {
                Ok(e) => *e,
                Err(inner) => unreadable(place, ParquetError::External(inner)),
            },
        },
        e => unreadable(place, e),
    }
}

fn unreadable(place: &str, e: ParquetError) -> Error {
    Error::data("UnreadableParquet", format!("`{place}` cannot be read as Parquet: {e}")).with_source(e)
}

/// What an error of arrow or DataFusion means while rows of `place` were worked on: an error of ours or of a store in it
/// stays one.
pub fn engine_error(place: &str, e: impl Into<datafusion::error::DataFusionError>) -> Error {
    use datafusion::arrow::error::ArrowError;
    use datafusion::error::DataFusionError as D;
    match e.into() {
        D::ObjectStore(e) => store_error("read", place, *e),
        D::ParquetError(e) => parquet_error(place, *e),
        D::ArrowError(e, _) => match *e {
            ArrowError::ExternalError(inner) => match inner.downcast::<ParquetError>() {
                Ok(e) => parquet_error(place, *e),
                Err(inner) => match inner.downcast::<Error>() {
                    Ok(e) => *e,
                    Err(inner) => bad_rows(place, ArrowError::ExternalError(inner)),
                },
            },
            e => bad_rows(place, e),
        },
        D::External(inner) => match inner.downcast::<Error>() {
            Ok(e) => *e,
            Err(inner) => bad_rows(place, D::External(inner)),
        },
        D::Context(_, inner) => engine_error(place, *inner),
        // What several parts of a plan have waited for.
        D::Shared(inner) => match Arc::try_unwrap(inner) {
            Ok(e) => engine_error(place, e),
            Err(shared) => match own(&shared) {
                Some(e) => e.without_source(),
                None => bad_rows(place, D::Shared(shared)),
            },
        },
        e @ D::ResourcesExhausted(_) => {
            Error::usage("MemoryExhausted", format!("the memory budget does not suffice for {place}")).with_source(e)
        }
        e => bad_rows(place, e),
    }
}

/// An error of the family in one of the engine's.
fn own(e: &datafusion::error::DataFusionError) -> Option<&Error> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(e) = at {
        if let Some(own) = e.downcast_ref::<Error>() {
            return Some(own);
        }
        at = e.source();
    }
    None
}

fn bad_rows(place: &str, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("UnreadableRows", format!("the rows of {place} cannot be worked on: {e}")).with_source(e)
}

/// Reads a footer.
///
/// # Errors
/// `NoFileKeys` for one that is encrypted, where there are no keys; those of the keys; `UnreadableParquet`; those of the store.
pub(crate) async fn fetch_footer(object: &ObjectReader, place: &str, keys: Option<&Encryption>) -> Result<Footer> {
    let mut tail = Tail { object, held: None };
    let reader = || ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER));
    let read = match keys {
        None => reader().load_and_finish(&mut tail, object.size).await,
        Some(keys) => {
            let keyring = Keyring::new(place, keys)?;
            loop {
                let reader = reader().with_decryption_properties(Some(keyring.properties.clone()));
                let read = reader.load_and_finish(&mut tail, object.size).await;
                if !keyring.missed().await? {
                    break read;
                }
            }
        }
    };
    let encrypted = tail.has_encrypted_footer();
    match read {
        Err(_) if encrypted && keys.is_none() => Err(no_keys(place, None)),
        read => Ok(Footer { metadata: Arc::new(read.map_err(|e| parquet_error(place, e))?), encrypted }),
    }
}
