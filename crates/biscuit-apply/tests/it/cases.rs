//! The cases of the merge contract, as data: `tests/data/merge.json`.

use biscuit_apply::internal::stored_key_metadata;
use biscuit_apply::{IgnoreNull, MergeSpec, TombstonePolicy};
use biscuit_testkit::{diff_rows, json_rows};
use datafusion::arrow::array::RecordBatch;
use serde_json::Value;

use crate::lake;

fn texts(v: &Value) -> Vec<String> {
    v.as_array()
        .expect("the value is a list")
        .iter()
        .map(|x| x.as_str().expect("the value is a text").to_owned())
        .collect()
}

fn spec(config: &Value) -> MergeSpec {
    let columns = |name: &str, default: &str| config.get(name).map_or(vec![default.to_owned()], texts);
    let mut spec = MergeSpec::new(columns("keys", "id"), columns("order", "seq")).expect("the specification is valid");
    if let Some(ranks) = config.get("op_rank") {
        spec = spec.with_op_rank(texts(ranks));
    }
    if let Some(v) = config.get("ignore_null") {
        let ignore = if v == "*" { IgnoreNull::All } else { IgnoreNull::Columns(texts(v)) };
        spec = spec.with_ignore_null(ignore);
    }
    if let Some(v) = config.get("drop_cols") {
        spec = spec.with_drop_columns(texts(v));
    }
    if config.get("tombstones") == Some(&Value::Bool(false)) {
        spec = spec.with_tombstones(TombstonePolicy::Forget);
    }
    spec
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|r| format!("{r}\n")).collect()
}

async fn run(case: &Value, batches: &[Vec<Value>]) {
    let name = case["id"].as_str().expect("the value is an id");
    let storage = lake::memory();
    let target = case["target"].as_array().expect("the report has a target");
    if !target.is_empty() {
        lake::put_external(&storage, "lake/t/foreign.parquet", &json_rows(&lines(target))).await;
    }
    let dataset = lake::dataset(storage.clone());
    let spec = spec(&case["config"]);
    let before = lake::objects(&storage.store).await;
    let mut duplicates = 0;
    for batch in batches {
        match (lake::merge(&dataset, &spec, &lines(batch)).await, case.get("error").and_then(Value::as_str)) {
            (Ok(report), None) => duplicates += report.rows.duplicate_target_keys,
            (Err(e), Some(code)) => {
                assert_eq!(e.code(), code, "{name}");
                assert_eq!(lake::objects(&storage.store).await, before, "{name}: the target was changed");
                return;
            }
            (Ok(_), Some(code)) => panic!("{name}: expected {code}"),
            (Err(e), None) => panic!("{name}: {e}"),
        }
    }
    let rows = lake::rows(&dataset).await;
    let expect = case["expect"].as_array().unwrap_or_else(|| panic!("{name} expects rows"));
    assert_eq!(lake::count(&rows), expect.len(), "{name}");
    if !expect.is_empty() {
        let want = json_rows(&lines(expect));
        let want = biscuit_schema::internal::conform(&want, &rows[0].schema(), name).expect("the columns are the same");
        let got: Vec<RecordBatch> = rows;
        assert_eq!(diff_rows(&got, &[want]), None, "{name}");
    }
    if let Some(tomb) = case.get("tomb").and_then(Value::as_object) {
        let held = stored_key_metadata(&dataset).await.expect("the key metadata is readable");
        let got: Vec<(String, String)> =
            held.into_iter().filter(|h| h.is_tombstone).map(|h| (h.key.join(","), h.order.join(","))).collect();
        let want: Vec<(String, String)> = tomb.iter().map(|(k, o)| (k.clone(), o.to_string())).collect();
        assert_eq!(got, want, "{name}");
    }
    assert_eq!(duplicates, u64::from(name == "C45"), "{name}");
}

/// All permutations of up to five records; for more, all rotations and the reverse order.
fn orders(rows: &[Value]) -> Vec<Vec<Value>> {
    if rows.len() > 6 {
        return (0..rows.len()).map(|i| [&rows[i..], &rows[..i]].concat()).collect();
    }
    let mut all = vec![vec![]];
    for row in rows {
        all = all
            .into_iter()
            .flat_map(|o: Vec<Value>| {
                (0..=o.len()).map(move |i| {
                    let mut o = o.clone();
                    o.insert(i, row.clone());
                    o
                })
            })
            .collect();
        if all.len() > 120 {
            all = all.into_iter().step_by(7).collect();
        }
    }
    all
}

#[tokio::test]
async fn every_case_of_the_contract_holds() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/merge.json")).expect("the cases are valid");
    assert_eq!(cases.len(), 34);
    for case in &cases {
        let batches: Vec<Vec<Value>> = case["batches"]
            .as_array()
            .expect("the batches are an array")
            .iter()
            .map(|b| b.as_array().expect("the batch is an array").clone())
            .collect();
        run(case, &batches).await;
        let Some(invariant) = case.get("invariant").and_then(Value::as_str) else { continue };
        for (i, order) in orders(&batches[0]).into_iter().enumerate() {
            match invariant {
                "permute" => run(case, &[order]).await,
                "split" => {
                    let (a, b) = order.split_at(i % (order.len() + 1));
                    run(case, &[a.to_vec(), b.to_vec()]).await;
                    run(case, &order.iter().map(|r| vec![r.clone()]).collect::<Vec<_>>()).await;
                }
                other => panic!("unknown invariant {other}"),
            }
        }
    }
}
