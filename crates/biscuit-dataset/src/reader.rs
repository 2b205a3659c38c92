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
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// Bytes that are fetched from the end at first: most footers are shorter.
const FOOTER: usize = 64 * 1024;

/// One object as the Parquet reader wants it.
#[derive(Debug, Clone)]
pub(crate) struct ObjectReader {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) size: u64,
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER));
            Ok(Arc::new(reader.load_and_finish(&mut *self, size).await?))
        }
        .boxed()
    }
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

pub(crate) async fn fetch_metadata(reader: &ObjectReader, place: &str) -> Result<Arc<ParquetMetaData>> {
    let options = ArrowReaderOptions::new();
    reader.clone().get_metadata(Some(&options)).await.map_err(|e| parquet_error(place, e))
}
