//! Differential test: for any source file and any way of writing, the rows equal those of a plain list with the same
//! edits.

use std::collections::BTreeMap;

use biscuit_dataset::ParquetOptions;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_rewrite::unit::{ForcedRewrite, InsertedRows};
use biscuit_rewrite::{NoSpliceReason, RewriteChoice, RewriteUnit, SpillFolder, choose_rewrite};
use biscuit_testkit::MemoryKeys;
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, Scalar};
use datafusion::arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::Int64Type;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder, WriterVersion};
use proptest::prelude::*;

use crate::lab::{Lab, file, plain, read_with, reading, wide};

/// A source file: the sizes of its row groups and the options of its writer.
#[derive(Debug, Clone)]
struct Source {
    groups: Vec<usize>,
    with_index: bool,
    dictionary: bool,
    small_pages: bool,
    version_2: bool,
    delta: bool,
    codec: u8,
}

impl Source {
    fn properties(&self) -> WriterPropertiesBuilder {
        let codec = match self.codec {
            0 => Compression::UNCOMPRESSED,
            1 => Compression::SNAPPY,
            _ => Compression::ZSTD(ZstdLevel::default()),
        };
        let statistics = if self.with_index { EnabledStatistics::Page } else { EnabledStatistics::Chunk };
        let mut p = plain().set_compression(codec).set_dictionary_enabled(self.dictionary);
        p = p.set_statistics_enabled(statistics).set_offset_index_disabled(!self.with_index);
        if self.small_pages {
            p = p.set_data_page_row_count_limit(7).set_write_batch_size(7);
        }
        if self.version_2 {
            p = p.set_writer_version(WriterVersion::PARQUET_2_0);
        }
        if self.delta && !self.dictionary {
            p = p.set_column_encoding("id".into(), Encoding::DELTA_BINARY_PACKED);
        }
        p
    }

    fn batches(&self) -> Vec<RecordBatch> {
        let mut next = 0;
        let mut group = |size: &usize| {
            let ids: Vec<i64> = (next..next + *size as i64).collect();
            next += *size as i64;
            wide(&ids, "old")
        };
        self.groups.iter().map(&mut group).collect()
    }
}

#[derive(Debug, Clone)]
struct Work {
    source: Source,
    /// Edits by row number: `true` removes the row, `false` replaces it.
    edits: BTreeMap<usize, bool>,
    /// Number of new rows, by row group or at the end.
    inserts: Vec<(Option<usize>, usize)>,
}

fn works() -> impl Strategy<Value = Work> {
    let flags = prop::array::uniform5(any::<bool>());
    let source = (prop::collection::vec(1..100_usize, 1..7), flags, 0..3_u8).prop_map(|(groups, f, codec)| Source {
        groups,
        with_index: f[0],
        dictionary: f[1],
        small_pages: f[2],
        version_2: f[3],
        delta: f[4],
        codec,
    });
    source.prop_flat_map(|source| {
        let (rows, groups) = (source.groups.iter().sum::<usize>(), source.groups.len());
        let edits = prop::collection::btree_map(0..rows, any::<bool>(), 0..40);
        let insert = (prop::option::of(0..groups), 1..60_usize);
        (Just(source), edits, prop::collection::vec(insert, 0..3)).prop_map(|(source, edits, inserts)| Work {
            source,
            edits,
            inserts,
        })
    })
}

const NEW: i64 = 10_000;

impl Work {
    /// The expected rows. The row that replaces row `n` has id `NEW + n`.
    fn model(&self) -> RecordBatch {
        let (mut out, mut row) = (Vec::new(), 0);
        let schema = wide(&[], "").schema();
        for (g, size) in self.source.groups.iter().enumerate() {
            for r in row..row + size {
                match self.edits.get(&r) {
                    None => out.push(wide(&[r as i64], "old")),
                    Some(true) => {}
                    Some(false) => out.push(wide(&[NEW + r as i64], "new")),
                }
            }
            row += size;
            out.extend(self.inserted(Some(g)));
        }
        out.extend(self.inserted(None));
        concat_batches(&schema, &out).expect("the batches have one schema")
    }

    fn inserted(&self, group: Option<usize>) -> Vec<RecordBatch> {
        let all = self.inserts.iter().enumerate().filter(|(_, (g, _))| *g == group);
        all.map(|(i, (_, n))| wide(&(0..*n as i64).map(|k| 100_000 * (i as i64 + 1) + k).collect::<Vec<_>>(), "added"))
            .collect()
    }

