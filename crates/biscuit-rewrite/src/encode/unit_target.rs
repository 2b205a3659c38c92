//! The target of a unit: schema and properties of its files, encoder factories, memory estimates, and the choice
//! between copying, transcoding and encoding a row group.

use std::collections::HashSet;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::internal::{check_staged, parquet_error};
use biscuit_journal::StagedFile;
use biscuit_schema::internal::conform;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::execution::memory_pool::MemoryReservation;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor, TypePtr};

use crate::encode::group_bytes::GroupBytes;
use crate::encode::row_group::{EncodeGroup, EncodePart, EncodedRowGroup, RowGroupEncoder};
use crate::encode::threads::{ReservedMemory, UnitResources};
use crate::pages::copy::{CarriedMetadata, read_bloom_filters};
use crate::pages::page_store::{PageBuffer, PageKeeper, PageSink};
use crate::pages::paged_group::PagedRowGroup;
use crate::plan::choice::{GroupPlan, NoSpliceReason, RewriteChoice, RowGroupPart};
use crate::plan::edits::RowGroupEdits;
use crate::plan::properties::{BloomFilterPolicy, ColumnFidelity, common_sorting, derive_properties};
use crate::plan::unit::{BloomFilters, RewriteUnit, SourceGroup};

/// Number of row groups of the sources that are fetched at a time for one row group.
const FETCHES: usize = 16;

/// A row group that is ready to be written.
pub(crate) enum ReadyRowGroup {
    /// Bytes of the source, with the metadata of the chunks.
    Copied(GroupBytes, Vec<ColumnCloseResult>),
    /// Encoded column chunks of one or several row groups.
    Encoded(Vec<EncodedRowGroup>),
    /// Row group that is encoded when its file and its ordinal in it are known, since encrypted pages are bound to
    /// both.
    Bound(Box<RowGroupEncoder>),
}

/// Schema, properties and encoders of the files of a unit.
pub(crate) struct UnitTarget {
    pub(crate) unit: Arc<RewriteUnit>,
    pub(crate) shared: Arc<UnitResources>,
    /// Pages on their way from the encoders to the Parquet writer, which are not copied.
    pub(crate) passing: PageBuffer,
    pub(crate) root: TypePtr,
    pub(crate) properties: WriterPropertiesPtr,
    /// Columns in the form in which they are encoded.
    pub(crate) schema: SchemaRef,
    groups: Vec<SourceGroup>,
    /// Metadata that is carried over, by source. Empty if nothing is copied.
    carried: Vec<CarriedMetadata>,
    sorting: Vec<SortingColumn>,
    /// Encryption of the files, if they have encrypted columns.
    encryption: Option<FileEncryption>,
    /// Encoder factories: one for row groups that carry the bloom filters of their source, one for row groups that
    /// build their own.
    carrying: Arc<ArrowRowGroupWriterFactory>,
    making: Arc<ArrowRowGroupWriterFactory>,
}

fn unwritable_error(e: parquet::errors::ParquetError) -> Error {
    Error::new(
        biscuit_dataset::codes::UNSTORABLE_TYPE,
        format!("these columns cannot be stored in a Parquet file: {e}"),
    )
    .with_source(e)
}

