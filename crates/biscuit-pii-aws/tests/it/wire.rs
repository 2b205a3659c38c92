//! Requests to DynamoDB and KMS as they are sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_core::ErrorKind;
use biscuit_pii::keys::{KeyBytes, KeyContext, KeyProvider, RootKeys, SealedKey};
use biscuit_pii::tokens::{TokenRecord, TokenStore, Tokenizer};
use biscuit_pii_aws::{DynamoStore, KmsKeyProvider};
use serde_json::{Value, json};

use crate::fake::Service;

/// Fake table that answers like DynamoDB, and leaves `unprocessed` keys of each of the first three requests
/// unprocessed.
fn table(unprocessed: usize) -> Service {
    let items: Mutex<HashMap<String, Value>> = Mutex::default();
    let left = Mutex::new(3);
    Service::new(move |operation, body| {
        let mut items = items.lock().expect("no other test panicked while it had the lock");
        match operation {
            "BatchGetItem" => {
                let keys = body["RequestItems"]["t"]["Keys"].as_array().cloned().unwrap_or_default();
                let names: Vec<&str> = keys.iter().filter_map(|key| key["pk"]["S"].as_str()).collect();
                if names.len() > 100 || names.iter().collect::<HashSet<_>>().len() != names.len() {
                    return (400, json!({"__type": "ValidationException", "message": "too many, or one twice"}));
                }
                let mut rounds = left.lock().expect("no other test panicked while it had the lock");
                let skip = if *rounds > 0 { unprocessed.min(keys.len()) } else { 0 };
                *rounds -= i32::from(*rounds > 0);
                let found: Vec<&Value> = names[skip..].iter().filter_map(|name| items.get(*name)).collect();
                let mut answer = json!({"Responses": {"t": found}, "UnprocessedKeys": {}});
                if skip > 0 {
                    answer["UnprocessedKeys"]["t"] = json!({"Keys": keys[..skip], "ConsistentRead": true});
                }
                (200, answer)
            }
            "PutItem" => {
                let key = body["Item"]["pk"]["S"].as_str().unwrap_or_default().to_owned();
                match items.get(&key).filter(|_| body.get("ConditionExpression").is_some()) {
                    Some(there) => {
                        let what = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
                        (400, json!({"__type": what, "message": "The conditional request failed", "Item": there}))
                    }
                    None => {
                        items.insert(key, body["Item"].clone());
                        (200, json!({}))
                    }
                }
            }
            _ => (400, json!({"__type": "AccessDeniedException", "message": "it is not for you"})),
        }
    })
}

fn roots() -> RootKeys {
    RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([1; 32]))])).expect("the key is valid")
}

