//! What a run knows of one output from its beginning to its end: the specification, the version of the table, and the
//! keys for personal data.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use biscuit_core::{Error, Result, Run};
use biscuit_dataset::TableVersion;
use biscuit_partition::{PeriodBasis, PeriodCalendar, PeriodPlan};
use biscuit_pii::PiiContext;
use biscuit_schema::{Coercion, Contract};
use datafusion::arrow::datatypes::SchemaRef;

use crate::read::choose::ChosenInput;
use crate::shape::columns::AddedColumns;
use crate::shape::treatment::{TreatedSource, check_all_seen};
use crate::spec::{ContractSpec, JobSpec, OutputSpec, SourceSpec, read_contract};

/// One output in one run. Nothing in it changes during the run.
pub(crate) struct OutputRun<'a> {
    pub(crate) job: &'a JobSpec,
    /// Folder of contract files.
    pub(crate) folder: &'a Path,
    /// Maximum number of threads that read and write.
    pub(crate) parallelism: usize,
    /// Memory budget of a merge in bytes.
    pub(crate) memory: Option<usize>,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a OutputSpec,
    pub(crate) run: &'a Run,
    pub(crate) snapshot: TableVersion,
    /// Keys and stores for the policy on personal data.
    pub(crate) means: Option<PiiContext>,
}

impl OutputRun<'_> {
    /// Returns the declared contract of a source or of the output.
    pub(crate) fn contract(&self, spec: Option<&ContractSpec>) -> Result<Option<Contract>> {
        let read = |path: &str| {
            let path = self.folder.join(path);
            std::fs::read_to_string(&path).map_err(|e| {
                let message = format!("cannot read the contract `{}`: {e}", path.display());
                Error::new(biscuit_schema::codes::INVALID_CONTRACT, message).with_source(e)
            })
        };
        spec.map(|spec| read_contract(spec, read)).transpose()
    }

    /// Returns the treatment of rows with this contract, if the job has a policy.
    pub(crate) fn guard_for(&self, contract: Option<&Contract>) -> Result<Option<Arc<TreatedSource>>> {
        let (Some(policy), Some(means)) = (&self.job.pii, &self.means) else { return Ok(None) };
        let guard = TreatedSource::new(policy, means, self.name, self.spec.mode, contract)?;
        Ok(Some(Arc::new(guard)))
    }

    /// Returns the columns of the table whose values the policy changes.
    pub(crate) fn treated(&self, known: &SchemaRef) -> Result<BTreeSet<String>> {
        let Some(guard) = self.guard_for(None)? else { return Ok(BTreeSet::new()) };
        let names = known.fields().iter().map(|f| f.name().clone());
        Ok(names.filter(|name| guard.changes_column(name)).collect())
    }

    /// Checks that every name in the policy exists: in the rows of this output that were treated so far, in the
    /// contracts of the other sources, or in `own`.
    pub(crate) fn check_policy(
        &self,
        chosen: &[ChosenInput],
        guards: &[Arc<TreatedSource>],
        own: Option<&Contract>,
    ) -> Result<()> {
        let chosen_here = |name: &String| chosen.iter().any(|chosen| chosen.source == *name);
        let others = self.job.sources.iter().filter(|(name, _)| !chosen_here(name));
        let others = others.filter_map(|(_, spec)| self.contract(spec.contract.as_ref()).transpose());
        let mut contracts = others.collect::<Result<Vec<_>>>()?;
        contracts.extend(own.cloned());
        check_all_seen(guards, &contracts)
    }

    /// Returns the coercion to the output's contract. Columns that the job itself names remain even if the contract
    /// does not declare them: added columns, partition columns, and columns that a merge uses but need not store.
    pub(crate) fn coercion(
        &self,
        chosen: &[ChosenInput],
        contract: &Contract,
        added: &AddedColumns,
    ) -> Result<Coercion> {
        let spec = self.spec;
        let files = chosen.iter().filter_map(|c| self.job.sources[&c.source].source_file.as_deref());
        let used = spec.partition_by.iter().chain(&spec.order).chain(&spec.drop_columns);
        let used = used.chain(&spec.op).chain(&spec.effective_column).map(String::as_str);
        let files = files.filter(|_| spec.sql.is_none());
        Ok(Coercion::new(contract)?.with_kept(added.names().chain(files).chain(used)))
    }

    /// Returns the source if its format is change records.
    pub(crate) fn changes(&self, chosen: &[ChosenInput]) -> Option<&SourceSpec> {
        let source = chosen.first().map(|c| &self.job.sources[&c.source])?;
        source.format.is_changes().then_some(source)
    }

    /// Returns the periods of an output of the mode `snapshot`.
    pub(crate) fn periods(&self) -> Result<PeriodPlan> {
        let granularity = self.spec.granularity.as_deref().unwrap_or_default().parse()?;
        let calendar = PeriodCalendar::new(granularity, self.spec.zone.as_deref().unwrap_or("UTC"))?;
        let by = self.spec.effective_column.clone().map_or(PeriodBasis::Ingestion, PeriodBasis::Effective);
        Ok(PeriodPlan::new(calendar, by))
    }

    /// Stops the run if more rows are quarantined than `max_quarantined` allows.
    pub(crate) fn check_quarantined(&self, refused: u64, rows: u64) -> Result<()> {
        let share = refused as f64 * 100.0 / (refused + rows).max(1) as f64;
        if refused == 0 || share <= self.spec.max_quarantined {
            return Ok(());
        }
        let maximum = self.spec.max_quarantined;
        let message = format!(
            "{refused} of {} rows ({share:.2} percent) would be quarantined; the maximum is {maximum} percent (`max_quarantined`)",
            refused + rows
        );
        Err(Error::new(biscuit_apply::codes::TOO_MANY_QUARANTINED, message))
    }
}
