//! Erasures that are interrupted after each step and run again: nothing of the subject remains in any store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use biscuit_apply::{Merge, MergeOptions, MergeSpec, quarantined_records};
use biscuit_change::{BadRows, RowsOptions, RowsReader};
use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::{Dataset, Location, OpenFile};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_maintain::report::SubjectErasureReport;
use biscuit_maintain::{ErasureTable, SubjectErasure, group_quarantined, reveal_quarantined};
use biscuit_pii::encrypt::SubjectKeys;
use biscuit_pii::keys::RootKeys;
use biscuit_pii::tokens::{AccessAudit, AccessRequest, AuditEntry, MemoryStore, TokenRecord, TokenStore};
use biscuit_pii::{PiiContext, Policy, Protector};
use biscuit_rewrite::RunMode;
use biscuit_testkit::{InjectedFault, crash_at_every_call, table};

use crate::lab::{memory, names};

/// A table with two persons whose names and numbers are tokenized, and the store of the tokens.
struct TokenizedTable {
    storage: TableStorage,
    tokens: Arc<MemoryStore>,
}

fn dataset(storage: &TableStorage) -> Dataset {
    let location = Location::new(storage.clone(), "lake/t", "lake/t").expect("the path is below the root");
    Dataset::new(location, JournalOptions::default())
}

fn means(roots: &RootKeys, tokens: Arc<dyn TokenStore>) -> PiiContext {
    PiiContext::new().with_roots(roots.clone()).with_store(tokens)
}

fn protector(means: &PiiContext) -> Protector {
    let policy = Policy::parse("[columns]\nid = \"tokenize\"\nssn = \"tokenize\"\n").expect("the policy is valid");
    Protector::new(&policy, "t", [], means).expect("the policy has its keys and its store")
}

/// Returns the tokens of the name and of the number of a person.
async fn tokens_of(protector: &Protector, name: &str, ssn: &str) -> [String; 2] {
    let one = async |column: &str, value: &str| {
        let mut tokens = protector.tokens_for(column, &[value.to_owned()]).await.expect("the store answers");
        tokens.pop().expect("the value has a token")
    };
    [one("id", name).await, one("ssn", ssn).await]
}

async fn populated(roots: &RootKeys) -> TokenizedTable {
    let tokens = Arc::new(MemoryStore::new());
    let protector = protector(&means(roots, tokens.clone()));
    let persons = table(
        "
        id:string | ssn:string
        ann       | 111-11-1111
        bob       | 222-22-2222
    ",
    );
    protector.apply(&persons).await.expect("the values are tokenized");
    let mut lines = String::new();
    for (name, ssn) in [("ann", "111-11-1111"), ("bob", "222-22-2222")] {
        let [id, ssn] = tokens_of(&protector, name, ssn).await;
        lines.push_str(&format!("{{\"id\":\"{id}\",\"seq\":1,\"ssn\":\"{ssn}\",\"op\":\"u\"}}\n"));
    }
    // An invalid record with an unknown operation is quarantined, with the name as it arrived.
    lines.push_str("{\"id\":\"ann\",\"seq\":2,\"ssn\":\"x\",\"op\":\"?\"}\n");
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op").with_bad_rows(BadRows::Quarantine));
    reader.read("changes.jsonl", lines.into_bytes().into()).expect("the records are JSON");
    let storage = memory();
    let spec = MergeSpec::new(["id"], ["seq"]).expect("the spec is valid");
    let options = MergeOptions::default().with_parallelism(1).with_bad_rows(BadRows::Quarantine, 100.0);
    let merge = Merge::new(dataset(&storage), spec, options).expect("the options are valid");
    let report = merge.run(reader.finish().expect("the records are read"), RunMode::Commit).await;
    assert_eq!(report.expect("the merge succeeds").verdicts.quarantined, 1);
    TokenizedTable { storage, tokens }
}

/// Erases ann: the values of her tokens, her row, her quarantined record, and her key.
async fn erase(
    storage: &TableStorage,
    tokens: Arc<dyn TokenStore>,
    roots: &RootKeys,
    mode: RunMode,
) -> Result<SubjectErasureReport> {
    let means = means(roots, tokens);
    let table = ErasureTable::new(dataset(storage), "id").with_policy(protector(&means), means.clone(), "t");
    let erasure = SubjectErasure::new(["ann"]).with_table(table.with_tokens(["ssn"])).with_subject_keys(means);
    erasure.run(mode).await
}

async fn rows(storage: &TableStorage) -> u64 {
    let snapshot = dataset(storage).view().await.expect("the table is readable");
    let files = snapshot.open_files().await.expect("the files open");
    files.iter().map(OpenFile::rows).sum()
}

/// Returns whether the values of both tokens of a person are stored.
async fn stored_values(world: &TokenizedTable, roots: &RootKeys, name: &str, ssn: &str) -> [bool; 2] {
    let of = tokens_of(&protector(&means(roots, world.tokens.clone())), name, ssn).await;
    let records = world.tokens.records();
    of.map(|token| {
        let record = records.iter().find(|record| record.alias.as_ref() == Some(&token));
        !record.expect("the token remains").value.is_empty()
    })
}

