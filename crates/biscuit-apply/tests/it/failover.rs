//! Logs of several MySQL servers, whose positions cannot be compared.

use biscuit_apply::report::MergeReport;
use biscuit_apply::{Merge, MergeOptions, MergeSpec, NewServerPolicy, RunMode};
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader};
use biscuit_core::Result;
use biscuit_dataset::Dataset;
use biscuit_schema::Contract;
use biscuit_testkit::{assert_rows_eq, table};

use crate::lake;

/// An update by a server, at a position of its log.
fn update(v: &str, server: &str, gtid: &str, file: &str, pos: u32) -> String {
    record("u", v, server, gtid, (file, pos), "false")
}

fn record(op: &str, v: &str, server: &str, gtid: &str, (file, pos): (&str, u32), snapshot: &str) -> String {
    format!(
        r#"{{"op":"{op}","before":null,"after":{{"id":1,"v":"{v}"}},"source":{{"connector":"mysql","db":"s","table":"t","snapshot":"{snapshot}","server_id":{server},"gtid":{gtid},"file":"{file}","pos":{pos},"row":0}}}}"#
    )
}

fn changes(lines: &[String]) -> Result<ChangeRecords> {
    let contract =
        "key = ['id']\n[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'v'\ntype = 'string'\n";
    let contract = Contract::from_toml(contract).expect("the contract is valid");
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
    reader.read("a.jsonl", &lines.join("\n").into_bytes().into())?;
    reader.finish()
}

async fn merge(dataset: &Dataset, new: NewServerPolicy, lines: &[String]) -> Result<MergeReport> {
    let changes = changes(lines)?;
    let spec = MergeSpec::new(changes.key.clone(), changes.order.clone())?;
    let options = MergeOptions::default().with_parallelism(1).with_new_server(new);
    Merge::new(dataset.clone(), spec, options)?.run(changes, RunMode::Commit).await
}

async fn value(dataset: &Dataset) -> String {
    let rows = lake::rows(dataset).await;
    let column = rows[0].column_by_name("v").expect("the column exists");
    datafusion::arrow::util::display::array_value_to_string(column, 0).expect("the value is printable")
}

const OLD: &str = "\"aaaa:41\"";
const NEW: &str = "\"bbbb:1\"";

#[tokio::test]
async fn run_after_a_failover_stops_and_can_continue_in_a_new_epoch() {
    let dataset = lake::dataset(lake::memory());
    merge(&dataset, NewServerPolicy::Fail, &[update("old", "1", OLD, "bin.000120", 4000)])
        .await
        .expect("the merge of the first server succeeds");
    let failed_over = [update("new", "2", NEW, "bin.000003", 700)];
    let e = merge(&dataset, NewServerPolicy::Fail, &failed_over).await.unwrap_err();
    assert_eq!((e.code(), e.file(), e.row()), ("NewServer", Some("a.jsonl"), Some(1)));
    assert!(e.message().contains("server_id 2") && e.message().contains("--new-server newer"), "{e}");
    // An unknown server cannot be declared older: its epoch is not known.
    let e = merge(&dataset, NewServerPolicy::Older, &failed_over).await.unwrap_err();
    assert!(e.code() == "NewServer" && e.message().contains("no record was merged"), "{e}");
    assert_eq!(value(&dataset).await, "old");
    merge(&dataset, NewServerPolicy::Newer, &failed_over).await.expect("the merge in a new epoch succeeds");
    assert_eq!(value(&dataset).await, "new");
    // The new server is known from now on, and records of the old one are late.
    let report = merge(&dataset, NewServerPolicy::Fail, &[update("late", "1", OLD, "bin.000119", 1)])
        .await
        .expect("the merge of known records succeeds");
    assert_eq!((value(&dataset).await.as_str(), report.verdicts.late), ("new", 1));
    merge(&dataset, NewServerPolicy::Fail, &[update("newer", "2", NEW, "bin.000003", 800)])
        .await
        .expect("the merge of known records succeeds");
    assert_eq!(value(&dataset).await, "newer");
    // A snapshot row does not name its server: an old file that is read again must not win.
    let read = [record("r", "read", "0", "null", ("bin.000004", 1), "true")];
    assert_eq!(merge(&dataset, NewServerPolicy::Fail, &read).await.unwrap_err().code(), "NewServer");
    merge(&dataset, NewServerPolicy::Same, &read)
        .await
        .expect("the merge of a row of a snapshot of the newest server succeeds");
    assert_eq!(value(&dataset).await, "read");
    let order =
        table("id:bigint | v:string | __file:bigint | __pos:bigint | __row:bigint\n1 | read | 1000000000004 | 1 | 0");
    assert_rows_eq!(lake::rows(&dataset).await, order);
}

