//! IAM policies with the permissions that each command on a table needs.
//!
//! The S3 actions are listed in "Actions, resources, and condition keys for Amazon S3" of the AWS Service
//! Authorization Reference.

use serde_json::{Map, Value, json};

const READ: &str = "s3:GetObject";
const WRITE: &str = "s3:PutObject";
const DELETE: &str = "s3:DeleteObject";
const ABORT: &str = "s3:AbortMultipartUpload";

/// Returns the IAM policies for a table in a bucket, by the name of the command of `biscuit`, such as `merge`, `show` or
/// `doctor`. A program that calls the crates needs the same permissions. `table` and `state_root` are paths in the bucket,
/// without a `/` at either end.
///
/// The other names are for options, `purge-drop-partitions` and `purge-versions`, and for additional permissions,
/// `pii-kms`, `pii-dynamodb`, `pii-detokenize` and `pii-comprehend`. Each policy is a JSON document for IAM. Names in
/// capitals, such as `ACCOUNT`, have to be replaced.
///
/// ```
/// let policies = biscuit_aws::iam_policies("my-bucket", "lake/orders", "lake/.biscuit/orders");
/// let show = &policies["show"];
/// assert_eq!(show["Statement"][0]["Action"], "s3:ListBucket");
/// assert_eq!(show["Statement"][1]["Resource"][0], "arn:aws:s3:::my-bucket/lake/orders/*");
/// ```
pub fn iam_policies(bucket: &str, table: &str, state_root: &str) -> Map<String, Value> {
    let (root, state) = (table, state_root);
    let arn = |path: &str| format!("arn:aws:s3:::{bucket}/{path}");
    let (files, of_state) = (arn(&format!("{root}/*")), arn(&format!("{state}/*")));
    let probes = arn(&format!("{state}/probe/*"));
    // Listing is a permission on the bucket; the condition limits it to the table and its state root.
    let list = |action: &str| {
        json!({
            "Effect": "Allow", "Action": action, "Resource": format!("arn:aws:s3:::{bucket}"),
            "Condition": {"StringLike": {"s3:prefix": [root, format!("{root}/*"), state, format!("{state}/*")]}},
        })
    };
    let of_bucket =
        |actions: &[&str]| json!({"Effect": "Allow", "Action": actions, "Resource": format!("arn:aws:s3:::{bucket}")});
    let objects =
        |actions: &[&str], resources: &[&String]| json!({"Effect": "Allow", "Action": actions, "Resource": resources});
    let policy = |statements: Vec<Value>| json!({"Version": "2012-10-17", "Statement": statements});

    let read = policy(vec![list("s3:ListBucket"), objects(&[READ], &[&files, &of_state])]);
    let write = policy(vec![
        list("s3:ListBucket"),
        objects(&[READ, WRITE, DELETE, ABORT, "s3:GetObjectTagging", "s3:PutObjectTagging"], &[&files, &of_state]),
    ]);
    let of_purge = vec![
        list("s3:ListBucket"),
        objects(&[READ, DELETE, ABORT], &[&files, &of_state]),
        objects(&[WRITE], &[&of_state]),
        of_bucket(&["s3:ListBucketMultipartUploads"]),
    ];
    let purge = policy(of_purge.clone());
    let dropping = policy([of_purge, vec![of_catalog()]].concat());
    // Objects are deleted by version id only. The probe still writes and deletes objects below the state root.
    let versions = policy(vec![
        list("s3:ListBucket"),
        list("s3:ListBucketVersions"),
        objects(&[READ, "s3:DeleteObjectVersion"], &[&files]),
        objects(&[READ, WRITE, DELETE], &[&probes]),
        objects(&[READ], &[&of_state]),
    ]);
    let lifecycle = policy(vec![
        list("s3:ListBucket"),
        objects(&[READ], &[&of_state]),
        of_bucket(&["s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration"]),
    ]);
    let doctor = policy(vec![
        list("s3:ListBucket"),
        list("s3:ListBucketVersions"),
        objects(&[READ, WRITE, DELETE, ABORT], &[&probes]),
        objects(&[READ], &[&of_state]),
        of_bucket(&["s3:ListBucketMultipartUploads"]),
    ]);
    let mut all = Map::new();
    for name in ["merge", "snapshot", "compact", "recover", "adopt", "quarantine", "bookmark", "run"] {
        all.insert(name.to_owned(), write.clone());
    }
    for name in ["show", "verify", "history", "periods", "impact", "schema"] {
        all.insert(name.to_owned(), read.clone());
    }
    let others = [
        ("purge", purge),
        ("purge-drop-partitions", dropping),
        ("purge-versions", versions),
        ("lifecycle", lifecycle),
        ("doctor", doctor),
    ];
    for (name, policy) in others.into_iter().chain(of_personal_data()) {
        all.insert(name.to_owned(), policy);
    }
    all
}

/// Returns the additional policies for the keys, stores and detectors of policies on personal data.
fn of_personal_data() -> [(&'static str, Value); 4] {
    [
        ("pii-kms", of_service(&["kms:GenerateDataKey", "kms:Decrypt"], "arn:aws:kms:REGION:ACCOUNT:key/KEY")),
        ("pii-dynamodb", of_service(&["dynamodb:BatchGetItem", "dynamodb:PutItem"], TOKENS)),
        ("pii-detokenize", of_service(&["dynamodb:Query"], &format!("{TOKENS}/index/by-token"))),
        ("pii-comprehend", of_service(&["comprehend:DetectPiiEntities"], "*")),
    ]
}

/// ARN of the token table. The user replaces the names in capitals.
const TOKENS: &str = "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE";

/// Returns a policy with one statement.
fn of_service(actions: &[&str], resource: &str) -> Value {
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": resource});
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

/// Returns the statement for `--drop-partitions`. The user replaces the names in capitals.
fn of_catalog() -> Value {
    let arn = |what: &str| format!("arn:aws:glue:*:*:{what}");
    json!({
        "Effect": "Allow", "Action": ["glue:GetPartitions", "glue:BatchDeletePartition"],
        "Resource": [arn("catalog"), arn("database/DATABASE"), arn("table/DATABASE/TABLE")],
    })
}
