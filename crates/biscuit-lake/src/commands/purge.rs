//! `biscuit purge`: deletes objects by age, retained files, orphan files, or the objects of a stored plan.
//!
//! Every way has the same order: probe the store, list the folder, read the journals of all tables around and within,
//! plan, and only then delete. The journals are read after the listing, since a file is committed before it is
//! published.

use std::collections::BTreeSet;
use std::time::Duration;

use biscuit_catalog::{CatalogPartition, TableName};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::{Dataset, OpenLocation, refuse_raw};
use biscuit_journal::{
    Journal, JournalOptions, OtherTableFormats, TableStorage, store_error, table_format_around, tables_around,
    tables_within,
};
use biscuit_purge::{
    AllowedDeletes, DeleteCondition, DeleteCounts, DeleteItem, DeleteOptions, DeleteOutcome, JobMarker, KeepReason,
    KeptReason, ListedObject, MultipartUpload, ObjectListing, ProtectedTable, PurgePlan, PurgeRules, carry_out,
    is_leaving, manifest_line, refuse_other_formats,
};
use clap::{Args, ValueEnum};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;

use crate::args::command::{TableArgs, duration};
use crate::commands::catalog::CatalogTable;
use crate::environment::context::CommandContext;
use crate::environment::stores::DeletePlace;
use crate::render::json_lines::JsonLinesOutput;
use crate::render::output::CommandOutput;
use crate::render::purge::{FailedDeletes, planned, purged};

/// Default of `--grace` with `--orphans`: minimum age of leftovers of other programs.
const LEFT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Options of `biscuit purge`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Delete objects that were modified longer ago than this by the store's clock, such as 2h or 30d
    #[arg(long, group = "what", value_parser = duration, value_name = "DURATION")]
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
    #[arg(long, value_parser = duration, value_name = "DURATION")]
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
    fn mark(self) -> JobMarker {
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

    fn allowed(&self, other_formats: OtherTableFormats) -> AllowedDeletes {
        let mut allow = AllowedDeletes::default();
        allow.bucket_root = self.allow.contains(&PurgeOverride::BucketRoot);
        allow.overlap = self.allow.contains(&PurgeOverride::Overlap);
        allow.empty = self.allow.contains(&PurgeOverride::Empty);
        allow.lookalikes = self.allow.contains(&PurgeOverride::Lookalikes);
        allow.other_formats = other_formats == OtherTableFormats::Allow;
        allow
    }
}

pub(crate) async fn run(args: &PurgeArgs, context: &CommandContext) -> Result<CommandOutput> {
    if !args.also.is_empty() && !args.orphans {
        return Err(Error::usage("InvalidArguments", "--also needs --orphans"));
    }
    if (args.versions || !args.exclude_storage_class.is_empty()) && !args.is_by_age() {
        let message = "--versions and --exclude-storage-class need --older-than or --before";
        return Err(Error::usage("InvalidArguments", message));
    }
    let place = context.stores.place(&args.table.url).await?;
    if place.is_missing() {
        return Err(Error::usage("NothingThere", format!("nothing exists at `{}`; check the path", args.table.url)));
    }
    if place.prefix.is_empty() && !args.allow.contains(&PurgeOverride::BucketRoot) {
        // A plan for the root of a store is an error. Making one here returns the error before anything is listed.
        PurgePlan::exact("", [])?;
    }
    let named = TableArgs { url: place.url(&place.prefix), state: args.table.state.clone() };
    let catalog = match &args.drop_partitions {
        // A catalog that is not reachable, or has no such table, stops the purge before anything is deleted.
        Some(name) => Some(CatalogTable::open(name, &place, context).await?),
        None => None,
    };
    let purge = PurgeRun { args, named, place, context, catalog };
    if args.retained {
        return purge.retained_files().await;
    }
    let (plans, condition) = if args.orphans {
        purge.orphaned_objects().await?
    } else if let Some(file) = &args.plan {
        purge.stored(file).await?
    } else {
        purge.by_age().await?
    };
    purge.carry_out(&plans, condition.caveat()).await
}

/// Refuses to purge a folder that contains, or belongs to, a table that is declared `raw`.
async fn refuse_raw_tables(storage: &TableStorage, tables: &[ProtectedTable]) -> Result<()> {
    for table in tables.iter().filter(|t| !t.root.is_empty() && !t.state.is_empty()) {
        let journal = Journal::new(storage.clone(), StorePath::from(table.root.as_str()), JournalOptions::default());
        let head = journal.with_state_root(StorePath::from(table.state.as_str())).head().await?;
        refuse_raw(&head, "purged")?;
    }
    Ok(())
}

