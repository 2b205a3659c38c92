//! Change files: finds them in a store, reads them in their format, and passes their records on in batches.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use biscuit_change::internal::{ChunkReader, DecodedRows, FileRows, TextForm, to_stored_types};
use biscuit_change::{ChangeBatch, ChangeFormat, ChangeRecords, TableChanges, TablesReader};
use biscuit_core::{Error, ObjectRef, Result, Run, Source, async_trait};
use biscuit_dataset::internal::OpenByUrl;
use biscuit_dataset::internal::{as_listed, split_glob};
use biscuit_dataset::{DataFile, Location, OpenFile, OpenLocation};
use biscuit_journal::internal::{is_hidden, table_format_around};
use biscuit_journal::{ForeignTableFormat, OtherTableFormats, store_error};
use biscuit_schema::internal::UuidColumns;
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::changes::change_reader::ChangeReader;
use crate::changes::decoding::{CHUNK_MEMORY, Decoding, DecodingUnit};
use crate::changes::intake::ChangeIntake;
use crate::changes::opened_files::{OpenedFile, OpenedFiles};
use crate::changes::task_output::TaskOutput;
use crate::codes;

/// A change file that the caller has found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FoundFile {
    /// The file as it was listed. Its path is the name of the file in messages, such as its URL. A file with another
    /// ETag stops the run.
    pub listed: ObjectRef,
    /// Store of the file.
    pub store: Arc<dyn ObjectStore>,
    /// Path of the file in the store.
    pub object: Path,
}

impl FoundFile {
    /// Creates a file: as it was listed, its store, and its path in the store.
    pub fn new(listed: ObjectRef, store: Arc<dyn ObjectStore>, object: Path) -> Self {
        Self { listed, store, object }
    }
}

/// Change files in a store, named by file, folder or glob.
///
/// ```
/// use biscuit_apply::ChangeFiles;
/// use biscuit_change::{ChangeFormat, RowsOptions};
/// use biscuit_dataset::Location;
/// use object_store::{ObjectStoreExt, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Location::parse("memory://change-files/in")?.storage().store.clone();
/// store.put(&Path::from("in/1.jsonl"), r#"{"id": 1, "seq": 1, "op": "c"}"#.into()).await?;
/// store.put(&Path::from("in/2.jsonl"), r#"{"id": 1, "seq": 2, "op": "d"}"#.into()).await?;
///
/// let format = ChangeFormat::Rows(RowsOptions::default().with_op("op"));
/// let files = ChangeFiles::new(["memory://change-files/in/*.jsonl"], format.clone());
/// assert_eq!(files.changes().await?.len(), 2);
///
/// let missing = ChangeFiles::new(["memory://change-files/in/*.csv"], format);
/// assert_eq!(missing.changes().await.unwrap_err().code(), "NoInput");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ChangeFiles {
    places: Vec<String>,
    found: Vec<FoundFile>,
    format: ChangeFormat,
    opener: Arc<dyn OpenLocation>,
    other_formats: OtherTableFormats,
    allow_empty: bool,
}

impl ChangeFiles {
    /// Creates a reader of the files at these URLs or paths. A place is a file, a folder with all files below it, or
    /// a glob (`*`, `**`, `?`, `[a-z]`). Hidden files are skipped. Empty files are skipped below folders and by
    /// globs.
    pub fn new<S: Into<String>>(places: impl IntoIterator<Item = S>, format: ChangeFormat) -> Self {
        let places = places.into_iter().map(Into::into).collect();
        Self {
            places,
            found: vec![],
            format,
            opener: Arc::new(OpenByUrl),
            other_formats: OtherTableFormats::Refuse,
            allow_empty: false,
        }
    }

