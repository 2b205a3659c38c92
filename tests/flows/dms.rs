//! Merges the capture as AWS DMS writes it with different settings, and compares what each setting can represent.

use biscuit_apply::{ChangeFiles, ChangeFormat, IgnoreNull, Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, DmsOptions, DmsReader};
use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::{comparable, dms_contract, dms_files, memory_dataset, rows_of, truth, without_columns};
use biscuit_testkit::diff_rows;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::DataType;

fn read(setting: &str, table: &str, options: DmsOptions) -> Result<ChangeRecords> {
    let options = options.with_table(format!("public.{table}")).with_contract(dms_contract(table));
    let mut reader = DmsReader::new(options);
    for (name, bytes) in dms_files(setting) {
        reader.read(&name, bytes.into())?;
    }
    reader.finish()
}

async fn merge(dataset: &Dataset, changes: ChangeRecords, ignore: IgnoreNull) {
    let spec = MergeSpec::new(changes.key.clone(), changes.order.clone())
        .expect("the specification is valid")
        .with_ignore_null(ignore);
    let merge = Merge::new(dataset.clone(), spec, MergeOptions::default()).expect("the merge succeeds");
    let report = merge.run(changes, RunMode::Commit).await.expect("the merge succeeds");
    assert_eq!(report.verdicts.total(), report.records);
}

fn key_texts(rows: &RecordBatch, key: &[String]) -> Vec<String> {
    let columns: Vec<&ArrayRef> = key.iter().map(|k| rows.column_by_name(k).expect("the key column exists")).collect();
    let text = |row: usize| {
        let cell = |c: &&ArrayRef| {
            datafusion::arrow::util::display::array_value_to_string(c, row).expect("the value is printable")
        };
        columns.iter().map(cell).collect::<Vec<_>>().join("|")
    };
    (0..rows.num_rows()).map(text).collect()
}

/// Compares with the rows of PostgreSQL in the columns that the setting represents. Returns the number of rows of
/// keys that were changed later: without before images these rows remain.
async fn left_over(dataset: &Dataset, table: &str, lossy: &[&str]) -> usize {
    let (got, want) = (without_columns(&rows_of(dataset).await, lossy), without_columns(&truth("3", table), lossy));
    let key = dms_contract(table).key;
    let known: std::collections::BTreeSet<String> = key_texts(&want, &key).into_iter().collect();
    let is_known: BooleanArray = key_texts(&got, &key).iter().map(|k| Some(known.contains(k))).collect();
    let kept = filter_record_batch(&got, &is_known).expect("the mask is valid");
    let left = got.num_rows() - kept.num_rows();
    let (kept, want) = comparable(table, "3", &kept, &want);
    assert_eq!(diff_rows(&[kept], &[want]), None, "{table}");
    left
}

/// Columns that differ: arrays and intervals are texts, and numbers without a scale have six fractional digits.
const TEXTS: [&str; 4] = ["tags", "nums", "span", "ratio"];

#[tokio::test]
async fn csv_without_before_images_keeps_the_rows_of_old_keys() {
    let dataset = memory_dataset();
    merge(
        &dataset,
        read("csv-default", "customer", DmsOptions::default()).expect("the records are readable"),
        IgnoreNull::None,
    )
    .await;
    assert_eq!(left_over(&dataset, "customer", &TEXTS).await, 62);
}

#[tokio::test]
async fn csv_with_a_header_follows_changes_of_columns() {
    let options = || DmsOptions::default().with_timestamp_column("dms_ts").with_null("");
    let dataset = memory_dataset();
    merge(&dataset, read("csv-header", "orders", options()).expect("the records are readable"), IgnoreNull::None).await;
    assert_eq!(left_over(&dataset, "orders", &[]).await, 21);
}

#[tokio::test]
async fn parquet_in_date_folders_is_read_in_its_own_types() {
    let options = DmsOptions::default().with_timestamp_column("dms_ts");
    let dataset = memory_dataset();
    merge(&dataset, read("parquet", "orders", options.clone()).expect("the records are readable"), IgnoreNull::None)
        .await;
    assert_eq!(left_over(&dataset, "orders", &[]).await, 21);
    let mut reader = DmsReader::new(options.with_table("edge").with_key(["id"]));
    for (name, bytes) in dms_files("parquet") {
        reader.read(&name, bytes.into()).expect("the file is read");
    }
    let changes = reader.finish().expect("types are in the files");
    assert_eq!((changes.len(), changes.other_tables > 0), (15, true));
}

#[tokio::test]
async fn before_images_move_rows_to_their_new_keys() {
    let options = || DmsOptions::default().with_timestamp_column("dms_ts");
    let lossy: Vec<&str> = TEXTS.into_iter().chain(["wake"]).collect();
    for table in ["customer", "orders"] {
        let dataset = memory_dataset();
        // In this setting, a large object that did not change is null, and so is one that became null.
        let ignore = IgnoreNull::Columns(vec!["bio".to_owned()]);
        merge(
            &dataset,
            read("parquet-before-image-lobnull", table, options()).expect("the records are readable"),
            ignore,
        )
        .await;
        let but_bio: Vec<&str> = lossy.iter().copied().chain(["bio"]).collect();
        assert_eq!(left_over(&dataset, table, &but_bio).await, 0, "{table}");
        if table == "customer" {
            let bios = |rows: &RecordBatch| {
                let keys = key_texts(rows, &["id".to_owned()]);
                let bio = key_texts(rows, &["bio".to_owned()]);
                keys.into_iter().zip(bio).collect::<std::collections::BTreeMap<String, String>>()
            };
            let (got, want) = (bios(&rows_of(&dataset).await), bios(&truth("3", table)));
            let kept = want.iter().filter(|(_, bio)| !bio.is_empty());
            assert!(kept.clone().count() > 100);
            // Values also follow a row to its new key.
            assert_eq!(kept.filter(|(id, bio)| got.get(*id) != Some(bio)).count(), 0);
        }
    }
}

