//! `purge --drop-partitions` on a server with the APIs of S3 and Glue. `BISCUIT_TEST_S3` is its endpoint.

use aws_sdk_glue::types::{Column, DatabaseInput, PartitionInput, StorageDescriptor, TableInput};
use aws_sdk_s3::config::RequestChecksumCalculation;
use biscuit_aws::{AwsEnvironment, AwsOptions};

use crate::binary::Folder;

const BUCKET: &str = "biscuit-test";

/// Bucket with a database of the catalog.
struct Lake {
    s3: aws_sdk_s3::Client,
    glue: aws_sdk_glue::Client,
    /// Unique name of the folder and of the database.
    name: String,
    endpoint: String,
}

impl Lake {
    /// Creates a table of three days in the catalog. The last day has no files.
    async fn new() -> Self {
        let endpoint = std::env::var("BISCUIT_TEST_S3").expect("BISCUIT_TEST_S3 is the endpoint of S3 and Glue");
        let aws = AwsEnvironment::new(AwsOptions::default().with_endpoint_url(&endpoint));
        let config = aws_sdk_s3::config::Builder::from(aws.sdk_config().await)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let s3 = aws_sdk_s3::Client::from_conf(config.build());
        let glue = aws_sdk_glue::Client::new(aws.sdk_config().await);
        let lake = Self { s3, glue, name: format!("catalog_{}", std::process::id()), endpoint };
        let database = DatabaseInput::builder().name(&lake.name).build().expect("the database is valid");
        lake.glue.create_database().database_input(database).send().await.expect("the database is created");
        let day = Column::builder().name("day").r#type("date").build().expect("the column is built");
        let table = TableInput::builder().name("clicks").partition_keys(day).build().expect("the table is valid");
        lake.glue
            .create_table()
            .database_name(&lake.name)
            .table_input(table)
            .send()
            .await
            .expect("the table is created");
        for (day, slash) in [("2024-02-28", ""), ("2024-02-29", "/"), ("2024-03-01", "")] {
            let location = format!("s3a://{BUCKET}/{}/day={day}{slash}", lake.name);
            let place = StorageDescriptor::builder().location(location).build();
            let partition = PartitionInput::builder().values(day).storage_descriptor(place).build();
            let put = lake.glue.create_partition().database_name(&lake.name).table_name("clicks");
            put.partition_input(partition).send().await.expect("the partition is created");
        }
        lake
    }

    async fn put(&self, name: &str) {
        let put = self.s3.put_object().bucket(BUCKET).key(format!("{}/{name}", self.name));
        put.body(b"x".to_vec().into()).send().await.expect("the put succeeds");
    }

    async fn days(&self) -> Vec<String> {
        let found = self.glue.get_partitions().database_name(&self.name).table_name("clicks").send().await;
        let found = found.expect("the partitions are found").partitions.unwrap_or_default();
        let mut days: Vec<String> = found.into_iter().flat_map(|p| p.values.unwrap_or_default()).collect();
        days.sort();
        days
    }
}

#[test]
#[ignore = "needs a server with S3 and Glue: BISCUIT_TEST_S3"]
fn drop_partitions_removes_exactly_the_partitions_that_the_purge_emptied() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts");
    let lake = runtime.block_on(Lake::new());
    let f = Folder::new();
    let url = format!("s3://{BUCKET}/{}", lake.name);
    let table = format!("{}.clicks", lake.name);
    let purge = |words: &str| f.run(&format!("purge {url} --json --endpoint-url {} {words}", lake.endpoint));
    let days = || runtime.block_on(lake.days());
    let all = ["2024-02-28", "2024-02-29", "2024-03-01"];

    runtime.block_on(lake.put("day=2024-02-28/a.parquet"));
    // Modification times of S3 have whole seconds: wait until the second of the write is over.
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let ran = purge("--older-than 1s --allow empty");
    assert_eq!((ran.code, ran.json()["deleted"].as_u64()), (0, Some(1)), "{}", ran.err);
    assert_eq!(days(), all, "partitions remain without the option");

    for name in ["day=2024-02-28/a.parquet", "day=2024-02-28/_SUCCESS", "day=2024-02-29/a.parquet"] {
        runtime.block_on(lake.put(name));
    }
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    runtime.block_on(lake.put("day=2024-02-29/b.parquet"));
    let dropping = format!("--older-than 2s --drop-partitions {table}");
    let planned = purge(&format!("{dropping} --dry-run --manifest plan.jsonl")).json();
    assert_eq!(planned["drop_partitions"], serde_json::json!([["2024-02-28"]]), "{planned}");
    assert_eq!(days(), all, "a dry run changes nothing");

    let wrong = purge(&format!("--older-than 2s --drop-partitions {}.none", lake.name));
    assert_eq!(
        (wrong.code, wrong.json()["error"]["code"].as_str()),
        (2, Some("NoSuchTable")),
        "before anything is deleted"
    );

    let ran = purge(&dropping);
    let done = ran.json();
    assert_eq!((ran.code, done["deleted"].as_u64()), (0, Some(3)), "{done}");
    assert_eq!(done["dropped_partitions"], serde_json::json!([["2024-02-28"]]), "{done}");
    // One day still has a newer file. Another day had no file before, so that the purge does not touch it.
    assert_eq!(days(), ["2024-02-29", "2024-03-01"]);

    // A purge that stopped before the catalog is repeated by its plan: absent objects count as deleted.
    let day = aws_sdk_glue::types::StorageDescriptor::builder().location(format!("{url}/day=2024-02-28")).build();
    let day = PartitionInput::builder().values("2024-02-28").storage_descriptor(day).build();
    let put = lake.glue.create_partition().database_name(&lake.name).table_name("clicks").partition_input(day);
    runtime.block_on(put.send()).expect("the partition is read");
    let again = purge(&format!("--plan plan.jsonl --drop-partitions {table}")).json();
    assert_eq!((again["absent"].as_u64(), again["deleted"].as_u64()), (Some(3), Some(0)), "{again}");
    assert_eq!(again["dropped_partitions"], serde_json::json!([["2024-02-28"]]), "{again}");
    assert_eq!(days(), ["2024-02-29", "2024-03-01"]);
}

#[test]
fn drop_partitions_needs_a_folder_on_s3_and_a_qualified_table_name() {
    let f = Folder::new();
    f.write("clicks/a", "x");
    let e = f.run("purge clicks --older-than 0s --allow empty --drop-partitions lake.clicks");
    assert!(e.code == 2 && e.err.contains("needs a folder on S3"), "{}", e.err);
    let e = f.run("purge clicks --older-than 0s --drop-partitions clicks");
    assert!(e.code == 2 && e.err.contains("write DATABASE.TABLE"), "{}", e.err);
}
