//! Files that the command writes beside others: reports, manifests, keys, detokenized rows.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use biscuit_core::{Error, Result};
use biscuit_journal::{RandomWriterIds, TableStorage, WriterIds, tables_around};

/// What becomes of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingFile {
    /// It is an error, `FileExists`.
    Refuse,
    /// A regular file is replaced, as a whole; anything else is an error.
    Replace,
}

/// A file on its way: under a name that nobody else has, in the folder of its own, for its owner alone. It goes where it is not placed.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    placed: bool,
}

impl NewFile {
    /// Begins a file that is to be at `path`. The folder of one that may replace another is made if it is not there.
    ///
    /// # Errors
    /// `CannotWrite`; `FileExists` for a name that is not free, or is none of a regular file.
    pub(crate) fn begin(path: &Path, existing: ExistingFile) -> Result<Self> {
        check(path, existing)?;
        let name = path.file_name().ok_or_else(|| cannot(path, "it is not a name of a file"))?;
        if let Some(folder) = path.parent().filter(|_| existing == ExistingFile::Replace) {
            std::fs::create_dir_all(folder).map_err(|e| failed(path, e))?;
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.tmp", RandomWriterIds.next()));
        let temporary = path.with_file_name(hidden);
        let file = private().write(true).create_new(true).open(&temporary).map_err(|e| failed(path, e))?;
        Ok(Self { file, path: path.to_owned(), temporary, placed: false })
    }

    pub(crate) fn write(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(|e| failed(&self.path, e))
    }

    /// Gives it its name, when it is durable.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn place(mut self, existing: ExistingFile) -> Result<()> {
        let path = self.path.clone();
        check(&path, existing)?;
        self.file.sync_all().map_err(|e| failed(&path, e))?;
        match existing {
            ExistingFile::Replace => {
                std::fs::rename(&self.temporary, &path).map_err(|e| failed(&path, e))?;
                self.placed = true;
            }
            // A link is refused where the name is taken, by all file systems that have links.
            ExistingFile::Refuse => match std::fs::hard_link(&self.temporary, &path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists(&path)),
                Err(_) => copy(&self.temporary, &path)?,
                Ok(()) => {}
            },
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not every system opens folders.
        File::open(folder).and_then(|folder| folder.sync_all()).or_else(|e| match cfg!(unix) {
            true => Err(failed(&path, e)),
            false => Ok(()),
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It may be secret, and nobody else has this name.
        if !self.placed && std::fs::remove_file(&self.temporary).is_err() {
            tracing::warn!("`{}` could not be removed", self.temporary.display());
        }
    }
}

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// As [`NewFile::begin`].
pub(crate) fn write(path: &Path, content: &[u8], existing: ExistingFile) -> Result<()> {
    let mut file = NewFile::begin(path, existing)?;
    file.write(content)?;
    file.place(existing)
}

/// Where a file system has no links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = std::fs::read(from).map_err(|e| failed(to, e))?;
    let mut file = private().write(true).create_new(true).open(to).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists(to),
        _ => failed(to, e),
    })?;
    let written = file.write_all(&content).and_then(|()| file.sync_all());
    written.map_err(|e| {
        // This one was made here.
        drop(std::fs::remove_file(to));
        failed(to, e)
    })
}

fn check(path: &Path, existing: ExistingFile) -> Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    match existing {
        ExistingFile::Replace if there.is_file() => Ok(()),
        ExistingFile::Replace => Err(Error::usage(
            "FileExists",
            format!("`{}` is a folder, a link or a device, and only a regular file is replaced", path.display()),
        )),
        ExistingFile::Refuse => Err(exists(path)),
    }
}

/// Refuses a file that an output would replace although it is something else: an input, a policy, a key file. An output of this command that is
/// replaced is JSON, and is named by one argument only.
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
        let message = format!("`{place}` is to be the {what}, and is named by another argument as well");
        return Err(Error::usage("InvalidArguments", message));
    }
    let mut first = [0];
    let is_json = std::fs::File::open(&path).and_then(|mut file| std::io::Read::read(&mut file, &mut first));
    if path.is_file() && !is_json.is_ok_and(|read| read == 0 || first[0] == b'{') {
        let message = format!("`{place}` is to be the {what}, and is a file of something else, which is not replaced");
        return Err(Error::usage("InvalidArguments", message));
    }
    Ok(())
}

/// Refuses a place inside of a state root in its usual place, or on a disk inside of any table. In a bucket, whoever may write a report need not be
/// allowed to list the folders around it.
///
/// # Errors
/// `InvalidArguments`, and those of the disk.
pub(crate) async fn check_outside(storage: &TableStorage, path: &str, place: &str, what: &str) -> Result<()> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_state = path.split('/').any(|part| part == ".biscuit");
    let is_here = !place.contains("://") || place.starts_with("file://");
    if in_state || (is_here && !tables_around(storage, folder).await?.is_empty()) {
        let message = format!("the {what} `{place}` would be inside of a table, or of its state");
        return Err(Error::usage("InvalidArguments", message));
    }
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn exists(path: &Path) -> Error {
    Error::usage("FileExists", format!("`{}` is there already, and is not replaced", path.display()))
}

fn cannot(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::usage("CannotWrite", format!("`{}` cannot be written: {reason}", path.display()))
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    cannot(path, &e).with_source(e)
}

/// The right to change a file, which one process has at a time; it ends with the process.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Waits until no other process that asks has it. The file is the one that has the name then.
    ///
    /// # Errors
    /// `CannotWrite`.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        loop {
            let file = File::open(path).map_err(|e| failed(path, e))?;
            file.lock().map_err(|e| failed(path, e))?;
            let there = std::fs::metadata(path).map_err(|e| failed(path, e))?;
            if is_same(&file.metadata().map_err(|e| failed(path, e))?, &there) {
                return Ok(Self(file));
            }
            // Another process has replaced it meanwhile.
        }
    }

    /// Whether the file is still the one that has the name.
    pub(crate) fn is_current(&self, path: &Path) -> bool {
        let both = self.0.metadata().and_then(|own| Ok((own, std::fs::metadata(path)?)));
        both.is_ok_and(|(own, there)| is_same(&own, &there))
    }
}

#[cfg(unix)]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    a.len() == b.len() && a.modified().ok() == b.modified().ok()
}
