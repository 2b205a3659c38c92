//! Merges the initial snapshot and the stream of the capture, and compares the rows with those of PostgreSQL at each
//! checkpoint.

use std::sync::Arc;

use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader, TablesReader};
use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::{TABLES, checkpoints, comparable, contract, lines, truth, without_schema};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::diff_rows;
use datafusion::arrow::compute::concat_batches;
use datafusion::prelude::SessionContext;
use object_store::memory::InMemory;

#[derive(Clone, Copy, PartialEq)]
enum Types {
    Embedded,
    Declared,
}

fn dataset() -> Dataset {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    Dataset::new(Location::new(storage, "lake/t", "lake/t").expect("the place is valid"), JournalOptions::default())
}

fn read(table: &str, files: &[&[String]], types: Types) -> Result<ChangeRecords> {
    let mut options = DebeziumOptions::default().with_table(format!("public.{table}"));
    if types == Types::Declared {
        options = options.with_contract(contract(table));
    }
    let mut reader = DebeziumReader::new(options);
    for (i, file) in files.iter().enumerate() {
        reader.read(&format!("{i}.jsonl"), &file.join("\n").into_bytes().into())?;
    }
    reader.finish()
}

async fn merge(dataset: &Dataset, changes: ChangeRecords) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let spec = MergeSpec::new(changes.key.clone(), changes.order.clone())?;
    let options = MergeOptions::default().with_max_deleted(100.0);
    let report = Merge::new(dataset.clone(), spec, options)?.run(changes, RunMode::Commit).await?;
    assert_eq!(report.verdicts.total(), report.records);
    Ok(())
}

async fn check(dataset: &Dataset, table: &str, checkpoint: &str) {
    let want = truth(checkpoint, table);
    let frame = dataset
        .view()
        .await
        .expect("the table is readable")
        .load(&SessionContext::new())
        .await
        .expect("the frame is valid");
    let schema = frame.schema().inner().clone();
    let batches = frame.collect().await.expect("the rows are readable");
    if want.num_rows() == 0 {
        assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 0, "{table} at {checkpoint}");
        return;
    }
    let got = concat_batches(&schema, &batches).expect("the batches have one schema");
    let (got, want) = comparable(table, checkpoint, &got, &want);
    assert_eq!(diff_rows(&[got], &[want]), None, "{table} at {checkpoint}");
}

/// Returns the lines of the capture, and the number of lines up to each checkpoint.
fn lines_for(types: Types) -> (Vec<String>, Vec<(&'static str, usize)>) {
    let all = lines();
    let marks = checkpoints(&all);
    let all = match types {
        Types::Embedded => all,
        Types::Declared => all.iter().map(|l| without_schema(l)).collect(),
    };
    (all, marks)
}

/// Returns the lines of one table with their places in the stream. Every 97th line remains whatever its table is, so
/// that files have several topics.
fn of_table<'a>(all: &'a [String], table: &str) -> Vec<(usize, &'a String)> {
    let topic = format!("cdc.public.{table}\"");
    let own = |(i, l): &(usize, &String)| l.contains(&topic) || i % 97 == 0;
    all.iter().enumerate().filter(own).collect()
}

async fn in_one_run(types: Types) {
    let (all, marks) = lines_for(types);
    for table in TABLES {
        for (checkpoint, end) in &marks {
            let dataset = dataset();
            let file: Vec<String> = of_table(&all[..*end], table).into_iter().map(|(_, l)| l.clone()).collect();
            merge(&dataset, read(table, &[&file], types).expect("the records are readable"))
                .await
                .expect("the merge succeeds");
            check(&dataset, table, checkpoint).await;
        }
    }
}

async fn in_many_runs(types: Types, chunk: usize) {
    let (all, marks) = lines_for(types);
    for table in TABLES {
        let dataset = dataset();
        let mut from = 0;
        for (checkpoint, end) in &marks {
            let part = of_table(&all[..*end], table);
            let part: Vec<String> = part.into_iter().filter(|(i, _)| *i >= from).map(|(_, l)| l.clone()).collect();
            for file in part.chunks(chunk) {
                merge(&dataset, read(table, &[file], types).expect("the records are readable"))
                    .await
                    .expect("the merge succeeds");
            }
            from = *end;
            check(&dataset, table, checkpoint).await;
        }
    }
}