    async fn run(&self, bytes: Bytes, how: &How) -> (Option<Bytes>, RewriteChoice) {
        let lab = Lab::with(bytes).await;
        let lab = how.keys.iter().fold(lab, |lab, keys| lab.with_keys(keys));
        let of = |gone: bool| self.edits.iter().filter(move |(_, g)| **g == gone).map(|(r, _)| *r as u64);
        // Two batches, so that the edits refer to both.
        let replaced: Vec<u64> = of(false).collect();
        let (a, b) = replaced.split_at(replaced.len() / 2);
        let new = |r: &[u64]| wide(&r.iter().map(|r| NEW + *r as i64).collect::<Vec<_>>(), "new");
        let groups = (0..self.source.groups.len()).map(Some).chain([None]);
        let inserts = groups.flat_map(|g| self.inserted(g).into_iter().map(move |rows| InsertedRows::new(g, rows)));
        let unit = lab.unit().await.with_removed(&of(true).collect::<Vec<_>>()).with_inserts(inserts.collect());
        let unit =
            unit.with_replaced(a, &new(a)).and_then(|u| u.with_replaced(b, &new(b))).expect("the rows have numbers");
        let unit = if how.spilled { on_disk(unit) } else { unit };
        let mut parquet = ParquetOptions::default();
        parquet.encryption.clone_from(&how.encryption);
        let unit = unit.with_parquet(parquet).with_force(how.force);
        let choice = choose_rewrite(&unit);
        let written = lab.run(unit).await;
        match (written.is_empty(), choice) {
            (_, RewriteChoice::Keep) => (Some(lab.only_file().await), choice),
            (true, _) => (None, choice),
            (false, _) => (Some(lab.only_file().await), choice),
        }
    }
}

/// A way of writing the new file.
#[derive(Debug, Default)]
struct How {
    force: ForcedRewrite,
    spilled: bool,
    /// Keys of the source and of the new file.
    keys: Option<MemoryKeys>,
    encryption: Option<FileEncryption>,
}

/// Columns that are encrypted: several types, with and without dictionaries, nested, and the column that rows are
/// read by.
const HIDDEN: [&str; 6] = ["id", "kind", "list", "tax", "long", "raw"];

fn ways(keys: &MemoryKeys) -> Vec<(bool, How)> {
    let encryption = keys.encrypting(HIDDEN);
    vec![
        (false, How::default()),
        (false, How { spilled: true, ..How::default() }),
        (false, How { force: ForcedRewrite::Rewrite, ..How::default() }),
        (false, How { keys: Some(keys.clone()), encryption: Some(encryption), ..How::default() }),
        // The encryption follows the source.
        (true, How { keys: Some(keys.clone()), ..How::default() }),
    ]
}

/// The source as another writer encrypts it.
fn encrypted(source: &Source, keys: &MemoryKeys) -> Bytes {
    let mut properties = FileEncryptionProperties::builder(vec![1; 16]).with_footer_key_metadata(b"footer".to_vec());
    keys.insert(b"footer".to_vec(), vec![1; 16]);
    for leaf in ["id", "kind", "list.list.item", "tax", "long", "raw"] {
        keys.insert(leaf.as_bytes(), vec![2; 32]);
        properties = properties.with_column_key_and_metadata(leaf, vec![2; 32], leaf.as_bytes().to_vec());
    }
    let properties = properties.with_plaintext_footer(true).build().expect("the properties are valid");
    file(&source.batches(), source.properties().with_file_encryption_properties(properties))
}

/// The unit with all new rows on disk.
fn on_disk(unit: RewriteUnit) -> RewriteUnit {
    let spill = SpillFolder::new().expect("the temporary file is created");
    let edits = unit.edits.iter().map(|(g, e)| (*g, e.clone().spill(&spill).expect("the disk has room"))).collect();
    let insert = |i: &InsertedRows| {
        InsertedRows::new(
            i.group,
            spill.write(&i.rows.get().expect("the rows are readable")).expect("the disk has room"),
        )
    };
    let inserts = unit.inserts.iter().map(insert).collect();
    unit.with_edits(edits).with_inserts(inserts)
}

/// Reads every third row of a file, through the page index.
fn read_selected(file: &Bytes, keys: Option<&MemoryKeys>) -> Vec<i64> {
    let options = reading(PageIndexPolicy::Required, keys);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options)
        .expect("the file has a page index");
    let rows = builder.metadata().file_metadata().num_rows() as usize;
    let selection: Vec<RowSelector> =
        (0..rows).map(|r| if r % 3 == 0 { RowSelector::select(1) } else { RowSelector::skip(1) }).collect();
    let reader = builder.with_row_selection(RowSelection::from(selection)).build().expect("the reader is created");
    let ids =
        reader.flat_map(|b| b.expect("the rows are valid").column(0).as_primitive::<Int64Type>().values().to_vec());
    ids.collect()
}

