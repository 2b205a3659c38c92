use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, OpenFile, TableVersion};
use biscuit_journal::{CommitOutcome, FileRef, TableCommit};
use bytes::Bytes;
use serde_json::Value;

use crate::{RewriteUnit, WrittenUnit, rewrite_units, session};

/// What a commit of files in the place of others came to.
#[derive(Debug)]
pub(crate) struct ReplacedFiles {
    pub(crate) outcome: &'static str,
    pub(crate) version: u64,
    pub(crate) written: Vec<WrittenUnit>,
    pub(crate) exceptions: Vec<String>,
}

/// Work that is committed as one step.
pub(crate) struct FileReplacement<'a> {
    pub(crate) snapshot: &'a TableVersion,
    /// All files of the snapshot.
    pub(crate) files: &'a [OpenFile],
    /// Those that are retired, and stay in the folder for a while where the journal's options say so.
    pub(crate) gone: Vec<&'a OpenFile>,
    /// Files that are deleted whatever the options say.
    pub(crate) released: Vec<&'a FileRef>,
    /// State files by name; none drops the name.
    pub(crate) state: Vec<(String, Option<Bytes>)>,
    /// What is made of them.
    pub(crate) units: Vec<RewriteUnit>,
    /// The rows that have to be in it: another number of rows is a defect, and must not be committed.
    pub(crate) rows: u64,
    /// What the journal says of it.
    pub(crate) report: &'a (dyn Fn(&[WrittenUnit]) -> Value + Sync),
}

impl FileReplacement<'_> {
    /// Does the work and commits it. After an error the table is as it was.
    pub(crate) async fn commit(self, dataset: &Dataset, cores: usize, memory: Option<usize>) -> Result<ReplacedFiles> {
        let Self { snapshot, files, gone, released, state, units, rows, report } = self;
        let mut replace = dataset.journal().replace(&snapshot.observed);
        released.into_iter().for_each(|file| replace.release(file));
        for file in gone {
            let listed = snapshot.observed.file(&file.file.path);
            replace.remove(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
        }
        let stager = replace.stager();
        let written = rewrite_units(units, &stager, session(cores, memory)?).await.and_then(|w| complete(w, rows));
        let staged = match written {
            Ok(written) => with_state(&mut replace, state).await.map(|()| written),
            Err(e) => Err(e),
        };
        let written = match staged {
            Ok(written) => written,
            Err(e) => {
                replace.abandon().await?;
                return Err(e);
            }
        };
        written.iter().for_each(|w| replace.publish(stager.staged(w.file.clone())));
        let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
        for (name, value) in snapshot.properties(&snapshot.schema(files)?, &partition_by)? {
            replace.with_properties(name, value);
        }
        replace.with_report(report(&written));
        let committed = replace.commit().await?;
        let exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        let outcome = if committed.outcome == CommitOutcome::Committed { "committed" } else { "unchanged" };
        Ok(ReplacedFiles { outcome, version: committed.version, written, exceptions })
    }
}

async fn with_state(replace: &mut TableCommit<'_>, state: Vec<(String, Option<Bytes>)>) -> Result<()> {
    for (name, content) in state {
        match content {
            Some(content) => replace.with_state(&name, content).await?,
            None => replace.without_state(&name),
        }
    }
    Ok(())
}

fn complete(written: Vec<WrittenUnit>, wanted: u64) -> Result<Vec<WrittenUnit>> {
    let rows: u64 = written.iter().filter_map(|w| w.file.rows).sum();
    if rows != wanted {
        return Err(Error::internal(format!("{rows} rows were written where there are {wanted}")));
    }
    Ok(written)
}