    /// Creates a reader of files that the caller has found, in their order.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use biscuit_apply::{ChangeFiles, ChangeFormat, FoundFile};
    /// use biscuit_change::RowsOptions;
    /// use biscuit_core::ObjectRef;
    /// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (store, path) = (Arc::new(InMemory::new()), Path::from("raw/a.jsonl"));
    /// store.put(&path, r#"{"id": 1, "op": "c"}"#.into()).await?;
    /// let meta = store.head(&path).await?;
    /// let listed = ObjectRef::new("raw/a.jsonl", meta.size, meta.e_tag);
    /// let file = FoundFile::new(listed, store, path);
    ///
    /// let files = ChangeFiles::found(vec![file], ChangeFormat::Rows(RowsOptions::default().with_op("op")));
    /// assert_eq!(files.changes().await?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn found(files: Vec<FoundFile>, format: ChangeFormat) -> Self {
        Self { places: vec![], found: files, ..Self::new(Vec::<String>::new(), format) }
    }

    /// Sets how locations are opened. Default: by the scheme of their URLs.
    pub fn with_opener(mut self, opener: Arc<dyn OpenLocation>) -> Self {
        self.opener = opener;
        self
    }

    /// Sets what happens to folders of Delta Lake, Iceberg, Hudi and Paimon. Default: they are refused, because files
    /// that their logs have removed would be read.
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// Allows folders and globs without files. Default: a folder or glob without files is `NoInput`.
    pub fn with_allow_empty(mut self) -> Self {
        self.allow_empty = true;
        self
    }

    /// Reads all files, in the order of their names within a place.
    ///
    /// # Errors
    /// `NoInput` for a missing file, and for a folder or glob without files; `InvalidGlob`; `InputGone` or
    /// `InputChanged` for a file that was deleted or overwritten after it was found; the errors of the readers and
    /// the store.
    pub async fn changes(&self) -> Result<ChangeRecords> {
        let mut batches = Vec::new();
        let mut changes = self.each_batch(&mut batches).await?;
        changes.batches = batches;
        Ok(changes)
    }

    /// Returns the key and order columns that the format determines. For Debezium, the beginning of the files is read
    /// until a record names both. Both are empty if nothing determines them, and if the first records are invalid.
    ///
    /// ```
    /// use biscuit_apply::ChangeFiles;
    /// use biscuit_change::{ChangeFormat, DebeziumOptions};
    /// use biscuit_dataset::Location;
    /// use biscuit_schema::Contract;
    /// use object_store::{ObjectStoreExt, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Location::parse("memory://key-and-order/in")?.storage().store.clone();
    /// let value = r#"{"op":"c","after":{"id":1},"source":{"connector":"postgresql","table":"t","lsn":7}}"#;
    /// store.put(&Path::from("in/1.jsonl"), format!(r#"{{"key":{{"id":1}},"value":{value}}}"#).into()).await?;
    ///
    /// let contract = Contract::from_json(r#"{"columns": [{"name": "id", "type": "bigint"}]}"#)?;
    /// let format = ChangeFormat::Debezium(DebeziumOptions::default().with_contract(contract));
    /// let files = ChangeFiles::new(["memory://key-and-order/in"], format);
    /// assert_eq!(files.key_and_order().await?, (vec!["id".to_owned()], vec!["__lsn".to_owned()]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NoInput`, `InvalidGlob`, `InputGone`, `InputChanged` and other errors of finding and opening the files.
    pub async fn key_and_order(&self) -> Result<(Vec<String>, Vec<String>)> {
        let mut reader = ChangeReader::new(&self.format);
        if reader.needs_records_for_key()
            && let Some(known) = self.first_records(&mut reader).await?
        {
            return Ok(known);
        }
        Ok(reader.key_and_order())
    }

    /// Reads records until they determine key and order. Returns `None` if they do not, or if one of them is invalid,
    /// which is an error when all of them are read.
    async fn first_records(&self, reader: &mut ChangeReader) -> Result<Option<(Vec<String>, Vec<String>)>> {
        let files = with_forms(reader, self.find_files().await?)?;
        let mut opened = OpenedFiles::new(&files, 1);
        for (file, _) in &files {
            let name: Arc<str> = file.name().into();
            match opened.next().await? {
                Some(OpenedFile::Text(mut chunks)) => loop {
                    match chunks.next().await {
                        Ok(Some(chunk)) if reader.read_chunk(chunk).is_ok() => {}
                        Ok(None) => break,
                        Ok(Some(_)) | Err(_) => return Ok(None),
                    }
                    if let Some(known) = reader.known_key_and_order() {
                        return Ok(Some(known));
                    }
                },
                Some(OpenedFile::Rows(bytes)) => {
                    let Ok(rows) = FileRows::open(&name, bytes, self.format.max_decompressed()) else {
                        return Ok(None);
                    };
                    for rows in rows {
                        if rows.and_then(|rows| reader.read_rows(&name, rows, 1)).is_err() {
                            return Ok(None);
                        }
                        if let Some(known) = reader.known_key_and_order() {
                            return Ok(Some(known));
                        }
                    }
                }
                Some(OpenedFile::RowGroups) | None => return Ok(None),
                Some(OpenedFile::Skipped) => {}
            }
            reader.take_batches();
        }
        Ok(None)
    }

    /// Reads all files and passes their records to `take` in batches. Returns the rest of the result: counts, refused
    /// records, key and order. Large Parquet files are read one row group at a time.
    pub(crate) async fn each_batch(&self, take: &mut dyn ChangeBatchSink) -> Result<ChangeRecords> {
        let mut reader = ChangeReader::new(&self.format);
        let files = self.find_files().await?;
        let parallel = take.parallel_groups(CHUNK_MEMORY);
        if reader.needs_types()
            && let Some(learner) = reader.new_part()
        {
            let learner = learn_types(learner, files.clone(), parallel).await?;
            reader.end_types(learner);
        }
        let files = with_forms(&mut reader, files)?;
        let mut decoding = Decoding::new(parallel);
        let read = self.read_files(&files, parallel, &mut reader, &mut decoding, take).await;
        // Records before an error are decoded: if one of them is invalid, too, its error is returned.
        decoding.finish(&mut reader, take).await?;
        read?;
        let mut changes = reader.finish()?;
        take_all(std::mem::take(&mut changes.batches), take).await?;
        Ok(changes)
    }

    async fn read_files(
        &self,
        files: &[(FoundFile, Option<TextForm>)],
        parallel: usize,
        reader: &mut ChangeReader,
        decoding: &mut Decoding,
        take: &mut dyn ChangeBatchSink,
    ) -> Result<()> {
        let max_decompressed = self.format.max_decompressed();
        let mut opened = OpenedFiles::new(files, parallel);
        for (done, (file, _)) in files.iter().enumerate() {
            report_progress(done, files.len());
            match opened.next().await? {
                Some(OpenedFile::RowGroups) => {
                    file.each_row_group(max_decompressed, reader, decoding, take).await?;
                }
                Some(OpenedFile::Rows(bytes)) => {
                    let (name, mut first): (Arc<str>, u64) = (file.name().into(), 1);
                    // Rows are passed on while the file is decoded: they may be much larger than the file.
                    for rows in FileRows::open(&name, bytes, max_decompressed)? {
                        let rows = rows?;
                        let count = rows.num_rows() as u64;
                        decoding.start(DecodingUnit::Rows(name.clone(), rows, first), reader, take).await?;
                        first += count;
                    }
                }
                Some(OpenedFile::Text(mut chunks)) => {
                    while let Some(chunk) = chunks.next().await? {
                        decoding.start(DecodingUnit::Text(chunk), reader, take).await?;
                    }
                }
                Some(OpenedFile::Skipped) | None => {}
            }
        }
        Ok(())
    }

    /// Reads the files of several tables in one pass. Returns the change records of each table by `schema.table`, or
    /// the error of a table.
    ///
    /// # Errors
    /// As [`changes`](Self::changes). Errors about a single table are in the result of that table.
    pub async fn by_table(&self, mut reader: TablesReader<'_>) -> Result<Vec<TableChanges>> {
        let files = self.find_files().await?;
        for (done, file) in files.iter().enumerate() {
            report_progress(done, files.len());
            tracing::info!(file = %file.name(), bytes = file.listed.size, "reading changes");
            reader.read(file.name(), &file.fetch_range(0..file.listed.size).await?)?;
        }
        Ok(reader.finish())
    }

    /// Finds the files of all places.
    async fn find_files(&self) -> Result<Vec<FoundFile>> {
        let mut all = self.found.clone();
        for place in &self.places {
            let (folder, pattern) = split_glob(place);
            let pattern = pattern_of(place, pattern)?;
            let location = self.opener.open(folder).await?;
            let found = list_place(&location, pattern.as_ref(), self.other_formats).await?;
            if found.is_empty() && !self.allow_empty {
                let message = format!("there are no change files at `{place}`; allow that with `--allow-empty`");
                return Err(Error::new(biscuit_core::codes::NO_INPUT, message));
            }
            for meta in found {
                let listed = ObjectRef::new(display_name(place, &location, &meta.location), meta.size, meta.e_tag);
                all.push(FoundFile { listed, store: location.storage().store.clone(), object: meta.location });
            }
        }
        Ok(all)
    }
}

