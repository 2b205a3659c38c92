//! Key files for personal data, on this machine and in stores.

use std::path::Path;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenLocation;
use biscuit_journal::store_error;
use biscuit_pii::keys::KeyFile;
use object_store::ObjectStoreExt;

/// Maximum size of a key file in bytes. A larger object is not a key file, and is not fetched.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a key file from a path relative to `folder`, or from a URL.
///
/// # Errors
/// `InvalidKeyFile` for a file that is not a key file or has more than 1 MiB, and errors of the store.
pub(crate) async fn key_file(stores: &dyn OpenLocation, url: &str, folder: &Path) -> Result<KeyFile> {
    if !url.contains("://") {
        return KeyFile::open(&folder.join(url));
    }
    let location = stores.open(url).await?;
    let failed = |e| store_error("read", location.path(), e).in_file(url);
    let object = location.storage().store.get(location.path()).await.map_err(failed)?;
    // The size is known before the content is fetched.
    if object.meta.size > MOST_BYTES {
        let message = format!("the key file has more than {MOST_BYTES} bytes; check its name");
        return Err(Error::new(biscuit_pii::codes::INVALID_KEY_FILE, message).in_file(url));
    }
    let bytes = object.bytes().await.map_err(failed)?;
    let text = std::str::from_utf8(&bytes);
    let text = text
        .map_err(|_| Error::new(biscuit_pii::codes::INVALID_KEY_FILE, "the key file is not UTF-8 text").in_file(url))?;
    KeyFile::parse(text).map_err(|e| e.in_file(url))
}
