//! Jobs with `[pii]`: treatments, the quarantine, error messages, and rotated keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use biscuit_core::{Outcome, Result};
use biscuit_job::DeclarativeJob;
use biscuit_job::report::JobReport;
use biscuit_pii::encrypt::ValueEncryptor;
use biscuit_pii::keys::{KeyBytes, RootKeys};
use biscuit_pii::tokens::MemoryStore;
use biscuit_pii::{PiiContext, Policy};
use datafusion::prelude::SessionContext;

use crate::lab::{Lab, run};

/// Uses the same keys and the same store for all runs of a test.
#[derive(Debug, Clone)]
struct Kept(Arc<MemoryStore>);

fn roots() -> RootKeys {
    RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([1; 32]))])).expect("the key is valid")
}

impl Kept {
    fn new() -> Self {
        Self(Arc::new(MemoryStore::new()))
    }

    fn resolve(&self, policy: &Policy) -> Result<PiiContext> {
        let means = if policy.keys.is_some() { PiiContext::new().with_roots(roots()) } else { PiiContext::new() };
        Ok(if policy.store.is_some() { means.with_store(self.0.clone()) } else { means })
    }

    fn job(&self, lab: &Lab, job: &str) -> DeclarativeJob {
        let kept = self.clone();
        lab.job_with_pii(job, move |policy| kept.resolve(policy))
    }

    async fn run(&self, lab: &Lab, job: &str) -> Result<JobReport> {
        self.job(lab, job).run_with(&run(), &Default::default()).await
    }
}

const JOB: &str = "
    name = 'customers'
    [sources.changes]
    url = 'raw/customers'
    format = 'json'
    [sources.changes.contract]
    columns = [
        {name = 'ssn', type = 'string', nullable = false, pii = 'ssn'},
        {name = 'seq', type = 'bigint', nullable = false},
        {name = 'email', type = 'string', pii = 'email'},
        {name = 'bio', type = 'string'},
        {name = 'op', type = 'string'},
    ]
    [target]
    url = 'lake/customers'
    mode = 'merge'
    key = ['ssn']
    order = ['seq']
    op = 'op'
    [pii]
    keys = 'keys.toml'
    store = 'tokens.redb'
    columns = { bio = 'redact' }
    classes = { ssn = 'tokenize', email = 'encrypt' }
";

fn change(ssn: &str, seq: u32, email: &str, bio: &str, op: &str) -> String {
    format!("{{\"ssn\":\"{ssn}\",\"seq\":{seq},\"email\":\"{email}\",\"bio\":\"{bio}\",\"op\":\"{op}\"}}\n")
}

/// Returns the decrypted e-mail addresses of the table.
async fn emails(lab: &Lab) -> Vec<String> {
    let cells = ValueEncryptor::new(roots(), "customers");
    let frame = lab.dataset("lake/customers").load(&SessionContext::new()).await.expect("the table is readable");
    let mut all = vec![];
    for batch in
        frame.select_columns(&["email"]).expect("the column exists").collect().await.expect("the rows are readable")
    {
        let opened = cells.decrypt("email", batch.column(0), &DataType::Utf8).await.expect("the values decrypt").column;
        let opened = opened.as_any().downcast_ref::<arrow::array::StringArray>().expect("the column is text");
        all.extend(opened.iter().map(|email| email.unwrap_or("null").to_owned()));
    }
    all.sort();
    all
}

#[tokio::test]
async fn rows_are_merged_by_tokens_and_duplicates_are_recognized() {
    let (lab, kept) = (Lab::new(), Kept::new());
    let ann = change("111-11-1111", 1, "ann@x.com", "call 192.0.2.7", "c");
    lab.put("raw/customers/1.json", ann.clone() + &change("222-22-2222", 1, "ben@x.com", "", "c") + &ann).await;
    let report = kept.run(&lab, JOB).await.unwrap();
    let output = &report.outputs[0];
    assert_eq!((output.merge["verdicts"]["inserted"].as_u64(), output.pii["ssn"].values), (Some(2), 3));
    assert_eq!(output.pii["bio"].found.values().sum::<u64>(), 2);
    assert_eq!(emails(&lab).await, ["ann@x.com", "ben@x.com"]);
    assert_eq!(lab.column("lake/customers", "bio").await, ["\"\"", "call <IP_ADDRESS>"]);
    // The same record again, an update, a delete, and a late record of the deleted row.
    lab.put("raw/customers/2.json", ann + &change("222-22-2222", 3, "", "", "d")).await;
    kept.run(&lab, JOB).await.unwrap();
    lab.put(
        "raw/customers/3.json",
        change("222-22-2222", 2, "late@x.com", "", "u") + &change("111-11-1111", 2, "new@x.com", "", "u"),
    )
    .await;
    let report = kept.run(&lab, JOB).await.unwrap();
    assert_eq!(report.outputs[0].merge["verdicts"]["late"], 1);
    assert_eq!(emails(&lab).await, ["new@x.com"]);
    let tokens = lab.column("lake/customers", "ssn").await;
    assert!(tokens.len() == 1 && tokens[0].starts_with("tok_"), "{tokens:?}");
}

