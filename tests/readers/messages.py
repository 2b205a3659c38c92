"""Checks that the AWS Encryption SDK for Python decrypts messages of Biscuit, and Biscuit messages of the SDK.

usage: messages.py BISCUIT [ENDPOINT]      ENDPOINT is a KMS (moto); with it, keys of KMS are tested too
"""
import base64
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import aws_encryption_sdk
import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    AesWrappingAlg,
    CreateAwsKmsKeyringInput,
    CreateRawAesKeyringInput,
)
from aws_encryption_sdk import CommitmentPolicy
from aws_encryption_sdk.identifiers import AlgorithmSuite as Algorithm

biscuit, endpoint = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
texts = ["josé@example.com", "a", "x" * 10_000, "日本"] + [f"user{n}@example.com" for n in range(200)]
policy = 'keys = "keys.toml"\n[columns]\nemail = { encrypt = { key = "message" } }\n'


def run(folder, *words):
    done = subprocess.run([biscuit, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def both_ways(folder, keyring, keygen, extra):
    run(folder, "pii", "keygen", "keys.toml", *keygen, *extra)
    (folder / "policy.toml").write_text(policy)
    (folder / "in.jsonl").write_text("".join(json.dumps({"id": n, "email": t}) + "\n" for n, t in enumerate(texts)))
    run(folder, "pii", "apply", "in.jsonl", "customer", "--policy", "policy.toml", *extra)
    files = [f for f in folder.glob("customer/*.parquet")]
    rows = pa.concat_tables(pq.read_table(f) for f in files).sort_by("id")
    keyring = keyring()
    opened = []
    for message in rows["email"].to_pylist():
        plain, header = client.decrypt(source=message, keyring=keyring)
        assert header.encryption_context == {"table": "customer", "column": "email"}, header.encryption_context
        opened.append(plain.decode())
    assert opened == texts, "Python opens what Biscuit has written"

    # Uses the default suite of the SDK, with signature and key commitment, and the suite with key commitment alone.
    context = {"table": "theirs", "column": "email", "more": "é"}
    suites = [Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384, Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY]
    theirs = [
        client.encrypt(source=t.encode(), keyring=keyring, encryption_context=context, algorithm=suites[n % 2])[0]
        for n, t in enumerate(texts)
    ]
    (folder / "theirs").mkdir()
    pq.write_table(pa.table({"id": list(range(len(texts))), "email": theirs}), folder / "theirs" / "part-0.parquet")
    run(folder, "adopt", "theirs")
    asked = ["--policy", "policy.toml", "--columns", "email", "--who", "ci", "--reason", "a test", "--audit", "audit.jsonl"]
    run(folder, "pii", "detokenize", "theirs", *asked, "--out", "back.parquet", *extra)
    assert pq.read_table(folder / "back.parquet").sort_by("id")["email"].to_pylist() == texts, "Biscuit opens what Python has written"
    print(f"{len(texts)} messages each way: {keygen or 'a local key'}")


def raw_keyring(folder):
    keys = tomllib.loads((folder / "keys.toml").read_text())["wrapping"]
    key = base64.b64decode(keys["keys"][keys["current"]])
    return providers.create_raw_aes_keyring(
        input=CreateRawAesKeyringInput(
            key_namespace="biscuit", key_name=keys["current"], wrapping_key=key, wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16
        )
    )


with tempfile.TemporaryDirectory() as folder:
    both_ways(Path(folder), lambda: raw_keyring(Path(folder)), [], [])
if endpoint:
    kms = boto3.client("kms", endpoint_url=endpoint, region_name="us-east-1")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    with tempfile.TemporaryDirectory() as folder:
        keyring = lambda: providers.create_aws_kms_keyring(input=CreateAwsKmsKeyringInput(kms_key_id=arn, kms_client=kms))
        both_ways(Path(folder), keyring, ["--kms", arn], ["--endpoint-url", endpoint])
