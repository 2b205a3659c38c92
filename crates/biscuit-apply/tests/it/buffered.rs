//! Change records that wait until it is known which run merges them, in memory and on the local disk.

use std::fmt::Write;

use biscuit_apply::{BufferedChanges, ChangeFiles, ChangeFormat, FoundFile, Merge, MergeOptions, RunMode};
use biscuit_change::{BadRows, ChangeRecords, DebeziumOptions, RowsOptions, RowsReader, TablesReader};
use biscuit_core::ObjectRef;
use biscuit_journal::TableStorage;
use biscuit_merge::internal::RawSource;
use biscuit_schema::Contract;
use biscuit_testkit::{assert_rows_eq, table};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::lake::{self, dataset, memory, rows, serial, spec};

/// Options with which nothing fits into memory, and with which everything does.
fn budgets() -> [MergeOptions; 2] {
    [serial().with_change_memory(1), serial()]
}

async fn records(storage: &TableStorage, lines: &str) -> ChangeRecords {
    lake::changes(&dataset(storage.clone()), lines).await.expect("the lines are valid")
}

fn lines(ids: impl IntoIterator<Item = u32>, seq: u32) -> String {
    ids.into_iter().fold(String::new(), |mut lines, id| {
        writeln!(lines, r#"{{"id":{id},"seq":{seq},"v":"{id} of {seq}","op":"u"}}"#).expect("a String takes all");
        lines
    })
}

#[tokio::test]
async fn records_are_returned_in_their_order_from_memory_and_from_the_disk() {
    let storage = memory();
    let mut parts = Vec::new();
    for seq in 1..=4 {
        parts.push(records(&storage, &lines(0..50, seq)).await);
    }
    for options in budgets() {
        let mut buffer = BufferedChanges::new(&options);
        for part in &parts {
            buffer.add_records(part.clone()).expect("the records are added");
        }
        let want: Vec<_> = parts.iter().flat_map(|part| part.batches.clone()).collect();
        let same = |got: Vec<biscuit_change::ChangeBatch>| {
            got.len() == want.len()
                && got.iter().zip(&want).all(|(got, want)| {
                    (&got.rows, &got.ops, &got.places, &got.file) == (&want.rows, &want.ops, &want.places, &want.file)
                })
        };
        assert_eq!((buffer.len(), buffer.is_empty(), buffer.columns().len()), (200, false, 1));
        assert!(same(buffer.batches().collect::<Result<_, _>>().expect("the batches are readable")));
        let half = buffer.map(|batch| batch.select_rows(&[0, 1])).expect("the records are selected");
        assert_eq!(half.len(), 8);
        let mut both = half.another();
        both.add_records(parts[0].clone()).expect("the records are added");
        both.append(half);
        let merged = Merge::new(dataset(memory()), spec(), options).expect("the options are valid");
        let report = merged.input(both).run(RunMode::Commit).await.expect("the merge succeeds");
        assert_eq!((report.records, report.rows.after), (58, 50));
    }
}

#[tokio::test]
async fn deletes_of_missing_rows_do_not_depend_on_the_memory() {
    for options in budgets() {
        let storage = memory();
        lake::merge(&dataset(storage.clone()), &spec(), &lines(0..200, 1)).await.expect("the merge succeeds");
        let mut load = BufferedChanges::new(&options);
        load.add_records(records(&storage, &lines((0..200).filter(|id| id % 3 == 0), 2)).await)
            .expect("the records are added");
        let options = options.with_max_deleted(100.0);
        let merge = Merge::new(dataset(storage.clone()), spec(), options).expect("the options are valid");
        merge.add_deletes_of_missing(&mut load).await.expect("the rows are compared");
        assert_eq!(load.len(), 200);
        let report = merge.input(load).run(RunMode::Commit).await.expect("the merge succeeds");
        assert_eq!((report.rows.deleted, report.rows.updated, report.rows.after), (133, 67, 67));
        let got = rows(&dataset(storage)).await;
        assert_eq!(lake::count(&got), 67);
    }
}

#[tokio::test]
async fn records_of_several_tables_share_the_memory() {
    let contract = Contract::from_json(
        r#"{"key": ["id"], "columns": [{"name": "id", "type": "bigint"}, {"name": "v", "type": "string"}]}"#,
    )
    .expect("the contract is valid");
    let mut text = String::new();
    for lsn in 0..300 {
        let (table, id) = (["orders", "lines", "keyless"][lsn % 3], lsn / 3 % 20);
        let source = format!(r#"{{"connector":"postgresql","schema":"public","table":"{table}","lsn":{lsn}}}"#);
        let value = format!(r#"{{"op":"c","before":null,"after":{{"id":{id},"v":"{lsn}"}},"source":{source}}}"#);
        writeln!(text, "{value}").expect("a String takes all");
    }
    let store = memory().store;
    store.put(&Path::from("in/1.jsonl"), text.into()).await.expect("the object is stored");
    let meta = store.head(&Path::from("in/1.jsonl")).await.expect("the object exists");
    let file = FoundFile::new(ObjectRef::new("in/1.jsonl", meta.size, meta.e_tag), store, meta.location);
    let files = ChangeFiles::found(vec![file], ChangeFormat::Debezium(DebeziumOptions::default()));
    for options in budgets() {
        let keyless = Contract::from_json(r#"{"columns": [{"name": "id", "type": "bigint"}]}"#).expect("it is valid");
        let reader = TablesReader::debezium(|table| {
            let contract = if table.table == "keyless" { keyless.clone() } else { contract.clone() };
            Ok(DebeziumOptions::default().with_contract(contract))
        });
        let tables = files.by_table(reader, &BufferedChanges::new(&options)).await.expect("the files are read");
        let mut found = Vec::new();
        for (name, buffer) in tables {
            let Ok(buffer) = buffer else {
                assert_eq!(name.table, "keyless");
                continue;
            };
            assert_eq!(buffer.rest().key, ["id"]);
            let dataset = dataset(memory());
            let spec = biscuit_apply::MergeSpec::new(["id"], buffer.rest().order.clone()).expect("it is valid");
            let merge = Merge::new(dataset.clone(), spec, options.clone()).expect("the options are valid");
            let report = merge.input(buffer).run(RunMode::Commit).await.expect("the merge succeeds");
            found.push((name.table, report.records, report.rows.after));
            let newest = rows(&dataset).await;
            assert_eq!(lake::count(&newest), 20);
        }
        assert_eq!(found, [("lines".to_owned(), 100, 20), ("orders".to_owned(), 100, 20)]);
    }
}

#[tokio::test]
async fn few_records_of_a_text_do_not_keep_all_of_it_in_memory() {
    let mut reader = RowsReader::new(RowsOptions::default().with_bad_rows(BadRows::Quarantine));
    reader.read("changes.jsonl", lines(0..1000, 1).into()).expect("the lines are valid");
    let all = reader.finish().expect("the lines are valid");
    let raw = |batch: &biscuit_change::ChangeBatch| match batch.raw.as_ref().map(|raw| &raw.0) {
        Some(RawSource::Text { text, .. }) => (
            text.len(),
            String::from_utf8(batch.raw.as_ref().expect("it is there").0.get(1).expect("the record is there")),
        ),
        other => panic!("{other:?}"),
    };
    let few = all.batches[0].select_rows(&[7, 998]).expect("the records are there");
    let mut buffer = BufferedChanges::unlimited();
    buffer.add(few.clone()).expect("the records are added");
    let kept = buffer.batches().next().expect("there is a batch").expect("it is in memory");
    let ((shared, before), (own, after)) = (raw(&few), raw(&kept));
    assert!(own < 200 && shared > 30_000, "{own} {shared}");
    assert_eq!(before, after);
}

#[tokio::test]
async fn records_in_memory_are_merged_as_they_are() {
    let storage = memory();
    let buffer = BufferedChanges::from(records(&storage, &lines([1, 2], 1)).await);
    let merge = Merge::new(dataset(storage.clone()), spec(), serial()).expect("the options are valid");
    merge.input(buffer).run(RunMode::Commit).await.expect("the merge succeeds");
    assert_rows_eq!(
        rows(&dataset(storage)).await,
        table("id:bigint | seq:bigint | v:string\n1 | 1 | 1 of 1\n2 | 1 | 2 of 1")
    );
}
