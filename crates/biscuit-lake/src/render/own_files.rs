//! Local files that the command writes beside other files: reports, manifests, key files and detokenized rows.
//!
//! A file is written under a temporary name, made durable and then renamed, so that it is complete or absent. It is
//! readable by its owner only, and it never replaces a file of another kind.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use biscuit_core::{Error, Result};
use biscuit_journal::internal::{RandomWriterIds, WriterIds};
use biscuit_journal::{TableStorage, tables_around};

use crate::codes;

/// Handling of an existing file of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingFile {
    /// Return the error `FileExists`.
    Refuse,
    /// Replace a regular file as a whole. Anything else is the error `FileExists`.
    Replace,
}

/// New file under a unique temporary name in its target folder, readable by its owner only.
///
/// The temporary file is deleted on drop unless [`put_in_place`](Self::put_in_place) has renamed it.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    placed: bool,
}

impl NewFile {
    /// Begins a file for `path`. With [`ExistingFile::Replace`] a missing folder is created.
    ///
    /// # Errors
    /// `CannotWrite`; `FileExists` if the name is taken, or is not the name of a regular file.
    pub(crate) fn begin(path: &Path, existing: ExistingFile) -> Result<Self> {
        check_creatable(path, existing)?;
        let name = path.file_name().ok_or_else(|| creation_error(path, "it is not the name of a file"))?;
        if let Some(folder) = path.parent().filter(|_| existing == ExistingFile::Replace) {
            std::fs::create_dir_all(folder).map_err(|e| write_error(path, e))?;
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.tmp", RandomWriterIds.next()));
        let temporary = path.with_file_name(hidden);
        let file = private_options().write(true).create_new(true).open(&temporary).map_err(|e| write_error(path, e))?;
        Ok(Self { file, path: path.to_owned(), temporary, placed: false })
    }

    /// Appends to the file.
    pub(crate) fn write(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(|e| write_error(&self.path, e))
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// The errors of [`begin`](Self::begin).
    pub(crate) fn put_in_place(mut self, existing: ExistingFile) -> Result<()> {
        let path = self.path.clone();
        check_creatable(&path, existing)?;
        // First the content, then the name, then the folder: after a crash the name never leads to a partial file.
        self.file.sync_all().map_err(|e| write_error(&path, e))?;
        match existing {
            ExistingFile::Replace => {
                std::fs::rename(&self.temporary, &path).map_err(|e| write_error(&path, e))?;
                self.placed = true;
            }
            // A rename would replace a file that appeared meanwhile. A hard link fails if the name is taken.
            ExistingFile::Refuse => match std::fs::hard_link(&self.temporary, &path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists_error(&path)),
                Err(_) => copy_to_free_name(&self.temporary, &path)?,
                Ok(()) => {}
            },
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Folders can be synchronised on Unix only.
        File::open(folder).and_then(|folder| folder.sync_all()).or_else(|e| match cfg!(unix) {
            true => Err(write_error(&path, e)),
            false => Ok(()),
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // The content may be secret. No other process uses this name.
        if !self.placed && std::fs::remove_file(&self.temporary).is_err() {
            tracing::warn!("`{}` cannot be deleted", self.temporary.display());
        }
    }
}

/// Writes a file that only its owner can read. The file is complete or absent.
///
/// # Errors
/// The errors of [`NewFile::begin`].
pub(crate) fn write(path: &Path, content: &[u8], existing: ExistingFile) -> Result<()> {
    let mut file = NewFile::begin(path, existing)?;
    file.write(content)?;
    file.put_in_place(existing)
}

/// Copies a file to a free name, for file systems without hard links.
fn copy_to_free_name(from: &Path, to: &Path) -> Result<()> {
    let content = std::fs::read(from).map_err(|e| write_error(to, e))?;
    let mut file = private_options().write(true).create_new(true).open(to).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists_error(to),
        _ => write_error(to, e),
    })?;
    let written = file.write_all(&content).and_then(|()| file.sync_all());
    written.map_err(|e| {
        // `create_new` has created this file, so that it is safe to delete.
        drop(std::fs::remove_file(to));
        write_error(to, e)
    })
}

/// Checks whether the file may be created at `path`.
fn check_creatable(path: &Path, existing: ExistingFile) -> Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    match existing {
        ExistingFile::Replace if there.is_file() => Ok(()),
        ExistingFile::Replace => Err(Error::new(
            codes::FILE_EXISTS,
            format!("`{}` is a folder, a link or a device; only a regular file is replaced", path.display()),
        )),
        ExistingFile::Refuse => Err(exists_error(path)),
    }
}

/// Refuses to replace a file that is not an earlier output, such as an input, a policy or a key file.
///
/// An earlier output is empty or begins with `{`, and only one argument of the command names it.
///
/// # Errors
/// `InvalidArguments`.
pub(crate) fn check_output(place: &str, what: &str) -> Result<()> {
    let Ok(path) = std::fs::canonicalize(place) else { return Ok(()) };
    let is_it = |arg: &str| {
        let value = arg.split_once('=').map_or(arg, |(_, value)| value);
        let value = value.strip_prefix("file://").unwrap_or(value);
        std::fs::canonicalize(value).is_ok_and(|other| other == path)
    };
    if std::env::args().skip(1).filter(|arg| is_it(arg)).count() > 1 {
        let message = format!("the {what} `{place}` is also named by another argument; choose another place");
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let mut first = [0];
    let is_json = std::fs::File::open(&path).and_then(|mut file| std::io::Read::read(&mut file, &mut first));
    if path.is_file() && !is_json.is_ok_and(|read| read == 0 || first[0] == b'{') {
        let message = format!("the {what} `{place}` would replace a file with other content; choose another place");
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    Ok(())
}

/// Refuses a place inside a default state root and, on a local disk, a place inside any table.
///
/// In a bucket tables are not looked for: the permission to write a report does not imply the permission to list
/// folders.
///
/// # Errors
/// `InvalidArguments`, and errors of the disk.
pub(crate) async fn check_outside(storage: &TableStorage, path: &str, place: &str, what: &str) -> Result<()> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_state = path.split('/').any(|part| part == ".biscuit");
    let is_here = !place.contains("://") || place.starts_with("file://");
    if in_state || (is_here && !tables_around(storage, folder).await?.is_empty()) {
        let message = format!("the {what} `{place}` would be inside a table or a state root; choose another place");
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    Ok(())
}

/// Returns options that create a file for its owner only.
fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    // The mode is set when the file is created: no other user can open it in between.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn exists_error(path: &Path) -> Error {
    Error::new(codes::FILE_EXISTS, format!("`{}` already exists and is not replaced", path.display()))
}

fn creation_error(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(codes::CANNOT_WRITE, format!("`{}` cannot be written: {reason}", path.display()))
}

fn write_error(path: &Path, e: std::io::Error) -> Error {
    creation_error(path, &e).with_source(e)
}

/// Exclusive advisory lock of a file. It is released on drop, or when the process ends.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Waits for the lock of the file at `path`.
    ///
    /// # Errors
    /// `CannotWrite`.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        loop {
            let file = File::open(path).map_err(|e| write_error(path, e))?;
            file.lock().map_err(|e| write_error(path, e))?;
            let there = std::fs::metadata(path).map_err(|e| write_error(path, e))?;
            if is_same(&file.metadata().map_err(|e| write_error(path, e))?, &there) {
                return Ok(Self(file));
            }
            // Another process has replaced the file while this one waited: this lock is on the old file. Try
            // again.
        }
    }

    /// Returns whether the locked file still has the name `path`.
    pub(crate) fn is_current(&self, path: &Path) -> bool {
        let both = self.0.metadata().and_then(|own| Ok((own, std::fs::metadata(path)?)));
        both.is_ok_and(|(own, there)| is_same(&own, &there))
    }
}

#[cfg(unix)]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    // Device and inode identify a file; a replaced file has another inode.
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    a.len() == b.len() && a.modified().ok() == b.modified().ok()
}