/// Checks that nothing of ann remains, and everything of bob.
async fn check_erased(world: &TokenizedTable, roots: &RootKeys, after: &str) {
    assert_eq!(rows(&world.storage).await, 1, "{after}");
    let quarantine = quarantined_records(&dataset(&world.storage)).await.expect("the quarantine is readable");
    assert_eq!(quarantine.len(), 0, "{after}");
    assert_eq!(stored_values(world, roots, "ann", "111-11-1111").await, [false, false], "{after}");
    assert_eq!(stored_values(world, roots, "bob", "222-22-2222").await, [true, true], "{after}");
    let keys = SubjectKeys::new(world.tokens.clone(), roots.clone());
    let forgotten = async |name: &str| keys.is_forgotten(name).await.expect("the store answers");
    assert!(forgotten("ann").await && !forgotten("bob").await, "{after}");
}

/// A token store whose n-th change fails.
#[derive(Debug)]
struct FailingTokens {
    inner: Arc<MemoryStore>,
    changes: AtomicU32,
    fail_at: u32,
}

#[async_trait]
impl TokenStore for FailingTokens {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        self.inner.get(keys).await
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        self.inner.find(aliases).await
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        self.inner.insert(records).await
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        if self.changes.fetch_add(1, Ordering::SeqCst) + 1 == self.fail_at {
            return Err(Error::new(biscuit_core::codes::STORE_UNAVAILABLE, "injected fault"));
        }
        self.inner.replace(record).await
    }
}

#[tokio::test]
async fn erasure_covers_tokens_rows_quarantine_and_keys() {
    let roots = RootKeys::in_memory().unwrap();
    let world = populated(&roots).await;
    assert_eq!(group_quarantined(&quarantined_records(&dataset(&world.storage)).await.unwrap()).len(), 1);
    let report = erase(&world.storage, world.tokens.clone(), &roots, RunMode::Commit).await.unwrap();
    check_erased(&world, &roots, "one run").await;
    assert!(report.outcome == Outcome::Done && !report.has_exceptions(), "{report:?}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["subjects"], &json["tokens"]["ssn"], &json["keys_deleted"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(json["quarantine"], serde_json::json!({"discarded": 1, "unknown": 0}));
    assert_eq!((&json["erased"]["erased"], &json["erased"]["outcome"]), (&1.into(), &"committed".into()));
    let again = erase(&world.storage, world.tokens.clone(), &roots, RunMode::Commit).await.unwrap();
    assert_eq!((again.tokens[0].tokens, again.erased.map(|erased| erased.erased.erased)), (0, Some(0)));
    check_erased(&world, &roots, "two runs").await;
}

#[tokio::test]
async fn erasure_that_crashes_at_any_call_to_the_store_is_completed_by_the_next_run() {
    let roots = RootKeys::in_memory().unwrap();
    let tokens = Mutex::new(Arc::new(MemoryStore::new()));
    let (roots, tokens) = (&roots, &tokens);
    let current = move || tokens.lock().unwrap().clone();
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let setup = move || async move {
            let world = populated(roots).await;
            *tokens.lock().unwrap() = world.tokens;
            world.storage
        };
        let job = move |storage: TableStorage| async move {
            erase(&storage, current(), roots, RunMode::Commit).await.map(drop)
        };
        let check = move |storage: TableStorage, call: u64| async move {
            let world = TokenizedTable { storage, tokens: current() };
            check_erased(&world, roots, &format!("{fault:?} at call {call}")).await;
        };
        assert!(crash_at_every_call(fault, setup, job, check).await.crashed > 10);
    }
}

#[tokio::test]
async fn erasure_that_stops_between_two_steps_is_completed_by_the_next_run() {
    let roots = RootKeys::in_memory().unwrap();
    // Rows after each change of the token store failed: the token in a row is forgotten before the row is erased, and
    // the token that identifies the row afterwards.
    for (fail_at, rows_left) in [(1, 2), (2, 1), (3, 1)] {
        let world = populated(&roots).await;
        let failing = FailingTokens { inner: world.tokens.clone(), changes: AtomicU32::new(0), fail_at };
        let e = erase(&world.storage, Arc::new(failing), &roots, RunMode::Commit).await.unwrap_err();
        assert_eq!((e.code(), rows(&world.storage).await), ("StoreUnavailable", rows_left), "change {fail_at}");
        let left = stored_values(&world, &roots, "ann", "111-11-1111").await;
        assert_eq!(left, [fail_at < 3, fail_at < 2], "change {fail_at}: name and number");
        erase(&world.storage, world.tokens.clone(), &roots, RunMode::Commit).await.expect("the next run succeeds");
        check_erased(&world, &roots, &format!("change {fail_at} failed")).await;
    }
}