/// Returns the files with the form of each; `None` for a file that the reader skips because of its name.
fn with_forms(reader: &mut ChangeReader, files: Vec<FoundFile>) -> Result<Vec<(FoundFile, Option<TextForm>)>> {
    files.into_iter().map(|file| reader.text_form(file.name()).map(|form| (file, form))).collect()
}

/// Learns the types of all text files.
async fn learn_types(mut learner: ChangeReader, files: Vec<FoundFile>, parallel: usize) -> Result<ChangeReader> {
    let files = with_forms(&mut learner, files)?;
    let (mut opened, mut decoding) = (OpenedFiles::new(&files, parallel), Decoding::new(parallel));
    while let Some(file) = opened.next().await? {
        if let OpenedFile::Text(mut chunks) = file {
            while let Some(chunk) = chunks.next().await? {
                decoding.start(DecodingUnit::Types(chunk), &mut learner, &mut vec![]).await?;
            }
        }
    }
    decoding.finish(&mut learner, &mut vec![]).await?;
    Ok(learner)
}

fn report_progress(done: usize, all: usize) {
    tracing::debug!(target: "biscuit::progress", done, all, "reading changes");
}

impl FoundFile {
    /// Name of the file in messages.
    pub fn name(&self) -> &str {
        &self.listed.path
    }

