//! Tokens, their stores, and detokenization.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use biscuit_core::{Error, Result};
use biscuit_pii::keys::{KeyBytes, RootKeys};
use biscuit_pii::tokens::{
    AccessAudit, AccessRequest, AuditEntry, AuditFile, FileStore, MemoryStore, TokenAlphabet, TokenRecord, TokenStore,
    Tokenizer, ValueNormalization, store_conformance,
};
use proptest::prelude::*;

use crate::keys::SetClock;

fn roots(current: u16, versions: u16) -> RootKeys {
    RootKeys::new(current, (1..=versions).map(|v| (v, KeyBytes::new([v as u8; 32]))).collect::<BTreeMap<_, _>>())
        .expect("the keys are good")
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[derive(Debug, Default)]
struct Entries(Mutex<Vec<AuditEntry>>);

impl AccessAudit for Entries {
    fn record(&self, entry: &AuditEntry) -> Result<()> {
        self.0.lock().expect("no test panics while it holds the lock").push(entry.clone());
        Ok(())
    }
}

pub(crate) fn access() -> AccessRequest {
    AccessRequest::new("tests", "a test", Arc::new(Entries::default())).expect("the keys are good")
}

/// Store that counts the keys and records of its calls.
#[derive(Debug, Default)]
struct Counted {
    of: MemoryStore,
    got: AtomicU64,
    put: AtomicU64,
}

#[async_trait]
impl TokenStore for Counted {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "no key is requested twice");
        self.got.fetch_add(keys.len() as u64, Ordering::SeqCst);
        self.of.get(keys).await
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        self.of.find(aliases).await
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        self.put.fetch_add(records.len() as u64, Ordering::SeqCst);
        self.of.insert(records).await
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        self.of.replace(record).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_of_this_crate_pass_the_conformance_suite() {
    store_conformance(Arc::new(MemoryStore::new())).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.redb");
    store_conformance(Arc::new(FileStore::open(&path, Duration::ZERO).await.unwrap())).await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = FileStore::open(&path, Duration::ZERO).await.unwrap();
    let there = again.get(&["b".into(), "a".into()]).await.unwrap();
    assert!(there.iter().all(Option::is_some), "the records remain when the file is opened again");
}

#[tokio::test]
async fn file_store_is_open_in_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.redb");
    let first = FileStore::open(&path, Duration::ZERO).await.unwrap();
    let e = FileStore::open(&path, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(e.code(), "StoreInUse");
    let waiting = tokio::spawn(FileStore::open(path.clone(), Duration::from_secs(30)));
    tokio::time::sleep(Duration::from_millis(120)).await;
    drop(first);
    waiting.await.unwrap().unwrap();
    std::fs::write(folder.path().join("other"), "no store").unwrap();
    let e = FileStore::open(folder.path().join("other"), Duration::ZERO).await.unwrap_err();
    assert_eq!(e.code(), "StoreFailed");
    assert_eq!(std::fs::read(folder.path().join("other")).unwrap(), b"no store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_get_the_same_token_for_a_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = FileStore::open(folder.path().join("tokens.redb"), Duration::ZERO).await.unwrap();
    let stores: [Arc<dyn TokenStore>; 2] = [Arc::new(MemoryStore::new()), Arc::new(file)];
    for store in stores {
        let task = |n: usize| {
            // Each task has its own tokenizer, so that no cache is shared.
            let tokenizer = Tokenizer::random(roots(1, 1), "ssn", store.clone()).unwrap();
            tokio::spawn(async move {
                let values: Vec<String> = (0..40).map(|at| format!("value {}", (at * 7 + n) % 40)).collect();
                let asked: Vec<&str> = values.iter().map(String::as_str).collect();
                let tokens = tokenizer.tokens(&asked).await.unwrap();
                values.into_iter().zip(tokens).collect::<BTreeMap<_, _>>()
            })
        };
        let mut all = HashSet::new();
        for task in (0..64).map(task).collect::<Vec<_>>() {
            all.insert(task.await.unwrap());
        }
        assert_eq!(all.len(), 1, "all have the same tokens");
        let tokens: HashSet<String> = all.into_iter().next().unwrap().into_values().collect();
        assert_eq!(tokens.len(), 40);
        assert!(tokens.iter().all(|token| token.len() == 36 && token.starts_with("tok_")));
    }
}

/// Store that finds no key, as for two processes that read at the same time.
#[derive(Debug)]
struct Absent(Arc<MemoryStore>);

#[async_trait]
impl TokenStore for Absent {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        Ok(vec![None; keys.len()])
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        self.0.find(aliases).await
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        self.0.insert(records).await
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        self.0.replace(record).await
    }
}

#[tokio::test]
async fn two_writers_that_find_no_token_store_one_and_return_the_same() {
    let kept = Arc::new(MemoryStore::new());
    let one = async || {
        Tokenizer::random(roots(1, 1), "n", Arc::new(Absent(kept.clone()))).unwrap().tokens(&["new"]).await.unwrap()
    };
    let (first, second) = (one().await, one().await);
    assert_eq!(first, second);
    assert_eq!(kept.records().len(), 1);
    assert_eq!(kept.records()[0].alias.as_ref(), Some(&first[0]));
}

#[tokio::test]
async fn values_that_are_equal_after_normalization_have_one_token() {
    let (nfc, nfd) = (" JOSÉ@x.com", "jose\u{301}@x.com ");
    let store = Arc::new(MemoryStore::new());
    let plain = Tokenizer::random(roots(1, 1), "a", store.clone()).unwrap();
    let tokens = plain.tokens(&[nfc, nfd, "josé@x.com"]).await.unwrap();
    assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), 3);
    let steps = [ValueNormalization::Trim, ValueNormalization::Nfc, ValueNormalization::Lowercase];
    let normal = || Tokenizer::random(roots(1, 1), "b", store.clone()).unwrap().with_normalization(steps);
    let tokens = normal().tokens(&[nfc, nfd, "josé@x.com", "  "]).await.unwrap();
    assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), 2, "{tokens:?}");
    assert!(tokens[3].starts_with("tok_"), "a value of which nothing would remain has its own token");
    let back = normal().detokenize("c", &texts(&[Some(&tokens[1])]), &access()).await.unwrap().column;
    assert_eq!(&back, &texts(&[Some(nfc)]), "the spelling that came first");
    for kind in [Tokenizer::keyed(roots(1, 1), "b").unwrap(), Tokenizer::siv(roots(1, 1), "b").unwrap()] {
        let tokens = kind.with_normalization(steps).tokens(&[nfc, nfd]).await.unwrap();
        assert_eq!(tokens[0], tokens[1]);
    }
}

