use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_core::{Error, Result};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::keys::provider::{KeyProvider, SealedKey};
use crate::keys::roots::{RootKeys, root_context};
use crate::keys::secret::KeyBytes;
use crate::keys::wrapping::WrappingKeys;

/// What seals the root keys of a key file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum KeyWrapping {
    /// Keys in the file itself: whoever reads the file has everything.
    Local(WrappingKeys),
    /// A key of AWS KMS, by its ARN or alias: the file alone is worth nothing.
    Kms(String),
}

/// Root keys, sealed, and what seals them: a small TOML file.
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

/// The namespace of local keys.
const NAMESPACE: &str = "biscuit";

/// Bytes of a key file, which has some hundred for each key: a larger one is something else.
const MOST_BYTES: u64 = 1 << 20;

const HEAD: &str = "\
# Keys of Biscuit. Without this file, nothing that was encrypted or tokenized with it is readable again: keep copies of it.
# Run `biscuit pii keygen --rotate` for new keys; old ones stay, to read what was made with them.
";

impl KeyFile {
    /// A file with a first root key, sealed by `provider`, which is what `wrapping` names.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn new(wrapping: KeyWrapping, provider: &dyn KeyProvider) -> Result<Self> {
        Self { wrapping, current: 0, roots: BTreeMap::new() }.with_new_root(provider).await
    }

    /// A file with a wrapping key of its own.
    ///
    /// # Errors
    /// Those of [`KeyBytes::random`].
    pub async fn local() -> Result<Self> {
        let keys = WrappingKeys::new(NAMESPACE, "1", KeyBytes::random()?)?;
        Self::new(KeyWrapping::Local(keys.clone()), &keys).await
    }

    /// The same with a new root key, which becomes the current one.
    ///
    /// # Errors
    /// Those of the provider, and `InvalidKeyFile` behind version 65,535.
    pub async fn with_new_root(mut self, provider: &dyn KeyProvider) -> Result<Self> {
        let last = self.roots.keys().last().copied().unwrap_or(0);
        self.current = last.checked_add(1).ok_or_else(|| invalid("there are no more versions"))?;
        let key = provider.generate(&root_context()).await?;
        self.roots.insert(self.current, key.sealed);
        Ok(self)
    }

    /// The same with new keys: a new root key, sealed by a new wrapping key where these are local. What was made before stays readable.
    ///
    /// # Errors
    /// Those of [`with_new_root`](Self::with_new_root).
    pub async fn rotated(mut self, provider: &dyn KeyProvider) -> Result<Self> {
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

    /// What seals its root keys.
    pub fn wrapping(&self) -> &KeyWrapping {
        &self.wrapping
    }

    /// The version of root keys that is current.
    pub fn current(&self) -> u16 {
        self.current
    }

    /// Its root keys.
    ///
    /// # Errors
    /// Those of [`RootKeys::unseal`].
    pub async fn roots(&self, provider: &dyn KeyProvider) -> Result<RootKeys> {
        RootKeys::unseal(provider, self.current, &self.roots).await
    }

    /// Reads it from the disk. A warning says if others may read a file that has wrapping keys.
    ///
    /// # Errors
    /// `InvalidKeyFile`.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || {
            let mut text = Zeroizing::new(String::new());
            std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text: std::io::Result<Zeroizing<String>> = read();
        let text = text.map_err(|e| {
            let message = format!("the key file {} cannot be read: {e}", path.display());
            Error::usage("InvalidKeyFile", message).with_source(e)
        })?;
        let file = Self::parse(&text).map_err(|e| e.in_file(path.display()))?;
        if matches!(file.wrapping, KeyWrapping::Local(_)) && is_open(path) {
            tracing::warn!("others than its owner can read the key file {}", path.display());
        }
        Ok(file)
    }

    /// Reads it.
    ///
    /// # Errors
    /// `InvalidKeyFile`, which says what is wrong and shows no key.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() as u64 > MOST_BYTES {
            return Err(invalid(format!("it has more than {MOST_BYTES} bytes")));
        }
        let written: WrittenKeyFile = toml::from_str(text).map_err(|e| {
            // Its text, unlike the message, shows the line, which may be a key.
            let line = e.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
            let at = line.map_or(String::new(), |line| format!(" in line {line}"));
            // Some messages quote what is there.
            let said =
                Some(e.message()).filter(|said| said.starts_with("unknown field") || said.starts_with("missing field"));
            invalid(format!("{}{at}", said.unwrap_or("it is not written as one")))
        })?;
        let wrapping = match written.wrapping {
            WrittenWrapping { kms: Some(key), current: None, keys } if keys.is_empty() => KeyWrapping::Kms(key),
            WrittenWrapping { kms: None, current: Some(current), keys } => KeyWrapping::Local(local(&current, keys)?),
            _ => return Err(invalid("[wrapping] has either `kms`, or `current` and [wrapping.keys]")),
        };
        let mut roots = BTreeMap::new();
        for (version, key) in written.roots.keys {
            let number = version.parse().map_err(|_| invalid(format!("`{version}` is no version of a root key")))?;
            let bytes =
                BASE64_STANDARD.decode(key).map_err(|_| invalid(format!("root key {version} is not base64")))?;
            let sealed = SealedKey::from_bytes(&bytes)
                .map_err(|_| invalid(format!("root key {version} is not what `biscuit pii keygen` writes")))?;
            roots.insert(number, sealed);
        }
        let current = written.roots.current;
        if !roots.contains_key(&current) {
            return Err(invalid(format!("the current root key, {current}, is not in [roots.keys]")));
        }
        Ok(Self { wrapping, current, roots })
    }

    /// The text of the file.
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

fn local(current: &str, keys: BTreeMap<String, Zeroizing<String>>) -> Result<WrappingKeys> {
    let mut secrets = BTreeMap::new();
    for (name, key) in keys {
        let bytes = BASE64_STANDARD.decode(key.as_bytes());
        let bytes = bytes.map_err(|_| invalid(format!("the wrapping key `{name}` is not base64")))?;
        secrets.insert(name, KeyBytes::from(Zeroizing::new(bytes)));
    }
    let Some(key) = secrets.remove(current) else {
        return Err(invalid(format!("the current wrapping key, `{current}`, is not in [wrapping.keys]")));
    };
    let mut all = WrappingKeys::new(NAMESPACE, current, key)?;
    for (name, key) in secrets {
        all = all.with_key(name, key)?;
    }
    Ok(all)
}

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::usage("InvalidKeyFile", format!("this is no key file: {message}"))
}