impl UnitTarget {
    pub(crate) async fn new(unit: Arc<RewriteUnit>, shared: Arc<UnitResources>, choice: RewriteChoice) -> Result<Self> {
        // In these cases the new file has the columns of the table; otherwise it follows the source exactly.
        let other = matches!(
            choice,
            RewriteChoice::Rewrite(
                NoSpliceReason::OtherColumns | NoSpliceReason::NullInRequired | NoSpliceReason::Sorted
            )
        );
        let columns = if other { ColumnFidelity::Other } else { ColumnFidelity::Same };
        let (schema, root) = match unit.sources.first().filter(|_| columns == ColumnFidelity::Same) {
            Some(s) => (s.metadata().schema().clone(), s.metadata().parquet_schema().root_schema_ptr()),
            None => {
                let converted = ArrowSchemaConverter::new().convert(&unit.schema).map_err(unwritable_error)?;
                (unit.schema.clone(), converted.root_schema_ptr())
            }
        };
        let sorting = common_sorting(&unit.sources).filter(|_| columns == ColumnFidelity::Same).unwrap_or_default();
        let claimed = if unit.sort_by.is_empty() { sorting.clone() } else { declared_sorting(&unit) };
        let sample = if unit.sources.is_empty() { unit.inserts.first() } else { None };
        let sample = sample.map(|insert| insert.rows.get()).transpose()?;
        let (encryption, hidden) = unit_encryption(&unit, &root)?;
        let follow = |blooms| {
            let mut properties = derive_properties(&unit.sources, &unit.parquet, columns, blooms);
            // The Parquet library writes bloom filters without encryption, which would reveal values of encrypted
            // columns.
            for path in &hidden {
                properties = properties.set_column_bloom_filter_enabled(path.clone(), false);
            }
            for name in sample.iter().flat_map(mostly_distinct) {
                properties = properties.set_column_dictionary_enabled(ColumnPath::new(vec![name]), false);
            }
            Arc::new(properties.set_sorting_columns((!claimed.is_empty()).then(|| claimed.clone())).build())
        };
        let passing = PageBuffer::default();
        let factory = |properties: Arc<WriterProperties>| -> Result<_> {
            // The factory takes schema and properties from a writer. This writer writes nothing.
            let writer =
                SerializedFileWriter::new(std::io::sink(), root.clone(), properties).map_err(unwritable_error)?;
            let factory = ArrowRowGroupWriterFactory::new(&writer, schema.clone());
            Ok(Arc::new(factory.with_page_store_factory(Arc::new(PageKeeper(passing.clone())))))
        };
        let properties =
            follow(if encryption.is_some() { BloomFilterPolicy::Made } else { BloomFilterPolicy::Carried });
        let (carrying, making) = (factory(properties.clone())?, factory(follow(BloomFilterPolicy::Made))?);
        let mut carried = Vec::new();
        for source in unit.sources.iter().filter(|_| choice == RewriteChoice::Splice) {
            carried.push(CarriedMetadata::read(source).await?);
        }
        let groups = unit.source_groups();
        let made = Self {
            unit,
            shared,
            passing,
            root,
            properties,
            schema,
            groups,
            carried,
            sorting,
            encryption,
            carrying,
            making,
        };
        Ok(made)
    }

    /// Returns whether the files have encrypted columns.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    /// Creates the writer of a new file. For a file with encrypted columns, it comes with the factory of its
    /// encoders.
    pub(crate) async fn writer(
        &self,
    ) -> Result<(SerializedFileWriter<PageSink>, Option<Arc<ArrowRowGroupWriterFactory>>)> {
        let mut properties = self.properties.clone();
        if let Some(encryption) = &self.encryption
            && let Some(keys) = encryption.file_properties(&SchemaDescriptor::new(self.root.clone())).await?
        {
            let builder = properties.as_ref().clone().into_builder();
            properties = Arc::new(builder.with_file_encryption_properties(keys).build());
        }
        let sink = PageSink::new(self.passing.clone());
        let writer = SerializedFileWriter::new(sink, self.root.clone(), properties)
            .map_err(|e| parquet_error("the new file", e))?;
        let factory = self.encryption.as_ref().map(|_| {
            let factory = ArrowRowGroupWriterFactory::new(&writer, self.schema.clone());
            Arc::new(factory.with_page_store_factory(Arc::new(PageKeeper(self.passing.clone()))))
        });
        Ok((writer, factory))
    }

    /// Lets the commit open the staged file and check it.
    pub(crate) fn check_staged(&self, staged: StagedFile, rows: u64) -> StagedFile {
        check_staged(&self.shared.stager, staged, rows, self.encryption.clone())
    }

    /// Encodes a row group for the open file. The ordinal of the next row group is known only when this one is
    /// encoded, so that not row groups but columns are encoded side by side.
    pub(crate) async fn encode_for_file(
        &self,
        mut job: RowGroupEncoder,
        factory: Arc<ArrowRowGroupWriterFactory>,
        number: usize,
    ) -> Result<Vec<EncodedRowGroup>> {
        (job.factory, job.number) = (factory, number);
        let job = Arc::new(job);
        let shares = job.column_shares(self.shared.cores.number()).into_iter().map(|share| {
            let job = job.clone();
            self.shared.cores.run_on_thread(move || job.encode_share(&share))
        });
        if let Some(group) = job.join_shares(try_join_all(shares).await?) {
            return Ok(vec![group]);
        }
        let job = Arc::into_inner(job).ok_or_else(|| Error::internal("a column of the row group is still in use"))?;
        self.shared.cores.run_on_thread(move || job.run(vec![])).await
    }

    /// Reserves the memory that a row group needs. Waits while other row groups hold memory.
    pub(crate) async fn reserve_memory(&self, plan: &GroupPlan) -> Result<ReservedMemory> {
        self.shared.reserve_memory(self.estimate_memory(plan), self.unit.name()).await
    }

