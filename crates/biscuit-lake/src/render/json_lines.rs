//! Writes the manifest of a purge as JSON lines, to a file or an object.

use std::path::Path;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenLocation;
use biscuit_journal::store_error;
use biscuit_maintain::DeletePlace;
use biscuit_purge::internal::is_below;
use object_store::buffered::BufWriter;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::environment::context::CommandContext;
use crate::render::own_files::{ExistingFile, NewFile, check_output, check_outside};

/// Writer of JSON lines that works in the background. It does nothing if no manifest is requested.
///
/// The queue is unbounded, since lines are added from callbacks that cannot wait.
pub(crate) struct JsonLinesOutput(Option<(mpsc::UnboundedSender<String>, JoinHandle<Result<()>>)>);

impl JsonLinesOutput {
    /// Opens the manifest and verifies that it can be written, before anything is deleted.
    ///
    /// An existing file is replaced only when the manifest is complete.
    pub(crate) async fn open(url: Option<&String>, place: &DeletePlace, context: &CommandContext) -> Result<Self> {
        let Some(url) = url else { return Ok(Self(None)) };
        let location = context.stores.open(url).await?;
        let path = location.path();
        if place.is_here(url) && is_below(path.as_ref(), place.prefix()) {
            let message = format!("the manifest `{url}` would be inside the purged folder; choose another place");
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        check_outside(location.storage(), path.as_ref(), url, "manifest").await?;
        let (lines, queue) = mpsc::unbounded_channel::<String>();
        let writer = if url.contains("://") && !url.starts_with("file://") {
            let store: Arc<dyn ObjectStore> = location.storage().store.clone();
            // An empty object proves the permission to write. The completed manifest replaces it.
            store.put(path, "".into()).await.map_err(|e| store_error("write the manifest", url, e))?;
            tokio::spawn(to_object(BufWriter::new(store, path.clone()), url.clone(), queue))
        } else {
            let here = url.strip_prefix("file://").unwrap_or(url);
            check_output(here, "manifest")?;
            let file = NewFile::begin(Path::new(here), ExistingFile::Replace)?;
            tokio::task::spawn_blocking(move || to_file(file, queue))
        };
        Ok(Self(Some((lines, writer))))
    }

    /// Adds a line, without its line end.
    pub(crate) fn write_line(&mut self, line: String) {
        // If the writer has failed, `close` returns its error.
        if let Some((lines, _)) = &self.0 {
            drop(lines.send(line));
        }
    }

    /// Waits until the manifest is complete and durable.
    pub(crate) async fn close(self) -> Result<()> {
        let Some((lines, writer)) = self.0 else { return Ok(()) };
        drop(lines);
        writer.await.map_err(|e| Error::internal("the writer of the manifest stopped").with_source(e))?
    }
}

/// Writes the lines of the queue to an object, until the queue is closed.
async fn to_object(mut out: BufWriter, url: String, mut queue: mpsc::UnboundedReceiver<String>) -> Result<()> {
    let failed = |e: std::io::Error| {
        let message = format!("the manifest `{url}` cannot be written");
        Error::new(biscuit_core::codes::STORE_UNAVAILABLE, message).with_plain_source(e)
    };
    while let Some(line) = queue.recv().await {
        out.write_all(line.as_bytes()).await.map_err(failed)?;
        out.write_all(b"\n").await.map_err(failed)?;
    }
    out.shutdown().await.map_err(failed)
}

/// Writes the lines of the queue to a file, and gives the file its name when the queue is closed.
fn to_file(mut file: NewFile, mut queue: mpsc::UnboundedReceiver<String>) -> Result<()> {
    while let Some(line) = queue.blocking_recv() {
        file.write(format!("{line}\n").as_bytes())?;
    }
    file.put_in_place(ExistingFile::Replace)
}
