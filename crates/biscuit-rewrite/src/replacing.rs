//! The shared commit of compaction and erasure: rewrite units, check the number of rows, and replace files in one
//! commit.

use biscuit_core::{Error, ObjectRef, Outcome, Result};
use biscuit_dataset::{OpenFile, TableVersion};
use biscuit_journal::CommitExtras;
use serde_json::Value;

use crate::encode::session::session;
use crate::plan::unit::WrittenUnit;
use crate::{RewriteUnit, rewrite_units};

/// Result of a commit that replaced files.
#[derive(Debug)]
pub(crate) struct ReplacedFiles {
    pub(crate) outcome: Outcome,
    pub(crate) version: u64,
    pub(crate) written: Vec<WrittenUnit>,
    pub(crate) exceptions: Vec<String>,
}

/// A replacement of files that is committed as one version.
pub(crate) struct FileReplacement<'a> {
    pub(crate) snapshot: &'a TableVersion,
    /// All live files of the snapshot.
    pub(crate) files: &'a [OpenFile],
    /// Files that the commit removes. Their objects are retained for the retention of the journal options.
    pub(crate) gone: Vec<&'a OpenFile>,
    /// Files that are deleted without retention.
    pub(crate) released: Vec<&'a ObjectRef>,
    /// State files and properties that the same commit changes.
    pub(crate) extras: CommitExtras,
    /// Work that produces the new files.
    pub(crate) units: Vec<RewriteUnit>,
    /// Number of rows that the new files must have in total. Another number is a defect, and nothing is committed.
    pub(crate) rows: u64,
    /// Creates the report that the journal stores with the version.
    pub(crate) report: &'a (dyn Fn(&[WrittenUnit]) -> Value + Sync),
}

impl FileReplacement<'_> {
    /// Rewrites the units and commits the result. After an error the table is unchanged.
    pub(crate) async fn commit(self, cores: usize, memory: Option<usize>) -> Result<ReplacedFiles> {
        let Self { snapshot, files, gone, released, extras, units, rows, report } = self;
        let mut table_commit = snapshot.journal().begin_commit(&snapshot.observed);
        released.into_iter().for_each(|file| table_commit.release(file));
        for file in gone {
            table_commit.remove(&file.file.listed);
        }
        let stager = table_commit.stager();
        let written =
            rewrite_units(units, &stager, session(cores, memory)?).await.and_then(|w| check_complete(w, rows));
        // Any error up to here is handled by `abandon`, which deletes the staged files. Only then is the error
        // returned.
        let staged = match written {
            Ok(written) => table_commit.with_extras(extras).await.map(|()| written),
            Err(e) => Err(e),
        };
        let written = match staged {
            Ok(written) => written,
            Err(e) => {
                table_commit.abandon().await?;
                return Err(e);
            }
        };
        written.iter().for_each(|w| table_commit.publish(stager.staged(w.file.clone())));
        let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
        for (name, value) in snapshot.journal_properties(&snapshot.schema(files)?, &partition_by)? {
            table_commit.with_property(name, value);
        }
        table_commit.with_report(report(&written));
        let committed = table_commit.commit().await?;
        let exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        Ok(ReplacedFiles { outcome: committed.outcome, version: committed.version, written, exceptions })
    }
}

fn check_complete(written: Vec<WrittenUnit>, wanted: u64) -> Result<Vec<WrittenUnit>> {
    let rows: u64 = written.iter().filter_map(|w| w.file.rows).sum();
    if rows != wanted {
        return Err(Error::internal(format!("{rows} rows were written, but the sources have {wanted}")));
    }
    Ok(written)
}