fn all_kinds(namespace: &str, store: &Arc<MemoryStore>) -> Vec<Tokenizer> {
    vec![
        Tokenizer::random(roots(1, 1), namespace, store.clone()).expect("the keys are good"),
        Tokenizer::keyed(roots(1, 1), namespace).expect("the keys are good"),
        Tokenizer::keyed_in(roots(1, 1), namespace, store.clone()).expect("the keys are good"),
        Tokenizer::siv(roots(1, 1), namespace).expect("the keys are good"),
        Tokenizer::ff1(roots(1, 1), namespace, TokenAlphabet::Digits).expect("the keys are good"),
    ]
}

#[tokio::test]
async fn namespaces_have_different_tokens_and_do_not_read_each_other() {
    let store = Arc::new(MemoryStore::new());
    let (emails, logins) = (all_kinds("email", &store), all_kinds("login", &store));
    for (email, login) in emails.iter().zip(&logins) {
        let (ours, theirs) = (email.tokens(&["123456789"]).await.unwrap(), login.tokens(&["123456789"]).await.unwrap());
        assert_ne!(ours, theirs, "{email:?}");
        assert_eq!(ours, email.tokens(&["123456789"]).await.unwrap());
        if format!("{email:?}").contains("Ff1") || format!("{email:?}").contains("Keyed(None)") {
            continue;
        }
        let e = login.detokenize("c", &texts(&[Some(&theirs[0]), Some(&ours[0])]), &access()).await.unwrap_err();
        assert_eq!(e.to_string(), "UnknownToken: column `c`: a text is not a token of `login` (the batch, row 2)");
    }
    let kept = format!("{:?}", store.records());
    assert!(!kept.contains("123456789"), "no clear text in a store");
}