/// Delivers files swapped in pairs, and each twice. A run that needs a value that has not arrived yet is refused, and
/// its files are merged again together with the next ones.
async fn twice_and_out_of_order(types: Types, chunk: usize) {
    let (all, marks) = lines_for(types);
    for table in TABLES {
        let (checkpoint, end) = marks[3];
        let lines: Vec<String> = of_table(&all[..end], table).into_iter().map(|(_, l)| l.clone()).collect();
        let files: Vec<&[String]> = lines.chunks(chunk).collect();
        let mut order: Vec<usize> = Vec::new();
        for pair in (0..files.len()).collect::<Vec<_>>().chunks(2) {
            order.extend(pair.iter().rev().chain(pair.iter().rev()));
        }
        order.extend([0, files.len() / 2]);
        let dataset = dataset();
        let mut waiting: Vec<&[String]> = Vec::new();
        for (i, file) in order.iter().enumerate() {
            waiting.push(files[*file]);
            match merge(&dataset, read(table, &waiting, types).expect("the records are readable")).await {
                Ok(()) => waiting.clear(),
                Err(e) => assert!(e.code() == "UnavailableWithoutPrior" && i + 1 < order.len(), "{table}: {e}"),
            }
        }
        check(&dataset, table, checkpoint).await;
    }
}

#[tokio::test]
async fn every_table_is_right_in_one_run_with_embedded_schemas() {
    in_one_run(Types::Embedded).await;
}

#[tokio::test]
async fn every_table_is_right_in_one_run_with_declared_schemas() {
    in_one_run(Types::Declared).await;
}

#[tokio::test]
async fn every_table_is_right_in_many_runs_with_embedded_schemas() {
    in_many_runs(Types::Embedded, 150).await;
}

#[tokio::test]
async fn every_table_is_right_in_many_small_runs_with_declared_schemas() {
    in_many_runs(Types::Declared, 40).await;
}

#[tokio::test]
async fn files_delivered_twice_and_out_of_order_give_the_same_rows() {
    twice_and_out_of_order(Types::Embedded, 120).await;
    twice_and_out_of_order(Types::Declared, 60).await;
}

#[tokio::test]
async fn table_without_a_key_is_refused() {
    let (all, _) = lines_for(Types::Embedded);
    for table in ["audit_log", "pgbench_history"] {
        let file: Vec<String> = of_table(&all, table).into_iter().map(|(_, l)| l.clone()).collect();
        let e = read(table, &[&file], Types::Embedded).unwrap_err();
        assert_eq!(e.code(), "KeylessRecords");
        assert!(e.message().contains(table), "{e}");
    }
}

#[tokio::test]
async fn several_tables_need_a_table_name_and_records_without_types_need_a_contract() {
    let (all, _) = lines_for(Types::Embedded);
    let mut reader = DebeziumReader::new(DebeziumOptions::default());
    reader.read("all.jsonl", &all[..1000].join("\n").into_bytes().into()).expect("the lines are readable");
    let e = reader.finish().unwrap_err();
    assert_eq!(e.code(), "SeveralTables");
    assert!(e.message().contains("public.customer, public.orders"), "{e}");
    let bare = without_schema(&all[50]);
    let mut reader = DebeziumReader::new(DebeziumOptions::default());
    assert_eq!(reader.read("bare.jsonl", &bare.into_bytes().into()).unwrap_err().code(), "UntypedRecords");
}

#[tokio::test]
async fn all_tables_are_read_in_one_pass() {
    let (all, marks) = lines_for(Types::Declared);
    let mut reader = TablesReader::debezium(|table| {
        let table = table.table.as_str();
        let options = DebeziumOptions::default();
        // The stream also has tables without a key, and the partitions of another table.
        Ok(if TABLES.contains(&table) { options.with_contract(contract(table)) } else { options })
    });
    for (i, file) in all[..marks[3].1].chunks(700).enumerate() {
        reader.read(&format!("{i}.jsonl"), &file.join("\n").into_bytes().into()).expect("the lines are readable");
    }
    assert!(reader.ignored() > 0);
    let tables = reader.finish();
    assert!(tables.len() > TABLES.len());
    for (name, changes) in tables {
        let table = name.table.clone();
        if !TABLES.contains(&table.as_str()) {
            let e = changes.expect_err("it has no contract");
            assert_eq!(e.code(), "UntypedRecords", "{name}");
            continue;
        }
        let dataset = dataset();
        merge(&dataset, changes.expect("the records are valid")).await.expect("the merge succeeds");
        check(&dataset, &table, "3").await;
    }
}