#[tokio::test]
async fn dry_run_reports_what_would_be_erased_and_changes_nothing() {
    let roots = RootKeys::in_memory().unwrap();
    let world = populated(&roots).await;
    let (objects, records) = (names(&world.storage, "lake").await, world.tokens.records());
    let report = erase(&world.storage, world.tokens.clone(), &roots, RunMode::DryRun).await.unwrap();
    assert_eq!((report.outcome, report.tokens[0].tokens, report.keys_deleted), (Outcome::Planned, 1, Some(0)));
    assert_eq!(report.erased.map(|erased| (erased.erased.outcome, erased.erased.erased)), Some((Outcome::Planned, 1)));
    assert_eq!((names(&world.storage, "lake").await, world.tokens.records()), (objects, records));
}

#[tokio::test]
async fn rows_remain_if_only_their_tokens_are_forgotten() {
    let roots = RootKeys::in_memory().unwrap();
    let world = populated(&roots).await;
    let means = means(&roots, world.tokens.clone());
    let table = ErasureTable::new(dataset(&world.storage), "id").with_policy(protector(&means), means, "t");
    let erasure = SubjectErasure::new(["ann"]).with_table(table.with_tokens(["ssn"]).keeping_rows());
    let report = erasure.run(RunMode::Commit).await.unwrap();
    assert_eq!((report.outcome, report.erased.is_none(), report.quarantine), (Outcome::Done, true, None));
    assert_eq!(rows(&world.storage).await, 2);
    // The name of the subject is forgotten as well: its token is that of the column that identifies the subject.
    assert_eq!(stored_values(&world, &roots, "ann", "111-11-1111").await, [false, false]);
}

#[tokio::test]
async fn unknown_subject_is_not_found_and_a_missing_store_of_keys_is_an_error() {
    let roots = RootKeys::in_memory().unwrap();
    let world = populated(&roots).await;
    let table = || ErasureTable::new(dataset(&world.storage), "ssn");
    let report = SubjectErasure::new(["nobody"]).with_table(table()).run(RunMode::Commit).await.unwrap();
    assert_eq!((report.outcome, report.keys_deleted), (Outcome::NothingFound, None), "{report:?}");
    let e = SubjectErasure::new(["ann"]).with_subject_keys(PiiContext::new()).run(RunMode::Commit).await.unwrap_err();
    assert_eq!(e.code(), "NoStore");
    let missing = Location::new(memory(), "lake/typo", "lake/typo").unwrap();
    let missing = ErasureTable::new(Dataset::new(missing, JournalOptions::default()), "id");
    let e = SubjectErasure::new(["ann"]).with_table(missing).run(RunMode::DryRun).await.unwrap_err();
    assert_eq!(e.code(), "NoTable");
}

#[tokio::test]
async fn missing_store_of_keys_is_found_before_anything_is_erased() {
    let roots = RootKeys::in_memory().unwrap();
    let world = populated(&roots).await;
    let (objects, records) = (names(&world.storage, "lake").await, world.tokens.records());
    let all = means(&roots, world.tokens.clone());
    for incomplete in [PiiContext::new(), PiiContext::new().with_roots(roots.clone())] {
        for mode in [RunMode::DryRun, RunMode::Commit] {
            let table = ErasureTable::new(dataset(&world.storage), "id");
            let table = table.with_policy(protector(&all), all.clone(), "t").with_tokens(["ssn"]);
            let erasure = SubjectErasure::new(["ann"]).with_table(table).with_subject_keys(incomplete.clone());
            assert_eq!(erasure.run(mode).await.unwrap_err().code(), "NoStore");
            assert_eq!(rows(&world.storage).await, 2);
            assert_eq!(
                (names(&world.storage, "lake").await, world.tokens.records()),
                (objects.clone(), records.clone())
            );
        }
    }
    // With the store, the same erasure is complete.
    erase(&world.storage, world.tokens.clone(), &roots, RunMode::Commit).await.unwrap();
    check_erased(&world, &roots, "after the refused runs").await;
}

/// An audit that counts its entries, and refuses them after a number.
#[derive(Debug)]
struct CountingAudit {
    entries: AtomicU32,
    limit: u32,
}

impl AccessAudit for CountingAudit {
    fn record(&self, _: &AuditEntry) -> Result<()> {
        if self.entries.fetch_add(1, Ordering::SeqCst) < self.limit {
            return Ok(());
        }
        Err(Error::new(biscuit_pii::codes::NO_AUDIT, "injected refusal"))
    }
}

#[tokio::test]
async fn access_to_quarantined_records_is_recorded_before_they_are_decrypted() {
    let roots = RootKeys::in_memory().unwrap();
    let world = populated(&roots).await;
    let mut records = quarantined_records(&dataset(&world.storage)).await.unwrap();
    // The record is sealed and there are no keys, so decrypting it is an error.
    records[0].refused.raw = b"biscuit-sealed:x".to_vec();
    let audit = Arc::new(CountingAudit { entries: AtomicU32::new(0), limit: 1 });
    let access = AccessRequest::new("tests", "ticket-7", audit.clone()).unwrap();
    let reveal = async || reveal_quarantined(records.clone(), &PiiContext::new(), "t", &access).await.unwrap_err();
    let e = reveal().await;
    assert_eq!((e.code(), audit.entries.load(Ordering::SeqCst)), ("NoKeys", 1), "{e}");
    let e = reveal().await;
    assert_eq!(e.code(), "NoAudit", "without an entry nothing is decrypted: {e}");
}