#[tokio::test]
async fn tokens_are_detokenized_exactly_and_the_access_is_recorded() {
    let store = Arc::new(MemoryStore::new());
    let values = texts(&[Some("123-45-6789"), None, Some(""), Some("987-65-4321"), Some("123-45-6789")]);
    for tokenizer in all_kinds("ssn", &store) {
        let tokens = tokenizer.tokenize("ssn", &values).await.unwrap();
        let shown = tokens.as_string::<i32>();
        assert!(shown.is_null(1) && shown.value(2).is_empty() && shown.value(0) == shown.value(4));
        assert!(!shown.iter().flatten().any(|token| token.contains("123-45-6789")), "{shown:?}");
        let entries = Arc::new(Entries::default());
        let access =
            AccessRequest::new("ann", "ticket 7", entries.clone()).unwrap().with_clock(Arc::new(SetClock::default()));
        let back = tokenizer.detokenize("ssn", &tokens, &access).await;
        let written = entries.0.lock().unwrap().clone();
        assert_eq!(
            serde_json::to_string(&written).unwrap(),
            r#"[{"at":"1970-01-01T00:00:00Z","who":"ann","reason":"ticket 7","namespace":"ssn","column":"ssn","tokens":3,"distinct":2}]"#
        );
        match back {
            Ok(back) => assert_eq!((&back.column, back.forgotten), (&values, 0), "{tokenizer:?}"),
            Err(e) => assert_eq!(e.code(), "OneWay"),
        }
    }
    let e = AccessRequest::new("ann", " ", Arc::new(Entries::default())).unwrap_err();
    assert_eq!(e.code(), "NoAccess");
}

#[tokio::test]
async fn nothing_is_shown_if_the_access_cannot_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::siv(roots(1, 1), "n").unwrap();
    let tokens = tokenizer.tokenize("c", &texts(&[Some("v")])).await.unwrap();
    let with = |path| AccessRequest::new("ann", "why", Arc::new(AuditFile::new(path))).unwrap();
    let e = tokenizer.detokenize("c", &tokens, &with(folder.path().join("no/such/folder"))).await.unwrap_err();
    assert_eq!(e.code(), "NoAudit");
    let path = folder.path().join("audit.jsonl");
    for _ in 0..2 {
        tokenizer.detokenize("c", &tokens, &with(path.clone())).await.unwrap();
    }
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert!(!lines.contains("siv1_"), "the audit contains neither values nor tokens: {lines}");
}

#[tokio::test]
async fn million_rows_with_a_thousand_values_read_a_thousand_keys() {
    let store = Arc::new(Counted::default());
    let tokenizer = Tokenizer::random(roots(1, 1), "n", store.clone()).unwrap();
    let values: ArrayRef = Arc::new((0..8000).map(|n| Some(format!("value {}", n % 1000))).collect::<StringArray>());
    for _ in 0..125 {
        tokenizer.tokenize("c", &values).await.unwrap();
    }
    assert_eq!((store.got.load(Ordering::SeqCst), store.put.load(Ordering::SeqCst)), (1000, 1000));
    let known = Tokenizer::random(roots(1, 1), "n", store.clone()).unwrap();
    for _ in 0..125 {
        known.tokenize("c", &values).await.unwrap();
    }
    assert_eq!(
        (store.got.load(Ordering::SeqCst), store.put.load(Ordering::SeqCst)),
        (2000, 1000),
        "no record is inserted again"
    );
}

#[tokio::test]
async fn null_and_empty_texts_do_not_call_the_store() {
    #[derive(Debug)]
    struct Refuses;
    #[async_trait]
    impl TokenStore for Refuses {
        async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
            if keys.is_empty() { Ok(vec![]) } else { Err(Error::internal("asked")) }
        }
        async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
            if aliases.is_empty() { Ok(vec![]) } else { Err(Error::internal("asked")) }
        }
        async fn insert(&self, _: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
            Ok(vec![])
        }
        async fn replace(&self, _: TokenRecord) -> Result<()> {
            Err(Error::internal("asked"))
        }
    }
    let tokenizer = Tokenizer::random(roots(1, 1), "n", Arc::new(Refuses)).unwrap();
    let values = texts(&[None, Some("")]);
    assert_eq!(&tokenizer.tokenize("c", &values).await.unwrap(), &values);
    assert_eq!(&tokenizer.detokenize("c", &values, &access()).await.unwrap().column, &values);
}