#[tokio::test]
async fn quarantined_records_are_sealed_and_need_a_key() {
    let (lab, kept) = (Lab::new(), Kept::new());
    let job = JOB
        .replace("columns = [", "on_error = 'quarantine'\ncolumns = [")
        .replace("op = 'op'\n", "op = 'op'\nmax_quarantined = 60.0\n");
    let bad = "{\"ssn\":\"333-33-3333\",\"seq\":\"x\",\"email\":\"bad@x.com\",\"op\":\"u\"}\n";
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "ann@x.com", "", "c") + bad).await;
    kept.run(&lab, &job).await.unwrap();
    let refused = biscuit_apply::quarantined_records(&lab.dataset("lake/customers")).await.unwrap();
    let raw = String::from_utf8(refused[0].refused.raw.clone()).unwrap();
    let sealed = raw.strip_prefix("biscuit-sealed:").unwrap();
    let sealed: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec![sealed]));
    let opened =
        ValueEncryptor::new(roots(), "customers").decrypt("quarantine", &sealed, &DataType::Utf8).await.unwrap().column;
    let opened = opened.as_any().downcast_ref::<arrow::array::StringArray>().unwrap().value(0).to_owned();
    assert_eq!(opened.trim(), bad.trim());
    // A record that is read again is in the quarantine once.
    lab.put(
        "raw/customers/1.json",
        change("111-11-1111", 1, "ann@x.com", "", "c") + bad + &change("444-44-4444", 1, "x@x.com", "", "c"),
    )
    .await;
    let report = kept.run(&lab, &job).await.unwrap();
    assert_eq!(report.outputs[0].quarantined, 1);
    assert_eq!(biscuit_apply::quarantined_records(&lab.dataset("lake/customers")).await.unwrap().len(), 1);

    let lab = Lab::new();
    lab.put("raw/customers/1.json", bad).await;
    let without = job.replace("keys = 'keys.toml'", "").replace("'tokenize'", "'keep'").replace("'encrypt'", "'mask'");
    let e = kept.run(&lab, &without.replace("60.0", "100.0")).await.unwrap_err();
    assert_eq!(e.code(), "NoKeys", "{e}");
    assert!(lab.paths("lake/customers").await.is_empty(), "nothing was changed");
}

#[tokio::test]
async fn contradicting_policies_fail_before_anything_is_written() {
    let (lab, kept) = (Lab::new(), Kept::new());
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "ann@x.com", "", "c")).await;
    let code = async |from: &str, to: &str| {
        let e = kept.run(&lab, &JOB.replace(from, to)).await.unwrap_err();
        (e.code(), e.column().unwrap_or_default().to_owned())
    };
    let is = |code: &'static str, column: &str| (code, column.to_owned());
    assert_eq!(code("bio = 'redact'", "boi = 'redact'").await, is("UnknownColumn", "boi"));
    assert_eq!(code("ssn = 'tokenize'", "ssn = 'encrypt'").await, is("TreatedColumn", "ssn"));
    assert_eq!(code("ssn = 'tokenize'", "ssn = { partial = { last = 4 } }").await, is("TreatedColumn", "ssn"));
    assert_eq!(code("bio = 'redact'", "seq = 'hash'").await, is("TreatedColumn", "seq"));
    assert_eq!(code("ssn = 'tokenize', email", "email").await, is("UntreatedClass", "ssn"));
    assert_eq!(code("email = 'encrypt'", "email = { encrypt = { key = 'message' } }").await, is("NoKeys", "email"));
    assert_eq!(code("store = 'tokens.redb'", "").await, is("NoStore", "ssn"));
    assert_eq!(code("classes = {", "classes = { phone = 'mask',").await, is("UnusedClass", ""));
    // Classes in the output's contract do not treat anything.
    let of_output = "url = 'lake/customers'\n    contract = { columns = [{ name = 'bio', type = 'string', pii = 'text' }, { name = 'op', type = 'string', pii = 'text' }] }";
    assert_eq!(code("url = 'lake/customers'", of_output).await, is("UntreatedClass", "op"));
    assert!(lab.paths("lake/customers").await.is_empty());
}

