//! `biscuit purge`: deletes objects by age, retained files, orphan files, or the objects of a stored plan.
//!
//! biscuit-maintain has the protocol: probe, listing, journals, plan, deletes. The command opens the manifest between
//! the plan and the deletes, so that a purge that cannot record its outcomes deletes nothing.

use std::time::Duration;

use biscuit_catalog::{CatalogPartition, TableName};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::OpenLocation;
use biscuit_journal::{JournalOptions, OtherTableFormats, store_error};
use biscuit_maintain::{AgeLimit, DeletePlace, FolderPurge, OrphanLimit, PlannedPurge, PurgeEvent};
use biscuit_purge::{AllowedDeletes, JobMarker};
use biscuit_rewrite::RunMode;
use clap::{Args, ValueEnum};
use object_store::ObjectStoreExt;

use crate::args::duration::parse_duration;
use crate::args::table::TableArgs;
use crate::commands::catalog::CatalogTable;
use crate::environment::context::CommandContext;
use crate::environment::stores::delete_place;
use crate::render::json_lines::JsonLinesOutput;
use crate::render::output::CommandOutput;
use crate::render::purge::{FailedDeletes, render_planned, render_purged};

/// Options of `biscuit purge`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Delete objects that were modified longer ago than this by the store's clock, such as 2h or 30d
    #[arg(long, group = "what", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) older_than: Option<Duration>,

    /// Delete objects that were modified before this instant by the store's clock
    #[arg(long, group = "what", value_name = "INSTANT")]
    pub(crate) before: Option<Instant>,

    /// Delete replaced files whose retention is over (see `merge --retention`)
    #[arg(long, group = "what")]
    pub(crate) retained: bool,

    /// Delete leftovers of dead runs: staged files, orphan files, temporary folders of Spark, unfinished uploads
    #[arg(long, group = "what")]
    pub(crate) orphans: bool,

    /// Delete exactly the objects of this plan, written by a dry run by age with `--manifest`; changed objects are
    /// kept
    #[arg(long, group = "what", value_name = "PATH_OR_URL")]
    pub(crate) plan: Option<String>,

    /// Add this time to the age or retention [default: 0s]; with --orphans, minimum age of other programs' leftovers
    /// [default: 1d]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) grace: Option<Duration>,

    /// Keep objects of these storage classes, such as GLACIER,DEEP_ARCHIVE
    #[arg(long, value_delimiter = ',', value_name = "CLASSES")]
    pub(crate) exclude_storage_class: Vec<String>,

    /// Delete object versions and delete markers permanently instead of adding delete markers, in a bucket with
    /// versioning
    #[arg(long)]
    pub(crate) versions: bool,

    /// With --orphans, also delete these job markers
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MARKS")]
    pub(crate) also: Vec<JobMarkerName>,

    /// Allow deletions that are otherwise refused
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORDS")]
    pub(crate) allow: Vec<PurgeOverride>,

    /// Drop partitions of this Glue Data Catalog table if the purge deletes their last file
    #[arg(long, value_name = "DATABASE.TABLE")]
    pub(crate) drop_partitions: Option<TableName>,

    /// Write the outcome of every object to this path or URL, as JSON lines
    #[arg(long, value_name = "PATH_OR_URL")]
    pub(crate) manifest: Option<String>,

    /// Print the plan, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Job markers, which some tools write and others rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobMarkerName {
    /// `_SUCCESS`
    Success,
    /// `*_$folder$`
    Folders,
}

/// Values of `--allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PurgeOverride {
    /// Purge a whole bucket
    BucketRoot,
    /// Purge a folder around or inside a table; the files and the state of the table are kept
    Overlap,
    /// Delete all objects of the folder
    Empty,
    /// Delete objects whose keys are equal after decoding, so that other programs may confuse them
    Lookalikes,
}

impl JobMarkerName {
    fn to_marker(self) -> JobMarker {
        match self {
            Self::Success => JobMarker::Success,
            Self::Folders => JobMarker::Folders,
        }
    }
}

impl PurgeArgs {
    fn is_by_age(&self) -> bool {
        self.older_than.is_some() || self.before.is_some()
    }

    fn run_mode(&self) -> RunMode {
        if self.dry_run { RunMode::DryRun } else { RunMode::Commit }
    }

    fn allowed_deletes(&self, other_formats: OtherTableFormats) -> AllowedDeletes {
        let mut allow = AllowedDeletes::default();
        allow.bucket_root = self.allow.contains(&PurgeOverride::BucketRoot);
        allow.overlap = self.allow.contains(&PurgeOverride::Overlap);
        allow.empty = self.allow.contains(&PurgeOverride::Empty);
        allow.lookalikes = self.allow.contains(&PurgeOverride::Lookalikes);
        allow.other_formats = other_formats == OtherTableFormats::Allow;
        allow
    }

    fn age_limit(&self) -> AgeLimit {
        let limit = match (self.before, self.older_than) {
            (Some(before), _) => AgeLimit::before(before),
            (None, age) => AgeLimit::older_than(age.unwrap_or_default()),
        };
        let limit = limit.with_grace(self.grace.unwrap_or_default());
        let limit = if self.versions { limit.with_versions() } else { limit };
        self.exclude_storage_class.iter().fold(limit, AgeLimit::excluding_storage_class)
    }

