//! Encryption of values as messages of the AWS Encryption SDK, with the data keys of a key provider.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::codes;
use crate::encrypt::form::{EncodedValues, EncryptedForm, as_bytes, cannot_decrypt, decrypted_column};
use crate::encrypt::message::{self, EnvelopeMessage};
use crate::keys::cache::KeyCache;
use crate::keys::provider::KeyContext;

/// Encrypts values as messages of the AWS Encryption SDK (version 2, suite 0478: AES-256-GCM with key commitment),
/// which the libraries of the SDK open. Messages of suite 0578, which are also signed, can be opened. Messages that
/// do not commit to their key are refused.
///
/// The message of a value of 100 bytes has 358 bytes with a local key and 547 bytes with KMS. Use messages for
/// readers without Biscuit. The cells of [`ValueEncryptor`](crate::encrypt::ValueEncryptor) are smaller and twenty
/// times as fast.
#[derive(Debug)]
pub struct EnvelopeEncryptor {
    keys: KeyCache,
    context: KeyContext,
    form: EncryptedForm,
}

impl EnvelopeEncryptor {
    /// Creates an encryptor with the data keys of a cache. Each message contains the context in clear.
    pub fn new(keys: KeyCache, context: KeyContext) -> Self {
        Self { keys, context, form: EncryptedForm::default() }
    }

    /// Sets the form in which columns are stored. Both forms can be decrypted. The default is binary.
    #[must_use]
    pub fn with_form(mut self, form: EncryptedForm) -> Self {
        self.form = form;
        self
    }

    /// Encrypts bytes as a message.
    ///
    /// # Errors
    /// Those of the key provider.
    pub async fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.keys.data_key(&self.context, plain.len() as u64).await?;
        message::seal(plain, &key, &self.context)
    }

    /// Opens a message. Its context has to agree with the context of this encryptor; pairs that the message does not
    /// contain have to be authenticated by it.
    ///
    /// # Errors
    /// `InvalidMessage` for a message that was changed; `UncommittedMessage` for a message without key commitment;
    /// `OtherContext` if the context differs; `UnknownKey` if the provider has no key for it.
    pub async fn open(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.open_for(bytes, &self.context).await
    }

    async fn open_for(&self, bytes: &[u8], context: &KeyContext) -> Result<Zeroizing<Vec<u8>>> {
        let message = EnvelopeMessage::read(bytes)?;
        // The required encryption context of the specification: pairs that are authenticated but not stored in the
        // message.
        let mut whole = message.context.clone();
        let mut unwritten = KeyContext::new();
        for (name, value) in context {
            match whole.insert(name.clone(), value.clone()) {
                Some(there) if there == *value => {}
                Some(_) => {
                    return Err(Error::new(
                        codes::OTHER_CONTEXT,
                        format!("the message has another `{name}` in its context"),
                    ));
                }
                None => drop(unwritten.insert(name.clone(), value.clone())),
            }
        }
        // Any of the data keys may open the message. An error of one key counts only if no other key opens it.
        let mut refused = None;
        for sealed in &message.keys {
            match self.keys.unseal(sealed, &whole).await {
                Ok(Some(secret)) => return message.open(&secret, &unwritten),
                Ok(None) => {}
                Err(e) => refused = Some(e),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let of: Vec<&str> = message.keys.iter().map(|key| key.provider.as_str()).collect();
            Error::new(
                biscuit_core::codes::UNKNOWN_KEY,
                format!("no key is available for a message with keys of {}", of.join(", ")),
            )
        }))
    }

    /// Returns the context of a column.
    fn context_of(&self, column: &str) -> KeyContext {
        let mut context = self.context.clone();
        context.insert("column".into(), column.into());
        context
    }

    /// Encrypts the values of a column, with the name of the column in the context of each message. Null remains
    /// null; an empty text remains empty.
    ///
    /// # Errors
    /// Those of [`ValueEncryptor::encrypt`](crate::encrypt::ValueEncryptor::encrypt) and of the key provider.
    pub async fn encrypt(&self, column: &str, values: &ArrayRef) -> Result<ArrayRef> {
        let context = self.context_of(column);
        let bytes = as_bytes(column, values)?;
        let bytes = bytes.as_binary::<i64>();
        let mut made = EncodedValues::with_capacity(column, bytes.len(), 0)?;
        for value in bytes.iter() {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let key = self.keys.data_key(&context, value.len() as u64).await?;
                let sealed = message::seal(value, &key, &context)?;
                if made.bytes().len() + sealed.len() > i32::MAX as usize {
                    let message =
                        format!("column `{column}` would have more than 2 GiB in one batch; use batches of fewer rows");
                    return Err(Error::new(codes::TOO_MANY_BYTES, message).with_column(column));
                }
                made.bytes().extend(sealed);
            }
            made.end_value();
        }
        self.form.to_column(column, made.finish(bytes.nulls().cloned())?, values.data_type())
    }

    /// Decrypts a column to values of type `to`.
    ///
    /// # Errors
    /// `CannotDecrypt` with the row, and the error of [`open`](Self::open) as its cause; the errors of the key
    /// provider.
    pub async fn decrypt(&self, column: &str, stored: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        let context = self.context_of(column);
        let bytes = EncryptedForm::from_column(column, stored)?;
        let bytes = bytes.as_binary::<i64>();
        let mut made = EncodedValues::with_capacity(column, bytes.len(), bytes.values().len())?;
        for (row, value) in bytes.iter().enumerate() {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let plain = self.open_for(value, &context).await.map_err(|e| match e.kind() {
                    biscuit_core::ErrorKind::Data => {
                        cannot_decrypt(column, row, &format!("cannot be decrypted: {}", e.message())).with_source(e)
                    }
                    _ => e,
                })?;
                made.bytes().extend_from_slice(&plain);
            }
            made.end_value();
        }
        decrypted_column(column, made.finish(bytes.nulls().cloned())?, to)
    }
}
