//! The key file: sealed root keys and the name or the bytes of the key that seals them, in TOML. No error message and
//! no `Debug` output contains a key.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_core::{Error, Result};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::codes;
use crate::keys::provider::{KeyProvider, SealedKey};
use crate::keys::roots::{RootKeys, root_context};
use crate::keys::secret::KeyBytes;
use crate::keys::wrapping::WrappingKeys;

/// Key that seals the root keys of a key file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum KeyWrapping {
    /// Wrapping keys in the file itself: whoever can read the file has all keys.
    Local(WrappingKeys),
    /// A key of AWS KMS, by its ARN or alias: the file alone is worthless.
    Kms(String),
}

/// Sealed root keys and the key that seals them, in a small TOML file.
///
/// ```toml
/// [wrapping]
/// kms = "alias/pii"       # or: current = "1", and the keys in [wrapping.keys]
///
/// [roots]
/// current = 1
///
/// [roots.keys]
/// 1 = "…"
/// ```
#[derive(Debug, Clone)]
pub struct KeyFile {
    wrapping: KeyWrapping,
    current: u16,
    roots: BTreeMap<u16, SealedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKeyFile {
    wrapping: WrittenWrapping,
    roots: WrittenRoots,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWrapping {
    kms: Option<String>,
    current: Option<String>,
    #[serde(default)]
    keys: BTreeMap<String, Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoots {
    current: u16,
    keys: BTreeMap<String, String>,
}

/// Namespace of wrapping keys in the file.
const NAMESPACE: &str = "biscuit";

/// Maximum size of a key file in bytes. A key takes a few hundred bytes, so a larger file is something else.
const MOST_BYTES: u64 = 1 << 20;

const HEAD: &str = "\
# Keys of Biscuit. Without this file, values that were encrypted or tokenized with it cannot be read: keep copies of it.
# Run `biscuit pii keygen --rotate` to add new keys. Old keys remain in the file to read values that were made with them.
";

impl KeyFile {
    /// Creates a file with a first root key. `provider` seals the key and has to be the provider that `wrapping`
    /// names.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn new(wrapping: KeyWrapping, provider: &dyn KeyProvider) -> Result<Self> {
        Self { wrapping, current: 0, roots: BTreeMap::new() }.with_new_root(provider).await
    }

    /// Creates a file that contains its own wrapping key.
    ///
    /// # Errors
    /// Those of [`KeyBytes::random`].
    pub async fn local() -> Result<Self> {
        let keys = WrappingKeys::new(NAMESPACE, "1", KeyBytes::random()?)?;
        Self::new(KeyWrapping::Local(keys.clone()), &keys).await
    }

    /// Adds a new root key, which becomes the current one.
    ///
    /// # Errors
    /// Those of the provider; `InvalidKeyFile` after version 65,535.
    pub async fn with_new_root(mut self, provider: &dyn KeyProvider) -> Result<Self> {
        let last = self.roots.keys().last().copied().unwrap_or(0);
        self.current =
            last.checked_add(1).ok_or_else(|| invalid_key_file("it has the maximum version of a root key"))?;
        let key = provider.generate(&root_context()).await?;
        self.roots.insert(self.current, key.sealed);
        Ok(self)
    }

    /// Adds a new root key, sealed by a new wrapping key if wrapping keys are in the file. Values that were made
    /// before remain readable.
    ///
    /// ```
    /// use biscuit_pii::keys::{KeyFile, KeyWrapping};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
    /// let file = KeyFile::local().await?;
    /// let KeyWrapping::Local(keys) = file.wrapping().clone() else { unreachable!() };
    /// let rotated = file.with_new_keys(&keys).await?;
    /// assert_eq!(rotated.current(), 2);
    ///
    /// let KeyWrapping::Local(keys) = rotated.wrapping() else { unreachable!() };
    /// assert_eq!(rotated.roots(keys).await?.current(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`with_new_root`](Self::with_new_root).
    pub async fn with_new_keys(mut self, provider: &dyn KeyProvider) -> Result<Self> {
        let KeyWrapping::Local(keys) = &self.wrapping else { return self.with_new_root(provider).await };
        let numbers = keys.keys().keys().filter_map(|name| name.parse::<u32>().ok());
        let name = (numbers.max().unwrap_or(0).saturating_add(1)).to_string();
        let mut new = WrappingKeys::new(NAMESPACE, name, KeyBytes::random()?)?;
        for (name, key) in keys.keys() {
            new = new.with_key(name.clone(), key.clone())?;
        }
        self.wrapping = KeyWrapping::Local(new.clone());
        self.with_new_root(&new).await
    }

    /// Returns the key that seals the root keys.
    pub fn wrapping(&self) -> &KeyWrapping {
        &self.wrapping
    }

    /// Returns the version of the current root key.
    pub fn current(&self) -> u16 {
        self.current
    }

    /// Unseals the root keys.
    ///
    /// # Errors
    /// Those of [`RootKeys::unseal`].
    pub async fn roots(&self, provider: &dyn KeyProvider) -> Result<RootKeys> {
        RootKeys::unseal(provider, self.current, &self.roots).await
    }

    /// Reads a key file. Logs a warning if the file contains wrapping keys and other users can read it.
    ///
    /// # Errors
    /// `InvalidKeyFile` if the file cannot be read or is not a key file.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || {
            let mut text = Zeroizing::new(String::new());
            std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text: std::io::Result<Zeroizing<String>> = read();
        let text = text.map_err(|e| {
            let message = format!("cannot read the key file {}: {e}", path.display());
            Error::new(codes::INVALID_KEY_FILE, message).with_source(e)
        })?;
        let file = Self::parse(&text).map_err(|e| e.in_file(path.display()))?;
        if matches!(file.wrapping, KeyWrapping::Local(_)) && is_open(path) {
            tracing::warn!("other users than its owner can read the key file {}", path.display());
        }
        Ok(file)
    }

    /// Parses the text of a key file.
    ///
    /// # Errors
    /// `InvalidKeyFile` with the reason; no key is in the message.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() as u64 > MOST_BYTES {
            return Err(invalid_key_file(format!("it is larger than {MOST_BYTES} bytes")));
        }
        let written: WrittenKeyFile = toml::from_str(text).map_err(|e| {
            // The `Display` text of the error quotes the line, which may be a key; its message does not.
            let line = e.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
            let at = line.map_or(String::new(), |line| format!(" in line {line}"));
            // Some messages quote a value, so only two known kinds are passed on.
            let said =
                Some(e.message()).filter(|said| said.starts_with("unknown field") || said.starts_with("missing field"));
            invalid_key_file(format!("{}{at}", said.unwrap_or("it is not valid TOML for a key file")))
        })?;
        let wrapping = match written.wrapping {
            WrittenWrapping { kms: Some(key), current: None, keys } if keys.is_empty() => KeyWrapping::Kms(key),
            WrittenWrapping { kms: None, current: Some(current), keys } => {
                KeyWrapping::Local(local_wrapping_keys(&current, keys)?)
            }
            _ => return Err(invalid_key_file("[wrapping] needs either `kms`, or `current` and [wrapping.keys]")),
        };
        let mut roots = BTreeMap::new();
        for (version, key) in written.roots.keys {
            let number = version.parse().map_err(|_| {
                invalid_key_file(format!("`{version}` is not a root key version; use a number from 0 to 65535"))
            })?;
            let bytes = BASE64_STANDARD
                .decode(key)
                .map_err(|_| invalid_key_file(format!("root key {version} is not base64")))?;
            let sealed = SealedKey::from_bytes(&bytes).map_err(|_| {
                invalid_key_file(format!(
                    "root key {version} does not have the format that `biscuit pii keygen` writes"
                ))
            })?;
            roots.insert(number, sealed);
        }
        let current = written.roots.current;
        if !roots.contains_key(&current) {
            return Err(invalid_key_file(format!("the current root key, {current}, is not in [roots.keys]")));
        }
        Ok(Self { wrapping, current, roots })
    }

    /// Returns the text of the file.
    ///
    /// # Errors
    /// Those of [`SealedKey::to_bytes`].
    pub fn to_text(&self) -> Result<Zeroizing<String>> {
        let mut out = Zeroizing::new(String::with_capacity(4096));
        let quoted = |text: &str| toml::Value::from(text).to_string();
        out.push_str(HEAD);
        out.push_str("\n[wrapping]\n");
        match &self.wrapping {
            KeyWrapping::Kms(key) => out.push_str(&format!("kms = {}\n", quoted(key))),
            KeyWrapping::Local(keys) => {
                out.push_str(&format!("current = {}\n\n[wrapping.keys]\n", quoted(keys.current())));
                for (name, key) in keys.keys() {
                    let key = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
                    out.push_str(&quoted(name));
                    out.push_str(" = \"");
                    out.push_str(&key);
                    out.push_str("\"\n");
                }
            }
        }
        out.push_str(&format!("\n[roots]\ncurrent = {}\n\n[roots.keys]\n", self.current));
        for (version, key) in &self.roots {
            out.push_str(&format!("{version} = \"{}\"\n", BASE64_STANDARD.encode(key.to_bytes()?)));
        }
        Ok(out)
    }
}

#[cfg(unix)]
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

fn local_wrapping_keys(current: &str, keys: BTreeMap<String, Zeroizing<String>>) -> Result<WrappingKeys> {
    let mut secrets = BTreeMap::new();
    for (name, key) in keys {
        let bytes = BASE64_STANDARD.decode(key.as_bytes());
        let bytes = bytes.map_err(|_| invalid_key_file(format!("the wrapping key `{name}` is not base64")))?;
        secrets.insert(name, KeyBytes::from(Zeroizing::new(bytes)));
    }
    let Some(key) = secrets.remove(current) else {
        return Err(invalid_key_file(format!("the current wrapping key, `{current}`, is not in [wrapping.keys]")));
    };
    let mut all = WrappingKeys::new(NAMESPACE, current, key)?;
    for (name, key) in secrets {
        all = all.with_key(name, key)?;
    }
    Ok(all)
}

fn invalid_key_file(reason: impl std::fmt::Display) -> Error {
    Error::new(codes::INVALID_KEY_FILE, format!("invalid key file: {reason}"))
}
