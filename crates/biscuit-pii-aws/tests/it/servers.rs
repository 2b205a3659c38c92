//! KMS, DynamoDB and Comprehend of moto, and DynamoDB of dynalite: `BISCUIT_TEST_AWS` and `BISCUIT_TEST_DYNAMODB` are their endpoints.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use biscuit_pii::{
    ColumnTexts, Detector, EnvelopeEncryptor, KeyBytes, KeyCache, KeyContext, KeyFile, KeyLimits, KeyWrapping,
    RootKeys, TokenStore, Tokenizer, store_conformance,
};
use biscuit_pii_aws::{ComprehendDetector, DynamoStore, KmsKeyProvider};

macro_rules! client {
    ($sdk:ident, $endpoint:expr) => {{
        let config = $sdk::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url($endpoint)
            .http_client(http())
            .build();
        $sdk::Client::from_conf(config)
    }};
}

/// The client of the command: the SDK's default one would bring another library for TLS.
fn http() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

/// The endpoints that are there.
fn endpoints(of: &[&str]) -> Vec<String> {
    let there: Vec<String> = of.iter().filter_map(|name| std::env::var(name).ok()).collect();
    if there.is_empty() {
        eprintln!("skipped: {} is not set", of.join(" or "));
    }
    there
}

fn dynamodb() -> Vec<String> {
    endpoints(&["BISCUIT_TEST_AWS", "BISCUIT_TEST_DYNAMODB"])
}

/// A table that no other test has.
async fn table(endpoint: &str, name: &str) -> DynamoStore {
    let store = DynamoStore::new(client!(aws_sdk_dynamodb, endpoint), format!("{name}-{}", std::process::id()));
    store.create_table().await.expect("a table");
    store.create_table().await.expect("it is there already");
    store
}

