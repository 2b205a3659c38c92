//! Runs the conformance suites of biscuit-testkit for both sinks.

use std::sync::Arc;

use biscuit_core::{Sink, async_trait};
use biscuit_journal::{Journal, JournalOptions, TableStorage, WriterPolicy};
use biscuit_testkit::conformance::{SinkCase, SinkWorld, check_sink, check_storage_sink};
use custom_sink::{CsvSink, Day, Sale, SqliteSink};
use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

fn day(day: &str, shops: &[&str]) -> Day {
    let sale = |(cents, shop): (i64, &&str)| Sale { shop: (*shop).to_owned(), cents };
    Day { day: day.to_owned(), sales: (1..).zip(shops).map(sale).collect() }
}

fn case() -> SinkCase<Day> {
    SinkCase {
        first: day("2024-02-28", &["Oslo", "Bergen, harbour", "a \"b\""]),
        second: day("2024-02-29", &["Oslo"]),
        empty: day("2024-02-29", &[]),
        failing: Some(day("2024-02-28", &["Oslo", "", "Bergen"])),
    }
}

fn journal(storage: TableStorage) -> Journal {
    Journal::new(storage, Path::from("lake/sales"), JournalOptions::default().with_writers(WriterPolicy::One))
}

#[tokio::test]
async fn csv_sink_passes_the_conformance_suite() {
    let open = |storage| -> Arc<dyn Sink<Day>> { Arc::new(CsvSink::new(journal(storage))) };
    let read = |storage: TableStorage| {
        async move {
            let observed = journal(storage.clone()).view().await.expect("the table can be observed");
            let mut rows = Vec::new();
            for f in &observed.files {
                let state = observed.head.live[&f.path].staged.as_ref().map(|s| format!("lake/.biscuit/sales/{s}"));
                let path = Path::from(format!("lake/sales/{}", f.path));
                let found = match storage.store.get(&path).await {
                    Ok(found) => found,
                    Err(_) => storage
                        .store
                        .get(&Path::from(state.expect("an unpublished file has a staged path")))
                        .await
                        .expect("the staged file exists"),
                };
                let text = String::from_utf8(found.bytes().await.expect("the file can be read").to_vec())
                    .expect("the file is UTF-8");
                let folder = f.path.split('/').next().expect("the path has a folder");
                rows.extend(text.lines().skip(1).map(|l| format!("{folder} {l}")));
            }
            rows
        }
        .boxed()
    };
    check_storage_sink(&open, &read, &case()).await;
}

struct Database(tempfile::TempDir);

#[async_trait]
impl SinkWorld<Day> for Database {
    fn sink(&self) -> Arc<dyn Sink<Day>> {
        Arc::new(SqliteSink::new(self.0.path().join("sales.db")))
    }

    async fn rows(&self) -> Vec<String> {
        let connection =
            rusqlite::Connection::open(self.0.path().join("sales.db")).expect("the database can be opened");
        let mut statement = match connection.prepare("select day || ' ' || shop || ' ' || cents from sales") {
            Ok(statement) => statement,
            // The table does not exist before the first write.
            Err(_) => return vec![],
        };
        let rows = statement.query_map([], |r| r.get(0)).expect("the query succeeds");
        rows.map(|r| r.expect("the row can be read")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_sink_passes_the_conformance_suite() {
    check_sink(|| async { Database(tempfile::tempdir().expect("a temporary folder can be created")) }, &case()).await;
}