/// Resolves a policy to rotated root keys.
fn rotated(_: &Policy) -> Result<PiiContext> {
    let keys = BTreeMap::from([(1, KeyBytes::new([1; 32])), (2, KeyBytes::new([2; 32]))]);
    Ok(PiiContext::new().with_roots(RootKeys::new(2, keys)?))
}

#[tokio::test]
async fn key_column_that_new_keys_would_change_needs_a_version() {
    let lab = Lab::new();
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "ann@x.com", "", "c")).await;
    let hashed = JOB.replace("ssn = 'tokenize'", "ssn = 'hash'");
    Kept::new().run(&lab, &hashed).await.unwrap();
    lab.put("raw/customers/2.json", change("111-11-1111", 2, "new@x.com", "", "u")).await;
    let run_with = async |job: &str| lab.job_with_pii(job, rotated).run_with(&run(), &Default::default()).await;
    let e = run_with(&hashed).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnpinnedVersion", Some("ssn")));
    run_with(&hashed.replace("ssn = 'hash'", "ssn = { hash = { version = 1 } }")).await.unwrap();
    assert_eq!(lab.column("lake/customers", "ssn").await.len(), 1, "the entity is there once");
}

#[tokio::test]
async fn value_that_cannot_be_treated_is_located_but_not_shown() {
    let (lab, kept) = (Lab::new(), Kept::new());
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "a", "", "c") + &change("12345", 1, "b", "", "c")).await;
    let job = JOB.replace("ssn = 'tokenize'", "ssn = { tokenize = { kind = 'ff1' } }");
    let e = kept.run(&lab, &job).await.unwrap_err();
    assert_eq!((e.code(), e.row(), e.column()), ("SmallDomain", Some(2), Some("ssn")));
    assert!(e.to_string().ends_with("raw/customers/1.json, row 2)") && !e.to_string().contains("12345"), "{e}");
    // Error details contain values. For personal data they contain tags instead, even if values are requested.
    let lab = Lab::new();
    let job = JOB.replace("{name = 'email', type = 'string'", "{name = 'email', type = 'bigint'");
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "ann@x.com", "", "c")).await;
    let e = kept.run(&lab, &job).await.unwrap_err();
    assert_eq!(e.column(), Some("email"), "{e}");
    let details = format!("{:?}", e.details());
    assert!(!details.contains("ann@x.com") && !e.to_string().contains("ann@x.com"), "{details}");
    assert!(e.details().iter().all(|(_, value)| value.starts_with("<email")), "{details}");
}

#[tokio::test]
async fn queries_and_appended_tables_see_only_treated_values() {
    let (lab, kept) = (Lab::new(), Kept::new());
    let job = JOB
        .replace(
            "[target]",
            "[transform]\nsql = \"SELECT ssn, email, upper(bio) AS bio FROM changes WHERE ssn LIKE 'tok_%'\"\n[target]",
        )
        .replace("mode = 'merge'\n    key = ['ssn']\n    order = ['seq']\n    op = 'op'", "mode = 'append'");
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "ann@x.com", "at ann@x.com", "c")).await;
    kept.run(&lab, &job).await.unwrap();
    lab.put("raw/customers/2.json", change("111-11-1111", 2, "ann@x.com", "", "c")).await;
    kept.run(&lab, &job).await.unwrap();
    assert_eq!(emails(&lab).await, ["ann@x.com", "ann@x.com"]);
    assert_eq!(lab.column("lake/customers", "bio").await, ["\"\"", "AT <EMAIL_ADDRESS>"]);
    let tokens = lab.column("lake/customers", "ssn").await;
    assert_eq!((tokens.len(), &tokens[0]), (2, &tokens[1]), "it joins");
}

#[tokio::test]
async fn dry_run_creates_no_token() {
    let (lab, kept) = (Lab::new(), Kept::new());
    lab.put("raw/customers/1.json", change("111-11-1111", 1, "ann@x.com", "", "c")).await;
    let options = biscuit_job::RunOptions::default().with_dry_run(biscuit_job::DryRun::Plan);
    let report = kept.job(&lab, JOB).run_with(&run(), &options).await.unwrap();
    assert_eq!(report.outcome, Outcome::Planned);
    assert!(kept.0.records().is_empty());
}