#[tokio::test]
async fn thousand_values_cost_ten_reads_and_a_conditional_put_for_each_new_one() {
    let service = table(0);
    let tokenizer = || {
        let store = Arc::new(DynamoStore::new(service.dynamodb(), "t"));
        Tokenizer::random(roots(), "n", store).unwrap()
    };
    let values: Vec<String> = (0..1000).map(|n| format!("value {n}")).collect();
    let asked: Vec<&str> = values.iter().map(String::as_str).collect();
    let tokens = tokenizer().tokens(&asked).await.unwrap();
    assert_eq!((service.times("BatchGetItem"), service.times("PutItem")), (10, 1000));
    assert!(
        service.asked().iter().all(|(operation, _)| operation != "BatchWriteItem"),
        "batch writes have no conditions"
    );
    for (operation, body) in service.asked() {
        match operation.as_str() {
            "PutItem" => {
                assert_eq!(body["ConditionExpression"], "attribute_not_exists(pk)");
                assert_eq!(body["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
            }
            _ => assert_eq!(body["RequestItems"]["t"]["ConsistentRead"], true),
        }
        assert!(!body.to_string().contains("value "), "no request contains clear text");
    }
    assert_eq!(tokenizer().tokens(&asked).await.unwrap(), tokens);
    assert_eq!((service.times("BatchGetItem"), service.times("PutItem")), (20, 1000), "the values are known now");
}

#[tokio::test]
async fn unprocessed_keys_are_requested_again_and_none_is_lost() {
    let service = table(30);
    let store = DynamoStore::new(service.dynamodb(), "t");
    let records: Vec<TokenRecord> =
        (0..250).map(|n| TokenRecord { key: format!("k{n}"), value: vec![n as u8], alias: None }).collect();
    store.insert(records.clone()).await.unwrap();
    // Each key twice, and in another order.
    let keys: Vec<String> = records.iter().rev().chain(&records).map(|record| record.key.clone()).collect();
    let found = store.get(&keys).await.unwrap();
    let want: Vec<Option<TokenRecord>> = records.iter().rev().chain(&records).cloned().map(Some).collect();
    assert_eq!(found, want);
    assert_eq!(service.times("BatchGetItem"), 3 + 3);
}

#[tokio::test(start_paused = true)]
async fn table_that_never_processes_a_key_is_reported() {
    let service = Service::new(|_, body| (200, json!({"Responses": {}, "UnprocessedKeys": body["RequestItems"]})));
    let e = DynamoStore::new(service.dynamodb(), "t").get(&["k".into()]).await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (ErrorKind::Unavailable, "ServiceUnavailable"));
    assert_eq!(
        e.message(),
        "the DynamoDB table `t` has not processed 1 of 1 keys after 10 requests; increase its read capacity"
    );
    assert_eq!(service.times("BatchGetItem"), 10);
}

#[tokio::test]
async fn lost_race_returns_the_stored_token_even_if_the_response_lacks_it() {
    let there = json!({"pk": {"S": "k"}, "v": {"B": BASE64_STANDARD.encode("1")}, "t": {"S": "tok"}});
    let service = Service::new(move |operation, _| match operation {
        "BatchGetItem" => (200, json!({"Responses": {"t": [there]}})),
        _ => (400, json!({"__type": "ConditionalCheckFailedException", "message": "The conditional request failed"})),
    });
    let store = DynamoStore::new(service.dynamodb(), "t");
    let mine = TokenRecord { key: "k".into(), value: b"2".to_vec(), alias: Some("mine".into()) };
    let winner = store.insert(vec![mine]).await.unwrap();
    assert_eq!(winner, [TokenRecord { key: "k".into(), value: b"1".to_vec(), alias: Some("tok".into()) }]);
}

#[tokio::test]
async fn errors_of_a_table_contain_its_name_and_the_action() {
    let service = |code: &'static str| Service::new(move |_, _| (400, json!({"__type": code, "message": "so it is"})));
    let get = async |code| DynamoStore::new(service(code).dynamodb(), "t").get(&["k".into()]).await.unwrap_err();
    let e = get("ResourceNotFoundException").await;
    assert_eq!(
        (e.kind(), e.to_string()),
        (
            ErrorKind::Usage,
            "NoSuchResource: cannot read the DynamoDB table `t`: ResourceNotFoundException: so it is".into()
        )
    );
    let e = get("AccessDeniedException").await;
    assert_eq!((e.kind(), e.code()), (ErrorKind::Denied, "Refused"));
    let other = Service::new(|_, _| (200, json!({"Responses": {"t": [{"pk": {"S": "k"}}]}})));
    let e = DynamoStore::new(other.dynamodb(), "t").get(&["k".into()]).await.unwrap_err();
    assert_eq!(e.code(), "InvalidRecord");
}

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/a";

fn kms() -> Service {
    Service::new(|operation, body| match operation {
        "GenerateDataKey" => {
            (200, json!({"KeyId": ARN, "Plaintext": BASE64_STANDARD.encode([7; 32]), "CiphertextBlob": "c2VhbGVk"}))
        }
        "Decrypt" if body["EncryptionContext"] == json!({"purpose": "x"}) => {
            (200, json!({"KeyId": ARN, "Plaintext": BASE64_STANDARD.encode([7; 32])}))
        }
        _ => (400, json!({"__type": "InvalidCiphertextException"})),
    })
}

#[tokio::test]
async fn data_keys_of_kms_are_unsealed_only_with_their_context_and_key() {
    let service = kms();
    let provider = KmsKeyProvider::new(service.kms(), "alias/pii");
    let context = KeyContext::from([("purpose".into(), "x".into())]);
    let key = provider.generate(&context).await.unwrap();
    assert_eq!((key.sealed.provider.as_str(), key.sealed.info.as_slice()), ("aws-kms", ARN.as_bytes()));
    let asked = &service.asked()[0].1;
    assert_eq!(*asked, json!({"KeyId": "alias/pii", "KeySpec": "AES_256", "EncryptionContext": {"purpose": "x"}}));
    assert_eq!(provider.unseal(&key.sealed, &context).await.unwrap(), Some(key.secret.clone()));
    let e = provider.unseal(&key.sealed, &KeyContext::new()).await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (ErrorKind::Data, "CannotUnseal"));
    let before = service.times("Decrypt");
    let other = KmsKeyProvider::new(service.kms(), "arn:aws:kms:us-east-1:111122223333:key/b");
    assert_eq!(
        other.unseal(&key.sealed, &context).await.unwrap(),
        None,
        "sealed by a key that the provider does not have"
    );
    let local = SealedKey { provider: "biscuit".into(), ..key.sealed.clone() };
    assert_eq!(provider.unseal(&local, &context).await.unwrap(), None);
    assert_eq!(service.times("Decrypt"), before, "KMS is not called for either");
    assert_eq!(other.with_older(ARN).unseal(&key.sealed, &context).await.unwrap(), Some(key.secret.clone()));
    // An alias may have been moved to another key, which then answers.
    let named = |by: &str| SealedKey { info: by.as_bytes().to_vec(), ..key.sealed.clone() };
    let moved = named("arn:aws:kms:us-east-1:111122223333:key/b");
    assert_eq!(provider.unseal(&moved, &context).await.unwrap(), None);
    // Other writers of Parquet files refer to keys by id or alias.
    let id = ARN.rsplit('/').next().unwrap();
    for (by, is) in [(id, true), ("alias/pii", true), ("alias/other", false), ("b", false), ("", false)] {
        assert_eq!(provider.unseal(&named(by), &context).await.unwrap().is_some(), is, "{by}");
    }
    assert!(!format!("{:?}", provider.generate(&context).await.unwrap()).contains("7, 7"), "keys are not printed");
}

#[tokio::test]
async fn errors_of_kms_contain_the_key_and_the_action() {
    let service = |code: &'static str| Service::new(move |_, _| (400, json!({"__type": code, "message": "so it is"})));
    let generate = async |code| {
        KmsKeyProvider::new(service(code).kms(), "alias/pii").generate(&KeyContext::new()).await.unwrap_err()
    };
    let e = generate("AccessDeniedException").await;
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert_eq!(
        e.to_string(),
        "Refused: cannot get a data key of the KMS key `alias/pii`: AccessDeniedException: so it is"
    );
    assert_eq!(generate("NotFoundException").await.kind(), ErrorKind::Usage);
    assert_eq!(generate("DisabledException").await.kind(), ErrorKind::Denied);
    assert_eq!(generate("KMSInternalException").await.kind(), ErrorKind::Unavailable);
}