#[tokio::test]
async fn random_tokens_survive_a_rotation_and_others_contain_their_version() {
    let store = Arc::new(MemoryStore::new());
    let random = |current, versions| Tokenizer::random(roots(current, versions), "n", store.clone()).unwrap();
    let first = random(1, 1).tokens(&["v"]).await.unwrap();
    assert_eq!(random(2, 2).tokens(&["v"]).await.unwrap(), first);
    assert_eq!(store.records().len(), 2, "the token has a record for the new key as well");
    // So the old key can be removed later.
    let only_new = RootKeys::new(2, BTreeMap::from([(2, KeyBytes::new([2; 32]))])).unwrap();
    let only_new = Tokenizer::random(only_new, "n", store.clone()).unwrap();
    assert_eq!(only_new.tokens(&["v"]).await.unwrap(), first);
    let token = texts(&[Some(&first[0])]);
    assert_eq!(&only_new.detokenize("c", &token, &access()).await.unwrap().column, &texts(&[Some("v")]));
    // A newer version exists but is not yet current.
    let new = random(2, 2).tokens(&["w"]).await.unwrap();
    assert_eq!(random(1, 2).tokens(&["w"]).await.unwrap(), new);

    let keyed = |current, versions| Tokenizer::keyed(roots(current, versions), "n").unwrap();
    let (old, new) = (keyed(1, 2).tokens(&["v"]).await.unwrap(), keyed(2, 2).tokens(&["v"]).await.unwrap());
    assert!(old[0].starts_with("tok1_") && new[0].starts_with("tok2_"), "{old:?} {new:?}");
    let siv = |current| Tokenizer::siv(roots(current, 2), "n").unwrap();
    let ff1 = |current| Tokenizer::ff1(roots(current, 2), "n", TokenAlphabet::Digits).unwrap();
    let token = ff1(1).tokens(&["123456789"]).await.unwrap();
    assert_eq!(ff1(2).with_version(1).unwrap().tokens(&["123456789"]).await.unwrap(), token);
    assert_eq!(ff1(2).with_version(3).unwrap_err().code(), "UnknownKeyVersion");
    assert_eq!(random(1, 1).with_version(1).unwrap_err().code(), "InStore");
    for (pinned, old) in [(keyed(2, 2), keyed(1, 1)), (siv(2), siv(1))] {
        let (pinned, old) = (pinned.with_version(1).unwrap().tokens(&["v"]).await, old.tokens(&["v"]).await);
        assert_eq!(pinned.unwrap(), old.unwrap());
    }
}

#[tokio::test]
async fn ff1_preserves_the_format_and_refuses_small_domains() {
    let digits = Tokenizer::ff1(roots(1, 1), "ssn", TokenAlphabet::Digits).unwrap();
    let tokens = digits.tokens(&["123-45-6789", "123-45-6780"]).await.unwrap();
    for token in &tokens {
        let form: String = token.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(form, "999-99-9999");
    }
    assert_ne!(tokens[0], tokens[1]);
    let e = digits.tokenize("zip", &texts(&[None, Some("123456"), Some("90210")])).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        "SmallDomain: column `zip`: FF1 would hide nothing in a value of 5 characters, with fewer than a million forms; it needs 6 characters (NIST SP 800-38G) (the batch, row 3)"
    );
    let e = digits.tokenize("plate", &texts(&[Some("AB 123456")])).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("OtherCharacter", Some("plate")));
    let letters = Tokenizer::ff1(roots(1, 1), "plate", TokenAlphabet::Alphanumeric).unwrap();
    let token = letters.tokenize("plate", &texts(&[Some("ab-12cd")])).await.unwrap();
    assert_eq!(&letters.detokenize("plate", &token, &access()).await.unwrap().column, &texts(&[Some("ab-12cd")]));
    assert_eq!(
        letters.tokens(&["Ab-12cd"]).await.unwrap_err().code(),
        "OtherCharacter",
        "detokenization could not restore the capital letter"
    );
    assert_eq!(letters.tokens(&["ab1"]).await.unwrap_err().code(), "SmallDomain");
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1234567]));
    let token = digits.tokenize("n", &number).await.unwrap();
    assert_eq!(
        &cast(&digits.detokenize("n", &token, &access()).await.unwrap().column, &DataType::Int64).unwrap(),
        &number
    );
}

