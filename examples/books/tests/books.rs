//! Tests of the job on a lake in memory.

use biscuit_core::{Instant, Job, Outcome, Result, Run, RunId};
use biscuit_dataset::{Dataset, Location};
use biscuit_job::DeclarativeJob;
use biscuit_job::report::JobReport;
use biscuit_journal::JournalOptions;
use biscuit_testkit::dataset_text;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

fn table(lake: &str) -> String {
    format!("memory://{lake}/books")
}

async fn run(lake: &str, authors: &str) -> Result<JobReport> {
    let set = [
        ("sources.books.url", format!("{DATA}/books")),
        ("sources.authors.url", authors.to_owned()),
        ("target.url", table(lake)),
    ];
    let set: Vec<_> = set.into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
    let run = Run::new("books", RunId::new("test"), Instant::from_micros(0));
    DeclarativeJob::new(books::job(&set)?).run(&run).await
}

async fn rows(lake: &str) -> String {
    let location = Location::parse(&table(lake)).expect("the path is valid");
    dataset_text(&Dataset::new(location, JournalOptions::default())).await.expect("the table can be read")
}

#[tokio::test]
async fn every_book_has_the_data_of_its_author() {
    run("books", &format!("{DATA}/authors")).await.unwrap();
    insta::assert_snapshot!(rows("books").await, @r"
    title:string               | publish_date:date | author_name:string | author_birth_date:date | author_id:bigint
    Catch 22                   | 1961-11-10        | Joseph Heller      | 1923-05-01             | 1
    The Crystal Shard          | 1988-08-01        | R. A. Salvatore    | 1959-01-20             | 3
    The Fellowship of the Ring | 1954-07-29        | J.R.R Tolkien      | 1892-01-03             | 2
    The Return of King         | 1955-10-20        | J.R.R Tolkien      | 1892-01-03             | 2
    The Two Towers             | 1954-11-11        | J.R.R Tolkien      | 1892-01-03             | 2
    ");
    assert_eq!(run("books", &format!("{DATA}/authors")).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn two_authors_with_the_same_name_stop_the_run() {
    let folder = std::env::temp_dir().join(format!("biscuit-books-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let known = std::fs::read_to_string(format!("{DATA}/authors/authors.jsonl")).unwrap();
    let twice = known + "{\"name\":\"Joseph Heller\",\"id\":4,\"birth_date\":\"1950-01-01\"}\n";
    std::fs::write(folder.join("authors.jsonl"), twice).unwrap();
    let e = run("twice", folder.to_str().unwrap()).await.unwrap_err();
    assert_eq!(e.code(), "NotUnique");
    assert_eq!(rows("twice").await, "(no rows)");
    std::fs::remove_dir_all(&folder).unwrap();
}
