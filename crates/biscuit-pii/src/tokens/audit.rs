//! Audit of accesses to values: who asked for which column, when and why. An access is recorded before a value is
//! shown.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use biscuit_core::{Clock, Error, Result, SystemClock};
use serde::Serialize;

use crate::codes;

/// Record of one access to values. It contains neither values nor tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// Time of the access, in RFC 3339.
    pub at: String,
    /// Person or program that asked.
    pub who: String,
    /// Reason of the access.
    pub reason: String,
    /// Namespace of the tokens, or table of the encrypted values.
    pub namespace: String,
    /// Column of the values.
    pub column: String,
    /// Number of values that were asked for.
    pub tokens: u64,
    /// Number of distinct values that were asked for.
    pub distinct: u64,
}

/// Destination of audit entries.
pub trait AccessAudit: fmt::Debug + Send + Sync {
    /// Records an access before any value is shown. If it returns an error, no value is shown.
    fn record(&self, entry: &AuditEntry) -> Result<()>;
}

const _: fn(&dyn AccessAudit) = |_| {};

/// Access to values by a person or program for a reason, with the audit that records it.
#[derive(Debug, Clone)]
pub struct AccessRequest {
    pub(crate) who: String,
    pub(crate) reason: String,
    audit: Arc<dyn AccessAudit>,
    clock: Arc<dyn Clock>,
}

impl AccessRequest {
    /// Creates an access.
    ///
    /// # Errors
    /// `NoAccess` if `who` or `reason` is blank.
    pub fn new(who: impl Into<String>, reason: impl Into<String>, audit: Arc<dyn AccessAudit>) -> Result<Self> {
        let (who, reason) = (who.into(), reason.into());
        if who.trim().is_empty() || reason.trim().is_empty() {
            return Err(Error::new(codes::NO_ACCESS, "an access to protected values needs a name and a reason"));
        }
        Ok(Self { who, reason, audit, clock: Arc::new(SystemClock) })
    }

    /// Sets the clock of the entries, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Records an access to `tokens` values of a namespace in a column, of which `distinct` are different.
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

/// File with one line of JSON for each access. Each line is durable before values are shown. On Unix, only the owner
/// can read a file that is created here. An existing file that does not begin with `{` is not an audit file: nothing
/// is written to it, and the access is refused.
#[derive(Debug, Clone)]
pub struct AuditFile(PathBuf);

impl AuditFile {
    /// Creates an audit that appends to a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl AccessAudit for AuditFile {
    fn record(&self, entry: &AuditEntry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|e| Error::internal("cannot write an audit entry as JSON").with_source(e))?;
        line.push(b'\n');
        let write = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&self.0)?;
            // A wrong path must not damage a file of another kind. Pipes and devices are written without this check.
            let mut first = [0];
            if file.metadata()?.is_file() && file.read(&mut first)? > 0 && first[0] != b'{' {
                return Err(std::io::Error::other("it is not an audit file"));
            }
            file.write_all(&line)?;
            file.sync_all()
        };
        write().map_err(|e| {
            let message =
                format!("no values are shown, because the audit file {} cannot be written: {e}", self.0.display());
            Error::new(codes::NO_AUDIT, message).with_source(e)
        })
    }
}
