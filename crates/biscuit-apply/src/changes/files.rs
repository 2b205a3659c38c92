//! Change files: finds them in a store, reads them in their format, and passes their records on in batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_change::internal::{ChunkReader, FileRows, TableChunkReader, TextForm};
use biscuit_change::{ChangeBatch, ChangeFormat, ChangeRecords, SourceTable, TablesReader};
use biscuit_core::{Error, ObjectRef, Result, Run, Source, async_trait};
use biscuit_dataset::OpenLocation;
use biscuit_dataset::internal::{OpenByUrl, split_glob};
use biscuit_journal::OtherTableFormats;

use crate::changes::buffered::BufferedChanges;
use crate::changes::change_reader::ChangeReader;
use crate::changes::decoding::{CHUNK_MEMORY, Decoding, DecodingUnit};
use crate::changes::found_files::{FoundFile, display_name, list_place, pattern_of};
use crate::changes::intake::ChangeIntake;
use crate::changes::opened_files::{OpenedFile, OpenedFiles};

/// Name and change records of one table, or the error that ended its reading.
pub type TableBuffer = (SourceTable, Result<BufferedChanges>);

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
                Some(OpenedFile::Chunks(mut chunks)) => loop {
                    let read = match chunks.next().await {
                        Ok(Some(unit)) => unit.decode(reader),
                        Ok(None) => break,
                        Err(e) => Err(e),
                    };
                    if read.is_err() {
                        return Ok(None);
                    }
                    if let Some(known) = reader.known_key_and_order() {
                        return Ok(Some(known));
                    }
                    reader.take_batches();
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
                        reader.take_batches();
                    }
                }
                Some(OpenedFile::RowGroups) | None => return Ok(None),
                Some(OpenedFile::Skipped) => {}
            }
        }
        Ok(None)
    }

    /// Reads all files and passes their records to `take` in batches. Returns the rest of the result: counts, refused
    /// records, key and order. Large Parquet files are read one row group at a time.
    ///
    /// # Errors
    /// As [`changes`](Self::changes), and errors of `take`.
    pub async fn each_batch(&self, take: &mut dyn ChangeBatchSink) -> Result<ChangeRecords> {
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
                Some(OpenedFile::Chunks(mut chunks)) => {
                    while let Some(unit) = chunks.next().await? {
                        decoding.start(unit, reader, take).await?;
                    }
                }
                Some(OpenedFile::Skipped) | None => {}
            }
        }
        Ok(())
    }

    /// Reads the files of several tables in one pass. Returns the change records of each table by `schema.table`, or
    /// the error of a table. `empty` is a buffer with which those of the tables share their memory.
    ///
    /// # Errors
    /// As [`changes`](Self::changes), and `SpillFailed`. Errors about a single table are in the result of that table.
    pub async fn by_table(&self, mut reader: TablesReader<'_>, empty: &BufferedChanges) -> Result<Vec<TableBuffer>> {
        let files = self.find_files().await?;
        let files: Vec<_> = files.into_iter().map(|file| (reader.text_form(file.name()), file)).collect();
        let chunked = files.iter().filter_map(|(form, file)| Some((file.clone(), Some((*form)?)))).collect::<Vec<_>>();
        let mut opened = OpenedFiles::new(&chunked, empty.parallel_groups(CHUNK_MEMORY));
        let mut buffers: BTreeMap<SourceTable, BufferedChanges> = BTreeMap::new();
        let mut take = |reader: &mut TablesReader<'_>| -> Result<()> {
            for (table, batches) in reader.take_batches() {
                let buffer = buffers.entry(table).or_insert_with(|| empty.another());
                batches.into_iter().try_for_each(|batch| buffer.add(batch))?;
            }
            Ok(())
        };
        for (done, (form, file)) in files.iter().enumerate() {
            report_progress(done, files.len());
            let content = if form.is_some() { opened.next().await? } else { None };
            match content {
                Some(OpenedFile::Chunks(mut chunks)) => {
                    while let Some(unit) = chunks.next().await? {
                        unit.decode_tables(&mut reader)?;
                        take(&mut reader)?;
                    }
                }
                Some(OpenedFile::Rows(bytes)) => reader.read(file.name(), &bytes)?,
                // Files that are not read in chunks.
                Some(OpenedFile::RowGroups | OpenedFile::Skipped) | None => {
                    reader.read(file.name(), &file.fetch_range(0..file.listed.size).await?)?;
                }
            }
            take(&mut reader)?;
        }
        let finished = reader.finish().into_iter().map(|(table, changes)| {
            let mut buffer = buffers.remove(&table).unwrap_or_else(|| empty.another());
            let changes = changes.and_then(|rest| buffer.add_records(rest).map(|()| buffer));
            (table, changes)
        });
        Ok(finished.collect())
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
    let mut decoding = Decoding::new(parallel);
    let read = async {
        let mut opened = OpenedFiles::new(&files, parallel);
        while let Some(file) = opened.next().await? {
            if let OpenedFile::Chunks(mut chunks) = file {
                // Files of other formats declare their types.
                while let Some(DecodingUnit::Text(chunk)) = chunks.next().await? {
                    decoding.start(DecodingUnit::Types(chunk), &mut learner, &mut vec![]).await?;
                }
            }
        }
        Ok(())
    };
    let read = read.await;
    decoding.finish(&mut learner, &mut vec![]).await?;
    read.map(|()| learner)
}

fn report_progress(done: usize, all: usize) {
    tracing::debug!(target: "biscuit::progress", done, all, "reading changes");
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
pub trait ChangeBatchSink: Send {
    /// Announces that `records` further records follow.
    fn announce(&mut self, records: u64);

    /// Returns how many row groups of `bytes` bytes may be decoded at a time, at least 1.
    fn parallel_groups(&self, bytes: usize) -> usize;

    /// Takes a batch of records.
    ///
    /// # Errors
    /// Every error ends the reading.
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

#[async_trait]
impl Source<ChangeRecords> for ChangeFiles {
    async fn read(&self, _: &Run) -> Result<ChangeRecords> {
        self.changes().await
    }
}
