use std::fmt;

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use aws_lc_rs::hmac;
use biscuit_core::{Error, Result};

use crate::codes;
use crate::keys::roots::RootKeys;
use crate::mac::{compute_mac, mac_key};

/// Keyed hash of each row of a batch. Salts and nonces that must repeat for equal rows are derived from it.
pub(crate) struct RowDigests {
    key: hmac::Key,
    rows: Vec<[u8; 32]>,
}

impl fmt::Debug for RowDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowDigests({} rows)", self.rows.len())
    }
}

impl RowDigests {
    /// Hashes the rows over all of their columns.
    ///
    /// # Errors
    /// `CannotRepeat` for columns of a type that the row format of Arrow does not support.
    pub(crate) fn hash_rows(roots: &RootKeys, rows: &RecordBatch) -> Result<Self> {
        let key = roots.derive_key(roots.current(), b"", &["biscuit row"], 32)?;
        let key = mac_key(key.expose());
        let failed = |e| {
            let message = "the rows have columns whose values cannot be compared, so equal rows cannot be recognized";
            Error::new(codes::CANNOT_REPEAT, message).with_source(e)
        };
        let schema = rows.schema();
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(failed)?;
        let encoded = converter.convert_columns(rows.columns()).map_err(failed)?;
        // The names are hashed as well, so that rows with other columns have other digests.
        let names = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join("\0");
        let length = (names.len() as u64).to_be_bytes();
        let row = |row: arrow::row::Row<'_>| compute_mac(&key, &[&length, names.as_bytes(), row.as_ref()]);
        let rows = encoded.iter().map(row).collect();
        Ok(Self { key, rows })
    }

    /// Returns the salt or nonce of a value of a row. It depends on the place that the value is bound to and on the
    /// value, so that two uses have the same salt or nonce only for the same value in the same place of equal rows.
    pub(crate) fn derive<const N: usize>(&self, row: usize, binding: &[u8], value: &[u8]) -> [u8; N] {
        let length = (binding.len() as u64).to_be_bytes();
        let mac = compute_mac(&self.key, &[&self.rows[row], &length, binding, value]);
        let mut part = [0; N];
        part.copy_from_slice(&mac[..N]);
        part
    }
}
