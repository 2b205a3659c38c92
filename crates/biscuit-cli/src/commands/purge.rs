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

/// What dead runs of others left is as old as this at least, if nothing else is said.
const LEFT_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Objects that were modified longer ago than this, on the store's clock: 2h, 30d
    #[arg(long, group = "what", value_parser = duration, value_name = "DURATION")]
    pub(crate) older_than: Option<Duration>,

    /// Objects that were modified before this instant, on the store's clock
    #[arg(long, group = "what", value_name = "INSTANT")]
    pub(crate) before: Option<Instant>,

    /// Files that merges have replaced and kept for readers (`--retention`), when their time is over
    #[arg(long, group = "what")]
    pub(crate) retained: bool,

    /// What dead runs left: staging and files that are no part of the table, Spark's temporary folders, unfinished uploads
    #[arg(long, group = "what")]
    pub(crate) orphans: bool,

    /// Exactly what a dry run by age has written with `--manifest`, each object only if it is unchanged
    #[arg(long, group = "what", value_name = "PATH_OR_URL")]
    pub(crate) plan: Option<String>,

    /// Keep everything for so much longer [default: 0s]; with --orphans the least age of what others left [default: 1d]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) grace: Option<Duration>,

    /// Keep objects of these storage classes: GLACIER,DEEP_ARCHIVE
    #[arg(long, value_delimiter = ',', value_name = "CLASSES")]
    pub(crate) exclude_storage_class: Vec<String>,

    /// In a bucket that keeps versions: delete old versions and delete markers too, for good, instead of marking objects
    #[arg(long)]
    pub(crate) versions: bool,

    /// With --orphans: delete these marks as well
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MARKS")]
    pub(crate) also: Vec<JobMarkerName>,

    /// Do what is refused otherwise
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORDS")]
    pub(crate) allow: Vec<PurgeOverride>,

    /// Drop partitions of this table from the Glue Data Catalog whose last file the purge takes; they are kept, if it is not given
    #[arg(long, value_name = "DATABASE.TABLE")]
    pub(crate) drop_partitions: Option<TableName>,

    /// Write what becomes of every object to this path or URL, as lines of JSON
    #[arg(long, value_name = "PATH_OR_URL")]
    pub(crate) manifest: Option<String>,

    /// Print the plan, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Marks that some tools leave and others rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobMarkerName {
    /// `_SUCCESS`
    Success,
    /// `*_$folder$`
    Folders,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PurgeOverride {
    /// Plan for a whole bucket
    BucketRoot,
    /// Plan for a folder around or inside a table; its files and its state stay
    Overlap,
    /// Leave nothing of what is there
    Empty,
    /// Delete keys that other programs may take for one another
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
        return Err(Error::usage("InvalidArguments", "--also goes with --orphans"));
    }
    if (args.versions || !args.exclude_storage_class.is_empty()) && !args.is_by_age() {
        let message = "--versions and --exclude-storage-class go with --older-than or --before";
        return Err(Error::usage("InvalidArguments", message));
    }
    let place = context.stores.place(&args.table.url).await?;
    if place.is_missing() {
        return Err(Error::usage("NothingThere", format!("there is nothing at `{}`", args.table.url)));
    }
    if place.prefix.is_empty() && !args.allow.contains(&PurgeOverride::BucketRoot) {
        // Before anything is written or listed: a plan for the root is refused.
        PurgePlan::exact("", [])?;
    }
    let named = TableArgs { url: place.url(&place.prefix), state: args.table.state.clone() };
    let catalog = match &args.drop_partitions {
        // A catalog that cannot be reached, or has no such table, stops the purge before it begins.
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

/// A table that was declared raw is never purged, nor what is around it together with it.
async fn refuse_raw_tables(storage: &TableStorage, tables: &[ProtectedTable]) -> Result<()> {
    for table in tables.iter().filter(|t| !t.root.is_empty() && !t.state.is_empty()) {
        let journal = Journal::new(storage.clone(), StorePath::from(table.root.as_str()), JournalOptions::default());
        let head = journal.with_state_root(StorePath::from(table.state.as_str())).head().await?;
        refuse_raw(&head, "purged")?;
    }
    Ok(())
}

/// Whether a listed object was left by a job of others. The name of a table's folder says nothing of its files: these are
/// judged by their paths below it.
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

/// One purge.
struct PurgeRun<'a> {
    args: &'a PurgeArgs,
    /// The folder by its real name.
    named: TableArgs,
    place: DeletePlace,
    context: &'a CommandContext,
    catalog: Option<CatalogTable>,
}

