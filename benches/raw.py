#!/usr/bin/env python3
"""Times the conversion of raw JSON to clean Parquet by `biscuit run`, DuckDB and Polars.

  benches/raw.py [--rows 5000000] [--files 10] [--days 10] [--rounds 5] [--systems biscuit,duckdb,polars] [--work DIR] [--json FILE]

The input is orders as lines of JSON in files of equal size: an integer, a timestamp as text, a zip code with leading zeros, an amount,
a name, a flag, a nested address. The output is typed (bigint, timestamp, decimal(15,2), boolean, struct), has the instant of the run,
and is partitioned by the date of the order, with zstd level 1. In addition, Biscuit remembers what it has read and counts lost values;
the peers only write files. All systems run in turn, round by round, on two threads, from an empty output. The disk is synced inside of
every timing. Rows and sums are compared. Prints a table of medians: seconds, ratio to the fastest peer, peak memory, bytes written,
files.
Needs from PyPI: duckdb, polars.
"""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time
import duckdb

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--rows", type=int, default=5_000_000)
p.add_argument("--files", type=int, default=10)
p.add_argument("--days", type=int, default=10)
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--systems", default="biscuit,duckdb,polars")
p.add_argument("--work")
p.add_argument("--json")
a = p.parse_args()
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-bench-"))
root.mkdir(parents=True, exist_ok=True)

JOB = f"""
name = "orders"
[sources.orders]
url = "{root}/raw"
format = "json"
[sources.orders.contract]
columns = [
    {{ name = "id", type = "bigint", nullable = false }},
    {{ name = "order_datetime", type = "timestamp" }},
    {{ name = "zip", type = "string" }},
    {{ name = "amount", type = "decimal(15,2)" }},
    {{ name = "customer", type = "string" }},
    {{ name = "paid", type = "boolean" }},
    {{ name = "address", type = "struct<street:string,city:string>" }},
]
[target]
url = "{root}/out/orders"
mode = "append"
partition_by = ["order_date"]
derive.order_date = {{ from = "order_datetime", as = "date" }}
audit.processing_datetime = "etl_processing_datetime"
"""

PEERS = {
    "duckdb": """
import duckdb, sys
db = duckdb.connect()
db.execute("set threads=2; set memory_limit='12GB'; set timezone='UTC'; set preserve_insertion_order=false")
db.execute(f'''copy (select *, timestamptz '2024-03-10 12:00:00+00' as etl_processing_datetime, order_datetime::date as order_date
    from read_json('{sys.argv[1]}/raw/*.json', format='newline_delimited', columns={{id: 'BIGINT', order_datetime: 'TIMESTAMP',
    zip: 'VARCHAR', amount: 'DECIMAL(15,2)', customer: 'VARCHAR', paid: 'BOOLEAN', address: 'STRUCT(street VARCHAR, city VARCHAR)'}}))
    to '{sys.argv[1]}/out/orders' (format parquet, partition_by (order_date), compression zstd, compression_level 1, row_group_size 262144)''')
""",
    "polars": """
import os, sys
os.environ["POLARS_MAX_THREADS"] = "2"
import polars as pl, datetime
schema = {"id": pl.Int64, "order_datetime": pl.String, "zip": pl.String, "amount": pl.Float64, "customer": pl.String, "paid": pl.Boolean,
          "address": pl.Struct({"street": pl.String, "city": pl.String})}
run = datetime.datetime(2024, 3, 10, 12, tzinfo=datetime.timezone.utc)
(pl.scan_ndjson(f"{sys.argv[1]}/raw/*.json", schema=schema)
   .with_columns(pl.col("order_datetime").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us"), pl.col("amount").cast(pl.Decimal(15, 2)),
                 pl.lit(run).alias("etl_processing_datetime"))
   .with_columns(pl.col("order_datetime").dt.date().alias("order_date"))
   .sink_parquet(pl.PartitionBy(f"{sys.argv[1]}/out/orders", key="order_date", include_key=False), compression="zstd", compression_level=1, mkdir=True))
""",
}


