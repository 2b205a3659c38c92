//! Change files that are opened ahead: several files are fetched and decompressed while the files before them are
//! decoded.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::ops::Range;

use biscuit_change::internal::{AvroChunks, TextChunks, TextForm};
use biscuit_core::{Error, Result};
use bytes::{Buf, Bytes};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::changes::decoding::DecodingUnit;
use crate::changes::found_files::FoundFile;
use crate::changes::task_output::TaskOutput;

/// Maximum size in bytes of a file that is read with a single request.
const WHOLE: u64 = 8 << 20;

/// Bytes of a larger file that are read with one request, and the number of requests at a time.
const PIECE: u64 = 4 << 20;
const PIECES: usize = 3;

/// A file that was opened, by its content.
pub(crate) enum OpenedFile {
    /// Large Parquet file, which is read one row group at a time.
    RowGroups,
    /// Small Parquet file.
    Rows(Bytes),
    /// Text in chunks of whole records, or an Avro file in chunks of whole blocks.
    Chunks(TaskOutput<DecodingUnit>),
    /// File that is not read.
    Skipped,
}

/// Files in their order, some of them opened ahead.
pub(crate) struct OpenedFiles<'a> {
    files: std::slice::Iter<'a, (FoundFile, Option<TextForm>)>,
    opened: VecDeque<JoinHandle<Result<OpenedFile>>>,
    ahead: usize,
}

impl<'a> OpenedFiles<'a> {
    /// Begins to open files, with the form of each if it is text; `None` for a file that is not read. At most `ahead`
    /// files are open at a time.
    pub(crate) fn new(files: &'a [(FoundFile, Option<TextForm>)], ahead: usize) -> Self {
        Self { files: files.iter(), opened: VecDeque::new(), ahead: ahead.max(1) }
    }

    /// Returns the next file; `None` after the last one.
    ///
    /// # Errors
    /// `EmptyFile`, `InputGone`, `InputChanged`, and errors of the store.
    pub(crate) async fn next(&mut self) -> Result<Option<OpenedFile>> {
        while self.opened.len() < self.ahead
            && let Some((file, form)) = self.files.next()
        {
            self.opened.push_back(tokio::spawn(open_file(file.clone(), *form)));
        }
        match self.opened.pop_front() {
            None => Ok(None),
            Some(opened) => {
                let failed = |e| Error::internal("the task that opens a change file failed").with_source(e);
                opened.await.map_err(failed)?.map(Some)
            }
        }
    }
}

async fn open_file(file: FoundFile, form: Option<TextForm>) -> Result<OpenedFile> {
    let Some(form) = form else { return Ok(OpenedFile::Skipped) };
    let size = file.listed.size;
    tracing::info!(file = %file.name(), bytes = size, "reading changes");
    if size == 0 {
        return Err(Error::new(biscuit_change::codes::EMPTY_FILE, "the file is empty").in_file(file.name()));
    }
    // Small files are read with a single request. Whether a large file is Parquet or Avro is decided by its first
    // bytes and not by its name.
    let begin = file.fetch_range(0..if size > WHOLE { 4 } else { size }).await?;
    let (is_parquet, is_avro) = (begin.starts_with(b"PAR1"), begin.starts_with(b"Obj\x01"));
    if is_parquet {
        return Ok(if size > WHOLE { OpenedFile::RowGroups } else { OpenedFile::Rows(begin) });
    }
    let raw: Box<dyn BufRead + Send> = match size > WHOLE {
        true => Box::new(FilePieces::start(file.clone())),
        false => Box::new(begin.reader()),
    };
    Ok(match is_avro {
        true => OpenedFile::Chunks(start_reading(move || {
            let mut chunks = AvroChunks::open(&file.name().into(), raw, size, form.settings.max_decompressed)?;
            Ok(move || Ok(chunks.next_chunk()?.map(DecodingUnit::Blocks)))
        })),
        false => OpenedFile::Chunks(start_reading(move || {
            let mut chunks = TextChunks::open(&file.name().into(), raw, size, form.separation, &form.settings)?;
            Ok(move || Ok(chunks.next_chunk()?.map(DecodingUnit::Text)))
        })),
    })
}

/// Starts a thread that divides a file into chunks. `open` opens the file, and returns a function that reads the next
/// chunk.
fn start_reading<N: FnMut() -> Result<Option<DecodingUnit>>>(
    open: impl FnOnce() -> Result<N> + Send + 'static,
) -> TaskOutput<DecodingUnit> {
    TaskOutput::start(|send| {
        tokio::task::spawn_blocking(move || {
            let mut next = match open() {
                Ok(next) => next,
                Err(e) => return drop(send.blocking_send(Err(e))),
            };
            while let Some(chunk) = next().transpose() {
                let last = chunk.is_err();
                if send.blocking_send(chunk).is_err() || last {
                    break;
                }
            }
        })
    })
}

/// Reader of a large file in pieces, some of which are requested ahead.
struct FilePieces {
    pieces: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
    /// Bytes of the file that were not received yet.
    left: u64,
}

impl FilePieces {
    fn start(file: FoundFile) -> Self {
        let (send, pieces) = mpsc::channel(1);
        let size = file.listed.size;
        tokio::spawn(async move {
            let ranges = (0..size.div_ceil(PIECE)).map(|piece| piece * PIECE..((piece + 1) * PIECE).min(size));
            let fetch = |range: Range<u64>| file.fetch_range(range);
            let mut fetched = stream::iter(ranges).map(fetch).buffered(PIECES);
            while let Some(piece) = fetched.next().await {
                let last = piece.is_err();
                if send.send(piece).await.is_err() || last {
                    break;
                }
            }
        });
        Self { pieces, current: Bytes::new(), left: size }
    }
}

impl BufRead for FilePieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.current = piece.map_err(io::Error::other)?;
                    self.left = self.left.saturating_sub(self.current.len() as u64);
                }
                // Pieces that are missing must not look like the end of the file.
                None if self.left > 0 => {
                    let message = format!("the last {} bytes of a change file were not received", self.left);
                    return Err(io::Error::other(Error::internal(message)));
                }
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, bytes: usize) {
        self.current.advance(bytes);
    }
}

impl Read for FilePieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let n = ready.len().min(into.len());
        into[..n].copy_from_slice(&ready[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_pieces_are_an_error_and_not_the_end() {
        let read = |size: u64| {
            let (send, pieces) = mpsc::channel(2);
            for piece in ["ab", "c"] {
                send.try_send(Ok(Bytes::from(piece))).expect("the channel has room");
            }
            drop(send);
            let mut text = String::new();
            FilePieces { pieces, current: Bytes::new(), left: size }.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(3).expect("all pieces are there"), "abc");
        assert!(read(4).unwrap_err().to_string().contains("the last 1 bytes"));
    }
}
