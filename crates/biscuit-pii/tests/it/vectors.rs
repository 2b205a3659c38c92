//! Test vectors of the AWS Encryption SDK with messages of other libraries, which are not a part of this project.
//! `BISCUIT_VECTORS` is the folder of `aws-encryption-sdk`.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_pii::encrypt::EnvelopeEncryptor;
use biscuit_pii::keys::{KeyBytes, KeyCache, KeyContext, KeyLimits, WrappingKeys};
use serde_json::Value;
use zip::ZipArchive;

struct Vectors(ZipArchive<std::fs::File>);

impl Vectors {
    /// Opens the archive of this name.
    fn open(name: &str) -> Self {
        let folder = std::env::var_os("BISCUIT_VECTORS").expect("BISCUIT_VECTORS is the folder of the vectors");
        let path = PathBuf::from(folder).join("aws-encryption-sdk").join(format!("{name}.zip"));
        let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(ZipArchive::new(file).expect("the vectors are whole"))
    }

    fn bytes(&mut self, name: &str) -> Vec<u8> {
        let mut bytes = vec![];
        self.0
            .by_name(name.trim_start_matches("file://"))
            .expect("the vectors are whole")
            .read_to_end(&mut bytes)
            .expect("the vectors are whole");
        bytes
    }

    fn json(&mut self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).expect("the vectors are whole")
    }
}

/// Returns an encryptor with the context of a test and the key of its AES master key, or `None` if it has no such
/// key.
fn reader(test: &Value, keys: &Value) -> Option<EnvelopeEncryptor> {
    let master = test["master-keys"].as_array()?.iter().find(|key| key["encryption-algorithm"] == "aes")?;
    let name = master["key"].as_str()?;
    let material = match &keys["keys"][name]["material"] {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        one => one.as_str()?.to_owned(),
    };
    let secret = KeyBytes::new(BASE64_STANDARD.decode(material).expect("the vectors are whole"));
    let keys = WrappingKeys::new(master["provider-id"].as_str()?, name, secret).expect("the vectors are whole");
    let context = test["encryption-context"].as_object().into_iter().flatten();
    let context: KeyContext =
        context.map(|(name, value)| (name.clone(), value.as_str().expect("the vectors are whole").into())).collect();
    Some(EnvelopeEncryptor::new(KeyCache::new(Arc::new(keys), KeyLimits::default()), context))
}

/// Returns the number of messages, the number that opened to the right text, and the errors of the others.
async fn opened(
    vectors: &mut Vectors,
    manifest: &str,
) -> (usize, usize, std::collections::BTreeMap<(String, String), usize>) {
    let (manifest, keys) = (vectors.json(manifest), vectors.json("keys.json"));
    let (mut all, mut right, mut refused) = (0, 0, std::collections::BTreeMap::new());
    for test in manifest["tests"].as_object().expect("the vectors are whole").values() {
        let Some(reader) = reader(test, &keys) else { continue };
        all += 1;
        let message = vectors.bytes(test["ciphertext"].as_str().expect("the vectors are whole"));
        let plain = test["result"]["output"]["plaintext"]
            .as_str()
            .or_else(|| test["plaintext"].as_str())
            .expect("the vectors are whole");
        let plain = vectors.bytes(plain);
        match reader.open(&message).await {
            Ok(text) => {
                assert_eq!(text.as_slice(), plain, "{test}");
                right += 1;
            }
            Err(e) => {
                let suite =
                    if message[0] == 2 { format!("{:02x}{:02x}", message[1], message[2]) } else { "version 1".into() };
                *refused.entry((suite, e.code().to_owned())).or_default() += 1;
            }
        }
    }
    (all, right, refused)
}

#[tokio::test]
#[ignore = "needs the vectors of the AWS Encryption SDK: BISCUIT_VECTORS"]
async fn only_messages_that_commit_to_their_key_are_opened() {
    let mut vectors = Vectors::open("v4-Net-4.0.1");
    let (all, right, refused) = opened(&mut vectors, "manifest.json").await;
    eprintln!("v4-Net-4.0.1: {right} of {all} opened, refused: {refused:?}");
    assert_eq!((all, right), (33, 6));
    assert!(refused.keys().all(|(_, code)| code == "UncommittedMessage"), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs the vectors of the AWS Encryption SDK: BISCUIT_VECTORS"]
async fn contexts_outside_of_a_message_are_authenticated() {
    let mut vectors = Vectors::open("valid-Net-4.0.0");
    let (all, right, refused) = opened(&mut vectors, "manifest.json").await;
    eprintln!("valid-Net-4.0.0: {right} of {all} opened, refused: {refused:?}");
    assert_eq!((all, right), (5, 2));
    assert!(refused.keys().all(|(_, code)| code == "UncommittedMessage"), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs the vectors of the AWS Encryption SDK: BISCUIT_VECTORS"]
async fn messages_of_a_faulty_library_are_refused() {
    let mut vectors = Vectors::open("invalid-Net-4.0.0");
    let (all, right, refused) = opened(&mut vectors, "manifest.json").await;
    eprintln!("invalid-Net-4.0.0: {right} of {all} opened, refused: {refused:?}");
    assert_eq!((all, right), (28, 0));
}

#[tokio::test]
#[ignore = "needs the vectors of the AWS Encryption SDK: BISCUIT_VECTORS"]
async fn messages_of_version_1_are_refused() {
    let mut vectors = Vectors::open("python-1.3.5");
    let tests = vectors.json("decrypt_message.json")["tests"].clone();
    let tests = tests.as_object().unwrap();
    assert_eq!(tests.len(), 360);
    // All of them are for KMS keys. They are refused before a key is requested.
    let keys = KeyCache::new(Arc::new(WrappingKeys::in_memory().unwrap()), KeyLimits::default());
    let reader = EnvelopeEncryptor::new(keys, KeyContext::new());
    for test in tests.values() {
        let message = vectors.bytes(test["ciphertext"].as_str().unwrap());
        assert_eq!(reader.open(&message).await.unwrap_err().code(), "UncommittedMessage");
    }
}
