//! Tests with KMS, DynamoDB and Comprehend of moto, and DynamoDB of dynalite. `BISCUIT_TEST_AWS` and
//! `BISCUIT_TEST_DYNAMODB` are their endpoints.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use biscuit_pii::encrypt::EnvelopeEncryptor;
use biscuit_pii::keys::{KeyBytes, KeyCache, KeyContext, KeyFile, KeyLimits, KeyWrapping, RootKeys};
use biscuit_pii::tokens::{TokenStore, Tokenizer, store_conformance};
use biscuit_pii::{ColumnTexts, Detector};
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

/// HTTP client of the command. The default client of the SDK would add another TLS library.
fn http() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

/// Endpoints of the servers that the environment names.
fn endpoints(names: &[&str]) -> Vec<String> {
    let endpoint =
        |name: &&str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not the endpoint of a server"));
    names.iter().map(endpoint).collect()
}

fn dynamodb() -> Vec<String> {
    endpoints(&["BISCUIT_TEST_AWS", "BISCUIT_TEST_DYNAMODB"])
}

/// Creates a table that no other test uses.
async fn table(endpoint: &str, name: &str) -> DynamoStore {
    let store = DynamoStore::new(client!(aws_sdk_dynamodb, endpoint), format!("{name}-{}", std::process::id()));
    store.create_table().await.expect("the table is created");
    store.create_table().await.expect("an existing table is accepted");
    store
}

fn roots() -> RootKeys {
    RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([1; 32]))])).expect("the key is valid")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs servers with DynamoDB: BISCUIT_TEST_AWS and BISCUIT_TEST_DYNAMODB"]
async fn dynamodb_table_passes_the_store_conformance_suite() {
    for endpoint in dynamodb() {
        store_conformance(Arc::new(table(&endpoint, "conformance").await)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs servers with DynamoDB: BISCUIT_TEST_AWS and BISCUIT_TEST_DYNAMODB"]
async fn sixty_four_tasks_get_equal_tokens() {
    for endpoint in dynamodb() {
        let store: Arc<dyn TokenStore> = Arc::new(table(&endpoint, "tasks").await);
        let task = |n: usize| {
            let tokenizer = Tokenizer::random(roots(), "n", store.clone()).expect("the tokenizer is valid");
            tokio::spawn(async move {
                let values: Vec<String> = (0..12).map(|at| format!("value {}", (at * 5 + n) % 12)).collect();
                let asked: Vec<&str> = values.iter().map(String::as_str).collect();
                let tokens = tokenizer.tokens(&asked).await.expect("the tokens are created");
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

/// Child process of the next test: prints its tokens.
#[tokio::test]
#[ignore = "runs as the child process of the next test"]
async fn child() {
    let variable = |name| std::env::var(name).expect("the parent process sets it");
    let (endpoint, name) = (variable("BISCUIT_TEST_CHILD"), variable("BISCUIT_TEST_TABLE"));
    let store = Arc::new(DynamoStore::new(client!(aws_sdk_dynamodb, endpoint), name));
    let tokenizer = Tokenizer::random(roots(), "n", store).expect("the tokenizer is valid");
    let values: Vec<String> = (0..200).map(|n| format!("value {n}")).collect();
    let asked: Vec<&str> = values.iter().map(String::as_str).collect();
    for (value, token) in values.iter().zip(tokenizer.tokens(&asked).await.expect("the tokens are created")) {
        println!("token {value} {token}");
    }
}

#[tokio::test]
#[ignore = "needs servers with DynamoDB: BISCUIT_TEST_AWS and BISCUIT_TEST_DYNAMODB"]
async fn two_concurrent_processes_get_equal_tokens() {
    for endpoint in dynamodb() {
        let name = format!("processes-{}", std::process::id());
        DynamoStore::new(client!(aws_sdk_dynamodb, &endpoint), &name).create_table().await.unwrap();
        let child = || {
            let mut command =
                tokio::process::Command::new(std::env::current_exe().expect("the path of this test is known"));
            let command = command.args(["--ignored", "--exact", "servers::child", "--nocapture"]);
            command.env("BISCUIT_TEST_CHILD", &endpoint).env("BISCUIT_TEST_TABLE", &name).output()
        };
        let (one, other) = tokio::join!(child(), child());
        let tokens = |output: std::io::Result<std::process::Output>| {
            let output = String::from_utf8(output.expect("the process runs").stdout).expect("the text is UTF-8");
            output.lines().filter(|line| line.starts_with("token ")).map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, other) = (tokens(one), tokens(other));
        assert_eq!((one.len(), one), (200, other));
    }
}

#[tokio::test]
#[ignore = "needs servers with DynamoDB: BISCUIT_TEST_AWS and BISCUIT_TEST_DYNAMODB"]
async fn error_of_a_missing_table_contains_its_name() {
    for endpoint in dynamodb() {
        let store = DynamoStore::new(client!(aws_sdk_dynamodb, &endpoint), "no-such-table");
        let e = store.get(&["k".into()]).await.unwrap_err();
        assert!(e.to_string().starts_with("NoSuchResource: cannot read the DynamoDB table `no-such-table`"), "{e}");
    }
}

#[tokio::test]
#[ignore = "needs a server with KMS and Comprehend: BISCUIT_TEST_AWS"]
async fn key_file_sealed_by_kms_is_unsealed_by_it() {
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
            let rotated = read.with_new_keys(&provider).await.unwrap();
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
            assert_eq!(e.code(), "UnknownKey");
        }
        let e = KeyFile::new(KeyWrapping::Kms("alias/none".into()), &KmsKeyProvider::new(client, "alias/none"))
            .await
            .unwrap_err();
        assert_eq!(e.code(), "NoSuchResource");
    }
}

#[tokio::test]
#[ignore = "needs a server with KMS and Comprehend: BISCUIT_TEST_AWS"]
async fn messages_use_data_keys_of_kms() {
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
#[ignore = "needs a server with KMS and Comprehend: BISCUIT_TEST_AWS"]
async fn comprehend_returns_hits_inside_of_the_text() {
    for endpoint in endpoints(&["BISCUIT_TEST_AWS"]) {
        let detector = ComprehendDetector::new(client!(aws_sdk_comprehend, &endpoint), "en").unwrap();
        // moto always returns the same entities: a name from character 50 to 58, and others after it.
        let text = format!("{} Éva Lind {}", "é".repeat(49), "ü".repeat(400));
        let hits = detector.detect(&ColumnTexts { name: "bio", texts: &[&text] }).await.unwrap().remove(0);
        let found: Vec<&str> = hits.iter().map(|hit| &text[hit.range.clone()]).collect();
        assert_eq!((hits.len(), found[0]), (3, "Éva Lind"));
    }
}
