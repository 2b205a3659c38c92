//! Properties that a spliced file carries over, and files that are not spliced.

use std::sync::Arc;

use biscuit_dataset::ParquetOptions;
use biscuit_rewrite::unit::InsertedRows;
use biscuit_rewrite::{NoSpliceReason, RewriteChoice, RewriteUnit, choose_rewrite};
use bytes::Bytes;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parquet::bloom_filter::Sbbf;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::EnabledStatistics;

use crate::lab::{Lab, UNLIMITED, file, flat, footer, footer_alone, nullable, plain, read, rows, without_page_index};

fn groups(version: &str) -> Vec<RecordBatch> {
    (0..4).map(|g| flat(&(g * 100..(g + 1) * 100).collect::<Vec<_>>(), version)).collect()
}

/// Replaces row 150 by another row with id 150, and removes row 151.
fn one_group(unit: RewriteUnit) -> RewriteUnit {
    let new = flat(&[150], "new");
    unit.with_replaced(&[150], &new).expect("there is a row for each number").with_removed(&[151])
}

#[tokio::test]
async fn the_bytes_of_untouched_row_groups_are_copied() {
    let before = file(&groups("old"), plain());
    let lab = Lab::with(before.clone()).await;
    let unit = one_group(lab.unit().await);
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Splice);
    let written = lab.run(unit).await;
    assert_eq!((written[0].copied, written[0].encoded, written[0].file.rows), (3, 1, Some(399)));
    let after = lab.only_file().await;
    let (old, new) = (footer(&before), footer(&after));
    for g in [0, 2, 3] {
        for (a, b) in old.row_group(g).columns().iter().zip(new.row_group(g).columns()) {
            let bytes = |file: &Bytes, (from, len): (u64, u64)| file.slice(from as usize..(from + len) as usize);
            assert_eq!(bytes(&before, a.byte_range()), bytes(&after, b.byte_range()));
            assert_eq!(a.statistics(), b.statistics());
        }
    }
    assert!(
        new.row_groups()
            .iter()
            .flat_map(|g| g.columns())
            .all(|c| { c.offset_index_offset().is_some() && c.column_index_offset().is_some() })
    );
}

