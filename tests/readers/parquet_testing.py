#!/usr/bin/env python3
"""Reads the files of apache/parquet-testing. A file that pyarrow reads must give equal rows, or be refused with an error code and the
name of the file. No file, not even a damaged one, may end the process in another way.

  tests/readers/parquet_testing.py BISCUIT FOLDER

BISCUIT is the binary, FOLDER a copy of the repository, which is not part of this project. Needs from PyPI: pyarrow.
"""
import collections, datetime, json, math, pathlib, subprocess, sys, tempfile, uuid

import pyarrow as pa
import pyarrow.parquet as pq

biscuit, folder = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2]).resolve()
if not folder.joinpath("data").is_dir():
    print(f"not run: {folder} has no copy of apache/parquet-testing")
    sys.exit(0)


def plain(v):
    """Returns a value in a comparable form: times in UTC, maps as lists of pairs, UUIDs as text."""
    if isinstance(v, dict):
        return {k: plain(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [plain(x) for x in v]
    if isinstance(v, uuid.UUID):
        return str(v)
    if isinstance(v, float):
        return "NaN" if math.isnan(v) else v
    if isinstance(v, datetime.datetime) and v.tzinfo:
        return v.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return v


NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def column(c):
    """Returns the values of a column. Times are nanoseconds, since Python cannot represent all of them."""
    if pa.types.is_timestamp(c.type):
        return [None if v is None else v * NANOS[c.type.unit] for v in c.cast(pa.int64()).to_pylist()]
    return [plain(v) for v in c.to_pylist()]


def call(words, where):
    done = subprocess.run([biscuit, *words, "--json"], cwd=where, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


equal, refused, wrong = [], collections.defaultdict(list), []
for path in sorted([*folder.glob("data/**/*.parquet"), *folder.glob("bad_data/*.parquet")]):
    short = str(path.relative_to(folder))
    try:
        table = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
        want = [column(c) for c in table.columns]
    except Exception:
        table = None
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        (where / "j.toml").write_text(f"name = 'j'\n[sources.s]\nurl = '{path}'\nformat = 'parquet'\nrules = 'none'\nbookmark = false\n[target]\nurl = 'lake/t'\nmode = 'replace'\n")
        code, report, err = call(["run", "j.toml"], where)
        if code != 0:
            error = report.get("error", {})
            if code not in (2, 3) or not error.get("code"):
                wrong.append((short, code, report, err[-300:]))
            elif path.name not in json.dumps(error):
                wrong.append((short, "the file is not named", error))
            refused[error.get("code")].append(short)
            continue
        if table is None:
            continue
        got = [pq.ParquetFile(f).read() for f in where.glob("lake/t/*.parquet")]
        if table.num_rows == 0:
            equal.append(short)
            continue
        whole = pa.concat_tables(got)
        for field, values in zip(table.schema, want):
            stored = column(whole.column(field.name))
            if isinstance(field.type, pa.FixedSizeBinaryType) and stored and isinstance(stored[0], str):
                values = [None if v is None else str(uuid.UUID(bytes=v)) for v in values]
            if pa.types.is_timestamp(field.type):
                # The type in which pyarrow computes times overflows after the year 9999.
                values = [a if a is not None and abs(a) > 253_402_300_800 * 10**9 else b for a, b in zip(stored, values)]
            if stored != values:
                first = next(i for i, (a, b) in enumerate(zip(stored, values)) if a != b)
                wrong.append((short, field.name, str(field.type), first, stored[first], values[first]))
                break
        else:
            equal.append(short)
print(f"{len(equal)} files are read as pyarrow reads them")
for code, files in sorted(refused.items(), key=str):
    print(f"  {code}: {', '.join(files)}")
for found in wrong:
    print("WRONG", *found)
sys.exit(1 if wrong else 0)
