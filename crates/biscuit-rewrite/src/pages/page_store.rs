//! Hands encoded pages to the store without copying them.
//!
//! The Parquet writer takes pages from a `PageStore` and writes them to a `Write` as slices. The slice does not own
//! its memory, so a normal sink has to copy it. Here both ends share a `PageBuffer`: the store announces each page as
//! `Bytes`, and the sink recognises the slice by its address and keeps the `Bytes` instead.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::column::page_store::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};

/// Pages and chunks that are about to be written. The Parquet writer writes them to a [`PageSink`], which recognises
/// them and does not copy them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageBuffer(Arc<Mutex<PendingPages>>);

#[derive(Debug, Default)]
struct PendingPages {
    /// Pages, which the writer writes with one call each.
    pages: VecDeque<Bytes>,
    /// Whole column chunks, with their offsets in the file. The writer writes them in pieces.
    chunks: VecDeque<(u64, Bytes)>,
}

/// Size in bytes below which the Parquet writer copies a page into its own buffer, so that the page's memory does not
/// reach the sink.
const BUFFERED: usize = 8 * 1024;

impl PageBuffer {
    /// Forgets all announced pages and chunks.
    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = PendingPages::default();
    }

    fn push(&self, page: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pages.push_back(page);
    }

    /// Announces that the file will contain `chunk` from offset `at` on. The writer has not reached this offset.
    pub(crate) fn push_chunk(&self, at: u64, chunk: Bytes) {
        if !chunk.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).chunks.push_back((at, chunk));
        }
    }

    /// Returns the number of bytes from offset `at` to the next chunk, and the number of bytes of that chunk that are
    /// still missing.
    fn next_chunk(&self, at: u64) -> Option<(u64, u64)> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, chunk) = waiting.chunks.front()?;
        Some((from.saturating_sub(at), from + chunk.len() as u64 - at.max(*from)))
    }

    fn take_chunk(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).chunks.pop_front().map(|(_, chunk)| chunk)
    }

    /// Returns the announced page that these bytes are, if they are the same memory.
    fn take_page(&self, bytes: &[u8]) -> Option<Bytes> {
        let pages = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).pages;
        let same = |page: &Bytes| std::ptr::eq(page.as_ptr(), bytes.as_ptr()) && page.len() == bytes.len();
        // The pages before it were small and came as copies. They are dropped.
        let at = pages.iter().position(same)?;
        pages.drain(..=at).next_back()
    }
}

/// Sink of the Parquet writer. Keeps announced pages without copying them, and copies all other bytes.
#[derive(Debug, Default)]
pub(crate) struct PageSink {
    passing: PageBuffer,
    done: Vec<Bytes>,
    rest: Vec<u8>,
    /// Number of bytes written so far.
    at: u64,
}

impl PageSink {
    pub(crate) fn new(passing: PageBuffer) -> Self {
        Self { passing, ..Self::default() }
    }

    /// Returns all bytes since the last call. Must be called after a complete row group, since announced pages are
    /// forgotten.
    pub(crate) fn take_bytes(&mut self) -> Vec<Bytes> {
        self.passing.clear();
        self.end_rest();
        std::mem::take(&mut self.done)
    }

    fn end_rest(&mut self) {
        if !self.rest.is_empty() {
            self.done.push(std::mem::take(&mut self.rest).into());
        }
    }
}

impl Write for PageSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = match self.passing.next_chunk(self.at) {
            // A piece of a chunk. The whole chunk is kept when its last piece arrives.
            Some((0, left)) => {
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if length as u64 == left {
                    self.end_rest();
                    self.done.extend(self.passing.take_chunk());
                }
                length
            }
            next => {
                let before = next.map_or(usize::MAX, |(before, _)| usize::try_from(before).unwrap_or(usize::MAX));
                let bytes = &bytes[..bytes.len().min(before)];
                match self.passing.take_page(bytes) {
                    Some(page) => {
                        self.end_rest();
                        self.done.push(page);
                    }
                    None => self.rest.extend_from_slice(bytes),
                }
                bytes.len()
            }
        };
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps the pages of unfinished row groups in memory, and announces each one before it is written.
#[derive(Debug)]
pub(crate) struct PageKeeper(pub(crate) PageBuffer);

impl PageStoreFactory for PageKeeper {
    fn create(&self, _: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        Ok(Box::new(MemoryPageStore { pages: vec![], passing: self.0.clone(), held: 0 }))
    }
}

struct MemoryPageStore {
    pages: Vec<Bytes>,
    passing: PageBuffer,
    held: usize,
}

impl PageStore for MemoryPageStore {
    fn put(&mut self, value: Bytes) -> Result<PageKey> {
        self.held += value.len();
        self.pages.push(value);
        Ok(PageKey::new(self.pages.len() as u64 - 1))
    }

    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        let page = usize::try_from(key.get()).ok().and_then(|k| self.pages.get_mut(k)).map(std::mem::take);
        let page = page.ok_or_else(|| ParquetError::General("the page does not exist".to_owned()))?;
        self.held -= page.len();
        if page.len() >= BUFFERED {
            self.passing.push(page.clone());
        }
        Ok(page)
    }

    fn memory_size(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_passed_without_a_copy_and_other_bytes_are_copied() {
        let passing = PageBuffer::default();
        let mut sink = PageSink::new(passing.clone());
        let (a, b) = (Bytes::from(vec![1; 50]), Bytes::from(vec![2; 50]));
        sink.write_all(b"PAR1").unwrap();
        passing.push(a.clone());
        sink.write_all(&a).unwrap();
        passing.push(b.clone());
        // A writer that copies a page passes other memory, so the sink copies it as well.
        let copy = b.to_vec();
        sink.write_all(&copy).unwrap();
        sink.write_all(b"between").unwrap();
        let c = Bytes::from(vec![3; 50]);
        passing.push(c.clone());
        sink.write_all(b"between").unwrap();
        sink.write_all(&c).unwrap();
        let out = sink.take_bytes();
        assert!(std::ptr::eq(out[1].as_ptr(), a.as_ptr()) && std::ptr::eq(out[3].as_ptr(), c.as_ptr()));
        assert_eq!(out.concat(), [b"PAR1".as_slice(), &a, &b, b"betweenbetween", &c].concat());
        // Chunks are written in pieces. The first piece may begin with other bytes, and the last may end with some.
        let at = out.concat().len() as u64;
        let chunk = Bytes::from((0..100).collect::<Vec<u8>>());
        passing.push_chunk(at + 3, chunk.clone());
        passing.push_chunk(at + 103, a.clone());
        let all = [b"xyz".as_slice(), &chunk, &a, b"end"].concat();
        all.chunks(40).for_each(|piece| sink.write_all(piece).unwrap());
        let out = sink.take_bytes();
        assert_eq!((out.concat(), out.len()), (all, 4));
        assert!(std::ptr::eq(out[1].as_ptr(), chunk.as_ptr()) && std::ptr::eq(out[2].as_ptr(), a.as_ptr()));
        passing.push(a.clone());
        assert!(
            sink.take_bytes().is_empty() && passing.take_page(&a).is_none(),
            "no page is held beyond its row group"
        );
    }
}