impl PurgeRun<'_> {
    /// The table, if the folder is one.
    async fn table(&self) -> Result<Option<Dataset>> {
        if self.place.prefix.is_empty() {
            return Ok(None);
        }
        let dataset = self.context.open(&self.named, JournalOptions::default()).await?;
        Ok((dataset.journal().head().await?.version > 0).then_some(dataset))
    }

    /// The storage as the journals of tables see it.
    async fn storage(&self) -> Result<TableStorage> {
        // Any folder of the store will do.
        let url = self.place.url(if self.place.prefix.is_empty() { "any" } else { &self.place.prefix });
        Ok(self.context.stores.open(&url).await?.storage().clone())
    }

    /// Where a marker is written: in the table's state, or beside the folder on a disk, where no folder is to be left behind.
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

    /// The tables that the folder and these listings have to do with. To be asked behind the listings.
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
            // Its state may be elsewhere, as the command says.
            tables.retain(|t| t.root != *prefix);
            tables.extend(own.journal().protected().await?);
        }
        for listing in listings {
            tables.extend(tables_within(&storage, listing).await?);
        }
        Ok(tables)
    }

    async fn by_age(&self) -> Result<(Vec<PurgePlan>, DeleteCondition)> {
        let (args, place) = (self.args, &self.place);
        let own = self.table().await?;
        let look = place.store.look(&self.scratch(own.as_ref())).await?;
        let listing = place.store.list(&place.prefix, args.versions).await?;
        // Behind the listing: a file is published only when its version is committed, so that whatever the listing shows of a table
        // is in what its journal says by now.
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

    /// A plan that a dry run has written: nothing of it may have become a part of a table since, or belong to one's state.
    async fn stored(&self, file: &str) -> Result<(Vec<PurgePlan>, DeleteCondition)> {
        let place = &self.place;
        let location = self.context.stores.open(file).await?;
        let read = async { location.storage().store.get(location.path()).await?.bytes().await };
        let bytes = read.await.map_err(|e| store_error("read", file, e))?;
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|e| Error::usage("UnreadablePlan", format!("`{file}` is not text")).with_source(e))?;
        let plan = PurgePlan::from_json_lines(&place.prefix, file, &text)?;
        let own = self.table().await?;
        let look = place.store.look(&self.scratch(own.as_ref())).await?;
        // The plan itself does not show the tables that came since; nor does a listing show what only the plan names.
        let (listing, planned) = (place.store.list(&place.prefix, false).await?, plan.deletes().collect());
        let tables = self.tables(own.as_ref(), &[&listing, &planned]).await?;
        refuse_raw_tables(&self.storage().await?, &tables).await?;
        for object in plan.deletes() {
            let of = |t: &&ProtectedTable| t.files.contains(&object.key) || t.has_state(&object.key);
            if let Some(table) = tables.iter().find(of) {
                let whose = if table.root.is_empty() { &table.state } else { &table.root };
                let message = format!(
                    "`{}` belongs to the table `{whose}`; nothing was deleted. What a table has no more use for goes with `--retained` and `--orphans`",
                    object.key
                );
                return Err(Error::usage("LiveFiles", message));
            }
        }
        Ok((vec![plan], look.condition))
    }

    /// What nobody has a use for any more: of Biscuit by the journal's rule, of others by their names and their age.
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

    /// Files that were replaced and stayed: they go by a version of the table, so that it knows.
    async fn retained_files(&self) -> Result<CommandOutput> {
        let args = self.args;
        let Some(dataset) = self.table().await? else {
            let message = format!("`{}` is no table with a journal: nothing in it is superseded", args.table.url);
            return Err(Error::usage("NoJournal", message));
        };
        let journal = dataset.journal();
        if !args.dry_run {
            journal.finished_head().await?;
        }
        let look = self.place.store.look(&self.scratch(Some(&dataset))).await?;
        let found = journal.retained_files().await?;
        let (plan, files) = found.due(journal.table(), look.now, args.grace.unwrap_or_default())?;
        // The journal looks at each file before it deletes it.
        let caveat = DeleteCondition::LookedAt.caveat();
        if args.dry_run || plan.is_empty() {
            return self.planned(&[plan], caveat).await;
        }
        let mut manifest = self.manifest().await?;
        let committed = journal.release(&found.observed, &files).await?;
        let mut done = DeleteCounts::default();
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

    async fn manifest(&self) -> Result<JsonLinesOutput> {
        JsonLinesOutput::open(self.args.manifest.as_ref(), &self.place, self.context).await
    }

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

    /// Carries plans out, if that is wanted.
    async fn carry_out(&self, plans: &[PurgePlan], caveat: Option<&str>) -> Result<CommandOutput> {
        if self.args.dry_run {
            return self.planned(plans, caveat).await;
        }
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

    /// Drops the partitions of the catalog that were emptied. What was deleted is deleted, so that an error goes into the report.
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

    /// Deletes folders and half-written files of dead runs on a disk, which no listing shows.
    async fn recover(&self) -> Result<()> {
        match self.table().await? {
            Some(dataset) => dataset.journal().recover().await.map(drop),
            None => Ok(()),
        }
    }
}
