use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, OpenFile, Snapshot};
use biscuit_journal::Outcome;
use serde_json::Value;

use crate::{Unit, Written, rewrite_units, session};

/// What a commit of files in the place of others came to.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) outcome: &'static str,
    pub(crate) version: u64,
    pub(crate) written: Vec<Written>,
    pub(crate) exceptions: Vec<String>,
}

/// Work that is committed as one step.
pub(crate) struct Replacing<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// All files of the snapshot.
    pub(crate) files: &'a [OpenFile],
    /// Those that go.
    pub(crate) gone: Vec<&'a OpenFile>,
    /// What is made of them.
    pub(crate) units: Vec<Unit>,
    /// The rows that have to be in it: another number of rows is a defect, and must not be committed.
    pub(crate) rows: u64,
    /// What the journal says of it.
    pub(crate) report: &'a (dyn Fn(&[Written]) -> Value + Sync),
}

impl Replacing<'_> {
    /// Does the work and commits it. After an error the table is as it was.
    pub(crate) async fn commit(self, dataset: &Dataset, cores: usize, memory: Option<usize>) -> Result<Replaced> {
        let Self { snapshot, files, gone, units, rows, report } = self;
        let mut replace = dataset.journal().replace(&snapshot.observed);
        for file in gone {
            let listed = snapshot.observed.file(&file.file.path);
            replace.retire(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
        }
        let stager = replace.stager();
        let written = rewrite_units(units, &stager, session(cores, memory)?).await.and_then(|w| complete(w, rows));
        let written = match written {
            Ok(written) => written,
            Err(e) => {
                replace.abandon().await?;
                return Err(e);
            }
        };
        written.iter().for_each(|w| replace.publish(stager.staged(w.file.clone())));
        let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
        for (name, value) in snapshot.facts(&snapshot.schema(files)?, &partition_by)? {
            replace.with_meta(name, value);
        }
        replace.with_report(report(&written));
        let committed = replace.commit().await?;
        let exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        let outcome = if committed.outcome == Outcome::Committed { "committed" } else { "unchanged" };
        Ok(Replaced { outcome, version: committed.version, written, exceptions })
    }
}

fn complete(written: Vec<Written>, wanted: u64) -> Result<Vec<Written>> {
    let rows: u64 = written.iter().filter_map(|w| w.file.rows).sum();
    if rows != wanted {
        return Err(Error::internal(format!("{rows} rows were written where there are {wanted}")));
    }
    Ok(written)
}