#[tokio::test]
async fn row_groups_keep_their_order_with_and_without_a_memory_limit() {
    let groups: Vec<_> = (0..12).map(|g| flat(&(g * 50..(g + 1) * 50).collect::<Vec<_>>(), "old")).collect();
    let before = file(&groups, plain());
    for memory in [UNLIMITED, 1 << 30, 1 << 20] {
        let lab = Lab::with(before.clone()).await;
        // The smallest limit is enough for one row group. Encoded row groups are in the middle and at the end, and
        // some are begun before the copied ones in front of them.
        let removed = [151, 250, 252, 349, 350, 599];
        let written = lab.try_run(lab.unit().await.with_removed(&removed), memory).await.expect("the unit succeeds");
        assert_eq!((written[0].copied, written[0].encoded), (7, 5));
        let after = read(&lab.only_file().await);
        let ids: Vec<i64> = after.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(ids, (0..600).filter(|id| !removed.contains(&(*id as u64))).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn metadata_bloom_filters_and_sorting_are_carried_over() {
    let by_id = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
    let properties = plain()
        .set_key_value_metadata(Some(vec![KeyValue::new("owner".to_owned(), "sales".to_owned())]))
        .set_sorting_columns(Some(vec![by_id.clone()]))
        .set_bloom_filter_enabled(true);
    let lab = Lab::with(file(&groups("old"), properties)).await;
    let inserts = vec![InsertedRows::new(Some(1), flat(&[130, 99, 1000], "added"))];
    lab.run(one_group(lab.unit().await).with_inserts(inserts)).await;
    let after = lab.only_file().await;
    let metadata = footer(&after);
    let all = metadata.file_metadata().key_value_metadata().expect("the file has metadata");
    assert!(all.iter().any(|kv| kv.key == "owner" && kv.value.as_deref() == Some("sales")));
    assert!(all.iter().any(|kv| kv.key == "ARROW:schema"), "the schema is exactly that of the source");
    let got = read(&after);
    let mut first = 0;
    for group in metadata.row_groups() {
        assert_eq!(group.sorting_columns(), Some(&vec![by_id.clone()]));
        let rows = got.slice(first, group.num_rows() as usize);
        first += rows.num_rows();
        let ids = rows.column(0).as_primitive::<Int64Type>().values();
        assert!(ids.is_sorted(), "{ids:?}");
        let filter = |c: usize| {
            Sbbf::read_from_column_chunk(group.column(c), &after)
                .expect("the bytes are readable")
                .expect("the column has a filter")
        };
        let (filter_of_ids, by_note) = (filter(0), filter(2));
        assert!(ids.iter().all(|id| filter_of_ids.check(id)));
        assert!(rows.column(2).as_string::<i32>().iter().flatten().all(|note| by_note.check(note)));
        assert!(
            (5000..5100_i64).filter(|id| filter_of_ids.check(id)).count() < 50,
            "the filter excludes most other values"
        );
    }
}

#[tokio::test]
async fn a_file_without_a_page_index_gets_one() {
    let properties = plain()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(true);
    let lab = Lab::with(file(&groups("old"), properties)).await;
    let unit = one_group(lab.unit().await);
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Splice);
    let written = lab.run(unit).await;
    assert_eq!((written[0].copied, written[0].encoded), (3, 1));
    let metadata = footer(&lab.only_file().await);
    let (offsets, columns) = (
        metadata.offset_index().expect("the file has an offset index"),
        metadata.column_index().expect("the file has a column index"),
    );
    for g in 0..4 {
        for c in 0..3 {
            assert_eq!(offsets[g][c].page_locations().len(), 1);
            assert_eq!(
                columns[g][c].null_counts().map(|n| n[0] as u64),
                metadata.row_group(g).column(c).statistics().expect("the column has statistics").null_count_opt()
            );
        }
    }
}

/// The Parquet library panics if some chunks have an offset index and others do not.
#[tokio::test]
async fn partial_page_index_is_completed_for_all_row_groups() {
    let whole = file(&groups("old"), plain().set_data_page_row_count_limit(30).set_write_batch_size(10));
    for without in [vec![0], vec![1, 3], vec![0, 1, 2, 3]] {
        let mixed = without_page_index(&whole, &without);
        let has_index = |g: usize| footer_alone(&mixed).row_group(g).column(0).offset_index_offset().is_some();
        assert!((0..4).all(|g| has_index(g) != without.contains(&g)));
        let lab = Lab::with(mixed).await;
        let unit = one_group(lab.unit().await);
        assert_eq!(choose_rewrite(&unit), RewriteChoice::Splice);
        let written = lab.run(unit).await;
        assert_eq!((written[0].copied, written[0].encoded), (3, 1));
        let after = lab.only_file().await;
        let metadata = footer(&after);
        let offsets = metadata.offset_index().expect("the file has an offset index");
        assert!([0, 2, 3].iter().all(|g| offsets[*g].iter().all(|c| c.page_locations().len() == 4)));
        let all = concat_batches(&flat(&[], "old").schema(), &groups("old")).expect("the batches have one schema");
        let parts = [all.slice(0, 150), flat(&[150], "new"), all.slice(152, 248)];
        assert_eq!(
            read(&after).columns(),
            concat_batches(&all.schema(), &parts).expect("the batches have one schema").columns()
        );
    }
}

#[tokio::test]
async fn pages_without_row_counts_are_encoded_again() {
    let properties = plain()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_data_page_row_count_limit(10)
        .set_write_batch_size(10);
    let batches: Vec<RecordBatch> =
        (0..3).map(|g| rows(&(g * 100..(g + 1) * 100).collect::<Vec<_>>(), "old")).collect();
    let lab = Lab::with(file(&batches, properties)).await;
    let unit = lab.unit().await.with_removed(&[5]);
    let written = lab.run(unit).await;
    // A list has several pages, and none of them contains its number of rows.
    assert_eq!((written[0].copied, written[0].encoded), (0, 3));
    let all = concat_batches(&batches[0].schema(), &batches).expect("the batches have one schema");
    let want =
        concat_batches(&all.schema(), &[all.slice(0, 5), all.slice(6, 294)]).expect("the batches have one schema");
    assert_eq!(read(&lab.only_file().await).columns(), want.columns());
}

#[tokio::test]
async fn a_unit_without_a_source_makes_a_new_file() {
    let lab = Lab::with(file(&groups("old"), plain())).await;
    let schema = lab.unit().await.schema;
    let rows = |from: i64| flat(&(from..from + 60).collect::<Vec<_>>(), "new");
    let inserts = (0..5).map(|i| InsertedRows::new(None, rows(60 * i))).collect();
    let options = ParquetOptions::default().with_row_group_rows(120);
    let unit = RewriteUnit::from_sources(vec![], schema, "day=1").with_inserts(inserts).with_parquet(options);
    let written = lab.run(unit).await;
    assert_eq!((written.len(), written[0].encoded, written[0].file.rows), (1, 3, Some(300)));
    assert!(written[0].file.path.starts_with("day=1/"), "{}", written[0].file.path);
}

#[tokio::test]
async fn small_row_groups_do_not_accumulate() {
    let batches = vec![flat(&(0..100).collect::<Vec<_>>(), "old"), flat(&[100, 101], "old"), flat(&[102], "old")];
    let lab = Lab::with(file(&batches, plain())).await;
    let inserts = vec![InsertedRows::new(None, flat(&[103], "added"))];
    lab.run(lab.unit().await.with_inserts(inserts)).await;
    let sizes = |f: &Bytes| footer(f).row_groups().iter().map(|g| g.num_rows()).collect::<Vec<_>>();
    assert_eq!(sizes(&lab.only_file().await), [100, 2, 2], "one small neighbour is joined");
    let first: Vec<u64> = (0..90).collect();
    let lab = Lab::with(file(&groups("old"), plain())).await;
    lab.run(lab.unit().await.with_removed(&first)).await;
    assert_eq!(sizes(&lab.only_file().await), [10, 100, 100, 100], "a full neighbour is not joined");
}

#[tokio::test]
async fn files_that_cannot_be_spliced_are_rewritten() {
    let new_columns = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
    ]);
    let lab = Lab::with(file(&groups("old"), plain())).await;
    let mut unit = one_group(lab.unit().await);
    unit.schema = Arc::new(new_columns);
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Rewrite(NoSpliceReason::OtherColumns));
    lab.run(unit).await;
    let got = read(&lab.only_file().await);
    assert_eq!((got.num_rows(), got.column(3).null_count()), (399, 399));

    let lab = Lab::with(file(&groups("old"), plain().set_created_by("somebody version 1".to_owned()))).await;
    assert_eq!(choose_rewrite(&one_group(lab.unit().await)), RewriteChoice::Rewrite(NoSpliceReason::UnknownWriter));
    assert_eq!(choose_rewrite(&lab.unit().await), RewriteChoice::Keep);

    let key = FileEncryptionProperties::builder(b"0123456789012345".to_vec())
        .with_plaintext_footer(true)
        .with_column_key("note", b"0123456789012345".to_vec())
        .build()
        .expect("the keys are valid");
    let lab = Lab::with(file(&groups("old"), plain().with_file_encryption_properties(key))).await;
    let unit = one_group(lab.unit().await);
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Rewrite(NoSpliceReason::Encrypted));
    let before = lab.only_file().await;
    let e = lab.try_run(unit, 1 << 30).await.expect_err("there is no key");
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("note")));
    assert!(lab.only_file().await == before);
}