    fn orphan_limit(&self) -> OrphanLimit {
        let limit = OrphanLimit::default().with_markers(self.also.iter().map(|m| m.to_marker()));
        match self.grace {
            Some(age) => limit.with_age(age),
            None => limit,
        }
    }
}

pub(crate) async fn run(args: &PurgeArgs, context: &CommandContext) -> Result<CommandOutput> {
    if !args.also.is_empty() && !args.orphans {
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, "--also needs --orphans"));
    }
    if (args.versions || !args.exclude_storage_class.is_empty()) && !args.is_by_age() {
        let message = "--versions and --exclude-storage-class need --older-than or --before";
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let place = delete_place(&context.stores, &args.table.url).await?;
    let allow = args.allowed_deletes(context.stores.other_formats());
    place.check_allowed(&allow)?;
    let catalog = match &args.drop_partitions {
        // A catalog that is not reachable, or has no such table, stops the purge before anything is deleted.
        Some(name) => Some(CatalogTable::open(name, &place, context).await?),
        None => None,
    };
    let stored = match &args.plan {
        Some(file) => Some((file, read(file, context).await?)),
        None => None,
    };
    let purge = open_folder(args, place, context).await?.allowing(allow);
    let planned = if args.retained {
        purge.plan_retained(args.grace.unwrap_or_default(), args.run_mode()).await?
    } else if args.orphans {
        purge.plan_orphans(&args.orphan_limit(), args.run_mode()).await?
    } else if let Some((file, content)) = stored {
        purge.plan_stored(file, &content).await?
    } else {
        purge.plan_by_age(&args.age_limit()).await?
    };
    let run = PurgeRun { args, purge, context, catalog };
    // A release of retained files is a commit, which a purge without due files does not make.
    if args.dry_run || (args.retained && planned.is_empty()) {
        return run.render_plan(&planned).await;
    }
    run.carry_out(&planned).await
}

/// Reads a stored plan.
async fn read(file: &str, context: &CommandContext) -> Result<Vec<u8>> {
    let location = context.stores.open(file).await?;
    let read = async { location.storage().store.get(location.path()).await?.bytes().await };
    Ok(read.await.map_err(|e| store_error("read", file, e))?.to_vec())
}

/// Opens the folder with the links of its path resolved, and with the journal of its table.
async fn open_folder(args: &PurgeArgs, place: DeletePlace, context: &CommandContext) -> Result<FolderPurge> {
    if place.prefix().is_empty() {
        // A location has a path. The storage is the same for every folder of the store.
        let storage = context.stores.open(&place.url("any")).await?.storage().clone();
        return Ok(FolderPurge::new(place, storage));
    }
    let named = TableArgs { url: place.url(place.prefix()), state: args.table.state.clone() };
    let journal = context.open(&named, JournalOptions::default()).await?.journal().clone();
    Ok(FolderPurge::new(place, journal.storage().clone()).with_journal(journal))
}

/// A purge of one place.
struct PurgeRun<'a> {
    args: &'a PurgeArgs,
    purge: FolderPurge,
    context: &'a CommandContext,
    catalog: Option<CatalogTable>,
}

impl PurgeRun<'_> {
    /// Opens the manifest, if one is requested.
    async fn open_manifest(&self) -> Result<JsonLinesOutput> {
        JsonLinesOutput::open(self.args.manifest.as_ref(), self.purge.place(), self.context).await
    }

    /// Returns the answer of a dry run.
    async fn render_plan(&self, plan: &PlannedPurge) -> Result<CommandOutput> {
        let mut manifest = self.open_manifest().await?;
        let emptied = match &self.catalog {
            Some(catalog) => catalog.emptied_partitions(plan.plans(), self.purge.place(), RunMode::DryRun).await?,
            None => vec![],
        };
        let answer = render_planned(plan, &mut manifest, &emptied);
        manifest.close().await?;
        Ok(answer)
    }

    /// Carries the plans out.
    async fn carry_out(&self, planned: &PlannedPurge) -> Result<CommandOutput> {
        // The manifest is opened first: if it cannot be written, nothing is deleted.
        let mut manifest = self.open_manifest().await?;
        let mut failed = FailedDeletes::default();
        let mut each = |event: PurgeEvent<'_>| {
            event.error().into_iter().for_each(|e| failed.record_error(e));
            event.json_lines().into_iter().for_each(|line| manifest.write_line(line));
        };
        let mut outcome = self.purge.carry_out(planned, &mut each).await?;
        failed.record_result(manifest.close().await);
        failed.record_result(outcome.cleanup_error.take().map_or(Ok(()), Err));
        let dropped = self.drop_partitions(planned, &mut failed).await;
        Ok(render_purged(planned, &outcome, &failed, &dropped))
    }

    /// Drops emptied partitions from the catalog. An error is recorded in the report, since the deletes are already
    /// done.
    async fn drop_partitions(&self, planned: &PlannedPurge, failed: &mut FailedDeletes) -> Vec<CatalogPartition> {
        let Some(catalog) = &self.catalog else { return vec![] };
        match catalog.emptied_partitions(planned.plans(), self.purge.place(), RunMode::Commit).await {
            Ok(emptied) => catalog.drop(emptied, failed).await,
            Err(e) => {
                failed.record_result(Err(e));
                vec![]
            }
        }
    }
}
