//! Encryption and decryption of columns, value by value, in the format of [`crate::encrypt::cell`].
//!
//! There are three ways to choose salt and nonce: random salt and counter for each batch (fast), a salt that is a
//! keyed hash of the row (equal rows have equal results), and random or hashed nonces with the key of a subject.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, LargeBinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use aws_lc_rs::aead::LessSafeKey;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use biscuit_core::{Clock, Error, Result, SystemClock};

use crate::codes;
use crate::encrypt::cell::{
    COLUMN_HEAD, CellKey, EncryptedCell, OF_COLUMN, OF_SUBJECT, SALT, SUBJECT, SUBJECT_HEAD, TAG, cell_binding,
    counter_nonce, random_nonce, seal, value_cipher,
};
use crate::encrypt::digests::RowDigests;
use crate::encrypt::form::{EncodedValues, EncryptedForm, as_bytes, cannot_decrypt, decrypted_column, in_row};
use crate::encrypt::subjects::{SubjectKey, SubjectKeys};
use crate::keys::cache::{KeyCounters, KeyLimits};
use crate::keys::roots::RootKeys;
use crate::keys::secret::fill_random;
use zeroize::Zeroizing;

/// Encrypts columns value by value, and decrypts them. AES-256-GCM adds 39 bytes to each value, or 53 bytes with the
/// key of a subject.
///
/// Each value can be decrypted by itself: rows may be merged, moved to other files and sorted. A value is bound to
/// its table, its column and the version of its key, and cannot be decrypted elsewhere.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, AsArray, StringArray};
/// use arrow::datatypes::DataType;
/// use biscuit_pii::encrypt::ValueEncryptor;
/// use biscuit_pii::keys::RootKeys;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let encryptor = ValueEncryptor::new(RootKeys::in_memory()?, "customer");
/// let emails: ArrayRef = Arc::new(StringArray::from(vec!["ann@example.com"]));
/// let sealed = encryptor.encrypt("email", &emails)?;
/// let opened = encryptor.decrypt("email", &sealed, &DataType::Utf8).await?.column;
/// assert_eq!(opened.as_string::<i32>().value(0), "ann@example.com");
///
/// let e = encryptor.decrypt("phone", &sealed, &DataType::Utf8).await.unwrap_err();
/// assert_eq!(e.code(), "CannotDecrypt"); // the value is of another column
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use]
pub struct ValueEncryptor {
    roots: RootKeys,
    table: String,
    form: EncryptedForm,
    limits: KeyLimits,
    clock: Arc<dyn Clock>,
    subjects: Option<Arc<SubjectKeys>>,
    keys: Mutex<HashMap<String, BatchKey>>,
}

/// Key of a column for one batch or several consecutive ones.
#[derive(Debug)]
struct BatchKey {
    cipher: Arc<LessSafeKey>,
    salt: [u8; SALT],
    used: KeyCounters,
}

/// Decrypted column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DecryptedColumn {
    /// Decrypted values.
    pub column: ArrayRef,
    /// Number of values that are null because the key of their subject was deleted.
    pub forgotten: u64,
}

/// Column that was encrypted with keys of subjects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncryptedColumn {
    /// Encrypted values.
    pub column: ArrayRef,
    /// Number of values that were not encrypted but became null, because their subject was forgotten.
    pub forgotten: u64,
}

impl ValueEncryptor {
    /// Creates an encryptor for a table. The name of the table is authenticated: values cannot be decrypted under
    /// another name.
    pub fn new(roots: RootKeys, table: impl Into<String>) -> Self {
        let (table, form, limits, clock) =
            (table.into(), EncryptedForm::default(), KeyLimits::default(), Arc::new(SystemClock));
        Self { roots, table, form, limits, clock, subjects: None, keys: Mutex::default() }
    }

    /// Sets the form in which values are stored. Both forms can be decrypted. The default is binary.
    pub fn with_form(mut self, form: EncryptedForm) -> Self {
        self.form = form;
        self
    }

