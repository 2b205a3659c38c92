//! SQL queries with the functions.

use std::sync::{Arc, Mutex};

use biscuit_core::Result;
use biscuit_pii::PiiContext;
use biscuit_pii::keys::RootKeys;
use biscuit_pii::tokens::{AccessAudit, AccessRequest, AuditEntry, MemoryStore};
use biscuit_pii_functions::PiiFunctions;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;

#[derive(Debug, Default)]
struct Entries(Mutex<Vec<AuditEntry>>);

impl AccessAudit for Entries {
    fn record(&self, entry: &AuditEntry) -> Result<()> {
        self.0.lock().expect("no other test panicked while it had the lock").push(entry.clone());
        Ok(())
    }
}

fn means() -> PiiContext {
    let roots = RootKeys::in_memory().expect("the key is valid");
    PiiContext::new().with_roots(roots).with_store(Arc::new(MemoryStore::new()))
}

/// Returns the rows of a query, or its error message.
async fn rows(ctx: &SessionContext, sql: &str) -> std::result::Result<String, String> {
    let message = |e: datafusion::error::DataFusionError| e.strip_backtrace();
    let batches = ctx.sql(sql).await.map_err(message)?.collect().await.map_err(message)?;
    let text = pretty_format_batches(&batches).expect("the table is printable").to_string();
    Ok(text.lines().skip(3).filter(|line| !line.starts_with('+')).map(str::to_owned).collect::<Vec<_>>().join("\n"))
}

const TABLE: &str =
    "(VALUES (1, '123-45-6789'), (2, NULL), (3, ''), (4, '123-45-6789'), (5, '234-56-7890')) AS t(id, ssn)";

#[tokio::test]
async fn tokens_join_and_are_detokenized_with_an_audited_access() {
    let (ctx, entries) = (SessionContext::new(), Arc::new(Entries::default()));
    let access = AccessRequest::new("ann", "ticket 7", entries.clone()).unwrap();
    PiiFunctions::new(means(), "t").with_access(access).register(&ctx);
    let numbers = |text: String| {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    for kind in ["random", "keyed", "siv", "ff1"] {
        let tokens = format!("SELECT ssn, pii_tokenize(ssn, 'ssn', '{kind}') AS token FROM {TABLE}");
        let sql = format!("SELECT count(DISTINCT token), count(token), count(*) FROM ({tokens})");
        assert_eq!(numbers(rows(&ctx, &sql).await.unwrap()), [3, 4, 5], "{kind}: an empty value has an empty token");
        // DataFusion 55 does not support an asynchronous function inside of another one, so the tokens are a table
        // first.
        ctx.sql(&format!("CREATE TABLE {kind} AS {tokens}")).await.unwrap().collect().await.unwrap();
        let back = format!("SELECT ssn, pii_detokenize(token, 'ssn', '{kind}') AS value FROM {kind}");
        let back = format!("SELECT count(*) FROM ({back}) WHERE value IS DISTINCT FROM ssn");
        assert_eq!(numbers(rows(&ctx, &back).await.unwrap()), [0], "{kind}");
    }
    let before = entries.0.lock().unwrap().len();
    assert!(before >= 4);
    let cells = format!("CREATE TABLE cells AS SELECT ssn, pii_encrypt(ssn, 'ssn') AS cell FROM {TABLE}");
    ctx.sql(&cells).await.unwrap().collect().await.unwrap();
    let back = "SELECT count(*) FROM (SELECT ssn, pii_decrypt(cell, 'ssn') AS value FROM cells) WHERE value IS DISTINCT FROM ssn";
    assert_eq!(numbers(rows(&ctx, back).await.unwrap()), [0]);
    assert!(entries.0.lock().unwrap().len() > before, "the access is recorded");
    let moved = rows(&ctx, "SELECT pii_decrypt(cell, 'login') FROM cells").await.unwrap_err();
    assert!(moved.contains("CannotDecrypt: column `login`"), "{moved}");
}

#[tokio::test]
async fn values_are_not_restored_without_an_access() {
    let ctx = SessionContext::new();
    PiiFunctions::new(means(), "t").register(&ctx);
    for function in ["pii_detokenize", "pii_decrypt"] {
        let e = rows(&ctx, &format!("SELECT {function}(ssn, 'ssn') FROM {TABLE}")).await.unwrap_err();
        assert!(e.contains("Invalid function"), "{e}");
    }
}

#[tokio::test]
async fn texts_are_redacted_masked_and_hashed() {
    let ctx = SessionContext::new();
    PiiFunctions::new(means(), "t").register(&ctx);
    let sql = "SELECT pii_redact('at ann@example.com'), pii_mask('+1 212-555-0100', 0, 4), pii_mask(12345, 0, 2), length(pii_hash('x', 'n'))";
    assert_eq!(
        rows(&ctx, sql).await.unwrap().split_whitespace().collect::<String>(),
        "|at<EMAIL_ADDRESS>|+****-***-0100|***45|32|"
    );
}

#[tokio::test]
async fn wrong_arguments_are_reported() {
    let ctx = SessionContext::new();
    PiiFunctions::new(PiiContext::new(), "t").register(&ctx);
    let error_of = async |expression: &str| rows(&ctx, &format!("SELECT {expression} FROM {TABLE}")).await.unwrap_err();
    for (expression, part) in [
        ("pii_tokenize(ssn, 'ssn')", "NoKeys"),
        ("pii_tokenize(ssn)", "InvalidArguments: pii_tokenize needs 2 to 3 arguments, not 1"),
        ("pii_hash(ssn, ssn)", "InvalidArguments: pii_hash needs a namespace as a constant text"),
        ("pii_mask(ssn, -1, 2)", "InvalidArguments: pii_mask needs constant numbers of at least 0"),
        ("pii_redact(id)", "NotText: pii_redact needs a text column, not Int64"),
    ] {
        let e = error_of(expression).await;
        assert!(e.contains(part), "{e}");
    }
    let ctx = SessionContext::new();
    PiiFunctions::new(PiiContext::new().with_roots(RootKeys::in_memory().unwrap()), "t").register(&ctx);
    let e = rows(&ctx, &format!("SELECT pii_tokenize(ssn, 'ssn') FROM {TABLE}")).await.unwrap_err();
    assert!(e.contains("NoStore"), "{e}");
    let e = rows(&ctx, &format!("SELECT pii_tokenize(ssn, 'ssn', 'ff3') FROM {TABLE}")).await.unwrap_err();
    assert!(e.contains("InvalidArguments"), "{e}");
}