#[tokio::test]
async fn forgotten_value_keeps_its_token_and_cannot_be_detokenized() {
    let store = Arc::new(MemoryStore::new());
    let tokenizer = |current| Tokenizer::random(roots(current, 2), "ssn", store.clone()).unwrap();
    let tokens = tokenizer(1).tokens(&["one", "two"]).await.unwrap();
    assert_eq!(tokenizer(2).tokens(&["one"]).await.unwrap()[0], tokens[0]);
    assert_eq!(tokenizer(2).forget(&[&tokens[0]]).await.unwrap(), 1);
    assert_eq!(tokenizer(2).forget(&[&tokens[0]]).await.unwrap(), 0, "again");
    for current in [1, 2] {
        let column = texts(&[Some(&tokens[0]), Some(&tokens[1])]);
        let back = tokenizer(current).detokenize("c", &column, &access()).await.unwrap();
        assert_eq!((back.column, back.forgotten), (texts(&[None, Some("two")]), 1));
        assert_eq!(tokenizer(current).tokens(&["one"]).await.unwrap()[0], tokens[0], "the token still joins");
    }
    let sealed = store.records().into_iter().filter(|record| record.alias.as_ref() == Some(&tokens[0]));
    assert!(
        sealed.clone().count() == 2 && sealed.into_iter().all(|record| record.value.is_empty()),
        "in both versions"
    );
    // The same after a later rotation, when old input is read again.
    let later = |current| Tokenizer::random(roots(current, 3), "ssn", store.clone()).unwrap();
    assert_eq!(later(3).tokens(&["one"]).await.unwrap()[0], tokens[0]);
    let column = texts(&[Some(&tokens[0])]);
    assert_eq!(later(3).detokenize("c", &column, &access()).await.unwrap().forgotten, 1);
    assert_eq!(
        later(3).known_tokens(&["one", "never"]).await.unwrap(),
        [Some(tokens[0].clone()), None],
        "no token is created"
    );
    assert_eq!(tokenizer(1).forget(&["tok_x"]).await.unwrap_err().code(), "UnknownToken");
    let siv = Tokenizer::siv(roots(1, 1), "n").unwrap();
    assert_eq!(siv.forget(&["x"]).await.unwrap_err().code(), "NoStore");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_values_are_detokenized_and_equal_values_have_equal_tokens(values in proptest::collection::vec(".{0,20}", 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(MemoryStore::new());
            let column: ArrayRef = Arc::new(StringArray::from(values.clone()));
            for tokenizer in &all_kinds("n", &store)[..4] {
                let tokens = tokenizer.tokenize("c", &column).await.unwrap();
                let tokens = tokens.as_string::<i32>();
                for (a, token) in values.iter().zip(tokens.iter().flatten()) {
                    for (b, other) in values.iter().zip(tokens.iter().flatten()) {
                        assert_eq!(a == b, token == other);
                    }
                }
                if !format!("{tokenizer:?}").contains("Keyed(None)") {
                    let tokens: ArrayRef = Arc::new(tokens.clone());
                    assert_eq!(&tokenizer.detokenize("c", &tokens, &access()).await.unwrap().column, &column);
                }
            }
        });
    }
}

#[tokio::test]
async fn error_of_a_damaged_store_contains_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.redb");
    drop(FileStore::open(&path, std::time::Duration::ZERO).await.unwrap());
    let sound = std::fs::read(&path).unwrap();
    for at in [0, 9, 64, 130, 200, 4_096, sound.len() / 2] {
        let mut bytes = sound.clone();
        bytes[at..(at + 64).min(sound.len())].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let opened = FileStore::open(&path, std::time::Duration::ZERO).await;
        let found = match opened {
            Ok(store) => biscuit_pii::tokens::TokenStore::get(&store, &["a".to_owned()]).await.map(drop),
            Err(e) => Err(e),
        };
        if let Err(e) = found {
            assert!(e.code() == "StoreFailed" && e.message().contains("tokens.redb"), "{at}: {e}");
        }
    }
    std::fs::write(&path, &sound[..sound.len() / 3]).unwrap();
    let e = FileStore::open(&path, std::time::Duration::ZERO).await.unwrap_err();
    assert_eq!(e.code(), "StoreFailed", "{e}");
}