    /// Sets the limits for the use of one key of a column. The default is the default of [`KeyLimits`].
    pub fn with_limits(mut self, limits: KeyLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the clock that measures the age of keys, for tests.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the keys of subjects. They are needed to encrypt with [`encrypt_for`](Self::encrypt_for) and to decrypt
    /// its output.
    pub fn with_subjects(mut self, subjects: Arc<SubjectKeys>) -> Self {
        self.subjects = Some(subjects);
        self
    }

    /// Encrypts the values of a column. Null remains null. An empty text remains empty, so that it can be recognized.
    /// Numbers, dates and similar values are encrypted as the text that they are cast to.
    ///
    /// # Errors
    /// `NotText` for a column whose values have no text form; `TooManyBytes` for more than 2 GiB in one batch.
    pub fn encrypt(&self, column: &str, values: &ArrayRef) -> Result<ArrayRef> {
        let bytes = as_bytes(column, values)?;
        let bytes = bytes.as_binary::<i64>();
        let mut made = reserve_values(column, bytes, COLUMN_HEAD)?;
        let mut aad = cell_binding(&self.table, column);
        let bound = aad.len();
        // Counters are reserved for a whole batch at once. A batch above the limit of messages is split.
        let maximum = usize::try_from(self.limits.messages.min(1 << 32)).unwrap_or(usize::MAX).max(1);
        for begin in (0..bytes.len()).step_by(maximum) {
            let part = bytes.slice(begin, maximum.min(bytes.len() - begin));
            let (cipher, salt, first) = self.batch_key(column, &part)?;
            aad.truncate(bound);
            aad.push(OF_COLUMN);
            aad.extend(self.roots.current().to_be_bytes());
            aad.extend(salt);
            aad.extend([0; 4]);
            let mut counter = first;
            for value in part.iter() {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    aad[bound + COLUMN_HEAD - 4..].copy_from_slice(&counter.to_be_bytes());
                    made.bytes().extend_from_slice(&aad[bound..]);
                    seal(&cipher, counter_nonce(counter), &aad, value, made.bytes())?;
                    counter = counter.wrapping_add(1);
                }
                made.end_value();
            }
        }
        self.form.to_column(column, made.finish(bytes.nulls().cloned())?, values.data_type())
    }

    /// Returns the key for a batch of values, its salt, and the first free counter. The lock covers reading and
    /// advancing the counter, so that concurrent batches never get the same counters.
    fn batch_key(&self, column: &str, values: &LargeBinaryArray) -> Result<(Arc<LessSafeKey>, [u8; SALT], u32)> {
        let (now, count, bytes) = (self.clock.now(), values.len() as u64, values.values().len() as u64);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get_mut(column)
            && let Some(first) = key.used.count_use(&self.limits, now, count, bytes)
        {
            return Ok((key.cipher.clone(), key.salt, first as u32));
        }
        let mut salt = [0; SALT];
        fill_random(&mut salt)?;
        let cipher = Arc::new(column_cipher(&self.roots, self.roots.current(), &salt)?);
        let mut used = KeyCounters::new(now);
        used.count_use(&self.limits, now, count, bytes);
        keys.insert(column.to_owned(), BatchKey { cipher: cipher.clone(), salt, used });
        Ok((cipher, salt, 0))
    }

