//! Jobs with `[pii]` treatments that encrypt columns in the Parquet files of the output.

use std::sync::Arc;

use biscuit_apply::quarantined_records;
use biscuit_core::Result;
use biscuit_dataset::Dataset;
use biscuit_job::TableKeys;
use biscuit_job::report::JobReport;
use biscuit_pii::keys::{KeyBytes, KeyProvider, RootKeys, WrappingKeys};
use biscuit_pii::{PiiContext, Policy};
use biscuit_testkit::frame_text;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::lab::{Lab, run};

fn provider() -> Arc<dyn KeyProvider> {
    Arc::new(WrappingKeys::new("biscuit", "1", KeyBytes::new([9; 32])).expect("the key is valid"))
}

/// Resolves a policy to the same keys in all runs of a test.
fn kept(policy: &Policy) -> Result<PiiContext> {
    let roots = RootKeys::new(1, [(1, KeyBytes::new([1; 32]))].into())?;
    let means = PiiContext::new();
    Ok(if policy.keys.is_some() { means.with_roots(roots).with_provider(provider()) } else { means })
}

async fn go(lab: &Lab, job: &str) -> Result<JobReport> {
    lab.job_with_pii(job, kept).run_with(&run(), &Default::default()).await
}

const SOURCE: &str = "
    name = 'customers'
    [sources.raw]
    url = 'raw/customers'
    format = 'json'
    [sources.raw.contract]
    columns = [
        {name = 'id', type = 'bigint', nullable = false},
        {name = 'seq', type = 'bigint', nullable = false},
        {name = 'day', type = 'string'},
        {name = 'email', type = 'string', pii = 'email'},
        {name = 'born', type = 'date', pii = 'birth'},
        {name = 'op', type = 'string'},
    ]
";
const PII: &str = "
    [pii]
    keys = 'keys.toml'
    classes = { email = { encrypt = { key = 'file' } }, birth = { encrypt = { key = 'file' } } }
";

fn job(target: &str) -> String {
    format!("{SOURCE}\n[target]\nurl = 'lake/customers'\n{target}\n{PII}")
}

const CANARY: &str = "canary.6611";

fn rows(ids: std::ops::Range<i64>, seq: i64) -> String {
    let row = |id: i64| {
        format!(
            "{{\"id\":{id},\"seq\":{seq},\"day\":\"d{}\",\"email\":\"{CANARY}.{seq}.{id}@x.com\",\"born\":\"1961-02-0{}\",\"op\":\"u\"}}\n",
            id % 2,
            id % 7 + 1
        )
    };
    ids.map(row).collect()
}

fn with_keys(lab: &Lab) -> Dataset {
    lab.dataset("lake/customers").with_encryption(TableKeys::encryption(provider()))
}

/// Checks that all data files encrypt both columns, and that no object except the input contains a canary.
async fn check_hidden(lab: &Lab) {
    for file in with_keys(lab).view().await.expect("the table is readable").open_files().await.expect("the files open")
    {
        assert!(file.is_encrypted("email") && file.is_encrypted("born") && !file.is_encrypted("id"));
    }
    let all: Vec<_> = lab.storage.store.list(None).try_collect().await.expect("the listing succeeds");
    for object in all.iter().filter(|o| !o.location.as_ref().starts_with("raw/")) {
        let bytes = lab
            .storage
            .store
            .get(&object.location)
            .await
            .expect("the object exists")
            .bytes()
            .await
            .expect("the object is readable");
        assert!(!bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{}", object.location);
    }
}

async fn emails(lab: &Lab) -> String {
    let frame = with_keys(lab).load(&SessionContext::new()).await.expect("the table is readable");
    frame_text(frame.select_columns(&["id", "email", "born"]).expect("the columns exist"))
        .await
        .expect("the rows are readable")
}

#[tokio::test]
async fn every_mode_encrypts_the_columns_in_its_files() {
    for target in [
        "mode = 'append'",
        "mode = 'append'\npartition_by = ['day']",
        "mode = 'replace'",
        "mode = 'replace-partitions'\npartition_by = ['day']",
        "mode = 'merge'\nkey = ['id']\norder = ['seq']\nop = 'op'",
        "mode = 'merge'\nkey = ['id']\norder = ['seq']\nop = 'op'\npartition_by = ['day']",
        "mode = 'snapshot'\nkey = ['id']\norder = ['seq']\nop = 'op'\ngranularity = 'month'",
    ] {
        let (lab, job) = (Lab::new(), job(target));
        lab.put("raw/customers/1.json", rows(0..20, 1)).await;
        let report = go(&lab, &job).await.unwrap_or_else(|e| panic!("{target}: {e}"));
        assert_eq!(report.outputs[0].pii["email"].values, 20, "{target}");
        check_hidden(&lab).await;
        lab.put("raw/customers/2.json", rows(15..30, 2)).await;
        go(&lab, &job).await.unwrap_or_else(|e| panic!("{target}: {e}"));
        check_hidden(&lab).await;
        let all = emails(&lab).await;
        assert!(all.contains(&format!("{CANARY}.2.29@x.com")) && all.contains("1961-02-01"), "{target}: {all}");
        if target.contains("key") {
            assert!(!all.contains(&format!("{CANARY}.1.15@x.com")) && all.lines().count() == 31, "{target}: {all}");
        }
        // Without keys the other columns are readable, but the table cannot be written.
        let e = lab.dataset("lake/customers").observe().await.unwrap().encryption().unwrap_err();
        assert_eq!(e.code(), "NoFileKeys");
        let clear = job.replace(PII, "");
        lab.put("raw/customers/3.json", rows(30..31, 3)).await;
        let e = lab.run(&clear).await.unwrap_err();
        assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("born")), "{target}: {e}");
    }
}

