//! Key providers, key files, root keys, and the cache of data keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use biscuit_core::{Clock, Instant, Result};
use biscuit_pii::keys::{
    DataKey, KeyBytes, KeyCache, KeyContext, KeyFile, KeyLimits, KeyProvider, KeyWrapping, RootKeys, SealedKey,
    WrappingKeys,
};
use biscuit_pii::tokens::Tokenizer;

/// Clock that tests set.
#[derive(Debug, Default)]
pub(crate) struct SetClock(AtomicI64);

impl SetClock {
    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Instant {
        Instant::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Key provider that counts its calls.
#[derive(Debug)]
pub(crate) struct Counted {
    of: WrappingKeys,
    pub(crate) made: AtomicU64,
    pub(crate) unsealed: AtomicU64,
}

impl Counted {
    pub(crate) fn new() -> Self {
        Self {
            of: WrappingKeys::in_memory().expect("the keys are good"),
            made: AtomicU64::new(0),
            unsealed: AtomicU64::new(0),
        }
    }

    pub(crate) fn calls(&self) -> (u64, u64) {
        (self.made.load(Ordering::SeqCst), self.unsealed.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl KeyProvider for Counted {
    async fn generate(&self, context: &KeyContext) -> Result<DataKey> {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.of.generate(context).await
    }

    async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<KeyBytes>> {
        self.unsealed.fetch_add(1, Ordering::SeqCst);
        self.of.unseal(sealed, context).await
    }
}

fn context(value: &str) -> KeyContext {
    KeyContext::from([("table".into(), value.into())])
}

#[tokio::test]
async fn data_key_is_unsealed_only_by_its_wrapping_key_with_its_context() {
    let old = WrappingKeys::new("ns", "old", KeyBytes::new([1; 16])).unwrap();
    let new = WrappingKeys::new("ns", "new", KeyBytes::new([2; 32]))
        .unwrap()
        .with_key("old", KeyBytes::new([1; 16]))
        .unwrap();
    let key = old.generate(&context("a")).await.unwrap();
    assert_eq!(new.unseal(&key.sealed, &context("a")).await.unwrap(), Some(key.secret.clone()));
    assert_eq!(new.unseal(&key.sealed, &context("b")).await.unwrap_err().code(), "CannotUnseal");
    let other = WrappingKeys::new("ns", "old", KeyBytes::new([3; 16])).unwrap();
    assert_eq!(other.unseal(&key.sealed, &context("a")).await.unwrap_err().code(), "CannotUnseal");
    let elsewhere = WrappingKeys::new("elsewhere", "old", KeyBytes::new([1; 16])).unwrap();
    assert_eq!(elsewhere.unseal(&key.sealed, &context("a")).await.unwrap(), None, "of another namespace");
    for at in 0..key.sealed.bytes.len() {
        let mut damaged = key.sealed.clone();
        damaged.bytes[at] ^= 1;
        assert_eq!(old.unseal(&damaged, &context("a")).await.unwrap_err().code(), "CannotUnseal", "byte {at}");
    }
    assert_eq!(WrappingKeys::new("ns", "x", KeyBytes::new([1; 31])).unwrap_err().code(), "WeakKey");
    assert_ne!(old.generate(&context("a")).await.unwrap().secret, key.secret);
}

#[tokio::test]
async fn cached_data_key_is_used_within_its_limits_and_context() {
    let (provider, clock) = (Arc::new(Counted::new()), Arc::new(SetClock::default()));
    let limits = KeyLimits::default().with_messages(3).with_bytes(100).with_age(Duration::from_secs(60));
    let cache = KeyCache::new(provider.clone(), limits).with_clock(clock.clone());
    let made = async |table: &str, bytes: u64| {
        let before = provider.calls().0;
        cache.data_key(&context(table), bytes).await.unwrap();
        provider.calls().0 - before
    };
    assert_eq!([made("a", 10).await, made("a", 10).await, made("a", 10).await], [1, 0, 0]);
    assert_eq!(made("a", 10).await, 1, "three messages");
    assert_eq!(made("b", 10).await, 1, "another context");
    assert_eq!(made("a", 91).await, 1, "more than 100 bytes");
    assert_eq!(made("c", 1000).await, 1, "one message may be above the limit");
    assert_eq!(made("b", 10).await, 0);
    clock.forward(Duration::from_secs(60));
    assert_eq!(made("b", 10).await, 1, "a minute");

    let key = cache.data_key(&context("d"), 1).await.unwrap();
    let unsealed = async || {
        let before = provider.calls().1;
        assert_eq!(cache.unseal(&key.sealed, &context("d")).await.unwrap(), Some(key.secret.clone()));
        provider.calls().1 - before
    };
    assert_eq!([unsealed().await, unsealed().await], [1, 0]);
    clock.forward(Duration::from_secs(60));
    assert_eq!(unsealed().await, 1);
}

#[tokio::test]
async fn key_file_is_written_read_and_rotated_and_keeps_older_versions() {
    let file = KeyFile::local().await.unwrap();
    let KeyWrapping::Local(keys) = file.wrapping().clone() else { panic!() };
    let text = file.to_text().unwrap();
    let read = KeyFile::parse(&text).unwrap();
    let before = read.roots(&keys).await.unwrap();
    let rotated = KeyFile::parse(&read.with_new_keys(&keys).await.unwrap().to_text().unwrap()).unwrap();
    let KeyWrapping::Local(keys) = rotated.wrapping().clone() else { panic!() };
    assert_eq!((rotated.current(), keys.current()), (2, "2"));
    let after = rotated.roots(&keys).await.unwrap();
    // Values of the first version can be read with the rotated file.
    let siv = |roots: &RootKeys| Tokenizer::siv(roots.clone(), "x").unwrap();
    let old = siv(&before).tokens(&["value"]).await.unwrap();
    let new = siv(&after).tokens(&["value"]).await.unwrap();
    assert!(old[0].starts_with("siv1_") && new[0].starts_with("siv2_"));
    let shown = format!("{file:?} {rotated:?} {before:?}");
    let secret = text.lines().find_map(|line| line.strip_prefix("\"1\" = \"")).unwrap();
    assert!(secret.len() > 40 && !shown.contains(&secret[..16]), "keys are not printed");
}

#[tokio::test]
async fn error_of_an_invalid_key_file_has_a_reason_and_no_key() {
    let file = KeyFile::local().await.unwrap();
    let text = file.to_text().unwrap();
    let key = text.lines().find_map(|line| line.strip_prefix("\"1\" = \"")).unwrap().trim_end_matches('"');
    let said = |text: &str| {
        let e = KeyFile::parse(text).unwrap_err();
        assert_eq!(e.code(), "InvalidKeyFile");
        assert!(!e.to_string().contains(&key[..8]) && !format!("{e:?}").contains(&key[..8]), "{e}");
        e.message().to_owned()
    };
    let wrong = |from: &str, to: &str| said(&text.replacen(from, to, 1));
    insta_like(&[
        (wrong("current = 1", "current = 7"), "the current root key, 7, is not in [roots.keys]"),
        (wrong("current = \"1\"", "current = \"7\""), "the current wrapping key, `7`, is not in [wrapping.keys]"),
        (wrong(key, "!!"), "the wrapping key `1` is not base64"),
        (
            wrong("current = \"1\"", "kms = \"alias/x\""),
            "[wrapping] needs either `kms`, or `current` and [wrapping.keys]",
        ),
        (wrong("[roots]", "[root]"), "unknown field `root`"),
        (wrong(&format!("\"{key}\""), key), "line"),
    ]);
    let missing = RootKeys::unseal(&WrappingKeys::in_memory().unwrap(), 1, &BTreeMap::new()).await.unwrap_err();
    assert_eq!(missing.code(), "UnknownKeyVersion");
    let other = file.roots(&WrappingKeys::new("elsewhere", "1", KeyBytes::new([0; 32])).unwrap()).await.unwrap_err();
    assert_eq!(other.to_string(), "UnknownKey: root key 1 is sealed by the key 1 of `biscuit`, which is not available");
}

fn insta_like(all: &[(String, &str)]) {
    for (said, part) in all {
        assert!(said.contains(part), "{said} does not contain {part}");
    }
}

#[test]
fn errors_of_damaged_and_huge_key_files_contain_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let nested = format!("[wrapping]\nkms = {}", "[".repeat(100_000));
    let root = |current: &str, key: &str| {
        format!("[wrapping]\nkms = 'k'\n[roots]\ncurrent = {current}\n[roots.keys]\n1 = \"{key}\"\n")
    };
    let contents = [
        nested.into_bytes(),
        vec![b'a'; (1 << 20) + 1],
        b"\xff\xfe".to_vec(),
        vec![],
        root("99999999999999999999", "AAA=").into_bytes(),
        root("65536", "AAA=").into_bytes(),
        root("1", "no base64!").into_bytes(),
        root("1", "//8AAA==").into_bytes(),
    ];
    for content in contents {
        std::fs::write(&path, &content).unwrap();
        let e = biscuit_pii::keys::KeyFile::open(&path).unwrap_err();
        let said = format!("{e}");
        assert!(e.code() == "InvalidKeyFile" && said.contains("keys.toml"), "{said}");
    }
}
