"""Checks that pyarrow reads the encrypted columns of files that Biscuit wrote, and Biscuit those of pyarrow.

DuckDB reads the columns that are not encrypted.

usage: encrypted.py BISCUIT [ENDPOINT]      ENDPOINT is a KMS (moto); with it, keys of KMS are tested too
"""
import base64
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import boto3
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

biscuit, endpoint = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
rows = [
    {"id": n, "seq": 1, "email": None if n % 7 == 0 else f"josé{n}@example.com", "salary": n * 10, "op": "u"}
    for n in range(1000)
]
job = """
name = "customers"
[sources.raw]
url = "raw/*.jsonl"
format = "json"
[sources.raw.contract]
columns = [
    {name = "id", type = "bigint", nullable = false},
    {name = "seq", type = "bigint", nullable = false},
    {name = "email", type = "string"},
    {name = "salary", type = "bigint"},
    {name = "op", type = "string"},
]
[target]
url = "customers"
mode = "merge"
key = ["id"]
order = ["seq"]
op = "op"
[pii]
keys = "keys.toml"
columns = { email = { encrypt = { key = "file" } }, salary = { encrypt = { key = "file" } } }
"""


class LocalKeys(pe.KmsClient):
    """Wraps keys with the keys of a key file."""

    CONTEXT = b"\x00\x01\x00\x03use\x00\x07parquet"

    def __init__(self, path):
        super().__init__()
        keys = tomllib.loads(Path(path).read_text())["wrapping"]["keys"]
        self.keys = {f"biscuit/{name}": base64.b64decode(key) for name, key in keys.items()}

    def wrap_key(self, key_bytes, master_key_identifier):
        nonce = os.urandom(12)
        sealed = AESGCM(self.keys[master_key_identifier]).encrypt(nonce, key_bytes, self.CONTEXT)
        return base64.b64encode(nonce + sealed).decode()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        sealed = base64.b64decode(wrapped_key)
        return AESGCM(self.keys[master_key_identifier]).decrypt(sealed[:12], sealed[12:], self.CONTEXT)


class AwsKeys(pe.KmsClient):
    """Wraps keys with keys of AWS KMS."""

    CONTEXT = {"use": "parquet"}

    def __init__(self, kms):
        super().__init__()
        self.kms = kms

    def wrap_key(self, key_bytes, master_key_identifier):
        done = self.kms.encrypt(KeyId=master_key_identifier, Plaintext=key_bytes, EncryptionContext=self.CONTEXT)
        return base64.b64encode(done["CiphertextBlob"]).decode()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        blob = base64.b64decode(wrapped_key)
        done = self.kms.decrypt(CiphertextBlob=blob, KeyId=master_key_identifier, EncryptionContext=self.CONTEXT)
        return done["Plaintext"]


def run(folder, *words):
    done = subprocess.run([biscuit, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def merged(folder, changes, number, extra):
    (folder / "raw").mkdir(exist_ok=True)
    (folder / f"raw/{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changes))
    run(folder, "run", "job.toml", *extra)


def shown(folder, table, extra):
    lines = run(folder, "show", table, "--json", "--file-keys", "keys.toml", *extra).splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda row: row["id"])


def by_pyarrow(folder, factory):
    opening = factory.file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
    files = list(folder.glob("customers/*.parquet"))
    return pa.concat_tables(pq.ParquetFile(f, decryption_properties=opening).read() for f in files).sort_by("id")


def both_ways(folder, client, master, keygen, extra):
    run(folder, "pii", "keygen", "keys.toml", *keygen, *extra)
    (folder / "job.toml").write_text(job)
    factory = pe.CryptoFactory(lambda _: client(folder / "keys.toml"))
    merged(folder, rows, 1, extra)
    assert by_pyarrow(folder, factory).select(["id", "email", "salary"]).to_pylist() == [
        {name: row[name] for name in ("id", "email", "salary")} for row in rows
    ], "pyarrow reads what Biscuit has written"
    # The files are rewritten by a merge, and by a compaction after a rotation of the keys.
    changes = [{**row, "seq": 2, "email": "new@example.com"} for row in rows[5:10]] + [{**rows[0], "seq": 2, "id": 5000}]
    merged(folder, changes, 2, extra)
    if not keygen:
        run(folder, "pii", "keygen", "keys.toml", "--rotate")
        factory = pe.CryptoFactory(lambda _: client(folder / "keys.toml"))
    run(folder, "compact", "customers", "--row-group-rows", "100", "--file-keys", "keys.toml", *extra)
    now = by_pyarrow(folder, factory)
    assert now.num_rows == 1001 and now["email"].to_pylist().count("new@example.com") == 5
    for file in folder.glob("customers/*.parquet"):
        metadata = pq.ParquetFile(file).metadata
        try:
            pq.ParquetFile(file).read(["email"])
            raise AssertionError("the encrypted column was read without keys")
        except (OSError, ValueError):
            pass
        assert pq.ParquetFile(file).read(["id"]).num_rows == metadata.num_rows
    clear = duckdb.sql(f"SELECT count(*), sum(id) FROM read_parquet('{folder}/customers/*.parquet')").fetchall()
    assert clear == [(1001, sum(row["id"] for row in rows) + 5000)], "DuckDB reads the columns that are in the clear"

    # Files of pyarrow of all four kinds: keys wrapped twice or once, footer encrypted or not.
    for number, (twice, plain) in enumerate([(True, True), (True, False), (False, True), (False, False)]):
        config = pe.EncryptionConfiguration(
            footer_key=master(folder / "keys.toml"),
            column_keys={master(folder / "keys.toml"): ["email"]},
            double_wrapping=twice,
            plaintext_footer=plain,
            data_key_length_bits=[128, 256][number % 2],
        )
        sealing = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
        table = pa.table({"id": pa.array(range(100), pa.int64()), "email": [f"é{n}" for n in range(100)]})
        (folder / f"theirs{number}").mkdir()
        with pq.ParquetWriter(folder / f"theirs{number}/a.parquet", table.schema, encryption_properties=sealing) as w:
            w.write_table(table)
        assert shown(folder, f"theirs{number}", extra) == table.to_pylist(), "Biscuit reads what pyarrow has written"
    print(f"{len(rows)} rows, {' '.join(keygen) or 'with a local key'}: both ways")


with tempfile.TemporaryDirectory() as folder:
    current = lambda path: "biscuit/" + tomllib.loads(path.read_text())["wrapping"]["current"]
    both_ways(Path(folder), LocalKeys, current, [], [])
if endpoint:
    kms = boto3.client("kms", endpoint_url=endpoint, region_name="us-east-1")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    with tempfile.TemporaryDirectory() as folder:
        extra = ["--endpoint-url", endpoint, "--region", "us-east-1"]
        # The configuration of pyarrow cannot contain the colons of an ARN.
        both_ways(Path(folder), lambda _: AwsKeys(kms), lambda _: arn.split("/")[-1], ["--kms", arn], extra)