#[tokio::test]
async fn transaction_files_hold_all_tables() {
    let dataset = memory_dataset();
    let mut options = DmsOptions::default();
    options.table = Some("public.customer".to_owned());
    let mut reader = DmsReader::new(options.with_contract(dms_contract("customer")));
    // The files of the full load are in another folder than the transactions.
    let load = dms_files("csv-default").into_iter().filter(|(n, _)| n.contains("/LOAD"));
    for (name, bytes) in load.chain(dms_files("transactions")) {
        reader.read(&name, bytes.into()).expect("the file is read");
    }
    let changes = reader.finish().expect("the records are readable");
    assert!(changes.other_tables > 1000, "{}", changes.other_tables);
    merge(&dataset, changes, IgnoreNull::None).await;
    assert_eq!(left_over(&dataset, "customer", &TEXTS).await, 62);
}

#[tokio::test]
async fn full_load_is_older_than_changes_whatever_its_timestamps_are() {
    let contract = r#"{"key":["id"],"columns":[{"name":"id","type":"bigint"},{"name":"v","type":"string"}]}"#;
    let contract = biscuit_schema::Contract::from_json(contract).expect("the contract is valid");
    let options = || {
        let options = DmsOptions::default().with_contract(contract.clone()).with_timestamp_column("ts");
        options.with_order(["ts"])
    };
    let files = [
        ("s/t/20240101-000000000.csv", "U,2024-01-01 00:00:00.000000,1,changed\nD,2024-01-01 00:00:00.000000,2,NULL\n"),
        (
            "s/t/LOAD00000001.csv",
            "2024-06-01 00:00:00.000000,1,loaded\n2024-06-01 00:00:00.000000,2,loaded\n2024-06-01 00:00:00.000000,3,loaded\n",
        ),
    ];
    for order in [[0, 1], [1, 0]] {
        let dataset = memory_dataset();
        for i in order {
            let mut reader = DmsReader::new(options());
            reader.read(files[i].0, files[i].1.as_bytes().to_vec().into()).expect("the file is read");
            merge(&dataset, reader.finish().expect("the records are readable"), IgnoreNull::None).await;
        }
        let want = biscuit_testkit::table("id:bigint | v:string\n1 | changed\n3 | loaded");
        let got = without_columns(&rows_of(&dataset).await, &["ts"]);
        assert_eq!(diff_rows(&[got], &[want]), None, "{order:?}");
    }
}

#[tokio::test]
async fn change_sequences_of_35_digits_are_exact() {
    // The two differ in the last of 35 digits, which neither a double nor a bigint can represent. The newer one
    // arrives first.
    let changes = "Op,id,v,seq\n\
                   U,1,newer,20261120175406810000000000000000011\n\
                   U,1,older,20261120175406810000000000000000010\n";
    let load = "id,v,seq\n1,loaded,\n2,loaded,\n";
    for names in [["20261120-175406816.csv", "LOAD00000001.csv"], ["LOAD00000001.csv", "20261120-175406816.csv"]] {
        let dataset = memory_dataset();
        for name in names {
            let mut reader = DmsReader::new(DmsOptions::default().with_key(["id"]).with_order(["seq"]));
            let text = if name.starts_with("LOAD") { load } else { changes };
            reader.read(name, text.as_bytes().to_vec().into()).expect("the file is read");
            merge(&dataset, reader.finish().expect("the records are readable"), IgnoreNull::None).await;
        }
        let got = rows_of(&dataset).await;
        let order = got.schema().field_with_name("seq").expect("it is stored").data_type().clone();
        assert_eq!(order, DataType::Decimal128(38, 0));
        let want = biscuit_testkit::table("id:bigint | v:string\n1 | newer\n2 | loaded");
        assert_eq!(diff_rows(&[without_columns(&got, &["seq"])], &[want]), None, "{names:?}");
    }
}

#[tokio::test]
async fn date_folders_are_read_by_the_source() {
    let folder = tempfile::tempdir().expect("the folder is created");
    for (name, bytes) in dms_files("parquet").into_iter().filter(|(n, _)| n.contains("/orders/")) {
        let path = folder.path().join(&name);
        std::fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder is created");
        std::fs::write(path, bytes).expect("the file is written");
    }
    let options = DmsOptions::default().with_table("public.orders").with_contract(dms_contract("orders"));
    let place = folder.path().join("parquet").to_string_lossy().into_owned();
    Location::parse(&place).expect("the place is valid");
    let source = ChangeFiles::new([place], ChangeFormat::Dms(options.with_timestamp_column("dms_ts")));
    let dataset = memory_dataset();
    merge(&dataset, source.changes().await.expect("the records are valid"), IgnoreNull::None).await;
    assert_eq!(left_over(&dataset, "orders", &[]).await, 21);
}