#[tokio::test]
async fn a_null_in_a_required_column_rewrites_the_file() {
    let required = |rows: RecordBatch| {
        let fields: Vec<Field> = rows.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        let fields = vec![fields[0].clone().with_nullable(false), fields[1].clone(), fields[2].clone()];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec()).expect("the column has no nulls")
    };
    let batches: Vec<RecordBatch> = groups("old").into_iter().map(required).collect();
    let lab = Lab::with(file(&batches, plain())).await;
    assert_eq!(choose_rewrite(&one_group(lab.unit().await)), RewriteChoice::Splice);
    let null = RecordBatch::try_new(
        nullable(&batches[0].schema()),
        vec![
            datafusion::arrow::array::new_null_array(&DataType::Int64, 1),
            batches[0].column(1).slice(0, 1),
            batches[0].column(2).slice(0, 1),
        ],
    );
    let inserts = vec![InsertedRows::new(Some(0), null.expect("the batch is valid"))];
    let unit = lab.unit().await.with_inserts(inserts);
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Rewrite(NoSpliceReason::NullInRequired));
    lab.run(unit).await;
    let got = read(&lab.only_file().await);
    assert_eq!((got.num_rows(), got.column(0).null_count()), (401, 1));
}

#[tokio::test]
async fn a_file_that_would_be_too_large_becomes_several() {
    let lab = Lab::with(file(&groups("old"), plain())).await;
    let written = lab.run(one_group(lab.unit().await).with_max_file_size(3000)).await;
    assert!(written.len() > 1, "{written:?}");
    let total: usize = lab.files().await.iter().map(|f| read(f).num_rows()).sum();
    assert_eq!(total, 399);
}

#[tokio::test]
async fn file_without_its_column_chunks_is_reported_as_unreadable() {
    let whole = file(&groups("old"), plain());
    let length =
        u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().expect("there are four bytes")) as usize;
    let footer_alone = [&whole[..4], &whole[whole.len() - 8 - length..]].concat();
    let lab = Lab::with(footer_alone.into()).await;
    let e = lab.try_open().await.expect_err("there is nothing to read");
    assert_eq!(e.code(), "UnreadableParquet");
    assert!(e.message().contains("part-0.parquet"), "{e}");
}
