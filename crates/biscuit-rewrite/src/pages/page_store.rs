use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::column::page_store::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};

/// What is about to be written, in memory that is not to be copied: the Parquet writer writes it to a [`PageSink`].
#[derive(Debug, Clone, Default)]
pub(crate) struct PageBuffer(Arc<Mutex<PendingPages>>);

#[derive(Debug, Default)]
struct PendingPages {
    /// Pages, which the writer writes at once.
    pages: VecDeque<Bytes>,
    /// Whole column chunks, which it writes piece by piece, with their places in the file.
    chunks: VecDeque<(u64, Bytes)>,
}

/// Shorter pages the Parquet writer copies into its buffer, so that their own memory never comes to the sink.
const BUFFERED: usize = 8 * 1024;

impl PageBuffer {
    /// No page is about to be written any more.
    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = PendingPages::default();
    }

    fn push(&self, page: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pages.push_back(page);
    }

    /// Says that the file has this chunk from a place on, which the writer has not come to yet.
    pub(crate) fn push_chunk(&self, at: u64, chunk: Bytes) {
        if !chunk.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).chunks.push_back((at, chunk));
        }
    }

    /// How many bytes from a place on are of no chunk, and how many then of the next one.
    fn next_chunk(&self, at: u64) -> Option<(u64, u64)> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, chunk) = waiting.chunks.front()?;
        Some((from.saturating_sub(at), from + chunk.len() as u64 - at.max(*from)))
    }

    fn take_chunk(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).chunks.pop_front().map(|(_, chunk)| chunk)
    }

    /// The page that these bytes are, if they are one: the very same memory.
    fn take(&self, bytes: &[u8]) -> Option<Bytes> {
        let pages = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).pages;
        let same = |page: &Bytes| std::ptr::eq(page.as_ptr(), bytes.as_ptr()) && page.len() == bytes.len();
        // Small pages before it came here as copies.
        let at = pages.iter().position(same)?;
        pages.drain(..=at).next_back()
    }
}

/// What the Parquet writer writes to: keeps pages as they are, without copying them, and copies the little that lies between.
#[derive(Debug, Default)]
pub(crate) struct PageSink {
    passing: PageBuffer,
    done: Vec<Bytes>,
    rest: Vec<u8>,
    /// Bytes written so far.
    at: u64,
}

impl PageSink {
    pub(crate) fn new(passing: PageBuffer) -> Self {
        Self { passing, ..Self::default() }
    }

    /// All bytes since the last call, which comes behind a whole row group.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
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
            // A piece of a chunk, which is put down whole when its last piece comes.
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
                match self.passing.take(bytes) {
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

/// Keeps the pages of row groups in memory, and says which one is about to be written.
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
        let page = page.ok_or_else(|| ParquetError::General("a page is not there".to_owned()))?;
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
    fn pages_are_kept_as_they_are_and_the_rest_is_copied_in_its_place() {
        let passing = PageBuffer::default();
        let mut sink = PageSink::new(passing.clone());
        let (a, b) = (Bytes::from(vec![1; 50]), Bytes::from(vec![2; 50]));
        sink.write_all(b"PAR1").unwrap();
        passing.push(a.clone());
        sink.write_all(&a).unwrap();
        passing.push(b.clone());
        // A writer that copies the page first gets another memory: then it is copied here too.
        let copy = b.to_vec();
        sink.write_all(&copy).unwrap();
        sink.write_all(b"between").unwrap();
        let c = Bytes::from(vec![3; 50]);
        passing.push(c.clone());
        sink.write_all(b"between").unwrap();
        sink.write_all(&c).unwrap();
        let out = sink.take();
        assert!(std::ptr::eq(out[1].as_ptr(), a.as_ptr()) && std::ptr::eq(out[3].as_ptr(), c.as_ptr()));
        assert_eq!(out.concat(), [b"PAR1".as_slice(), &a, &b, b"betweenbetween", &c].concat());
        // Chunks come in pieces, of which the first may be behind other bytes and the last before some.
        let at = out.concat().len() as u64;
        let chunk = Bytes::from((0..100).collect::<Vec<u8>>());
        passing.push_chunk(at + 3, chunk.clone());
        passing.push_chunk(at + 103, a.clone());
        let all = [b"xyz".as_slice(), &chunk, &a, b"end"].concat();
        all.chunks(40).for_each(|piece| sink.write_all(piece).unwrap());
        let out = sink.take();
        assert_eq!((out.concat(), out.len()), (all, 4));
        assert!(std::ptr::eq(out[1].as_ptr(), chunk.as_ptr()) && std::ptr::eq(out[2].as_ptr(), a.as_ptr()));
        passing.push(a.clone());
        assert!(sink.take().is_empty() && passing.take(&a).is_none(), "no page is held beyond its row group");
    }
}