/// The output's contract may rename a column. Encryption is by name, so the renamed column would be in plain text.
#[tokio::test]
async fn renamed_encrypted_column_is_refused() {
    for (contract, fits) in [
        (
            "columns = [{name = 'id', type = 'bigint'}, {name = 'email', type = 'string'}, {name = 'born', type = 'date'}]",
            true,
        ),
        (
            "columns = [{name = 'id', type = 'bigint'}, {name = 'mail', type = 'string', renamed_from = ['email']}, {name = 'born', type = 'date'}]",
            false,
        ),
        (
            "columns = [{name = 'id', type = 'bigint'}, {name = 'Email', type = 'string'}, {name = 'born', type = 'date'}]",
            false,
        ),
        (
            "columns = [{name = 'mail', type = 'string', renamed_from = ['email']}, {name = 'email', type = 'string', renamed_from = ['other']}]",
            false,
        ),
    ] {
        let lab = Lab::new();
        lab.put("raw/customers/1.json", rows(0..5, 1)).await;
        let target = format!("mode = 'append'\ncontract = {{ extra = 'drop', {contract} }}");
        match go(&lab, &job(&target)).await {
            Ok(_) => assert!(fits, "{contract}"),
            Err(e) => {
                assert_eq!((fits, e.code(), e.column()), (false, "EncryptedColumn", Some("email")), "{contract}: {e}");
            }
        }
        check_hidden(&lab).await;
    }
}

/// A policy applies to all sources: an output need not have all columns that the policy names.
#[tokio::test]
async fn outputs_need_not_have_all_columns_of_the_policy() {
    for (target, format) in [
        ("mode = 'append'", "json"),
        ("mode = 'merge'\nkey = ['id']\norder = ['seq']", "json"),
        ("mode = 'merge'\nkey = ['id']\norder = ['seq']", "rows"),
    ] {
        let lab = Lab::new();
        lab.put("raw/customers/1.json", rows(0..5, 1)).await;
        lab.put("raw/orders/1.json", "{\"id\":1,\"seq\":1,\"iban\":\"canary.6611\"}\n").await;
        let more = format!(
            "[sources.orders]\nurl = 'raw/orders'\nformat = '{format}'\ncontract = {{ columns = [{{name = 'id', type = 'bigint'}}, {{name = 'seq', type = 'bigint'}}, {{name = 'iban', type = 'string'}}] }}\n"
        );
        let outputs = format!(
            "[outputs.customers]\nurl = 'lake/customers'\nmode = 'append'\nsources = ['raw']\n[outputs.orders]\nurl = 'lake/orders'\nsources = ['orders']\n{target}\n"
        );
        let pii = format!("{PII}\ncolumns = {{ iban = {{ encrypt = {{ key = 'file' }} }} }}");
        go(&lab, &format!("{SOURCE}\n{more}\n{outputs}\n{pii}")).await.unwrap_or_else(|e| panic!("{target}: {e}"));
        check_hidden(&lab).await;
        for file in lab.dataset("lake/orders").view().await.unwrap().open_files().await.unwrap() {
            assert_eq!(file.encrypted().into_iter().collect::<Vec<_>>(), ["iban"], "{target}");
        }
    }
}

/// A table with encrypted columns that no commit has recorded.
#[tokio::test]
async fn encrypted_table_of_another_writer_can_be_extended() {
    for target in ["mode = 'append'", "mode = 'merge'\nkey = ['id']\norder = ['seq']\nop = 'op'"] {
        let (lab, other) = (Lab::new(), Lab::new());
        other.put("raw/customers/1.json", rows(0..5, 1)).await;
        go(&other, &job("mode = 'append'")).await.unwrap();
        let path = other.paths("lake/customers").await.remove(0);
        lab.put("lake/customers/part-0.parquet", other.get(&format!("lake/customers/{path}")).await).await;
        lab.put("raw/customers/2.json", rows(5..9, 2)).await;
        let clear = job(target).replace(PII, "");
        let e = lab.run(&clear).await.unwrap_err();
        assert_eq!(e.code(), "NoFileKeys", "{target}: {e}");
        let keys_alone = format!("{clear}\n[pii]\nkeys = 'keys.toml'\nclasses = {{ email = 'keep', birth = 'keep' }}");
        go(&lab, &keys_alone).await.unwrap_or_else(|e| panic!("{target}: {e}"));
        check_hidden(&lab).await;
        assert_eq!(emails(&lab).await.lines().count(), 10);
        // The encrypted column must not be copied to other columns, even if the current policy keeps it.
        let derived = keys_alone.replace("[pii]", "derive = { year = { from = 'born', as = 'year' } }\n[pii]");
        if target == "mode = 'append'" {
            lab.put("raw/customers/3.json", rows(9..10, 2)).await;
            let e = go(&lab, &derived).await.unwrap_err();
            assert_eq!((e.code(), e.column()), ("EncryptedColumn", Some("born")), "{e}");
        }
    }
}

