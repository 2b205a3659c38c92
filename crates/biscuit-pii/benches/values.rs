//! Costs of encrypting and tokenizing values, relative to the cipher alone. Prints rates and ratios; run with `cargo
//! bench -p biscuit-pii`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use biscuit_core::Result;
use biscuit_pii::encrypt::{EnvelopeEncryptor, ValueEncryptor};
use biscuit_pii::keys::{KeyBytes, KeyCache, KeyContext, KeyLimits, RootKeys, WrappingKeys};
use biscuit_pii::tokens::{MemoryStore, TokenRecord, TokenStore, Tokenizer};

const CELLS: usize = 10_000_000;
const BATCH: usize = 8192;
const ROUNDS: usize = 5;

/// Counts requests as DynamoDB would receive them: reads of up to 100 keys, and one put for each record.
#[derive(Debug, Default)]
struct Requests {
    of: MemoryStore,
    gets: AtomicU64,
    puts: AtomicU64,
}

#[async_trait]
impl TokenStore for Requests {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        self.gets.fetch_add(keys.len().div_ceil(100) as u64, Ordering::Relaxed);
        self.of.get(keys).await
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        self.of.find(aliases).await
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        self.puts.fetch_add(records.len() as u64, Ordering::Relaxed);
        self.of.insert(records).await
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        self.of.replace(record).await
    }
}

/// Returns the median of several rounds in seconds.
fn median(mut work: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}

/// Encrypts values with the cipher alone and a counter as nonce: the baseline.
fn cipher_alone() {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("the key has 32 bytes"));
    let mut cell = [7u8; 100];
    for counter in 0..CELLS as u64 {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut cell).expect("the value is sealed"));
    }
}

fn roots() -> RootKeys {
    RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([1; 32]))])).expect("the key is valid")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the runtime starts");
    let line = |what: &str, seconds: f64, cells: usize, base: f64| {
        let rate = cells as f64 / seconds / 1e6;
        println!("| {what} | {rate:.2} M/s | {:.2} |", rate / (CELLS as f64 / base / 1e6));
    };
    let base = median(cipher_alone);
    println!("{CELLS} values of 100 bytes in batches of {BATCH}, one core, median of {ROUNDS} rounds\n");
    println!("| | values | relative to the cipher alone |\n|---|---|---|");
    line("AES-256-GCM of aws-lc-rs alone, counter nonce", base, CELLS, base);

    let cells = ValueEncryptor::new(roots(), "t");
    let batch: ArrayRef = Arc::new((0..BATCH).map(|n| Some(format!("{n:0100}"))).collect::<StringArray>());
    let batches = CELLS / BATCH;
    let encrypt = median(|| {
        for _ in 0..batches {
            black_box(cells.encrypt("c", &batch).expect("the column is encrypted"));
        }
    });
    line("`ValueEncryptor::encrypt`", encrypt, batches * BATCH, base);
    let sealed = cells.encrypt("c", &batch).expect("the column is encrypted");
    let decrypt = median(|| {
        for _ in 0..batches {
            black_box(runtime.block_on(cells.decrypt("c", &sealed, &DataType::Utf8)).expect("the column is decrypted"));
        }
    });
    line("`ValueEncryptor::decrypt`", decrypt, batches * BATCH, base);

    let keys = KeyCache::new(Arc::new(WrappingKeys::in_memory().expect("the key is valid")), KeyLimits::default());
    let messages = EnvelopeEncryptor::new(keys, KeyContext::from([("table".into(), "t".into())]));
    let few = 30;
    let seal = median(|| {
        for _ in 0..few {
            black_box(runtime.block_on(messages.encrypt("c", &batch)).expect("the column is encrypted"));
        }
    });
    line("`EnvelopeEncryptor::encrypt`, one cached data key", seal, few * BATCH, base);

    let thousand: ArrayRef =
        Arc::new((0..BATCH).map(|n| Some(format!("customer-{:04}@example.com", n % 1000))).collect::<StringArray>());
    let store = Arc::new(Requests::default());
    let tokenizer = || Tokenizer::random(roots(), "email", store.clone()).expect("the tokenizer is valid");
    runtime.block_on(tokenizer().tokenize("c", &thousand)).expect("the tokens are created");
    println!("\n1,000 new values: {} reads of 100, {} conditional puts", take(&store.gets), take(&store.puts));
    let mut reads = 0;
    let tokenize = median(|| {
        let tokenizer = tokenizer();
        for _ in 0..batches {
            black_box(runtime.block_on(tokenizer.tokenize("c", &thousand)).expect("the tokens are created"));
        }
        reads = take(&store.gets);
    });
    let rate = (batches * BATCH) as f64 / tokenize / 1e6;
    println!(
        "{CELLS} rows with 1,000 known values: {reads} reads of 100, {} puts, {rate:.2} M values/s",
        take(&store.puts)
    );
}

fn take(count: &AtomicU64) -> u64 {
    count.swap(0, Ordering::Relaxed)
}