/// Returns whether a listed object is a leftover of another program's job.
///
/// Only the part of the path below the innermost table counts. The files of a table in a folder named `_temporary`,
/// for example, are not leftovers, but those in `_temporary/_temporary` are.
fn is_left(object: &ListedObject, prefix: &str, tables: &[ProtectedTable], marks: &[JobMarker]) -> bool {
    let below = |folder: &str| object.key.strip_prefix(folder)?.strip_prefix('/');
    let leaves = |folder: &str| is_leaving(below(folder).unwrap_or(&object.key), marks);
    if !leaves(prefix) {
        return false;
    }
    let whose = tables.iter().filter(|t| below(&t.root).is_some()).max_by_key(|t| t.root.len());
    !tables.iter().any(|t| t.has_state(&object.key) || t.files.contains(&object.key))
        && whose.is_none_or(|table| leaves(&table.root))
}

/// A purge of one place.
struct PurgeRun<'a> {
    args: &'a PurgeArgs,
    /// The folder with links resolved.
    named: TableArgs,
    place: DeletePlace,
    context: &'a CommandContext,
    catalog: Option<CatalogTable>,
}

impl PurgeRun<'_> {
    /// Returns the table, if the folder is one.
    async fn table(&self) -> Result<Option<Dataset>> {
        if self.place.prefix.is_empty() {
            return Ok(None);
        }
        let dataset = self.context.open(&self.named, JournalOptions::default()).await?;
        Ok((dataset.journal().head().await?.version > 0).then_some(dataset))
    }

    /// Returns the storage through which the journals of tables are read.
    async fn storage(&self) -> Result<TableStorage> {
        // The storage is the same for every folder of the store.
        let url = self.place.url(if self.place.prefix.is_empty() { "any" } else { &self.place.prefix });
        Ok(self.context.stores.open(&url).await?.storage().clone())
    }

    /// Returns the folder for the temporary objects of the probe.
    ///
    /// It is in the state root of the table. On a local disk without a table it is the parent folder, so that no new
    /// folder remains.
    fn scratch(&self, table: Option<&Dataset>) -> String {
        let prefix = &self.place.prefix;
        match (table, prefix.rsplit_once('/'), &self.place.s3) {
            (Some(table), ..) => format!("{}/probe", table.journal().state_root()),
            (None, Some((parent, name)), Some(_)) => format!("{parent}/.biscuit/{name}/probe"),
            (None, None, Some(_)) => format!(".biscuit/{prefix}/probe"),
            (None, Some((parent, _)), None) => parent.to_owned(),
            (None, None, None) => String::new(),
        }
    }

    /// Returns the tables around the folder and within the listings. It has to be called after listing.
    ///
    /// # Errors
    /// `OtherTableFormat`, unless that is allowed.
    async fn tables(&self, own: Option<&Dataset>, listings: &[&ObjectListing]) -> Result<Vec<ProtectedTable>> {
        let (storage, prefix) = (self.storage().await?, &self.place.prefix);
        if self.context.stores.other_formats == OtherTableFormats::Refuse {
            if let Some((format, folder)) = table_format_around(&storage.store, prefix).await? {
                return Err(format.refused(&folder));
            }
            listings.iter().try_for_each(|listing| refuse_other_formats(listing))?;
        }
        let mut tables = tables_around(&storage, prefix).await?;
        if let Some(own) = own {
            // The command may name another state root than the one that was found.
            tables.retain(|t| t.root != *prefix);
            tables.extend(own.journal().protected().await?);
        }
        for listing in listings {
            tables.extend(tables_within(&storage, listing).await?);
        }
        Ok(tables)
    }

    /// Plans a purge by age.
    async fn by_age(&self) -> Result<(Vec<PurgePlan>, DeleteCondition)> {
        let (args, place) = (self.args, &self.place);
        let own = self.table().await?;
        let look = place.store.look(&self.scratch(own.as_ref())).await?;
        let listing = place.store.list(&place.prefix, args.versions).await?;
        // The tables have to be read after the listing. A file is published only after its version is committed, so
        // that each listed file of a table is named by the journal as it is now. The other order could delete a new
        // file.
        let tables = self.tables(own.as_ref(), &[&listing]).await?;
        refuse_raw_tables(&self.storage().await?, &tables).await?;
        let cutoff = match (args.before, args.older_than) {
            (Some(before), _) => before,
            (None, age) => look.now.saturating_sub(age.unwrap_or_default()),
        };
        let mut rules = PurgeRules::older_than(&place.prefix, cutoff, look.now)
            .allowing(args.allowed(self.context.stores.other_formats));
        rules = rules.with_grace(args.grace.unwrap_or_default());
        for class in &args.exclude_storage_class {
            rules = rules.excluding_storage_class(class);
        }
        for table in tables {
            rules = rules.protecting(table);
        }
        Ok((vec![rules.plan(listing)?], look.condition))
    }

    /// Reads a plan that a dry run has written.
    ///
    /// # Errors
    /// `LiveFiles` if an object of the plan has become part of a table, or belongs to a state root.
    async fn stored(&self, file: &str) -> Result<(Vec<PurgePlan>, DeleteCondition)> {
        let place = &self.place;
        let location = self.context.stores.open(file).await?;
        let read = async { location.storage().store.get(location.path()).await?.bytes().await };
        let bytes = read.await.map_err(|e| store_error("read", file, e))?;
        let text = String::from_utf8(bytes.to_vec()).map_err(|e| {
            Error::usage("UnreadablePlan", format!("`{file}` is not UTF-8 text; use a manifest of `purge --dry-run`"))
                .with_source(e)
        })?;
        let plan = PurgePlan::from_json_lines(&place.prefix, file, &text)?;
        let own = self.table().await?;
        let look = place.store.look(&self.scratch(own.as_ref())).await?;
        // Tables are looked for both ways: the plan does not show tables that were created since, and the listing
        // does not show objects that only the plan names.
        let (listing, planned) = (place.store.list(&place.prefix, false).await?, plan.deletes().collect());
        let tables = self.tables(own.as_ref(), &[&listing, &planned]).await?;
        refuse_raw_tables(&self.storage().await?, &tables).await?;
        for object in plan.deletes() {
            let of = |t: &&ProtectedTable| t.files.contains(&object.key) || t.has_state(&object.key);
            if let Some(table) = tables.iter().find(of) {
                let whose = if table.root.is_empty() { &table.state } else { &table.root };
                let message = format!(
                    "`{}` belongs to the table `{whose}`; nothing was deleted. Use `--retained` or `--orphans` to delete unused files of a table",
                    object.key
                );
                return Err(Error::usage("LiveFiles", message));
            }
        }
        Ok((vec![plan], look.condition))
    }

    /// Plans the deletion of leftovers. The journal decides about leftovers of Biscuit; name and age decide about
    /// leftovers of other programs.
    async fn orphaned_objects(&self) -> Result<(Vec<PurgePlan>, DeleteCondition)> {
        let (args, place) = (self.args, &self.place);
        let own = self.table().await?;
        let look = place.store.look(&self.scratch(own.as_ref())).await?;
        let cutoff = look.now.saturating_sub(args.grace.unwrap_or(LEFT_FOR));
        let old = |at: Option<Instant>| at.is_some_and(|at| at < cutoff);
        let marks: Vec<JobMarker> = args.also.iter().map(|m| m.mark()).collect();
        let listing = place.store.list(&place.prefix, false).await?;
        let tables = self.tables(own.as_ref(), &[&listing]).await?;
        let mut files: Vec<ListedObject> =
            listing.iter().filter(|o| is_left(o, &place.prefix, &tables, &marks)).collect();
        let young: BTreeSet<String> = files.iter().filter(|o| !old(o.modified)).map(|o| o.key.clone()).collect();
        let mut of_state = Vec::new();
        if let Some(own) = &own {
            let journal = own.journal();
            if !args.dry_run {
                journal.finished_head().await?;
            }
            let found = journal.orphaned_objects().await?;
            let orphan = |path: &str| format!("{}/{path}", journal.table());
            files.extend(found.orphan_files.into_iter().map(|g| ListedObject::new(orphan(&g.path), g.size, g.etag)));
            of_state.extend(found.dead.into_iter().map(ListedObject::from));
        }
        let listing = files.into_iter().collect();
        let plan = PurgePlan::keeping(&place.prefix, listing, |o| young.contains(&o.key).then_some(KeepReason::Newer))?;
        let uploads = async |prefix: &str| -> Result<Vec<MultipartUpload>> {
            let found = place.store.uploads(prefix).await?.unwrap_or_default();
            Ok(found.into_iter().filter(|u| old(u.begun)).collect())
        };
        let mut plans = vec![plan.with_uploads(uploads(&place.prefix).await?)?];
        if let Some(own) = &own {
            let state = own.journal().state_root();
            plans.push(PurgePlan::exact(state, of_state)?.with_uploads(uploads(state.as_ref()).await?)?);
        }
        Ok((plans, look.condition))
    }

    /// Deletes retained files whose time is over. This is a version of the table, since the journal names retained
    /// files.
    async fn retained_files(&self) -> Result<CommandOutput> {
        let args = self.args;
        let Some(dataset) = self.table().await? else {
            let message = format!("`{}` is not a table with a journal, and has no retained files", args.table.url);
            return Err(Error::usage("NoJournal", message));
        };
        let journal = dataset.journal();
        if !args.dry_run {
            journal.finished_head().await?;
        }
        let look = self.place.store.look(&self.scratch(Some(&dataset))).await?;
        let found = journal.retained_files().await?;
        let (plan, files) = found.due(journal.table(), look.now, args.grace.unwrap_or_default())?;
        // The journal compares each file right before it deletes it; it does not use conditional deletes.
        let caveat = DeleteCondition::LookedAt.caveat();
        if args.dry_run || plan.is_empty() {
            return self.planned(&[plan], caveat).await;
        }
        let mut manifest = self.manifest().await?;
        let committed = journal.release(&found.observed, &files).await?;
        let mut done = DeleteCounts::default();
        // `due` returns the objects of the plan and the files in the same order.
        for (object, file) in plan.deletes().zip(&files) {
            let changed = committed.exceptions.iter().any(|e| e.path == file.path);
            let outcome = match (changed, found.observed.retained.contains(file)) {
                (true, _) => DeleteOutcome::Kept(KeptReason::Changed),
                (false, true) => DeleteOutcome::Deleted,
                (false, false) => DeleteOutcome::Absent,
            };
            done.count(&outcome, object.size);
            manifest.line(manifest_line(DeleteItem::Object(&object), &outcome));
        }
        let mut failed = FailedDeletes::default();
        failed.note(manifest.close().await);
        let plans = [plan];
        let dropped = self.drop_partitions(&plans, &mut failed).await;
        Ok(purged(&plans, &done, &failed, caveat, false, &dropped))
    }

    /// Opens the manifest, if one is requested.
    async fn manifest(&self) -> Result<JsonLinesOutput> {
        JsonLinesOutput::open(self.args.manifest.as_ref(), &self.place, self.context).await
    }

    /// Returns the answer of a dry run.
    async fn planned(&self, plans: &[PurgePlan], caveat: Option<&str>) -> Result<CommandOutput> {
        let mut manifest = self.manifest().await?;
        let emptied = match &self.catalog {
            Some(catalog) => catalog.emptied(plans, &self.place, true).await?,
            None => vec![],
        };
        let answer = planned(plans, caveat, &mut manifest, &emptied);
        manifest.close().await?;
        Ok(answer)
    }

    /// Carries the plans out, unless this is a dry run.
    async fn carry_out(&self, plans: &[PurgePlan], caveat: Option<&str>) -> Result<CommandOutput> {
        if self.args.dry_run {
            return self.planned(plans, caveat).await;
        }
        // The manifest is opened first: if it cannot be written, nothing is deleted.
        let mut manifest = self.manifest().await?;
        let (mut all, mut failed) = (DeleteCounts::default(), FailedDeletes::default());
        for plan in plans {
            let mut each = |item: DeleteItem<'_>, outcome: DeleteOutcome| {
                if let DeleteOutcome::Failed(failure) = &outcome {
                    failed.add(&failure.error);
                }
                manifest.line(manifest_line(item, &outcome));
            };
            all.add(carry_out(&*self.place.store, plan, &DeleteOptions::default(), &mut each).await);
            plan.kept_json_lines().for_each(|line| manifest.line(line));
        }
        failed.note(manifest.close().await);
        if self.args.orphans {
            failed.note(self.recover().await);
        }
        let dropped = self.drop_partitions(plans, &mut failed).await;
        Ok(purged(plans, &all, &failed, caveat, self.args.is_by_age(), &dropped))
    }

    /// Drops emptied partitions from the catalog. An error is recorded in the report, since the deletes are already
    /// done.
    async fn drop_partitions(&self, plans: &[PurgePlan], failed: &mut FailedDeletes) -> Vec<CatalogPartition> {
        let Some(catalog) = &self.catalog else { return vec![] };
        match catalog.emptied(plans, &self.place, false).await {
            Ok(emptied) => catalog.drop(emptied, failed).await,
            Err(e) => {
                failed.note(Err(e));
                vec![]
            }
        }
    }

    /// Deletes empty folders and partial files of dead runs on a local disk. Listings do not show them.
    async fn recover(&self) -> Result<()> {
        match self.table().await? {
            Some(dataset) => dataset.journal().recover().await.map(drop),
            None => Ok(()),
        }
    }
}
