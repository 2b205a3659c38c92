//! The modes `merge` and `snapshot`, with rows of text formats, results of queries, and change records.

use biscuit_core::Outcome;
use biscuit_job::RunOptions;

use crate::lab::Lab;

const MERGE: &str = "
    name = 'customers'
    [sources.changes]
    url = 'raw/customers'
    format = 'json'
    [sources.changes.contract]
    columns = [
        {name = 'id', type = 'bigint', nullable = false},
        {name = 'seq', type = 'bigint', nullable = false},
        {name = 'name', type = 'string'},
        {name = 'op', type = 'string'},
    ]
    [target]
    url = 'lake/customers'
    mode = 'merge'
    key = ['id']
    order = ['seq']
    op = 'op'
    audit = {processing_datetime = 'etl_processing_datetime'}
";

fn change(id: u32, seq: u32, name: &str, op: &str) -> String {
    format!("{{\"id\":{id},\"seq\":{seq},\"name\":\"{name}\",\"op\":\"{op}\"}}\n")
}

#[tokio::test]
async fn typed_rows_are_merged_and_deletes_are_remembered() {
    let lab = Lab::new();
    lab.put("raw/customers/1.json", change(1, 1, "Ada", "c") + &change(2, 1, "Bob", "c")).await;
    lab.run(MERGE).await.unwrap();
    lab.put("raw/customers/2.json", change(1, 3, "", "d") + &change(2, 2, "Bill", "u")).await;
    let report = lab.run(MERGE).await.unwrap();
    assert_eq!(report.outputs[0].merge["verdicts"]["deleted"], 1);
    // A late record of the deleted row.
    lab.put("raw/customers/3.json", change(1, 2, "Adele", "u")).await;
    let report = lab.run(MERGE).await.unwrap();
    assert_eq!(report.outputs[0].merge["verdicts"]["late"], 1);
    let want = "id:bigint | seq:bigint | name:string | etl_processing_datetime:timestamptz\n\
                2         | 2          | Bill        | 2024-03-10T12:00:00Z";
    assert_eq!(lab.rows("lake/customers").await.trim(), want);
    assert_eq!(lab.run(MERGE).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(crate::lab::start().to_string(), "2024-03-10T12:00:00Z");
}

#[tokio::test]
async fn query_results_are_merged_and_bad_rows_are_quarantined() {
    let lab = Lab::new();
    let job = MERGE
        .replace(
            "[target]",
            "[transform]\nsql = \"SELECT id, seq, upper(name) AS name, op FROM changes WHERE id < 10\"\n[target]",
        )
        .replace("columns = [", "on_error = 'quarantine'\ncolumns = [")
        + "max_quarantined = 60.0\n";
    lab.put("raw/customers/1.json", change(1, 1, "ada", "c") + &change(11, 1, "x", "c") + "{\"id\":\"y\",\"seq\":1}\n")
        .await;
    let report = lab.run(&job).await.unwrap();
    assert_eq!(report.outputs[0].quarantined, 1);
    assert_eq!(lab.column("lake/customers", "name").await, ["ADA"]);
    let refused = biscuit_apply::quarantined_records(&lab.dataset("lake/customers")).await.unwrap();
    assert_eq!((refused.len(), refused[0].refused.code.as_str()), (1, "Unparseable"));
}

#[tokio::test]
async fn a_snapshot_has_one_copy_for_each_period() {
    let lab = Lab::new();
    let job = MERGE
        .replace("mode = 'merge'", "mode = 'snapshot'\ngranularity = 'month'\neffective_column = 'since'")
        .replace("audit = {processing_datetime = 'etl_processing_datetime'}", "")
        .replace("{name = 'op',", "{name = 'since', type = 'date'},\n{name = 'op',");
    let since = |id: u32, seq: u32, date: &str| {
        format!("{{\"id\":{id},\"seq\":{seq},\"name\":\"n{seq}\",\"since\":\"{date}\",\"op\":\"u\"}}\n")
    };
    lab.put("raw/customers/1.json", since(1, 1, "2024-01-10") + &since(2, 1, "2024-02-10")).await;
    let report = lab.run(&job).await.unwrap();
    assert_eq!(report.outputs[0].partitions, ["2024-01", "2024-02", "2024-03"]);
    lab.put("raw/customers/2.json", since(3, 1, "2024-02-01")).await;
    let report = lab.run(&job).await.unwrap();
    assert_eq!(report.outputs[0].partitions, ["2024-02", "2024-03"]);
    assert_eq!(lab.run(&job).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn snapshot_retry_in_a_later_period_uses_the_scheduled_instant() {
    let lab = Lab::new();
    let job = MERGE
        .replace("mode = 'merge'", "mode = 'snapshot'\ngranularity = 'month'\nzone = 'America/New_York'")
        .replace("audit = {processing_datetime = 'etl_processing_datetime'}", "");
    lab.put("raw/customers/1.json", change(1, 1, "Ada", "c")).await;
    // The date is read in the zone of the output. In UTC it is still January for five hours.
    let options = RunOptions::default().with_as_of("2024-02-01");
    let report = lab.run_with(&job, &options).await.unwrap();
    assert_eq!(report.outputs[0].partitions, ["2024-02"]);
    let e = lab.run_with(MERGE, &options).await.unwrap_err();
    assert_eq!(e.code(), "InvalidArguments");
    lab.put("raw/customers/2.json", change(1, 2, "Ada", "u")).await;
    let e = lab.run_with(&job, &RunOptions::default().with_as_of("february")).await.unwrap_err();
    assert_eq!(e.code(), "InvalidInstant");
}

#[tokio::test]
async fn change_records_of_debezium_and_dms_are_merged() {
    let lab = Lab::new();
    let debezium = "
        name = 'customer'
        [sources.events]
        url = 'raw/debezium'
        format = 'debezium'
        table = 'public.customer'
        [sources.events.contract]
        columns = [{name = 'id', type = 'bigint'}, {name = 'name', type = 'string'}]
        [target]
        url = 'lake/customer'
        mode = 'merge'
        key = ['id']
        order = ['source.lsn']
    ";
    let envelope = |id: u32, lsn: u32, name: &str| {
        format!(
            "{{\"before\":null,\"after\":{{\"id\":{id},\"name\":\"{name}\"}},\"source\":{{\"schema\":\"public\",\"table\":\"customer\",\"lsn\":{lsn}}},\"op\":\"c\",\"ts_ms\":1}}\n"
        )
    };
    lab.put("raw/debezium/1.json", envelope(1, 1, "Ada") + &envelope(2, 2, "Bob")).await;
    let report = lab.run(debezium).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outcome), (2, Outcome::Committed));
    assert_eq!(lab.column("lake/customer", "name").await, ["Ada", "Bob"]);
    assert_eq!(lab.run(debezium).await.unwrap().outcome, Outcome::Unchanged);

    let dms = "
        name = 'orders'
        [sources.dms]
        url = 'raw/dms'
        format = 'dms'
        table = 'public.orders'
        timestamp_column = 'ts'
        [sources.dms.contract]
        columns = [{name = 'id', type = 'bigint'}, {name = 'v', type = 'string'}]
        [target]
        url = 'lake/orders'
        mode = 'merge'
        key = ['id']
    ";
    lab.put(
        "raw/dms/public/orders/LOAD00000001.csv",
        "2024-03-01 00:00:00.000000,1,a\n2024-03-01 00:00:00.000000,2,b\n",
    )
    .await;
    lab.put(
        "raw/dms/public/orders/20240301-100000000.csv",
        "U,2024-03-01 10:00:00.000000,2,c\nD,2024-03-01 10:00:01.000000,1,a\n",
    )
    .await;
    lab.run(dms).await.unwrap();
    assert_eq!(lab.column("lake/orders", "v").await, ["c"]);
    assert_eq!(lab.run(dms).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn output_contract_need_not_declare_columns_that_the_merge_uses() {
    let lab = Lab::new();
    let contract = "drop_columns = ['note']\n[target.contract]\ncolumns = [{name = 'id', type = 'bigint'}, {name = 'name', type = 'string'}]\n";
    let job = format!("{MERGE}{contract}").replace("columns = [\n", "columns = [{name = 'note', type = 'string'},\n");
    lab.put("raw/customers/1.json", change(1, 1, "Ada", "c") + &change(2, 1, "Bob", "c")).await;
    lab.put("raw/customers/2.json", change(1, 2, "", "d")).await;
    lab.run(&job).await.unwrap();
    assert_eq!(lab.column("lake/customers", "id").await, ["2"]);
}
