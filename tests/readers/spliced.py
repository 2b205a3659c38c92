#!/usr/bin/env python3
"""Checks that other engines read files that Biscuit spliced.

Changes are merged into files of DuckDB and pyarrow, with and without page index, bloom filters, dictionaries and nested columns, so
that some row groups are copied and some are encoded. DuckDB and pyarrow must then find the rows of a plain dict, by full scans and
by filters that use statistics, page index and bloom filters.

  tests/readers/spliced.py BISCUIT

BISCUIT is the binary. Needs from PyPI: duckdb, pyarrow.
"""
import datetime, decimal, json, pathlib, subprocess, sys, tempfile

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

biscuit = sys.argv[1]
N, GROUP = 20_000, 2_500


def row(i, seq, what):
    return {
        "id": i, "seq": seq, "kind": f"kind {i % 7}", "note": f"{what} of {i}" if i % 11 else None, "price": decimal.Decimal(i) / 100,
        "day": datetime.date(2024, 1, 1) + datetime.timedelta(days=i % 400), "at": datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=i),
        "tags": [f"t{k}" for k in range(i % 3)] if i % 5 else None,
    }


SCHEMA = pa.schema([("id", pa.int64()), ("seq", pa.int64()), ("kind", pa.string()), ("note", pa.string()), ("price", pa.decimal128(12, 2)),
                    ("day", pa.date32()), ("at", pa.timestamp("us")), ("tags", pa.list_(pa.string()))])
OLD = {i: row(i, 1, "old") for i in range(0, N * 2, 2)}


def table(rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def by_duckdb(path):
    rows = table(OLD.values())
    duckdb.register("rows_", rows)
    duckdb.execute(f"copy (from rows_ order by id) to '{path}' (format parquet, compression zstd, row_group_size {GROUP})")


def by_pyarrow(path, **options):
    pq.write_table(table(OLD.values()), path, row_group_size=GROUP, **options)


WRITERS = {
    "duckdb": by_duckdb,
    "pyarrow": by_pyarrow,
    "pyarrow with a page index": lambda p: by_pyarrow(p, write_page_index=True, data_page_size=4096),
    "pyarrow with pages of version 2": lambda p: by_pyarrow(p, data_page_version="2.0", data_page_size=4096, compression="snappy"),
    "pyarrow without dictionaries": lambda p: by_pyarrow(p, use_dictionary=False, compression="none", write_page_index=True),
}


def changes(path):
    """Writes updates, deletes and inserts in the third and the sixth row group. Returns the expected rows."""
    want, lines = dict(OLD), []
    for i in [*range(2 * GROUP * 2, 2 * GROUP * 2 + 300, 3), *range(2 * GROUP * 5, 2 * GROUP * 5 + 40)]:
        if i % 10 == 4 and i in want:
            del want[i]
            lines.append(json.dumps({"id": i, "seq": 2, "op": "d"}))
        else:
            want[i] = row(i, 2, "new")
            shown = {k: (v if isinstance(v, (int, list)) or v is None else str(v)) for k, v in want[i].items()}
            lines.append(json.dumps(shown | {"op": "u"}))
    path.write_text("\n".join(lines) + "\n")
    return want


def same(name, got, want):
    got = sorted(got, key=lambda r: r["id"])
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        sys.exit(f"FAILED {name}: {len(got)} rows for {len(want)}; {got[at:at + 1]} is not {want[at:at + 1]}")


def check(name, files, want):
    rows = [want[i] for i in sorted(want)]
    same(f"{name}, pyarrow", pa.concat_tables(pq.read_table(f) for f in files).to_pylist(), rows)
    duck = lambda where: duckdb.sql(f"select * from read_parquet({files!r}) where {where}").to_arrow_table().cast(SCHEMA).to_pylist()
    same(f"{name}, DuckDB", duck("true"), rows)
    filters = {
        "id = 15000": (pc.field("id") == 15000, lambda r: r["id"] == 15000),
        "id between 9990 and 10150": ((pc.field("id") >= 9990) & (pc.field("id") <= 10150), lambda r: 9990 <= r["id"] <= 10150),
        "kind = 'kind 3' and id > 39000": ((pc.field("kind") == "kind 3") & (pc.field("id") > 39000), lambda r: r["kind"] == "kind 3" and r["id"] > 39000),
        "note = 'new of 10003'": (pc.field("note") == "new of 10003", lambda r: r["note"] == "new of 10003"),
        "note = 'old of 10002'": (pc.field("note") == "old of 10002", lambda r: r["note"] == "old of 10002"),
    }
    for sql, (arrow, python) in filters.items():
        some = [r for r in rows if python(r)]
        same(f"{name}, DuckDB where {sql}", duck(sql), some)
        same(f"{name}, pyarrow where {sql}", ds.dataset(files, schema=SCHEMA).to_table(filter=arrow).to_pylist(), some)


passed = 0
for name, write in WRITERS.items():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "t").mkdir()
        write(folder / "t" / "part.parquet")
        want = changes(folder / "changes.jsonl")
        ran = subprocess.run([biscuit, "merge", "--target", folder / "t", "--changes", folder / "changes.jsonl", "--format", "rows", "--key", "id",
                              "--order", "seq", "--op", "op", "--json"], capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"FAILED {name}: {ran.stdout}{ran.stderr}")
        report = json.loads(ran.stdout)
        if report["files"]["spliced"] != 1:
            sys.exit(f"FAILED {name}: the file was not spliced: {report['files']}")
        files = [str(f) for f in (folder / "t").glob("*.parquet")]
        groups = pq.ParquetFile(files[0]).metadata
        if not all(groups.row_group(g).column(c).has_offset_index for g in range(groups.num_row_groups) for c in range(groups.num_columns)):
            sys.exit(f"FAILED {name}: a column chunk has no page index")
        check(name, files, want)
        passed += 1
print(f"{passed} passed, 0 failed")