/// Checks that the bounds and null counts of the page index and of the footer hold for every page and row group.
fn check_bounds(file: &Bytes, keys: Option<&MemoryKeys>) {
    let options = reading(PageIndexPolicy::Required, keys);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options)
        .expect("the file has a page index");
    let (metadata, schema) = (builder.metadata().clone(), builder.schema().clone());
    let rows = read_with(file, keys);
    let mut first = 0;
    for (g, group) in metadata.row_groups().iter().enumerate() {
        let count = group.num_rows() as usize;
        for (i, field) in schema.fields().iter().enumerate().filter(|(_, f)| !f.data_type().is_nested()) {
            let column = rows.column(i).slice(first, count);
            let converter = StatisticsConverter::try_new(field.name(), &schema, builder.parquet_schema())
                .expect("the column is valid");
            let of_group = [group];
            let (mins, maxes) = (converter.row_group_mins(of_group), converter.row_group_maxes(of_group));
            check_between(&mins.expect("the bounds are present"), 0, &column, &maxes.expect("the bounds are present"));
            let nulls = converter.row_group_null_counts(of_group).expect("the null counts are present");
            assert_eq!(nulls.value(0), column.null_count() as u64, "nulls of {}", field.name());
            let (columns, offsets) = (
                metadata.column_index().expect("the file has a column index"),
                metadata.offset_index().expect("the file has an offset index"),
            );
            let leaf = converter.parquet_column_index().expect("the leaf is found");
            let pages = offsets[g][leaf].page_locations();
            let mins = converter.data_page_mins(columns, offsets, [&g]).expect("the bounds are present");
            let maxes = converter.data_page_maxes(columns, offsets, [&g]).expect("the bounds are present");
            let nulls = converter.data_page_null_counts(columns, offsets, [&g]).expect("the null counts are present");
            for (p, page) in pages.iter().enumerate() {
                let from = page.first_row_index as usize;
                let to = pages.get(p + 1).map_or(count, |next| next.first_row_index as usize);
                let of_page = column.slice(from, to - from);
                check_between(&mins, p, &of_page, &maxes);
                assert!(nulls.is_null(p) || nulls.value(p) == of_page.null_count() as u64, "nulls of {}", field.name());
            }
        }
        first += count;
    }
}

fn check_between(mins: &ArrayRef, at: usize, values: &ArrayRef, maxes: &ArrayRef) {
    if mins.is_null(at) || maxes.is_null(at) {
        return;
    }
    let bound =
        |b: &ArrayRef| Scalar::new(cast(&b.slice(at, 1), values.data_type()).expect("the value fits the column"));
    let holds = |b: BooleanArray| b.iter().all(|b| b != Some(false));
    assert!(holds(lt_eq(&bound(mins), values).expect("the values are comparable")), "a value is below the minimum");
    assert!(holds(gt_eq(&bound(maxes), values).expect("the values are comparable")), "a value is above the maximum");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: biscuit_testkit::internal::scaled(192), ..ProptestConfig::default() })]

    #[test]
    fn spliced_and_rewritten_files_hold_the_same_rows_in_the_same_order(work in works()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("the runtime starts");
        let bytes = file(&work.source.batches(), work.source.properties());
        let want = work.model();
        let keys = MemoryKeys::new();
        let hidden = encrypted(&work.source, &keys);
        for (is_hidden, how) in ways(&keys) {
            let bytes = if is_hidden { &hidden } else { &bytes };
            let (out, choice) = runtime.block_on(work.run(bytes.clone(), &how));
            let Some(out) = out else {
                prop_assert_eq!(want.num_rows(), 0);
                continue;
            };
            if choice == RewriteChoice::Keep {
                prop_assert!(out == bytes && work.edits.is_empty() && work.inserts.is_empty());
                continue;
            }
            prop_assert_eq!(choice == RewriteChoice::Rewrite(NoSpliceReason::Encrypted), how.keys.is_some());
            let keys = how.keys.as_ref();
            let got = read_with(&out, keys);
            prop_assert_eq!(got.columns(), want.columns(), "{:?}", choice);
            let ids: Vec<i64> = want.column(0).as_primitive::<Int64Type>().values().iter().step_by(3).copied().collect();
            prop_assert_eq!(read_selected(&out, keys), ids, "{:?}", choice);
            check_bounds(&out, keys);
            let metadata = footer_with(&out, keys);
            for chunk in metadata.row_groups().iter().flat_map(|g| g.columns()) {
                let is_one = HIDDEN.contains(&chunk.column_path().parts()[0].as_str());
                prop_assert_eq!(chunk.crypto_metadata().is_some(), keys.is_some() && is_one);
            }
        }
    }
}

fn footer_with(file: &Bytes, keys: Option<&MemoryKeys>) -> ParquetMetaData {
    let options = reading(PageIndexPolicy::Skip, keys);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options)
        .expect("the file is valid Parquet");
    builder.metadata().as_ref().clone()
}