#[tokio::test]
async fn encrypted_files_can_be_input() {
    let lab = Lab::new();
    lab.put("raw/customers/1.json", rows(0..5, 1)).await;
    go(&lab, &job("mode = 'append'")).await.unwrap();
    // The files of one table are the source of another.
    let next = "
        name = 'next'
        [sources.clean]
        url = 'lake/customers/*.parquet'
        format = 'parquet'
        [target]
        url = 'lake/next'
        mode = 'replace'
        [pii]
        keys = 'keys.toml'
        columns = { email = 'mask', born = { encrypt = { key = 'file' } } }
    ";
    go(&lab, next).await.unwrap();
    let next_table = lab.dataset("lake/next").with_encryption(TableKeys::encryption(provider()));
    let text = frame_text(next_table.load(&SessionContext::new()).await.unwrap()).await.unwrap();
    assert!(text.contains("******.****.*.*@*.***") && text.contains("1961-02-01"), "{text}");
    // An encrypted column of a source that the policy does not mention is refused.
    let silent = next.replace("email = 'mask', ", "").replace("lake/next", "lake/silent");
    let e = go(&lab, &silent).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UntreatedColumn", Some("email")), "{e}");
    let none = next.replace("keys = 'keys.toml'\n", "").replace(", born = { encrypt = { key = 'file' } }", "");
    let e = go(&lab, &none.replace("lake/next", "lake/other")).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("email")), "{e}");
}

#[tokio::test]
async fn values_that_would_leave_encrypted_columns_stop_the_job() {
    let merge = "mode = 'merge'\norder = ['seq']\nop = 'op'\n";
    let query = "mode = 'append'\nsql = 'SELECT id, email AS e FROM raw'";
    for (target, code, column) in [
        (format!("{merge}key = ['email']"), "TreatedColumn", Some("email")),
        (format!("{merge}key = ['id']\npartition_by = ['email']"), "TreatedColumn", Some("email")),
        ("mode = 'append'\npartition_by = ['email']".to_owned(), "EncryptedColumn", Some("email")),
        (query.to_owned(), "EncryptedColumn", Some("born")),
        ("mode = 'append'\nderive = { year = { from = 'born', as = 'year' } }".to_owned(), "EncryptedColumn", Some("born")),
        (
            "mode = 'snapshot'\nkey = ['id']\norder = ['seq']\nop = 'op'\ngranularity = 'month'\neffective_column = 'day'"
                .to_owned(),
            "EncryptedColumn",
            None,
        ),
    ] {
        let lab = Lab::new();
        lab.put("raw/customers/1.json", rows(0..5, 1).replace("\"d0\"", "\"2024-01-01\"").replace("\"d1\"", "\"2024-01-02\"")).await;
        let e = go(&lab, &job(&target)).await.unwrap_err();
        assert_eq!((e.code(), e.column()), (code, column), "{target}: {e}");
        assert!(lab.paths("lake/customers").await.is_empty());
        check_hidden(&lab).await;
    }
}

#[tokio::test]
async fn quarantined_records_are_sealed_and_errors_show_no_value() {
    let lab = Lab::new();
    let job = job("mode = 'merge'\nkey = ['id']\norder = ['seq']\nop = 'op'\nmax_quarantined = 60.0")
        .replace("columns = [", "on_error = 'quarantine'\ncolumns = [");
    let bad = format!("{{\"id\":99,\"seq\":\"x\",\"email\":\"{CANARY}.bad@x.com\",\"op\":\"u\"}}\n");
    lab.put("raw/customers/1.json", rows(0..5, 1) + &bad).await;
    go(&lab, &job).await.unwrap();
    check_hidden(&lab).await;
    assert_eq!(quarantined_records(&lab.dataset("lake/customers")).await.unwrap().len(), 1);
    let lab = Lab::new();
    lab.put("raw/customers/1.json", rows(0..1, 1).replace("1961-02-01", CANARY)).await;
    let e = go(&lab, &self::job("mode = 'append'")).await.unwrap_err();
    let message = format!("{e} {:?}", e.details());
    assert!(e.column() == Some("born") && !message.contains(CANARY), "{message}");
}