    /// Returns the store such that reading the file fails if its ETag has changed.
    fn pinned_store(&self) -> Arc<dyn ObjectStore> {
        as_listed(self.store.clone(), [(self.object.clone(), self.listed.etag.clone())])
    }

    /// Reads a range of bytes.
    pub(crate) async fn fetch_range(&self, range: Range<u64>) -> Result<Bytes> {
        let fetched = match range == (0..self.listed.size) {
            true => async { self.pinned_store().get(&self.object).await?.bytes().await }.await,
            false => self.pinned_store().get_range(&self.object, range).await,
        };
        fetched.map_err(|e| self.explain_error(store_error("read", &self.object, e)))
    }

    /// Converts an error of reading the file to one that says what happened to the file.
    fn explain_error(&self, e: Error) -> Error {
        if e.is(biscuit_dataset::codes::NO_FILE_KEYS) {
            let message = "the file uses Parquet modular encryption; change files must not be encrypted";
            return Error::new(codes::ENCRYPTED_INPUT, message).in_file(self.name()).with_source(e);
        }
        input_failed(e, self.name())
    }

    /// Reads a large Parquet file. Several row groups are decoded at a time, each by a task, and read in the order of
    /// the file, so that numbers of rows are right.
    async fn each_row_group(
        &self,
        max_decompressed: Option<u64>,
        reader: &mut ChangeReader,
        decoding: &mut Decoding,
        take: &mut dyn ChangeBatchSink,
    ) -> Result<()> {
        let data = DataFile::outside_tables(self.listed.clone(), self.object.clone());
        let open = OpenFile::open(self.pinned_store(), data).await.map_err(|e| self.explain_error(e))?;
        take.announce(open.rows());
        let uuids = UuidColumns::of_parquet(open.metadata().schema(), open.metadata().parquet_schema());
        let open = open.with_batch_rows(BATCH);
        let (name, mut first): (Arc<str>, u64) = (self.name().into(), 1);
        let mut decoded = DecodedRows::new(&name, self.listed.size, max_decompressed);
        let groups = open.metadata().metadata().row_groups();
        let largest = groups.iter().filter_map(|group| usize::try_from(group.total_byte_size()).ok()).max();
        let side_by_side = take.parallel_groups(largest.unwrap_or(0));
        let (mut groups, mut started) = (0..groups.len(), VecDeque::new());
        loop {
            // These tasks decode while the rows before them are processed.
            while started.len() < side_by_side
                && let Some(group) = groups.next()
            {
                started.push_back(decode_group(&open, group).map_err(|e| self.explain_error(e))?);
            }
            let Some(mut group) = started.pop_front() else { return Ok(()) };
            while let Some(rows) = group.next().await.map_err(|e| self.explain_error(e))? {
                decoded.add(&rows)?;
                let rows = to_stored_types(&uuids.to_texts(rows)?, &name)?;
                let count = rows.num_rows() as u64;
                decoding.start(DecodingUnit::Rows(name.clone(), rows, first), reader, take).await?;
                first += count;
            }
        }
    }
}

/// Converts an error of reading an input file of this name: a file that was deleted or overwritten is a conflict, not
/// damaged input. Any other error gets the name of the file, unless it names a file already.
pub fn input_failed(e: Error, file: &str) -> Error {
    let (code, what) = match e.error_code() {
        biscuit_core::codes::NOT_FOUND => (codes::INPUT_GONE, "was deleted"),
        biscuit_core::codes::CONFLICT => (codes::INPUT_CHANGED, "was overwritten"),
        _ if e.file().is_some() => return e,
        _ => return e.in_file(file),
    };
    let message = format!("the file {what} after it was listed and before it was read; run again");
    Error::new(code, message).in_file(file).with_source(e)
}

