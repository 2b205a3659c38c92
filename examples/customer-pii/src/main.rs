//! Runs the job of `customer.job.toml`: the current state of customers without personal data.

use std::path::Path;
use std::process::ExitCode;

use biscuit_core::{Clock, Error, ErrorCode, ErrorKind, Job, Result, Run, RunId, SystemClock};
use biscuit_job::report::JobReport;
use biscuit_job::{DeclarativeJob, JobSpec};
use biscuit_pii::keys::KeyFile;

const JOB: &str = include_str!("../customer.job.toml");
const EVENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/*.jsonl.gz");

const NO_KEYS_FILE: ErrorCode = ErrorCode::new(
    "NoKeysFile",
    ErrorKind::Usage,
    "The key file cannot be written.",
    "Run the example in a folder that can be written.",
);

/// Runs a job on a lake in this folder, which also contains the keys and the token store. Creates the keys in the
/// first run.
async fn protect(job: &str, lake: &Path, set: &[(&str, String)], run: &Run) -> Result<JobReport> {
    let keys = lake.join("keys.toml");
    if !keys.exists() {
        let written =
            std::fs::create_dir_all(lake).and(std::fs::write(&keys, KeyFile::local().await?.to_text()?.as_bytes()));
        written.map_err(|e| Error::new(NO_KEYS_FILE, format!("`{}`: {e}", keys.display())).with_source(e))?;
    }
    let set: Vec<(String, String)> = set.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
    DeclarativeJob::new(JobSpec::from_toml(job, &set)?).in_folder(lake).run(run).await
}

async fn customers(lake: &Path, run: &Run) -> Result<JobReport> {
    let target = lake.join("customer").display().to_string();
    protect(JOB, lake, &[("sources.changes.url", EVENTS.to_owned()), ("target.url", target)], run).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let lake = std::env::args().nth(1).unwrap_or_else(|| "lake".to_owned());
    match customers(Path::new(&lake), &Run::new("customer", RunId::new("by-hand"), SystemClock.now())).await {
        Ok(report) => {
            let output = &report.outputs[0];
            println!("{}: {} records", output.outcome, output.rows);
            for (column, treated) in &output.pii {
                println!("  {column:<6} {} values, {} hits", treated.values, treated.found.values().sum::<u64>());
            }
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::time::Duration;

    use biscuit_core::{Instant, Outcome};
    use biscuit_dataset::{Dataset, Location};
    use biscuit_journal::JournalOptions;
    use biscuit_pii::encrypt::{SubjectKeys, ValueEncryptor};
    use biscuit_pii::tokens::FileStore;
    use biscuit_pii::{PiiContext, Policy};
    use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
    use datafusion::arrow::compute::{cast, concat_batches};
    use datafusion::arrow::datatypes::DataType;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn run(id: &str) -> Run {
        Run::new("customer", RunId::new(id), Instant::from_micros(1_709_300_000_000_000))
    }

    /// Returns the rows of a table, sorted by id.
    async fn rows(table: &Path) -> RecordBatch {
        let location = Location::parse(&table.display().to_string()).expect("the path is valid");
        let dataset = Dataset::new(location, JournalOptions::default());
        let frame = dataset.load(&SessionContext::new()).await.expect("the table can be loaded");
        let sort = datafusion::prelude::col("id").sort(true, true);
        let batches =
            frame.sort(vec![sort]).expect("the column is sorted").collect().await.expect("the rows are readable");
        concat_batches(&batches[0].schema(), &batches).expect("all batches have one schema")
    }

    fn texts(rows: &RecordBatch, column: &str) -> Vec<Option<String>> {
        let column = cast(rows.column_by_name(column).expect("the column is present"), &DataType::Utf8)
            .expect("the column is converted to text");
        column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// Returns the same customers without treatment, from the job without its `[pii]` section.
    async fn clear(folder: &Path) -> RecordBatch {
        let job = JOB.split("\n[pii]").next().expect("the job file is not empty");
        let target = folder.join("customer").display().to_string();
        let set = [("sources.changes.url", EVENTS.to_owned()), ("target.url", target)];
        protect(job, folder, &set, &run("clear")).await.expect("the job succeeds");
        rows(&folder.join("customer")).await
    }

    #[tokio::test]
    async fn customers_are_protected_and_their_tokens_join() {
        let (lake, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, before) = (lake.path(), clear(plain.path()).await);
        customers(at, &run("monday")).await.unwrap();
        assert_eq!(customers(at, &run("retry")).await.unwrap().outcome, Outcome::Unchanged);
        let after = rows(&at.join("customer")).await;
        assert_eq!(texts(&after, "id"), texts(&before, "id"));

        // Another job writes a table with the same numbers in another form, without dashes.
        let numbers: BTreeSet<String> = texts(&before, "ssn").into_iter().flatten().collect();
        let scores: String = numbers
            .iter()
            .enumerate()
            .map(|(score, ssn)| format!("{{\"id\":{score},\"ssn\":\"{}\"}}\n", ssn.replace('-', "")))
            .collect();
        std::fs::write(at.join("scores.jsonl"), scores).unwrap();
        let job = "name = 'scores'\n[sources.s]\nurl = '-'\nformat = 'json'\nrules = 'none'\n[target]\nurl = '-'\nmode = 'append'\n\
                   [pii]\nkeys = 'keys.toml'\nstore = 'tokens.redb'\ncolumns = { ssn = { tokenize = { normalize = ['digits-only'] } } }\n";
        let place = |name: &str| at.join(name).display().to_string();
        protect(job, at, &[("sources.s.url", place("scores.jsonl")), ("target.url", place("scores"))], &run("scores"))
            .await
            .unwrap();
        let scores = rows(&at.join("scores")).await;
        let by_token: BTreeMap<String, String> = texts(&scores, "ssn").into_iter().flatten().zip(numbers).collect();
        let joined: Vec<Option<String>> =
            texts(&after, "ssn").iter().map(|token| token.as_ref().map(|token| by_token[token].clone())).collect();
        assert_eq!(joined, texts(&before, "ssn"), "each token leads to its number");
        assert!(joined.iter().flatten().count() > 5);

        let phones = texts(&before, "phone").into_iter().zip(texts(&after, "phone"));
        for (clear, masked) in phones.filter_map(|(clear, masked)| Some((clear?, masked?))) {
            assert_eq!((clear.len(), clear[clear.len() - 4..] == masked[masked.len() - 4..]), (masked.len(), true));
        }
    }

    #[tokio::test]
    async fn addresses_can_be_decrypted_until_their_customer_is_forgotten() {
        let (lake, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, before) = (lake.path(), clear(plain.path()).await);
        customers(at, &run("monday")).await.unwrap();
        let after = rows(&at.join("customer")).await;
        let policy = Policy::parse("keys = 'keys.toml'").unwrap();
        let means = PiiContext::open_local(&policy, at).await.unwrap();
        let roots = means.roots.clone().unwrap();
        let store = Arc::new(FileStore::open(at.join("tokens.redb"), Duration::from_secs(10)).await.unwrap());
        let subjects = || Arc::new(SubjectKeys::new(store.clone(), roots.clone()));
        let opened = async || {
            let cells = ValueEncryptor::new(roots.clone(), "customer").with_subjects(subjects());
            let email: &ArrayRef = after.column_by_name("email").unwrap();
            cells.decrypt("email", email, &DataType::Utf8).await.unwrap()
        };
        let emails = texts(&before, "email");
        let back = opened().await.column;
        assert_eq!(back.as_string::<i32>().iter().map(|e| e.map(str::to_owned)).collect::<Vec<_>>(), emails);
        let row = emails.iter().position(Option::is_some).unwrap();
        subjects().forget(texts(&before, "id")[row].as_ref().unwrap()).await.unwrap();
        let back = opened().await;
        assert_eq!(back.forgotten, 1);
        assert_eq!(texts(&after, "ssn")[row].is_some(), texts(&before, "ssn")[row].is_some(), "tokens remain");
    }

    /// Reads all files below a folder.
    fn bytes(folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                bytes(&path, all);
            } else {
                all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }

    #[tokio::test]
    async fn lake_contains_no_number_and_no_address_in_plain_text() {
        let (lake, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = clear(plain.path()).await;
        customers(lake.path(), &run("monday")).await.unwrap();
        let secrets: BTreeSet<String> = ["ssn", "email"]
            .iter()
            .flat_map(|column| texts(&before, column))
            .flatten()
            .filter(|text| text.len() > 8)
            .collect();
        let mut files = vec![];
        bytes(lake.path(), &mut files);
        assert!(files.len() > 3 && secrets.len() > 10);
        for (name, bytes) in files {
            for secret in &secrets {
                assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{name}");
            }
        }
    }
}