    /// Encrypts the values of a column so that equal rows have equal results, as merges and reruns need: a record
    /// that is read twice is the same record. The salt of a value is a keyed hash of its row, from the digests in
    /// `rows`. Values of rows that differ in any column have unrelated results, as with [`encrypt`](Self::encrypt).
    /// Each value has its own key, which takes a few microseconds to derive.
    ///
    /// # Errors
    /// Those of [`encrypt`](Self::encrypt).
    pub(crate) fn encrypt_repeatably(&self, column: &str, values: &ArrayRef, rows: &RowDigests) -> Result<ArrayRef> {
        let bytes = as_bytes(column, values)?;
        let bytes = bytes.as_binary::<i64>();
        let mut made = reserve_values(column, bytes, COLUMN_HEAD)?;
        let mut aad = cell_binding(&self.table, column);
        let bound = aad.len();
        for (row, value) in bytes.iter().enumerate() {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                // The nonce is always 0, since the salt and therefore the key depend on row, place and value: two
                // different plaintexts never share a key.
                let salt: [u8; SALT] = rows.derive(row, &aad[..bound], value);
                let cipher = column_cipher(&self.roots, self.roots.current(), &salt)?;
                aad.truncate(bound);
                aad.push(OF_COLUMN);
                aad.extend(self.roots.current().to_be_bytes());
                aad.extend(salt);
                aad.extend([0; 4]);
                made.bytes().extend_from_slice(&aad[bound..]);
                seal(&cipher, counter_nonce(0), &aad, value, made.bytes())?;
            }
            made.end_value();
        }
        self.form.to_column(column, made.finish(bytes.nulls().cloned())?, values.data_type())
    }

    /// Encrypts each value with the key of its subject, which `subjects` has row by row. Deleting that key makes the
    /// values unreadable in all copies. Values of forgotten subjects become null.
    ///
    /// # Errors
    /// Those of [`encrypt`](Self::encrypt); `NullSubject` for a value without a subject; `NoSubjects` without
    /// [`with_subjects`](Self::with_subjects); the errors of the store.
    pub async fn encrypt_for(&self, column: &str, values: &ArrayRef, subjects: &ArrayRef) -> Result<EncryptedColumn> {
        self.encrypt_of(column, values, subjects, None).await
    }

    /// Like [`encrypt_for`](Self::encrypt_for), but with `rows` the nonces are keyed hashes of the rows, so that
    /// equal rows have equal results.
    pub(crate) async fn encrypt_of(
        &self,
        column: &str,
        values: &ArrayRef,
        subjects: &ArrayRef,
        rows: Option<&RowDigests>,
    ) -> Result<EncryptedColumn> {
        let store = self.subject_keys_or_error()?;
        let bytes = as_bytes(column, values)?;
        let bytes = bytes.as_binary::<i64>();
        let names = names_of(subjects)?;
        let names = names.as_string::<i64>();
        // Only values that are not empty need a key, so that a subject without values gets none.
        let sealed_at = |row: usize| bytes.is_valid(row) && !bytes.value(row).is_empty();
        let mut wanted: BTreeMap<&str, Option<SubjectKey>> = BTreeMap::new();
        for row in (0..bytes.len()).filter(|row| sealed_at(*row)) {
            if names.is_null(row) {
                let message = format!("column `{column}`: the value has no subject");
                return Err(in_row(Error::new(codes::NULL_SUBJECT, message), column, row));
            }
            wanted.entry(names.value(row)).or_default();
        }
        let list: Vec<&str> = wanted.keys().copied().collect();
        for (name, key) in list.iter().zip(store.find_or_create(&list).await?) {
            wanted.insert(name, key);
        }
        let mut made = reserve_values(column, bytes, SUBJECT_HEAD)?;
        let mut aad = cell_binding(&self.table, column);
        let (bound, mut forgotten) = (aad.len(), 0);
        let mut valid: Vec<bool> = (0..bytes.len()).map(|row| bytes.is_valid(row)).collect();
        for row in 0..bytes.len() {
            match sealed_at(row).then(|| &wanted[names.value(row)]) {
                Some(Some(key)) => {
                    let nonce = match rows {
                        Some(rows) => rows.derive(row, &aad[..bound], bytes.value(row)),
                        None => random_nonce()?,
                    };
                    aad.truncate(bound);
                    aad.push(OF_SUBJECT);
                    aad.extend(key.subject);
                    aad.extend(key.made);
                    aad.extend(nonce);
                    made.bytes().extend_from_slice(&aad[bound..]);
                    seal(&key.cipher, nonce, &aad, bytes.value(row), made.bytes())?;
                }
                Some(None) => (valid[row], forgotten) = (false, forgotten + 1),
                None => {}
            }
            made.end_value();
        }
        let column = self.form.to_column(column, made.finish(Some(valid.into()))?, values.data_type())?;
        Ok(EncryptedColumn { column, forgotten })
    }

    /// Encrypts bytes to text so that equal bytes have equal results. A record that is quarantined twice is therefore
    /// stored once.
    ///
    /// # Errors
    /// `Internal` if the encryption fails.
    pub fn seal(&self, column: &str, bytes: &[u8]) -> Result<String> {
        let one: ArrayRef = Arc::new(BinaryArray::from(vec![bytes]));
        let row = RecordBatch::try_from_iter([(column, one.clone())]);
        let row = row.map_err(|e| Error::internal("cannot build a row of one value").with_source(e))?;
        let sealed = self.encrypt_repeatably(column, &one, &RowDigests::hash_rows(&self.roots, &row)?)?;
        let sealed = EncryptedForm::from_column(column, &sealed)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed.as_binary::<i64>().value(0)))
    }

    /// Decrypts the output of [`seal`](Self::seal).
    ///
    /// # Errors
    /// Those of [`decrypt`](Self::decrypt).
    pub async fn unseal(&self, column: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        let one: ArrayRef = Arc::new(StringArray::from(vec![sealed]));
        let opened = self.decrypt(column, &one, &DataType::Binary).await?.column;
        Ok(Zeroizing::new(opened.as_binary::<i32>().value(0).to_vec()))
    }

    /// Decrypts a column to values of type `to`. Values of forgotten subjects are null, and counted.
    ///
    /// # Errors
    /// `CannotDecrypt` with the row for a value that is not of this table and column, was changed, or is not of type
    /// `to`; `UnknownKeyVersion` for a value whose root key is missing; `UnknownSubject` if the store does not know
    /// the subject of a value, which means that it is another store; the errors of the store.
    pub async fn decrypt(&self, column: &str, stored: &ArrayRef, to: &DataType) -> Result<DecryptedColumn> {
        let bytes = EncryptedForm::from_column(column, stored)?;
        let bytes = bytes.as_binary::<i64>();
        let subjects = self.subject_keys(bytes).await?;
        let mut ciphers: HashMap<(u16, [u8; SALT]), LessSafeKey> = HashMap::new();
        let mut made = EncodedValues::with_capacity(column, bytes.len(), bytes.values().len())?;
        let (binding, mut aad) = (cell_binding(&self.table, column), vec![]);
        let mut valid: Vec<bool> = (0..bytes.len()).map(|row| bytes.is_valid(row)).collect();
        let mut forgotten = 0;
        for (row, value) in bytes.iter().enumerate() {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let cell = EncryptedCell::read(value)
                    .ok_or_else(|| cannot_decrypt(column, row, "is not an encrypted value"))?;
                let key = match cell.key {
                    CellKey::Column { version, salt } => match ciphers.entry((version, salt)) {
                        Entry::Occupied(there) => Some(&*there.into_mut()),
                        Entry::Vacant(place) => Some(&*place.insert(column_cipher(&self.roots, version, &salt)?)),
                    },
                    CellKey::Subject { subject, made } => match subjects.get(&subject) {
                        // A different id is of a key that the subject had before it was forgotten and readmitted.
                        Some(key) => key.as_ref().filter(|key| key.made == made).map(|key| &*key.cipher),
                        None => return Err(unknown_subject(column, row)),
                    },
                };
                match key {
                    Some(key) if cell.open(key, &binding, &mut aad, made.bytes()) => {}
                    Some(_) => {
                        let reason =
                            format!("does not belong to column `{column}` of table `{}`, or was changed", self.table);
                        return Err(cannot_decrypt(column, row, &reason));
                    }
                    None => (valid[row], forgotten) = (false, forgotten + 1),
                }
            }
            made.end_value();
        }
        let column = decrypted_column(column, made.finish(Some(valid.into()))?, to)?;
        Ok(DecryptedColumn { column, forgotten })
    }

    /// Returns the keys of all subjects of a column that the store knows, with `None` for forgotten subjects.
    async fn subject_keys(&self, bytes: &LargeBinaryArray) -> Result<HashMap<[u8; SUBJECT], Option<SubjectKey>>> {
        let of = |cell: EncryptedCell<'_>| match cell.key {
            CellKey::Subject { subject, .. } => Some(subject),
            CellKey::Column { .. } => None,
        };
        let mut wanted: Vec<[u8; SUBJECT]> =
            bytes.iter().flatten().filter_map(EncryptedCell::read).filter_map(of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = self.subject_keys_or_error()?.fetch_keys(&wanted).await?;
        Ok(wanted.into_iter().zip(keys).filter_map(|(subject, key)| Some((subject, key?))).collect())
    }

    fn subject_keys_or_error(&self) -> Result<&SubjectKeys> {
        self.subjects.as_deref().ok_or_else(|| {
            Error::new(
                codes::NO_SUBJECTS,
                "values are encrypted with keys of subjects, and there is no store for such keys",
            )
        })
    }
}

