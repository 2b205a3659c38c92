//! Merges the flattened stream of the capture on top of its snapshot, and expects the same rows as from whole
//! envelopes.

use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader};
use biscuit_dataset::Dataset;
use biscuit_flows::{
    TABLES, checkpoints, comparable, contract, flat_lines, lines, memory_dataset, rows_of, truth, without_columns,
    without_schema,
};
use biscuit_schema::Contract;
use biscuit_testkit::diff_rows;
use serde_json::json;

/// Columns whose values have different types in the two forms.
fn lossy(table: &str) -> Vec<&'static str> {
    match table {
        "customer" => vec!["span"],
        "edge" => vec!["d", "ts", "tstz", "a", "iv"],
        _ => vec![],
    }
}

fn contract_of(table: &str, flat: bool) -> Contract {
    let contract = contract(table);
    let columns: Vec<_> = contract
        .columns
        .iter()
        .filter(|c| !lossy(table).contains(&c.name.as_str()))
        .map(|c| json!({"name": c.name, "type": type_of(table, &c.name)}))
        .collect();
    let settings = json!({
        "decimal.handling.mode": "string", "time.precision.mode": "isostring", "binary.handling.mode": "hex",
        "interval.handling.mode": "string",
    });
    let mut text = json!({"table": format!("public.{table}"), "key": contract.key, "columns": columns});
    if flat {
        text["debezium"] = settings;
    }
    Contract::from_json(&text.to_string()).expect("the types are known")
}

/// Returns the type of a column in PostgreSQL.
fn type_of(table: &str, column: &str) -> String {
    biscuit_flows::postgres_types(table).remove(column).expect("it is a column")
}

fn read(table: &str, lines: &[String], flat: bool) -> ChangeRecords {
    let options = DebeziumOptions::default().with_table(format!("public.{table}"));
    let mut reader = DebeziumReader::new(options.with_contract(contract_of(table, flat)));
    reader.read("events.jsonl", &lines.join("\n").into_bytes().into()).expect("the lines are readable");
    reader.finish().expect("the records are readable")
}

async fn merge(dataset: &Dataset, changes: ChangeRecords) {
    if changes.is_empty() {
        return;
    }
    let spec = MergeSpec::new(changes.key.clone(), changes.order.clone()).expect("the specification is valid");
    let options = MergeOptions::default().with_max_deleted(100.0);
    let report = Merge::new(dataset.clone(), spec, options)
        .expect("the merge succeeds")
        .run(changes, RunMode::Commit)
        .await
        .expect("the merge succeeds");
    assert_eq!(report.verdicts.total(), report.records);
}

#[tokio::test]
async fn flattened_changes_on_top_of_the_snapshot_give_the_rows_of_postgres() {
    let all = lines();
    let snapshot = checkpoints(&all)[0].1;
    let all: Vec<String> = all[..snapshot].iter().map(|l| without_schema(l)).collect();
    let mut flat = flat_lines();
    let marker = flat.iter().position(|l| l.contains("cdc.public.checkpoint\"") && l.contains("\"key\":{\"id\":3}"));
    flat.truncate(marker.expect("the checkpoint is in the stream") + 1);
    // A truncate has no row, so it is not in the flattened stream.
    for table in TABLES.into_iter().filter(|t| *t != "scratch") {
        for chunk in [usize::MAX, 100] {
            let dataset = memory_dataset();
            merge(&dataset, read(table, &all, false)).await;
            let own: Vec<String> =
                flat.iter().filter(|l| l.contains(&format!("cdc.public.{table}\""))).cloned().collect();
            for part in own.chunks(chunk.min(own.len().max(1))) {
                merge(&dataset, read(table, part, true)).await;
            }
            let (got, want) = (rows_of(&dataset).await, without_columns(&truth("3", table), &lossy(table)));
            let (got, want) = comparable(table, "3", &got, &want);
            assert_eq!(diff_rows(&[got], &[want]), None, "{table} in parts of {chunk}");
        }
    }
}
