use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::{WriterPolicy, store_error};
use datafusion::dataframe::DataFrame;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutMode, UpdateVersion};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;

use crate::Location;
use crate::codes;
use crate::engine_error::{engine_error, parquet_error};
use crate::files::writer::{ParquetOptions, unwritable_error};

/// Writes rows as one file at `place` with a single put, so that readers see the old file or the new one. The file is
/// built in memory. An existing file is replaced only if it is still the one that was observed here. Returns the
/// number of rows.
///
/// # Errors
/// `NoConditionalOverwrite` if the store cannot check that (a local disk) and `writers` is not [`WriterPolicy::One`];
/// `Conflict` if another run wrote the file first.
pub async fn write_single(
    place: &Location,
    rows: DataFrame,
    writers: WriterPolicy,
    options: &ParquetOptions,
) -> Result<u64> {
    let (store, path) = (&place.storage().store, place.path());
    let observed = match store.head(path).await {
        Ok(meta) => Some(meta),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(e) => return Err(store_error("read the metadata of", path, e)),
    };
    let (bytes, count) = encode_rows(rows, options).await?;
    let mode = match &observed {
        None => PutMode::Create,
        Some(meta) => PutMode::Update(UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() }),
    };
    let put = store.put_opts(path, bytes.clone().into(), mode.into()).await;
    let put = match put {
        Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })
            if writers == WriterPolicy::One =>
        {
            store.put(path, bytes.into()).await
        }
        other => other,
    };
    match put {
        Ok(_) => {}
        Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
            let message = format!(
                "this store cannot check that `{place}` is unchanged before it is replaced; promise a single writer to replace it"
            );
            return Err(Error::new(codes::NO_CONDITIONAL_OVERWRITE, message));
        }
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            return Err(Error::new(
                biscuit_core::codes::CONFLICT,
                format!("another run wrote `{place}` meanwhile; run again"),
            ));
        }
        Err(e) => return Err(store_error("write", path, e)),
    }
    place.storage().durability.sync_file(path).await?;
    place.storage().durability.sync_folder_of(path).await?;
    Ok(count)
}

async fn encode_rows(rows: DataFrame, options: &ParquetOptions) -> Result<(bytes::Bytes, u64)> {
    let schema = Arc::clone(rows.schema().inner());
    let mut batches = rows.execute_stream().await.map_err(|e| engine_error("the rows to write", e))?;
    let arrow = ArrowWriterOptions::new()
        .with_properties(options.encrypted_properties(options.writer_properties(), &schema).await?)
        .with_skip_arrow_metadata(true);
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut out, schema, arrow).map_err(unwritable_error)?;
    let mut count = 0;
    while let Some(batch) = batches.try_next().await.map_err(|e| engine_error("the rows to write", e))? {
        count += batch.num_rows() as u64;
        writer.write(&batch).map_err(|e| parquet_error("the file", e))?;
    }
    writer.close().map_err(|e| parquet_error("the file", e))?;
    Ok((out.into(), count))
}