fn unknown_subject(column: &str, row: usize) -> Error {
    let message = format!(
        "column `{column}`: the store has no record of the subject of the value, not even as forgotten; open \
        the store that was used for encryption"
    );
    in_row(Error::new(codes::UNKNOWN_SUBJECT, message), column, row)
}

/// Reserves memory for the encrypted values of a column, whose cells have a head of `head` bytes.
fn reserve_values(column: &str, bytes: &LargeBinaryArray, head: usize) -> Result<EncodedValues> {
    let (first, last) = (bytes.value_offsets()[0], bytes.value_offsets()[bytes.len()]);
    EncodedValues::with_capacity(column, bytes.len(), (last - first) as usize + bytes.len() * (head + TAG))
}

fn column_cipher(roots: &RootKeys, version: u16, salt: &[u8; SALT]) -> Result<LessSafeKey> {
    value_cipher(&roots.derive_key(version, salt, &["biscuit cell"], 32)?)
}

/// Returns the subjects of a column as text.
pub(crate) fn names_of(subjects: &ArrayRef) -> Result<ArrayRef> {
    cast(subjects, &DataType::LargeUtf8).map_err(|e| {
        let message = format!("the subject column has type {}, which has no text form", subjects.data_type());
        Error::new(biscuit_core::codes::NOT_TEXT, message).with_source(e)
    })
}