/// Starts to decode a row group.
fn decode_group(file: &OpenFile, group: usize) -> Result<TaskOutput<RecordBatch>> {
    let mut decoded = file.stream_groups(None, &[group])?;
    Ok(TaskOutput::start(|send| {
        tokio::spawn(async move {
            while let Some(rows) = decoded.next().await {
                let last = rows.is_err();
                if send.send(rows).await.is_err() || last {
                    break;
                }
            }
        })
    }))
}

/// Passes batches on in their order.
pub(crate) async fn take_all(batches: Vec<ChangeBatch>, take: &mut dyn ChangeBatchSink) -> Result<()> {
    for batch in batches {
        take.take_batch(batch).await?;
    }
    Ok(())
}

/// Receives change records while they are read.
#[async_trait]
pub(crate) trait ChangeBatchSink: Send {
    /// Announces that `records` further records follow.
    fn announce(&mut self, records: u64);

    /// Returns how many row groups of `bytes` bytes may be decoded at a time.
    fn parallel_groups(&self, bytes: usize) -> usize;

    /// Takes a batch of records.
    async fn take_batch(&mut self, batch: ChangeBatch) -> Result<()>;
}

#[async_trait]
impl ChangeBatchSink for Vec<ChangeBatch> {
    fn announce(&mut self, _: u64) {}

    fn parallel_groups(&self, _: usize) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    async fn take_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        self.push(batch);
        Ok(())
    }
}

#[async_trait]
impl ChangeBatchSink for ChangeIntake {
    fn announce(&mut self, records: u64) {
        Self::announce_records(self, records);
    }

    fn parallel_groups(&self, bytes: usize) -> usize {
        Self::parallel_batches(self, bytes)
    }

    async fn take_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        self.add_batch(batch).await
    }
}

/// Number of rows of a larger file that are decoded at a time.
const BATCH: usize = 65_536;

#[async_trait]
impl Source<ChangeRecords> for ChangeFiles {
    async fn read(&self, _: &Run) -> Result<ChangeRecords> {
        self.changes().await
    }
}

/// Parses the pattern of a glob.
fn pattern_of(place: &str, pattern: Option<&str>) -> Result<Option<glob::Pattern>> {
    let invalid =
        |e| Error::new(biscuit_core::codes::INVALID_GLOB, format!("`{place}` is not a valid glob: {e}")).with_source(e);
    pattern.map(glob::Pattern::new).transpose().map_err(invalid)
}

/// Finds the files of one place, sorted by path. With `OtherTableFormats::Refuse`, a folder that is part of a table
/// of another format is refused, and so is a folder that contains one.
async fn list_place(
    location: &Location,
    pattern: Option<&glob::Pattern>,
    other_formats: OtherTableFormats,
) -> Result<Vec<ObjectMeta>> {
    let store = &location.storage().store;
    let refuse = other_formats == OtherTableFormats::Refuse;
    if refuse && let Some((format, folder)) = table_format_around(store, location.path().as_ref()).await? {
        return Err(format.refused(&folder));
    }
    if pattern.is_none() {
        match store.head(location.path()).await {
            Ok(meta) => return Ok(vec![meta]),
            Err(object_store::Error::NotFound { .. }) => {}
            // A local folder is not an object. File systems report that with different errors.
            Err(e) => tracing::debug!(error = %e, "not a file"),
        }
    }
    let listed: Vec<ObjectMeta> =
        store.list(Some(location.path())).boxed().try_collect().await.map_err(|e| store_error("list", location, e))?;
    if refuse
        && let Some((format, folder)) = listed.iter().find_map(|m| ForeignTableFormat::of_log(m.location.as_ref()))
    {
        return Err(format.refused(folder));
    }
    let strict = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    let fits = |meta: &ObjectMeta| {
        let below: Vec<_> =
            meta.location.prefix_match(location.path()).into_iter().flatten().map(|p| p.as_ref().to_owned()).collect();
        let relative = below.join("/");
        let chosen = pattern.is_none_or(|p| p.matches_with(&relative, strict));
        chosen && meta.size > 0 && !is_hidden(&relative)
    };
    let mut found: Vec<ObjectMeta> = listed.into_iter().filter(|m| fits(m)).collect();
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

/// Returns the name of a file in messages: as the caller wrote it if it is the place itself, else the place and the
/// path below it.
fn display_name(place: &str, location: &Location, path: &Path) -> String {
    if path == location.path() {
        return place.to_owned();
    }
    let below: Vec<_> =
        path.prefix_match(location.path()).into_iter().flatten().map(|p| p.as_ref().to_owned()).collect();
    format!("{location}/{}", below.join("/"))
}