fn roots() -> RootKeys {
    RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([1; 32]))])).expect("a key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_of_dynamodb_is_a_store() {
    for endpoint in dynamodb() {
        store_conformance(Arc::new(table(&endpoint, "conformance").await)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tokens_are_equal_from_64_tasks() {
    for endpoint in dynamodb() {
        let store: Arc<dyn TokenStore> = Arc::new(table(&endpoint, "tasks").await);
        let task = |n: usize| {
            let tokenizer = Tokenizer::random(roots(), "n", store.clone()).expect("a tokenizer");
            tokio::spawn(async move {
                let values: Vec<String> = (0..12).map(|at| format!("value {}", (at * 5 + n) % 12)).collect();
                let asked: Vec<&str> = values.iter().map(String::as_str).collect();
                let tokens = tokenizer.tokens(&asked).await.expect("tokens");
                values.into_iter().zip(tokens).collect::<BTreeMap<_, _>>()
            })
        };
        let mut all = HashSet::new();
        for task in (0..64).map(task).collect::<Vec<_>>() {
            all.insert(task.await.expect("a task ends"));
        }
        assert_eq!(all.len(), 1);
    }
}

/// What a process of the next test does: it prints its tokens.
#[tokio::test]
async fn child() {
    let (Ok(endpoint), Ok(name)) = (std::env::var("BISCUIT_TEST_CHILD"), std::env::var("BISCUIT_TEST_TABLE")) else {
        return;
    };
    let store = Arc::new(DynamoStore::new(client!(aws_sdk_dynamodb, endpoint), name));
    let tokenizer = Tokenizer::random(roots(), "n", store).expect("a tokenizer");
    let values: Vec<String> = (0..200).map(|n| format!("value {n}")).collect();
    let asked: Vec<&str> = values.iter().map(String::as_str).collect();
    for (value, token) in values.iter().zip(tokenizer.tokens(&asked).await.expect("tokens")) {
        println!("token {value} {token}");
    }
}

#[tokio::test]
async fn tokens_are_equal_from_two_processes_at_once() {
    for endpoint in dynamodb() {
        let name = format!("processes-{}", std::process::id());
        DynamoStore::new(client!(aws_sdk_dynamodb, &endpoint), &name).create_table().await.unwrap();
        let child = || {
            let mut command = tokio::process::Command::new(std::env::current_exe().expect("this test"));
            let command = command.args(["--exact", "servers::child", "--nocapture"]);
            command.env("BISCUIT_TEST_CHILD", &endpoint).env("BISCUIT_TEST_TABLE", &name).output()
        };
        let (one, other) = tokio::join!(child(), child());
        let tokens = |output: std::io::Result<std::process::Output>| {
            let output = String::from_utf8(output.expect("a process").stdout).expect("text");
            output.lines().filter(|line| line.starts_with("token ")).map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, other) = (tokens(one), tokens(other));
        assert_eq!((one.len(), one), (200, other));
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_named() {
    for endpoint in dynamodb() {
        let store = DynamoStore::new(client!(aws_sdk_dynamodb, &endpoint), "no-such-table");
        let e = store.get(&["k".into()]).await.unwrap_err();
        assert!(e.to_string().starts_with("NotThere: cannot read the DynamoDB table `no-such-table`"), "{e}");
    }
}

#[tokio::test]
async fn a_key_file_that_kms_has_sealed_is_opened_by_it() {
    for endpoint in endpoints(&["BISCUIT_TEST_AWS"]) {
        let client = client!(aws_sdk_kms, &endpoint);
        let key = client.create_key().send().await.unwrap().key_metadata.unwrap();
        let alias = format!("alias/pii-{}", std::process::id());
        client.create_alias().alias_name(&alias).target_key_id(&key.key_id).send().await.unwrap();
        for name in [alias.clone(), key.arn.clone().unwrap(), key.key_id.clone()] {
            let provider = KmsKeyProvider::new(client.clone(), &name);
            let file = KeyFile::new(KeyWrapping::Kms(name.clone()), &provider).await.unwrap();
            let read = KeyFile::parse(&file.to_text().unwrap()).unwrap();
            let token = |roots| Tokenizer::siv(roots, "n").unwrap();
            let tokens = token(file.roots(&provider).await.unwrap()).tokens(&["v"]).await.unwrap();
            let rotated = read.rotated(&provider).await.unwrap();
            assert_eq!(token(rotated.roots(&provider).await.unwrap()).tokens(&["v"]).await.unwrap()[0][..5], *"siv2_");
            assert_eq!(
                tokens,
                token(KeyFile::parse(&file.to_text().unwrap()).unwrap().roots(&provider).await.unwrap())
                    .tokens(&["v"])
                    .await
                    .unwrap()
            );
            let other = client.create_key().send().await.unwrap().key_metadata.unwrap();
            let e = file.roots(&KmsKeyProvider::new(client.clone(), other.arn.unwrap())).await.unwrap_err();
            assert_eq!(e.code(), "CannotUnseal");
        }
        let e = KeyFile::new(KeyWrapping::Kms("alias/none".into()), &KmsKeyProvider::new(client, "alias/none"))
            .await
            .unwrap_err();
        assert_eq!(e.code(), "NotThere");
    }
}

#[tokio::test]
async fn messages_have_data_keys_of_kms() {
    for endpoint in endpoints(&["BISCUIT_TEST_AWS"]) {
        let client = client!(aws_sdk_kms, &endpoint);
        let key = client.create_key().send().await.unwrap().key_metadata.unwrap();
        let messages = |table: &str| {
            let provider = Arc::new(KmsKeyProvider::new(client.clone(), key.arn.clone().unwrap()));
            let context = KeyContext::from([("table".into(), table.into())]);
            EnvelopeEncryptor::new(KeyCache::new(provider, KeyLimits::default()), context)
        };
        let sealed = messages("a").seal(b"a text").await.unwrap();
        assert_eq!(messages("a").open(&sealed).await.unwrap().as_slice(), b"a text");
        assert_eq!(messages("b").open(&sealed).await.unwrap_err().code(), "OtherContext");
    }
}

#[tokio::test]
async fn comprehend_is_asked_and_its_hits_are_in_the_text() {
    for endpoint in endpoints(&["BISCUIT_TEST_AWS"]) {
        let detector = ComprehendDetector::new(client!(aws_sdk_comprehend, &endpoint), "en").unwrap();
        // moto answers always the same: a name from the 50th to the 58th character, and others behind it.
        let text = format!("{} Éva Lind {}", "é".repeat(49), "ü".repeat(400));
        let hits = detector.detect(&ColumnTexts { name: "bio", texts: &[&text] }).await.unwrap().remove(0);
        let found: Vec<&str> = hits.iter().map(|hit| &text[hit.range.clone()]).collect();
        assert_eq!((hits.len(), found[0]), (3, "Éva Lind"));
    }
}
