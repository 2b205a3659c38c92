use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::encrypt::form::{EncodedValues, EncryptedForm, as_bytes, cannot_decrypt, opened};
use crate::encrypt::message::{self, EnvelopeMessage};
use crate::keys::cache::KeyCache;
use crate::keys::provider::KeyContext;

/// Messages of the AWS Encryption SDK (version 2, suite 0478: AES-256-GCM with key commitment), which its libraries open. Those of suite 0578, which
/// are signed as well, are opened; messages that do not commit to their key are not.
///
/// A message of 100 bytes has 358 bytes with a key of one's own, and 547 with KMS: the form for readers that have no Biscuit. [`Cells`](crate::Cells)
/// are smaller and twenty times as fast.
#[derive(Debug)]
pub struct EnvelopeEncryptor {
    keys: KeyCache,
    context: KeyContext,
    form: EncryptedForm,
}

impl EnvelopeEncryptor {
    /// Messages with data keys of this cache, for this context, which each of them carries in clear.
    pub fn new(keys: KeyCache, context: KeyContext) -> Self {
        Self { keys, context, form: EncryptedForm::default() }
    }

    /// The same, storing columns in this form. Both are read.
    pub fn with_form(mut self, form: EncryptedForm) -> Self {
        self.form = form;
        self
    }

    /// A message.
    ///
    /// # Errors
    /// Those of the key provider.
    pub async fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.keys.data_key(&self.context, plain.len() as u64).await?;
        message::seal(plain, &key, &self.context)
    }

    /// What is in a message, if its context has all that this one has. What it does not carry of that has been authenticated with it.
    ///
    /// # Errors
    /// `InvalidMessage` for one that was changed, `UncommittedMessage` for one of another suite, `OtherContext`, `NoKey` if no key of the provider
    /// opens it.
    pub async fn open(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.open_for(bytes, &self.context).await
    }

    async fn open_for(&self, bytes: &[u8], context: &KeyContext) -> Result<Zeroizing<Vec<u8>>> {
        let message = EnvelopeMessage::read(bytes)?;
        let mut whole = message.context.clone();
        let mut unwritten = KeyContext::new();
        for (name, value) in context {
            match whole.insert(name.clone(), value.clone()) {
                Some(there) if there == *value => {}
                Some(_) => return Err(Error::data("OtherContext", format!("a message is for another `{name}`"))),
                None => drop(unwritten.insert(name.clone(), value.clone())),
            }
        }
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
            Error::data("NoKey", format!("no key is at hand for a message of {}", of.join(", ")))
        }))
    }

    /// The context of a column.
    fn context_of(&self, column: &str) -> KeyContext {
        let mut context = self.context.clone();
        context.insert("column".into(), column.into());
        context
    }

    /// Encrypts the values of a column, with its name in the context of each. Null stays null; an empty text stays empty.
    ///
    /// # Errors
    /// Those of [`Cells::encrypt`](crate::Cells::encrypt) and of the key provider.
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
                        format!("column `{column}` would have more than 2 GiB in one batch; take fewer rows at once");
                    return Err(Error::usage("TooManyBytes", message).with_column(column));
                }
                made.bytes().extend(sealed);
            }
            made.end();
        }
        self.form.store(column, made.finish(bytes.nulls().cloned())?, values.data_type())
    }

    /// Decrypts a column to values of this type.
    ///
    /// # Errors
    /// `CannotDecrypt` with the row, and those of [`open`](Self::open) as its cause; those of the key provider.
    pub async fn decrypt(&self, column: &str, stored: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        let context = self.context_of(column);
        let bytes = EncryptedForm::load(column, stored)?;
        let bytes = bytes.as_binary::<i64>();
        let mut made = EncodedValues::with_capacity(column, bytes.len(), bytes.values().len())?;
        for (row, value) in bytes.iter().enumerate() {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let plain = self.open_for(value, &context).await.map_err(|e| match e.kind() {
                    biscuit_core::ErrorKind::Data => {
                        cannot_decrypt(column, row, &format!("does not open: {}", e.message())).with_source(e)
                    }
                    _ => e,
                })?;
                made.bytes().extend_from_slice(&plain);
            }
            made.end();
        }
        opened(column, made.finish(bytes.nulls().cloned())?, to)
    }
}
