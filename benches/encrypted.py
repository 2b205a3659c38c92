#!/usr/bin/env python3
"""Measures the cost of encrypted columns in Parquet files, for Biscuit and for pyarrow.

  benches/encrypted.py FOLDER [--rounds 5] [--columns o_custkey,o_clerk,o_comment]

FOLDER has Parquet files, for example `target` of a workload of make_workload.py. Both systems in turn write the rows once in plain
text and once with the columns encrypted, and then read all of them. The disk is synced inside of every timing. Prints medians of
seconds, their ratios, and the ratio of bytes.
Needs from PyPI: pyarrow, cryptography.
"""
import argparse, base64, json, os, pathlib, shutil, statistics, subprocess, tempfile, time

import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("folder")
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--columns", default="o_custkey,o_clerk,o_comment")
a = p.parse_args()
columns, sources = a.columns.split(","), sorted(pathlib.Path(a.folder).resolve().glob("*.parquet"))
subprocess.run(["cargo", "build", "--release", "--locked", "-p", "biscuit-lake"], check=True, cwd=here.parent)
target = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], check=True, cwd=here.parent, capture_output=True)
biscuit = pathlib.Path(json.loads(target.stdout)["target_directory"]) / "release" / "biscuit"


class Keys(pe.KmsClient):
    def __init__(self):
        super().__init__()
        self.key = AESGCM(bytes(32))

    def wrap_key(self, key_bytes, master_key_identifier):
        nonce = os.urandom(12)
        return base64.b64encode(nonce + self.key.encrypt(nonce, key_bytes, None)).decode()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        sealed = base64.b64decode(wrapped_key)
        return self.key.decrypt(sealed[:12], sealed[12:], None)


factory, connection = pe.CryptoFactory(lambda _: Keys()), pe.KmsConnectionConfig()


def timed(work):
    os.sync()
    start = time.perf_counter()
    work()
    os.sync()
    return time.perf_counter() - start


def run(folder, *words):
    subprocess.run([biscuit, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def biscuit_once(folder, sealed):
    how = ", ".join(f"{c} = {{ encrypt = {{ key = 'file' }} }}" for c in columns)
    pii = f"[pii]\nkeys = 'keys.toml'\ncolumns = {{ {how} }}\n" if sealed else ""
    (folder / "job.toml").write_text(
        f"name = 'b'\n[sources.s]\nurl = '{pathlib.Path(a.folder).resolve()}/*.parquet'\nformat = 'parquet'\nrules = 'none'\n[target]\nurl = 'out'\nmode = 'append'\n{pii}"
    )
    run(folder, "pii", "keygen", "keys.toml")
    write = timed(lambda: run(folder, "run", "job.toml"))
    return write, timed(lambda: run(folder, "verify", "out", "--key", "o_orderkey", "--file-keys", "keys.toml"))


def pyarrow_once(folder, sealed):
    (folder / "out").mkdir()
    config = pe.EncryptionConfiguration(footer_key="k", column_keys={"k": columns}, plaintext_footer=True, data_key_length_bits=256)
    seal = lambda: factory.file_encryption_properties(connection, config) if sealed else None
    opening = lambda: factory.file_decryption_properties(connection, pe.DecryptionConfiguration()) if sealed else None

    def write():
        for source in sources:
            out = folder / "out" / source.name
            pq.write_table(pq.read_table(source), out, compression="zstd", compression_level=1, row_group_size=262144, encryption_properties=seal())

    def read():
        for file in (folder / "out").glob("*.parquet"):
            pq.ParquetFile(file, decryption_properties=opening()).read()

    return timed(write), timed(read)


def size(folder):
    return sum(f.stat().st_size for f in (folder / "out").rglob("*.parquet"))


runs = {}
for _ in range(a.rounds):
    for name, once in [("biscuit", biscuit_once), ("pyarrow", pyarrow_once)]:
        for sealed in (False, True):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="biscuit-bench-"))
            try:
                runs.setdefault((name, sealed), []).append((*once(folder, sealed), size(folder)))
            finally:
                shutil.rmtree(folder)
middle = lambda name, sealed, at: statistics.median(run[at] for run in runs[name, sealed])
print(f"{', '.join(columns)} encrypted, {a.rounds} rounds")
print("| | write, s | encrypted | ratio | read, s | encrypted | ratio | bytes |")
print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
for name in ("biscuit", "pyarrow"):
    cells = [name]
    for at in (0, 1):
        clear, sealed = middle(name, False, at), middle(name, True, at)
        cells += [f"{clear:.2f}", f"{sealed:.2f}", f"{sealed / clear:.2f}"]
    cells.append(f"{middle(name, True, 2) / middle(name, False, 2):.4f}")
    print("| " + " | ".join(cells) + " |")
