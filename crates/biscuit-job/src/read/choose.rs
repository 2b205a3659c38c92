//! Chooses the objects that an output reads from each of its sources, by their bookmarks and the mode of the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_bookmark::{
    Bookmark, BookmarkOptions, BookmarkState, InputSelection, ListedInput, ReadMode, SelectedInput, SourceObject,
};
use biscuit_core::Result;
use biscuit_dataset::TableVersion;
use serde_json::json;

use crate::environment::JobEnvironment;
use crate::read::input::InputFile;
use crate::spec::{EmptyLocation, HivePartitioning, JobSpec, OutputMode, SourceSpec};

/// The input of one source that was chosen for an output.
#[derive(Debug)]
pub(crate) struct ChosenInput {
    pub(crate) source: String,
    /// Name of the bookmark. `None` if every run reads all objects.
    pub(crate) bookmark: Option<String>,
    pub(crate) state: BookmarkState,
    pub(crate) input: Arc<ListedInput>,
    pub(crate) selection: InputSelection,
    /// Whether folders such as `dt=2024-02-28` become columns.
    pub(crate) hive_partitioning: HivePartitioning,
    /// Maximum bytes of a record in a text file; `None` for the default.
    pub(crate) max_record: Option<u64>,
}

impl ChosenInput {
    /// Returns the given objects as files that can be opened.
    pub(crate) fn to_files(&self, objects: &[SourceObject]) -> Result<Vec<Arc<InputFile>>> {
        let file = |object: &SourceObject| {
            let (store, path) = self.input.find(object)?;
            let file = InputFile::new(object.listed.clone(), store, path).with_max_record(self.max_record);
            Ok(Arc::new(match self.hive_partitioning {
                HivePartitioning::Columns => file.with_path_columns(self.input.path_below_place(object))?,
                HivePartitioning::Ignored => file,
            }))
        };
        objects.iter().map(file).collect()
    }
}

/// Chooses what an output reads from each of its sources.
pub(crate) async fn choose_input(
    job: &JobSpec,
    sources: &[String],
    snapshot: &TableVersion,
    environment: &dyn JobEnvironment,
    output: OutputMode,
    mode: &ReadMode,
) -> Result<Vec<ChosenInput>> {
    let mut chosen = Vec::new();
    for name in sources {
        let spec = &job.sources[name];
        let mut places = Vec::new();
        for url in spec.places() {
            places.push(environment.open_source(&url).await?);
        }
        let own = spec.bookmark(name);
        let bookmark = Bookmark::new(own.unwrap_or(name))?.with_options(bookmark_options(spec, output)?);
        // Without a bookmark nothing is remembered, so every mode reads everything.
        let mode = if own.is_some() { mode } else { &ReadMode::Full };
        let (journal, head) = (snapshot.journal(), &snapshot.observed.head);
        let SelectedInput { state, listed, selection, .. } =
            bookmark.select(journal, head, &places, mode, spec.allow_missing).await?;
        selection.warnings.iter().filter(|_| own.is_some()).for_each(|w| tracing::warn!("{w}"));
        let (source, bookmark) = (name.clone(), own.map(str::to_owned));
        let (input, hive_partitioning, max_record) = (Arc::new(listed), spec.hive_partitioning, spec.max_record);
        chosen.push(ChosenInput { source, bookmark, state, input, selection, hive_partitioning, max_record });
    }
    // Two sources with one bookmark would overwrite the state of each other in the same commit.
    let mut names = BTreeMap::new();
    for c in &chosen {
        if let Some(other) = c.bookmark.as_ref().and_then(|b| names.insert(b.clone(), &c.source)) {
            let message =
                format!("sources `{other}` and `{}` use the same bookmark; give each source its own", c.source);
            return Err(crate::spec::invalid_spec(message));
        }
    }
    Ok(chosen)
}

fn bookmark_options(spec: &SourceSpec, output: OutputMode) -> Result<BookmarkOptions> {
    let mut options = match output {
        // Replacing partitions and rebuilding need the objects of every run by name, as long as the rows are in the
        // table.
        OutputMode::Append | OutputMode::ReplacePartitions => BookmarkOptions::default().with_keep_runs(u64::MAX),
        _ => BookmarkOptions::default(),
    };
    options.limit.files = spec.limit_files;
    options.limit.bytes = spec.limit_bytes;
    options.allow_empty = spec.allow_empty == EmptyLocation::Allow;
    Ok(options
        .with_identity(spec.identity)
        .with_allowed_lateness(spec.allowed_lateness()?)
        .with_late(spec.late)
        .with_overwritten(spec.overwritten)
        .with_reading(json!({"format": spec.format})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_of_partitioned_outputs_keep_all_runs() {
        let job = "name = 'j'\nsources.s = {url = 'raw', format = 'json'}\ntarget = {url = 't', mode = 'append'}";
        let job = JobSpec::from_toml(job, &[]).unwrap();
        let keeps = |mode| bookmark_options(&job.sources["s"], mode).unwrap().keep_runs;
        assert_eq!((keeps(OutputMode::Append), keeps(OutputMode::ReplacePartitions)), (u64::MAX, u64::MAX));
        assert_eq!(keeps(OutputMode::Merge), BookmarkOptions::default().keep_runs);
    }
}