    /// Estimates the memory of a row group in bytes.
    ///
    /// A copy needs the source's bytes. An encoded row group needs the source's bytes, as much again for the encoded
    /// pages, four batches between decoder and encoder, the largest column in plain form for `transcode`, and the new
    /// rows.
    pub(crate) fn estimate_memory(&self, plan: &GroupPlan) -> usize {
        let (mut compressed, mut batch, mut column, mut new) = (0, 0, 0, 0);
        let bytes = |n: i64| usize::try_from(n).unwrap_or(0);
        for part in &plan.parts {
            match part {
                RowGroupPart::Group(g) => {
                    let at = self.groups[*g];
                    let group = self.unit.sources[at.source].metadata().metadata().row_group(at.group);
                    compressed += bytes(group.compressed_size());
                    new += self.unit.edits.get(g).map_or(0, RowGroupEdits::memory_size);
                    let largest = group.columns().iter().map(|c| bytes(c.uncompressed_size())).max();
                    column = column.max(largest.unwrap_or(0));
                    batch = batch.max(bytes(group.total_byte_size()) / bytes(group.num_rows()).max(1) * 8192);
                }
                RowGroupPart::Insert(i) => new += self.unit.inserts[*i].rows.memory_size(),
            }
        }
        if plan.copy { compressed } else { 2 * compressed + 4 * batch + column + new }
    }

    /// Copies or encodes a row group.
    pub(crate) async fn make_group(&self, plan: &GroupPlan) -> Result<ReadyRowGroup> {
        // Copy only if every chunk has an offset index. A chunk without one would remove the page index of the file.
        if let (true, Some(g)) = (plan.copy, plan.only_group())
            && let Some(carried) = self.carried.get(self.groups[g].source)
        {
            let (source, group) = (&self.unit.sources[self.groups[g].source], self.groups[g].group);
            let bytes = GroupBytes::fetch(source, &[group]).await?;
            if let Some(closes) =
                carried.copied_metadata(source, group, &bytes, read_bloom_filters(source, group).await?)?
            {
                return Ok(ReadyRowGroup::Copied(bytes, closes));
            }
        }
        let job = self.new_encoder(plan).await?;
        self.encode_on_threads(job).await
    }

    /// Encodes a row group on the encoder threads. Columns that can be transcoded are changed page by page, each as a
    /// job of its own; the other columns are decoded and encoded together.
    async fn encode_on_threads(&self, job: RowGroupEncoder) -> Result<ReadyRowGroup> {
        if self.is_encrypted() {
            return Ok(ReadyRowGroup::Bound(Box::new(job)));
        }
        let mut own = vec![];
        let job = Arc::new(job);
        if let Some(paged) = PagedRowGroup::of(&job).map(Arc::new) {
            own.resize_with(paged.leaves, || None);
            let columns = paged.columns.iter().map(|&(column, leaf)| {
                let (job, paged) = (job.clone(), paged.clone());
                self.shared.cores.run_on_thread(move || Ok((leaf, paged.own_chunk(&job, column, leaf)?)))
            });
            for (leaf, chunk) in try_join_all(columns).await? {
                own[leaf] = chunk;
            }
        }
        let job = Arc::into_inner(job).ok_or_else(|| Error::internal("a column of the row group is still in use"))?;
        Ok(ReadyRowGroup::Encoded(self.shared.cores.run_on_thread(move || job.run(own)).await?))
    }

    /// Encodes rows as a row group of their own.
    pub(crate) async fn encode_rows(&self, rows: Vec<RecordBatch>) -> Result<ReadyRowGroup> {
        let parts = rows.into_iter().map(EncodePart::Rows).collect();
        self.encode_on_threads(self.job_of(parts, vec![], self.making.clone())).await
    }

    /// Encodes rows as they arrive. `full` takes each finished row group, and returns whether to go on.
    pub(crate) fn encode_stream(
        &self,
        rows: impl Iterator<Item = RecordBatch>,
        memory: &MemoryReservation,
        full: &mut dyn FnMut(EncodedRowGroup) -> bool,
    ) -> Result<()> {
        let rows = rows.map(|rows| self.of_file(&rows));
        self.job_of(vec![], vec![], self.making.clone()).run_stream(rows, memory, full)
    }

    async fn new_encoder(&self, plan: &GroupPlan) -> Result<RowGroupEncoder> {
        let carries = |at: SourceGroup| {
            let source = &self.unit.sources[at.source];
            // With other columns, values may have another form than that in which the filters hash them.
            let same = self.schema.fields() == source.metadata().schema().fields();
            same && !self.is_encrypted() && self.unit.bloom_filters == BloomFilters::Carried
        };
        let carried = plan.only_group().map(|g| self.groups[g]).filter(|at| carries(*at));
        // Many small row groups are fetched side by side.
        let parts: Vec<_> = plan.parts.iter().map(|part| self.encode_part(*part)).collect();
        let parts: Vec<EncodePart> = stream::iter(parts).buffered(FETCHES).try_collect().await?;
        Ok(match carried {
            Some(at) => {
                let blooms = read_bloom_filters(&self.unit.sources[at.source], at.group).await?;
                self.job_of(parts, blooms, self.carrying.clone())
            }
            None => self.job_of(parts, vec![], self.making.clone()),
        })
    }