def make():
    raw = root / "raw"
    mark = raw.parent / f"made-{a.rows}-{a.files}-{a.days}"
    if mark.exists():
        return
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    db = duckdb.connect()
    each = a.rows // a.files
    for n in range(a.files):
        db.execute(f"""copy (select i as id, strftime(timestamp '2024-03-01' + to_seconds((hash(i) % {a.days * 86400})::bigint), '%Y-%m-%dT%H:%M:%SZ') as order_datetime,
            lpad((hash(i + 1) % 100000)::varchar, 5, '0') as zip, (hash(i + 2) % 10000000) / 100.0 as amount, 'Customer ' || (hash(i + 3) % 100000) as customer,
            hash(i + 4) % 2 = 0 as paid, {{'street': (hash(i + 5) % 900 + 1) || ' Main Street', 'city': 'City ' || (hash(i + 6) % 1000)}} as address
            from range({n * each}, {(n + 1) * each}) t(i)) to '{raw}/{n:03}.json' (format json)""")
    mark.touch()


def build():
    subprocess.run("cargo build --release --locked -p biscuit-lake --bin biscuit".split(), check=True, cwd=here.parent)
    out = subprocess.run("cargo metadata --format-version 1 --no-deps".split(), check=True, cwd=here.parent, capture_output=True).stdout
    return pathlib.Path(json.loads(out)["target_directory"]) / "release"


def timed(command):
    """Seconds with a sync, and peak memory of the process in MB."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{command[0]} failed: {error.decode()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def answer():
    db = duckdb.connect()
    glob = f"{root}/out/orders/*/*.parquet"
    return db.execute(f"""select count(*), sum(id), sum(amount)::decimal(38,2), count(distinct zip), sum(epoch(order_datetime)), sum(paid::int),
        min(address.street || address.city), count(distinct order_date) from read_parquet('{glob}', hive_partitioning=true)""").fetchone()


make()
release = build()
(root / "job.toml").write_text(JOB)
for name, code in PEERS.items():
    (root / f"peer_{name}.py").write_text(code)
commands = {"biscuit": [release / "biscuit", "run", root / "job.toml", "--json"]}
commands.update({name: [sys.executable, root / f"peer_{name}.py", root] for name in PEERS})
results, want = {s: [] for s in a.systems.split(",")}, None
for round in range(a.rounds):
    for system in results:
        shutil.rmtree(root / "out", ignore_errors=True)
        (root / "out").mkdir()
        seconds, memory = timed(commands[system])
        got = answer()
        want = want or got
        if got != want:
            sys.exit(f"{system} has other rows: {got}, and not {want}")
        files = list((root / "out").rglob("*.parquet"))
        results[system].append((seconds, memory, sum(f.stat().st_size for f in files) / 1e6, len(files)))
        print(f"{system:<8} {seconds:6.2f} s", file=sys.stderr)
size = sum(f.stat().st_size for f in (root / "raw").iterdir()) / 1e6
medians = {s: [statistics.median(r[i] for r in rounds) for i in range(4)] for s, rounds in results.items()}
best = min((m[0] for s, m in medians.items() if s != "biscuit"), default=medians.get("biscuit", [1])[0])
print(f"{a.rows} rows, {size:.0f} MB of JSON, {a.days} partitions, medians of {a.rounds}\n")
print("| | s | of the fastest peer | peak MB | MB written | files |\n| --- | --- | --- | --- | --- | --- |")
for s, (seconds, memory, written, files) in medians.items():
    print(f"| {s} | {seconds:.2f} | {seconds / best:.2f} | {memory:.0f} | {written:.0f} | {files:.0f} |")
if a.json:
    pathlib.Path(a.json).write_text(json.dumps({"medians": medians, "rounds": results, "rows": a.rows}))
