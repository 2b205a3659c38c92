//! Key material of Parquet's modular encryption, compared with the format of the key tools of parquet-mr and Arrow.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_pii::keys::{KeyBytes, KeyContext, KeyProvider, ParquetKeys, ParquetPart, WrappingKeys};
use biscuit_pii::tokens::{AccessRequest, AuditFile};
use biscuit_pii::{PiiContext, Policy, Protector};
use serde_json::{Value, json};

use crate::keys::Counted;

fn wrapping() -> WrappingKeys {
    WrappingKeys::new("biscuit", "2", KeyBytes::new([5; 32])).expect("the key is valid")
}

async fn material(keys: &ParquetKeys, of: ParquetPart) -> (KeyBytes, Value) {
    let key = keys.new_key(of).await.expect("the key is created");
    (key.secret, serde_json::from_slice(&key.metadata).expect("the JSON is valid"))
}

fn opened(key: &[u8], aad: &[u8], wrapped: &str) -> Vec<u8> {
    let bytes = BASE64_STANDARD.decode(wrapped).expect("the base64 is valid");
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key is valid"));
    let nonce = Nonce::try_assume_unique_for_key(&bytes[..12]).expect("the nonce is valid");
    let mut rest = bytes[12..].to_vec();
    key.open_in_place(nonce, Aad::from(aad), &mut rest).expect("the ciphertext opens").to_vec()
}

/// Unwraps a data key like another reader, with the field names and formats of the key tools.
#[tokio::test]
async fn key_material_has_the_format_of_the_key_tools() {
    let keys = ParquetKeys::new(Arc::new(wrapping()));
    let (secret, footer) = material(&keys, ParquetPart::Footer).await;
    assert_eq!(
        (&footer["keyMaterialType"], &footer["internalStorage"], &footer["isFooterKey"], &footer["doubleWrapping"]),
        (&json!("PKMT1"), &json!(true), &json!(true), &json!(true))
    );
    assert_eq!((&footer["kmsInstanceID"], &footer["kmsInstanceURL"]), (&json!("DEFAULT"), &json!("DEFAULT")));
    assert_eq!(footer["masterKeyID"], "biscuit/2");
    // The wrapping key opens the key-encryption key, which opens the data key. The name of the key-encryption key is
    // authenticated.
    let context = b"\x00\x01\x00\x03use\x00\x07parquet";
    let kek = opened(&[5; 32], context, footer["wrappedKEK"].as_str().expect("the value is a text"));
    let name = BASE64_STANDARD
        .decode(footer["keyEncryptionKeyID"].as_str().expect("the value is a text"))
        .expect("the base64 is valid");
    assert_eq!(name.len(), 16);
    assert_eq!(opened(&kek, &name, footer["wrappedDEK"].as_str().expect("the value is a text")), secret.expose());
    let (other, column) = material(&keys, ParquetPart::Column).await;
    assert_eq!((&column["isFooterKey"], column.get("kmsInstanceID")), (&json!(false), None));
    assert_eq!(column["wrappedKEK"], footer["wrappedKEK"], "files share a key-encryption key");
    assert_ne!(other.expose(), secret.expose());
    assert_eq!(keys.key(&serde_json::to_vec(&column).unwrap()).await.unwrap().expose(), other.expose());
}

#[tokio::test]
async fn single_wrapping_of_other_writers_is_read() {
    let provider = wrapping();
    let context = KeyContext::from([("use".to_owned(), "parquet".to_owned())]);
    let key = provider.generate(&context).await.unwrap();
    let nonce = &key.sealed.info[key.sealed.info.len() - 12..];
    let material = json!({
        "keyMaterialType": "PKMT1", "internalStorage": true, "isFooterKey": false, "masterKeyID": "biscuit/2",
        "doubleWrapping": false, "wrappedDEK": BASE64_STANDARD.encode([nonce, &key.sealed.bytes].concat()),
    });
    let keys = ParquetKeys::new(Arc::new(provider));
    assert_eq!(keys.key(material.to_string().as_bytes()).await.unwrap().expose(), key.secret.expose());
}

#[tokio::test]
async fn provider_is_called_once_for_many_files() {
    let counted = Arc::new(Counted::new());
    let writer = ParquetKeys::new(counted.clone());
    let mut all = vec![];
    for _ in 0..200 {
        all.push(writer.new_key(ParquetPart::Column).await.unwrap());
    }
    let reader = ParquetKeys::new(counted.clone());
    for key in &all {
        assert_eq!(reader.key(&key.metadata).await.unwrap().expose(), key.secret.expose());
    }
    assert_eq!(counted.calls(), (1, 1));
    assert!(!format!("{:?}", all[0]).contains(&format!("{:?}", all[0].secret.expose())));
}

