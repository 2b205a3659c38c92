use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use biscuit_core::{Clock, Error, ErrorKind, Result, SystemClock};
use serde::Serialize;

/// That somebody asked for values behind tokens. It holds neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// When, in RFC 3339.
    pub at: String,
    /// Who.
    pub who: String,
    /// What for.
    pub reason: String,
    /// Of which namespace.
    pub namespace: String,
    /// In which column.
    pub column: String,
    /// How many tokens.
    pub tokens: u64,
    /// How many different ones.
    pub distinct: u64,
}

/// Where it is written down who asked for values behind tokens.
pub trait AccessAudit: fmt::Debug + Send + Sync {
    /// Writes it down before any value is shown; if that fails, none is.
    fn record(&self, entry: &AuditEntry) -> Result<()>;
}

const _: fn(&dyn AccessAudit) = |_| {};

/// Who asks for values, what for, and where that is written down.
#[derive(Debug, Clone)]
pub struct AccessRequest {
    pub(crate) who: String,
    pub(crate) reason: String,
    audit: Arc<dyn AccessAudit>,
    clock: Arc<dyn Clock>,
}

impl AccessRequest {
    /// Somebody's access for a reason.
    ///
    /// # Errors
    /// `NoReason` if either is blank.
    pub fn new(who: impl Into<String>, reason: impl Into<String>, audit: Arc<dyn AccessAudit>) -> Result<Self> {
        let (who, reason) = (who.into(), reason.into());
        if who.trim().is_empty() || reason.trim().is_empty() {
            return Err(Error::usage("NoReason", "who asks for values behind tokens says who it is, and what for"));
        }
        Ok(Self { who, reason, audit, clock: Arc::new(SystemClock) })
    }

    /// The same with another clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes down that somebody asks for values of a namespace, in a column: so many, of which so many are different.
    ///
    /// # Errors
    /// Those of the audit.
    pub fn record(&self, namespace: &str, column: &str, tokens: u64, distinct: u64) -> Result<()> {
        self.audit.record(&AuditEntry {
            at: self.clock.now().to_string(),
            who: self.who.clone(),
            reason: self.reason.clone(),
            namespace: namespace.into(),
            column: column.into(),
            tokens,
            distinct,
        })
    }
}

/// A file to which a line of JSON is appended for each access, durable before values are shown. On Unix, only its owner can read one that is made
/// here. A file that begins with something else than a line of JSON is not appended to: it is none of this kind.
#[derive(Debug, Clone)]
pub struct AuditFile(PathBuf);

impl AuditFile {
    /// Appends to this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl AccessAudit for AuditFile {
    fn record(&self, entry: &AuditEntry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(|e| Error::internal("an entry is JSON").with_source(e))?;
        line.push(b'\n');
        let write = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&self.0)?;
            let mut first = [0];
            if file.metadata()?.is_file() && file.read(&mut first)? > 0 && first[0] != b'{' {
                return Err(std::io::Error::other("it is no audit file"));
            }
            file.write_all(&line)?;
            file.sync_all()
        };
        write().map_err(|e| {
            let message =
                format!("nothing was detokenized, since the audit {} could not be written: {e}", self.0.display());
            Error::new(ErrorKind::Unavailable, "NoAudit", message).with_source(e)
        })
    }
}
