//! State files that consist of parts: a line with the kind and the format version, then each part after its length (8
//! bytes, little-endian).

use biscuit_core::{Error, Result};
use biscuit_journal::{Journal, TableHead};
use bytes::Bytes;

/// A kind of state file. The name of the file is also in its first line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateFileKind(pub(crate) &'static str);

impl StateFileKind {
    fn header_line(self) -> String {
        format!("biscuit {} 2\n", self.0)
    }

    pub(crate) fn damaged_error(self) -> Error {
        Error::new(biscuit_journal::codes::DIVERGED, format!("cannot read the state file `{}`", self.0))
    }

    /// Loads the parts of the state file of the newest version. Empty if the file does not exist.
    pub(crate) async fn load_parts(self, journal: &Journal, head: &TableHead) -> Result<Vec<Vec<u8>>> {
        match head.state.get(self.0) {
            Some(file) => self.read(&journal.read_state(head, file).await?),
            None => Ok(vec![]),
        }
    }

    pub(crate) fn write<P: AsRef<[u8]>>(self, parts: impl IntoIterator<Item = P>) -> Bytes {
        let mut out = self.header_line().into_bytes();
        for part in parts {
            out.extend((part.as_ref().len() as u64).to_le_bytes());
            out.extend(part.as_ref());
        }
        out.into()
    }

    pub(crate) fn read(self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut rest = bytes.strip_prefix(self.header_line().as_bytes()).ok_or_else(|| self.damaged_error())?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<8>().ok_or_else(|| self.damaged_error())?;
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| self.damaged_error())?;
            let (part, tail) = tail.split_at_checked(length).ok_or_else(|| self.damaged_error())?;
            parts.push(part.to_vec());
            rest = tail;
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_back_and_damaged_files_are_refused() {
        let kind = StateFileKind("parts");
        let parts = vec![b"one".to_vec(), vec![], vec![0; 300]];
        assert_eq!(kind.read(&kind.write(&parts)).expect("the parts are readable"), parts);
        for bytes in [&b"biscuit parts 1\n"[..], b"biscuit other 2\n", b"biscuit parts 2\n\x05", b""] {
            assert_eq!(kind.read(bytes).unwrap_err().code(), "Diverged");
        }
        let cut = kind.write(&parts);
        assert_eq!(kind.read(&cut[..cut.len() - 1]).unwrap_err().code(), "Diverged");
    }
}