#[tokio::test]
async fn errors_of_unusable_key_material_have_a_reason() {
    let keys = ParquetKeys::new(Arc::new(wrapping()));
    let (_, good) = material(&keys, ParquetPart::Column).await;
    let with = |name: &str, value: Value| {
        let mut other = good.clone();
        other[name] = value;
        other.to_string()
    };
    let damaged = |name: &str| {
        let mut bytes =
            BASE64_STANDARD.decode(good[name].as_str().expect("the value is a text")).expect("the base64 is valid");
        *bytes.last_mut().expect("the file has a last byte") ^= 1;
        with(name, json!(BASE64_STANDARD.encode(bytes)))
    };
    let without = with("keyEncryptionKeyID", Value::Null);
    for (metadata, code, message) in [
        (String::new(), "InvalidKey", "it is empty"),
        ("kf".to_owned(), "InvalidKey", "not JSON key material"),
        (with("keyMaterialType", json!("PKMT9")), "InvalidKey", "PKMT1"),
        (with("internalStorage", json!(false)), "InvalidKey", "outside of the file"),
        (with("masterKeyID", json!("biscuit/3")), "UnknownKey", "`biscuit/3`"),
        (with("masterKeyID", json!("kf")), "UnknownKey", "`kf`"),
        (with("masterKeyID", json!("arn:aws:kms:eu-west-1:1:key/x")), "UnknownKey", "arn:aws:kms"),
        (with("wrappedDEK", json!("!")), "InvalidKey", "base64"),
        (with("wrappedKEK", json!("AAAA")), "UnknownKey", "`biscuit/2`"),
        (without, "InvalidKey", "no key-encryption key"),
        (damaged("wrappedDEK"), "CannotUnseal", "damaged"),
        (damaged("wrappedKEK"), "CannotUnseal", "damaged"),
        (damaged("keyEncryptionKeyID"), "CannotUnseal", "damaged"),
    ] {
        let e = keys.key(metadata.as_bytes()).await.unwrap_err();
        assert_eq!(e.code(), code, "{e}");
        assert!(e.to_string().contains(message), "{e}");
    }
}

/// A writer of unencrypted files must not let such columns through.
#[tokio::test]
async fn file_encryption_is_refused_if_the_writer_does_not_encrypt() {
    let policy = Policy::parse("[columns]\nemail = { encrypt = { key = \"file\" } }\n").unwrap();
    let e = Protector::new(&policy, "t", [], &PiiContext::new()).unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoKeys", Some("email")));
    let text = Policy::parse("[columns]\nemail = { encrypt = { key = \"file\", form = \"text\" } }\n").unwrap();
    let means = PiiContext::new().with_provider(Arc::new(wrapping()));
    assert_eq!(Protector::new(&text, "t", [], &means).unwrap_err().code(), "InvalidPolicy");
    let email: ArrayRef = Arc::new(StringArray::from(vec![Some("ann@x.com"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("email", email, true)]).unwrap();
    let protector = Protector::new(&policy, "t", [], &means).unwrap();
    let e = protector.apply(&rows).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("NotEncrypted", Some("email")));
    let protector = protector.encrypting_files();
    let done = protector.apply(&rows).await.unwrap();
    assert_eq!((&done.rows, done.columns["email"].values), (&rows, 1));
    assert_eq!(protector.in_files().collect::<Vec<_>>(), ["email"]);
    assert!(
        protector.treats_column("email") && !protector.changes_column("email") && !protector.keeps_equality("email")
    );
    let part = Policy::parse("[columns]\n\"address.city\" = \"keep\"\n").unwrap();
    let part = Protector::new(&part, "t", [], &means).unwrap();
    let whole = [part.names_whole("address.city"), part.names_whole("address.zip"), part.names_whole("address")];
    assert_eq!(whole, [true, false, false]);
    assert!(part.names_column("address") && protector.names_whole("email.part"));
    // The access is recorded even though the values are already in clear.
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let access = AccessRequest::new("tests", "ticket-1", Arc::new(AuditFile::new(&audit))).unwrap();
    let back = protector.reveal(&rows, &["email"], &Default::default(), &access).await.unwrap();
    assert_eq!(back.rows, rows);
    assert!(std::fs::read_to_string(audit).unwrap().contains("ticket-1"));
}
