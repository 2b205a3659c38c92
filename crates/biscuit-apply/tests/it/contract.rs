//! Points of the contract that the cases do not cover.

use biscuit_apply::internal::stored_key_metadata;
use biscuit_apply::{IgnoreNull, MergeOptions, MergeSpec, OrderAuthority, TiePolicy};
use biscuit_core::Outcome;
use biscuit_testkit::{assert_rows_eq, assert_rows_snapshot, table};

use crate::lake::{self, spec};

#[tokio::test]
async fn empty_input_changes_nothing_and_preserves_the_schema() {
    let storage = lake::memory();
    let dataset = lake::dataset(storage.clone());
    lake::merge(&dataset, &spec(), r#"{"id":1,"seq":1,"v":"a","op":"c"}"#).await.expect("the merge succeeds");
    lake::merge(&dataset, &spec(), r#"{"id":1,"seq":2,"op":"d"}"#).await.expect("the merge of a delete succeeds");
    assert_eq!(lake::count(&lake::rows(&dataset).await), 0);
    let snapshot = dataset.view().await.expect("the table can be read");
    let schema =
        snapshot.schema(&snapshot.open_files().await.expect("the files are opened")).expect("the schema is readable");
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["id", "seq", "v"]);
    let before = lake::objects(&storage.store).await;
    assert_eq!(
        lake::merge(&dataset, &spec(), "").await.expect("the merge of nothing succeeds").outcome,
        Outcome::Unchanged
    );
    assert_eq!(lake::objects(&storage.store).await, before);
}

#[tokio::test]
async fn late_sparse_record_fills_older_columns_of_a_restored_row() {
    let dataset = lake::dataset(lake::memory());
    let spec = spec().with_ignore_null(IgnoreNull::All);
    for line in [
        r#"{"id":1,"seq":1,"a":"a1","b":"b1","op":"c"}"#,
        r#"{"id":1,"seq":5,"op":"d"}"#,
        r#"{"id":1,"seq":9,"a":"a9","b":null,"op":"u"}"#,
        r#"{"id":1,"seq":3,"a":null,"b":"b3","op":"u"}"#,
    ] {
        lake::merge(&dataset, &spec, line).await.expect("the merge succeeds");
    }
    assert_rows_snapshot!(lake::rows(&dataset).await, @r"
    id:bigint | seq:bigint | a:string | b:string
    1         | 9          | a9       | null
    ");
    let report = lake::merge(&dataset, &spec, r#"{"id":1,"seq":7,"a":"a7","b":"b7","op":"u"}"#)
        .await
        .expect("the merge succeeds");
    assert_eq!(report.verdicts.merged, 1);
    assert_rows_snapshot!(lake::rows(&dataset).await, @r"
    id:bigint | seq:bigint | a:string | b:string
    1         | 9          | a9       | b7
    ");
}

#[tokio::test]
async fn ties_across_runs_are_corrected_or_refused() {
    let dataset = lake::dataset(lake::memory());
    lake::merge(&dataset, &spec(), r#"{"id":1,"seq":1,"v":"a","op":"c"}"#).await.expect("the merge succeeds");
    let strict = spec().with_ties(TiePolicy::Fail);
    let e = lake::merge(&dataset, &strict, r#"{"id":1,"seq":1,"v":"b","op":"u"}"#).await.unwrap_err();
    assert_eq!(e.code(), "AmbiguousOrder");
    let same =
        lake::merge(&dataset, &strict, r#"{"id":1,"seq":1,"v":"a","op":"u"}"#).await.expect("the second run succeeds");
    assert_eq!((same.outcome, same.verdicts.unchanged), (Outcome::Unchanged, 1));
    let report = lake::merge(&dataset, &spec(), r#"{"id":1,"seq":1,"v":"b","op":"u"}"#)
        .await
        .expect("the merge of a correction succeeds");
    assert_eq!(report.verdicts.corrected, 1);
    assert_rows_eq!(lake::rows(&dataset).await, table("id:bigint | seq:bigint | v:string\n1 | 1 | b"));
}

#[tokio::test]
async fn wider_numbers_rewrite_the_old_files_and_are_reported() {
    let storage = lake::memory();
    lake::put_external(&storage, "lake/t/a.parquet", &table("id:int | seq:bigint | n:int\n1 | 1 | 7\n2 | 1 | 8")).await;
    let dataset = lake::dataset(storage);
    let big = r#"{"id":1,"seq":2,"n":3000000000,"op":"u"}"#;
    let mut reader = biscuit_change::RowsReader::new(biscuit_change::RowsOptions::default().with_op("op"));
    reader.read("c.jsonl", big.as_bytes().to_vec().into()).expect("the file is read");
    let merge = biscuit_apply::Merge::new(dataset.clone(), spec(), MergeOptions::default())
        .expect("the specification is valid");
    let report = merge
        .run(reader.finish().expect("the records are readable"), biscuit_apply::RunMode::Commit)
        .await
        .expect("the merge succeeds");
    assert_eq!(report.remarks.widened_columns, ["id", "n"]);
    assert_rows_eq!(
        lake::rows(&dataset).await,
        table("id:bigint | seq:bigint | n:bigint\n1 | 2 | 3000000000\n2 | 1 | 8")
    );
}

#[tokio::test]
async fn files_without_changed_rows_keep_their_names() {
    let dataset = lake::dataset(lake::memory());
    let options = MergeOptions::default().with_partition_by(["p"]);
    let first = r#"
        {"id":1,"seq":1,"p":"x","op":"c"}
        {"id":2,"seq":1,"p":"y","op":"c"}"#;
    lake::merge_with(&dataset, &spec(), &options, first).await.expect("the merge succeeds");
    let before = dataset.view().await.expect("the table can be read").observed.files;
    let report =
        lake::merge(&dataset, &spec(), r#"{"id":2,"seq":2,"p":"y","op":"u"}"#).await.expect("the merge succeeds");
    let after = dataset.view().await.expect("the table can be read").observed.files;
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1].path, after[1].path);
    assert_eq!((report.files.kept, report.files.rewritten), (1, 1));
    assert_eq!(report.partitions.changed, ["p=y"]);
}

#[tokio::test]
async fn too_many_deletes_change_nothing() {
    let dataset = lake::dataset(lake::memory());
    let rows: String = (0..1500).map(|i| format!("{{\"id\":{i},\"seq\":1,\"op\":\"c\"}}\n")).collect();
    lake::merge(&dataset, &spec(), &rows).await.expect("the merge succeeds");
    let truncate = r#"{"id":null,"seq":2,"op":"t"}"#;
    let e = lake::merge(&dataset, &spec(), truncate).await.unwrap_err();
    assert_eq!(e.code(), "TooManyDeleted");
    assert!(e.message().contains("1500 of 1500 rows"), "{e}");
    assert_eq!(lake::count(&lake::rows(&dataset).await), 1500);
    let allowed = MergeOptions::default().with_max_deleted(100.0);
    lake::merge_with(&dataset, &spec(), &allowed, truncate).await.expect("the merge of a truncate succeeds");
    assert_eq!(lake::count(&lake::rows(&dataset).await), 0);
    let late = lake::merge(&dataset, &spec(), r#"{"id":5000,"seq":2,"op":"c"}"#)
        .await
        .expect("the merge of the late record succeeds");
    assert_eq!((late.outcome, late.verdicts.late), (Outcome::Unchanged, 1));
}

#[tokio::test]
async fn run_with_another_key_or_order_is_refused() {
    let dataset = lake::dataset(lake::memory());
    lake::merge(&dataset, &spec(), r#"{"id":1,"seq":1,"ts":1,"op":"c"}"#).await.expect("the merge succeeds");
    for other in [MergeSpec::new(["id", "ts"], ["seq"]), MergeSpec::new(["id"], ["ts"])] {
        let e =
            lake::merge(&dataset, &other.expect("the specification is valid"), r#"{"id":1,"seq":2,"ts":2,"op":"u"}"#)
                .await
                .unwrap_err();
        assert_eq!(e.code(), "SpecDrift");
    }
}

#[tokio::test]
async fn many_runs_leave_few_key_segments_and_every_tombstone() {
    let dataset = lake::dataset(lake::memory());
    for i in 0..30 {
        let line = format!("{{\"id\":{i},\"seq\":{i},\"op\":\"d\"}}");
        lake::merge(&dataset, &spec(), &line).await.expect("the merge of a delete succeeds");
    }
    let held = stored_key_metadata(&dataset).await.expect("the key metadata is readable");
    assert_eq!(held.len(), 30);
    assert!(dataset.journal().head().await.expect("the head is readable").state.len() < 8);
    let late = lake::merge(&dataset, &spec(), r#"{"id":3,"seq":2,"v":"x","op":"u"}"#)
        .await
        .expect("the merge of the late record succeeds");
    assert_eq!(late.verdicts.late, 1);
    lake::merge(&dataset, &spec(), r#"{"id":3,"seq":4,"v":"x","op":"u"}"#)
        .await
        .expect("the merge of a revival succeeds");
    assert_eq!(stored_key_metadata(&dataset).await.expect("the key metadata is readable").len(), 29);
}

#[tokio::test]
async fn ranked_operations_are_remembered_across_runs() {
    let dataset = lake::dataset(lake::memory());
    let spec = spec().with_op_rank(["i", "c", "u", "d"]);
    for line in [r#"{"id":1,"seq":5,"v":"u","op":"U"}"#, r#"{"id":1,"seq":5,"v":"i","op":"I"}"#] {
        lake::merge(&dataset, &spec, line).await.expect("the merge succeeds");
    }
    assert_rows_eq!(lake::rows(&dataset).await, table("id:bigint | seq:bigint | v:string\n1 | 5 | u"));
    lake::merge(&dataset, &spec, r#"{"id":1,"seq":5,"v":null,"op":"D"}"#)
        .await
        .expect("the merge of a delete succeeds");
    assert_eq!(lake::count(&lake::rows(&dataset).await), 0);
}

#[tokio::test]
async fn full_load_ranks_below_changes() {
    let dataset = lake::dataset(lake::memory());
    let merge = biscuit_apply::Merge::new(dataset.clone(), spec(), MergeOptions::default())
        .expect("the specification is valid");
    for (rank, line) in [(0, r#"{"id":1,"seq":100,"v":"load"}"#), (1, r#"{"id":1,"seq":7,"v":"change"}"#)] {
        let mut records = lake::changes(&dataset, line).await.expect("the records are valid");
        records.batches.iter_mut().for_each(|b| b.rank = rank);
        merge.run(records, biscuit_apply::RunMode::Commit).await.expect("the merge succeeds");
    }
    assert_rows_eq!(lake::rows(&dataset).await, table("id:bigint | seq:bigint | v:string\n1 | 7 | change"));
}

#[tokio::test]
async fn file_that_only_gets_inserts_counts_as_rewritten() {
    let dataset = lake::dataset(lake::memory());
    lake::merge(&dataset, &spec(), r#"{"id":1,"seq":1,"op":"c"}"#).await.expect("the merge succeeds");
    let both = "{\"id\":1,\"seq\":2,\"op\":\"d\"}\n{\"id\":2,\"seq\":2,\"op\":\"c\"}";
    let report = lake::merge(&dataset, &spec(), both).await.expect("the merge succeeds");
    assert_eq!((report.files.rewritten, report.files.removed, report.files.added), (1, 0, 0));
    assert_eq!(dataset.view().await.expect("the table can be read").files().len(), 1);
}

#[tokio::test]
async fn reload_replaces_newer_rows_and_keeps_their_order() {
    let dataset = lake::dataset(lake::memory());
    let reload = spec().with_authority(OrderAuthority::Reload);
    let first = "{\"id\":1,\"seq\":10,\"v\":\"wrong\",\"op\":\"c\"}\n{\"id\":2,\"seq\":20,\"op\":\"d\"}";
    lake::merge(&dataset, &spec(), first).await.expect("the merge succeeds");
    let right = "{\"id\":1,\"seq\":4,\"v\":\"right\",\"op\":\"u\"}\n{\"id\":2,\"seq\":4,\"v\":\"back\",\"op\":\"u\"}";
    lake::merge(&dataset, &reload, right).await.expect("the reload succeeds");
    let want = table("id:bigint | seq:bigint | v:string\n1 | 4 | right\n2 | 4 | back");
    assert_rows_eq!(lake::rows(&dataset).await, want);
    let again = lake::merge(&dataset, &reload, right).await.expect("the second reload succeeds");
    assert_eq!((again.outcome, again.verdicts.unchanged), (Outcome::Unchanged, 2));
    let late = "{\"id\":1,\"seq\":7,\"v\":\"late\",\"op\":\"u\"}\n{\"id\":2,\"seq\":15,\"v\":\"late\",\"op\":\"u\"}";
    let late = lake::merge(&dataset, &spec(), late).await.expect("the merge of the late records succeeds");
    assert_eq!((late.outcome, late.verdicts.late), (Outcome::Unchanged, 2));
    let newer = r#"{"id":1,"seq":11,"v":"newer","op":"u"}"#;
    lake::merge(&dataset, &spec(), newer).await.expect("the merge of the newer record succeeds");
    let want = table("id:bigint | seq:bigint | v:string\n1 | 11 | newer\n2 | 4 | back");
    assert_rows_eq!(lake::rows(&dataset).await, want);
}

#[tokio::test]
async fn reload_restores_rows_after_a_truncate() {
    let dataset = lake::dataset(lake::memory());
    lake::merge(
        &dataset,
        &spec(),
        "{\"id\":1,\"seq\":1,\"v\":\"a\",\"op\":\"c\"}\n{\"id\":null,\"seq\":9,\"op\":\"t\"}",
    )
    .await
    .expect("the merge succeeds");
    let reload = spec().with_authority(OrderAuthority::Reload);
    lake::merge(&dataset, &reload, r#"{"id":1,"seq":2,"v":"b","op":"u"}"#).await.expect("the reload succeeds");
    assert_rows_eq!(lake::rows(&dataset).await, table("id:bigint | seq:bigint | v:string\n1 | 2 | b"));
}

#[tokio::test]
async fn file_that_is_too_large_for_one_copy_is_divided() {
    let storage = lake::memory();
    let dataset = lake::dataset(storage.clone());
    let spec = MergeSpec::new(["id"], ["seq"]).expect("the specification is valid");
    let lines =
        |seq: u32| (0..30_000).map(|i| format!("{{\"id\":{i},\"seq\":{seq},\"op\":\"u\"}}\n")).collect::<String>();
    lake::merge(&dataset, &spec, &lines(1)).await.expect("the merge succeeds");
    assert_eq!(dataset.view().await.expect("the table can be read").files().len(), 1);
    let options = MergeOptions::default().with_max_file_size(30_000).with_parallelism(1);
    let one = r#"{"id":7,"seq":2,"op":"u"}"#;
    lake::merge_with(&dataset, &spec, &options, one).await.expect("the merge succeeds");
    assert!(dataset.view().await.expect("the table can be read").files().len() > 1);
    assert_eq!(lake::count(&lake::rows(&dataset).await), 30_000);
    assert!(biscuit_apply::verify(&dataset, &[]).await.expect("the table can be verified").is_sound());
}