#[tokio::test]
async fn failover_directly_after_the_snapshot_is_detected() {
    let read = [record("r", "read", "0", "null", ("bin.000120", 4000), "true")];
    let failed_over = [update("new", "2", NEW, "bin.000003", 700)];
    let dataset = lake::dataset(lake::memory());
    merge(&dataset, NewServerPolicy::Fail, &read).await.expect("the merge of the snapshot succeeds");
    let e = merge(&dataset, NewServerPolicy::Fail, &failed_over).await.unwrap_err();
    assert!(e.code() == "NewServer" && e.message().contains("before the position"), "{e}");
    merge(&dataset, NewServerPolicy::Newer, &failed_over).await.expect("the merge in a new epoch succeeds");
    assert_eq!(value(&dataset).await, "new");
    // A snapshot of the new server, in the run that declares the server new.
    let dataset = lake::dataset(lake::memory());
    let old = [read[0].clone(), update("old", "1", OLD, "bin.000120", 5000)];
    merge(&dataset, NewServerPolicy::Fail, &old).await.expect("the merge of a snapshot and a change succeeds");
    let new = [record("r", "again", "0", "null", ("bin.000003", 500), "true")];
    let e = merge(&dataset, NewServerPolicy::Newer, &new).await.unwrap_err();
    assert!(e.code() == "NewServer" && e.message().contains("no change of a new server"), "{e}");
    let both = [new[0].clone(), update("new", "2", NEW, "bin.000003", 700)];
    for _ in 0..2 {
        // In the second run, the server is known.
        merge(&dataset, NewServerPolicy::Newer, &both).await.expect("the merge of the snapshot and a change succeeds");
        assert_eq!(value(&dataset).await, "new");
    }
    merge(&dataset, NewServerPolicy::Newer, &new).await.expect("the second merge of the snapshot succeeds");
    merge(&dataset, NewServerPolicy::Fail, &[update("next", "2", NEW, "bin.000003", 900)])
        .await
        .expect("the log continues in the merge");
    assert_eq!(value(&dataset).await, "next");
    merge(&dataset, NewServerPolicy::Fail, &old).await.expect("the second merge of old files succeeds");
    assert_eq!(value(&dataset).await, "next");
    // The log from which the snapshot was read continues after it.
    let dataset = lake::dataset(lake::memory());
    merge(&dataset, NewServerPolicy::Fail, &read).await.expect("the merge of the snapshot succeeds");
    merge(&dataset, NewServerPolicy::Fail, &[update("next", "1", OLD, "bin.000120", 4000)])
        .await
        .expect("the merge of the same log succeeds");
    assert_eq!(value(&dataset).await, "next");
}

#[tokio::test]
async fn server_with_another_gtid_source_is_another_server() {
    let dataset = lake::dataset(lake::memory());
    merge(&dataset, NewServerPolicy::Fail, &[update("old", "1", "null", "bin.000120", 4000)])
        .await
        .expect("the merge without GTIDs succeeds");
    merge(&dataset, NewServerPolicy::Fail, &[update("gtid", "1", OLD, "bin.000120", 5000)])
        .await
        .expect("they are switched on");
    let e = merge(&dataset, NewServerPolicy::Fail, &[update("restored", "1", NEW, "bin.000001", 4)]).await.unwrap_err();
    assert_eq!(e.code(), "NewServer");
    merge(&dataset, NewServerPolicy::Newer, &[update("restored", "1", NEW, "bin.000001", 4)])
        .await
        .expect("the merge in a new epoch succeeds");
    assert_eq!(value(&dataset).await, "restored");
    merge(&dataset, NewServerPolicy::Fail, &[update("late", "1", OLD, "bin.000120", 4500)])
        .await
        .expect("the merge of known records succeeds");
    assert_eq!(value(&dataset).await, "restored");
}

#[tokio::test]
async fn servers_that_write_to_one_log_have_one_order() {
    let dataset = lake::dataset(lake::memory());
    let both = [update("a", "1", OLD, "bin.000120", 1), update("b", "2", NEW, "bin.000120", 2)];
    assert_eq!(merge(&dataset, NewServerPolicy::Fail, &both).await.unwrap_err().code(), "NewServer");
    merge(&dataset, NewServerPolicy::Same, &both).await.expect("the merge of one log succeeds");
    assert_eq!(value(&dataset).await, "b");
    merge(&dataset, NewServerPolicy::Fail, &[update("c", "1", OLD, "bin.000120", 3)])
        .await
        .expect("the merge of known records succeeds");
    assert_eq!(value(&dataset).await, "c");
}

#[tokio::test]
async fn returning_server_is_detected_by_the_end_of_its_log() {
    let dataset = lake::dataset(lake::memory());
    merge(&dataset, NewServerPolicy::Fail, &[update("a", "1", OLD, "bin.000120", 4000)])
        .await
        .expect("the merge of the first server succeeds");
    merge(&dataset, NewServerPolicy::Newer, &[update("b", "2", NEW, "bin.000003", 700)])
        .await
        .expect("the merge after a failover succeeds");
    let back = [update("c", "1", OLD, "bin.000121", 5)];
    let e = merge(&dataset, NewServerPolicy::Fail, &back).await.unwrap_err();
    assert!(e.code() == "NewServer" && e.message().contains("taken over from"), "{e}");
    // The rest of its log is older than the log of the other server.
    let report = merge(&dataset, NewServerPolicy::Older, &[update("left", "1", OLD, "bin.000120", 4100)])
        .await
        .expect("the merge of the rest succeeds");
    assert_eq!((value(&dataset).await.as_str(), report.verdicts.late), ("b", 1));
    merge(&dataset, NewServerPolicy::Newer, &back).await.expect("it has taken over again");
    assert_eq!(value(&dataset).await, "c");
    // Records from before it was replaced are in its first epoch.
    merge(&dataset, NewServerPolicy::Fail, &[update("a", "1", OLD, "bin.000120", 4000)])
        .await
        .expect("the merge of known records succeeds");
    merge(&dataset, NewServerPolicy::Fail, &[update("d", "1", OLD, "bin.000121", 6)])
        .await
        .expect("the merge of known records succeeds");
    assert_eq!(value(&dataset).await, "d");
}