    /// Fetches a part of a row group.
    async fn encode_part(&self, part: RowGroupPart) -> Result<EncodePart> {
        let group = match part {
            RowGroupPart::Insert(i) => return Ok(EncodePart::Rows(self.of_file(&self.unit.inserts[i].rows.get()?)?)),
            RowGroupPart::Group(group) => group,
        };
        let at = self.groups[group];
        let source = self.unit.sources[at.source].clone();
        let bytes = GroupBytes::fetch(&source, &[at.group]).await?;
        let (edits, new) = self.unit.edits.get(&group).map(RowGroupEdits::load_edits).transpose()?.unwrap_or_default();
        let rows = new.iter().map(|rows| self.of_file(rows)).collect::<Result<_>>()?;
        let group = EncodeGroup { source, group: at.group, first: at.first, edits, rows, bytes };
        Ok(EncodePart::Group(Box::new(group)))
    }

    fn job_of(
        &self,
        parts: Vec<EncodePart>,
        blooms: Vec<Option<parquet::bloom_filter::Sbbf>>,
        factory: Arc<ArrowRowGroupWriterFactory>,
    ) -> RowGroupEncoder {
        let largest = usize::try_from(self.unit.max_file_size).unwrap_or(usize::MAX);
        RowGroupEncoder {
            parts,
            schema: self.schema.clone(),
            factory,
            number: 0,
            sorting: self.sorting.clone(),
            blooms,
            max_rows: self.max_rows(),
            properties: self.properties.clone(),
            max_bytes: self.unit.parquet.row_group_bytes.min(largest),
        }
    }

    /// Returns new rows with exactly the fields of the file, nullability included.
    pub(crate) fn of_file(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let rows = conform(rows, &self.schema, "the new rows")?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), rows.columns().to_vec(), &options)
            .map_err(|e| Error::internal("the new rows do not have the columns of the file").with_source(e))
    }

    /// Returns the maximum number of rows of a row group.
    pub(crate) fn max_rows(&self) -> usize {
        self.properties.max_row_group_row_count().unwrap_or(usize::MAX)
    }
}

/// Returns the encryption of the files of a unit, if any, and the leaf columns that are encrypted.
fn unit_encryption(unit: &RewriteUnit, root: &TypePtr) -> Result<(Option<FileEncryption>, Vec<ColumnPath>)> {
    let Some(encryption) = unit.encryption()? else { return Ok((None, vec![])) };
    let schema = SchemaDescriptor::new(root.clone());
    let leaves = encryption.encrypted_leaves(&schema)?;
    let paths = schema.columns().iter().map(|leaf| leaf.path()).filter(|path| leaves.contains(&path.string()));
    let paths: Vec<ColumnPath> = paths.cloned().collect();
    Ok((Some(encryption).filter(|_| !paths.is_empty()), paths))
}

/// Returns the flat columns with mostly distinct values in these rows. A dictionary of such a column would be given
/// up half-way.
fn mostly_distinct(rows: &RecordBatch) -> Vec<String> {
    let distinct = |column: &ArrayRef| -> Option<usize> {
        let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())]).ok()?;
        let rows = converter.convert_columns(std::slice::from_ref(column)).ok()?;
        let values: HashSet<Vec<u8>> = rows.iter().map(|row| row.data().to_vec()).collect();
        Some(values.len())
    };
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).filter(|(f, _)| !f.data_type().is_nested());
    // A small sample does not show whether values repeat.
    let many = columns.filter(|(_, c)| c.len() >= 1024 && distinct(c).is_some_and(|n| n > c.len() / 2));
    many.map(|(f, _)| f.name().clone()).collect()
}

/// Returns the sorting columns that a footer declares for a sorted unit. The result is empty if columns are nested,
/// since then the indices of leaves are not those of columns.
fn declared_sorting(unit: &RewriteUnit) -> Vec<SortingColumn> {
    if unit.schema.fields().iter().any(|f| f.data_type().is_nested()) {
        return vec![];
    }
    let column = |by: &crate::SortBy| {
        let column_idx = i32::try_from(unit.schema.index_of(&by.column).ok()?).ok()?;
        Some(SortingColumn { column_idx, descending: by.descending, nulls_first: false })
    };
    unit.sort_by.iter().map(column).collect::<Option<_>>().unwrap_or_default()
}
