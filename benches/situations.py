#!/usr/bin/env python3
"""Times `biscuit merge` in situations other than large Parquet files, beside DuckDB, Polars, chDB and delta-rs.

  benches/situations.py [--situations debezium,csv,small,partitions,wide,nested] [--scale 1] [--rounds 5] [--memory 256MB]
                        [--systems biscuit,duckdb,polars,chdb,deltalake] [--biscuit PROGRAM] [--work DIR] [--json FILE]

  debezium    Debezium envelopes as lines of JSON without schemas, 2,000,000 records of 500,000 keys, into a new table
  csv         gzipped CSV with an operation column, 8 files, 3,000,000 records of 1,500,000 keys, into a new table
  small       2,000,000 rows in 5,000 files, 1 % changed
  partitions  8,000,000 rows in 730 daily folders, changes in the newest 63 days
  wide        300,000 rows with 150 columns in 4 files, keys are UUIDs, 1 % changed
  nested      1,000,000 rows with lists of structs and maps in 4 files, 1 % changed

--scale multiplies the number of change records of `debezium` and `csv`. All systems run in turn, round by round, on two threads. The
time of Biscuit is that of the whole process; that of a peer begins when its libraries are imported. The disk is synced inside of every
timing. A peer writes a new table with the right rows, or only the touched folders of `partitions`;
delta-rs merges into a table of its own. The rows of every system are compared with those of DuckDB. Prints medians: seconds, ratio to
the fastest peer, peak memory of the process, files afterwards.
Needs from PyPI: duckdb, polars, pyarrow, chdb, deltalake.
"""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time
import duckdb

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--situations", default="debezium,csv,small,partitions,wide,nested")
p.add_argument("--scale", type=int, default=1)
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--memory", help="value of --memory of biscuit")
p.add_argument("--systems", default="biscuit,duckdb,polars,chdb,deltalake")
p.add_argument("--biscuit", help="program to time; default: build it")
p.add_argument("--work")
p.add_argument("--json")
p.add_argument("--check", nargs=3, help=argparse.SUPPRESS)
a = p.parse_args()
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-bench-"))
root.mkdir(parents=True, exist_ok=True)
ZSTD = "format parquet, compression zstd, compression_level 1"


def database():
    db = duckdb.connect()
    db.execute("set threads=2; set memory_limit='12GB'; set timezone='UTC'; set preserve_insertion_order=false")
    return db


class Situation:
    """Data of a situation: files of the table in `target`, change files in `changes`, and SQL that reads both.

    `rows` and `changes` are SQL of the table and of the change records; these have `seq`, the order, and `deleted`.
    """

    partition_by = None

    def __init__(self, name):
        self.name, self.folder = name, root / name
        self.target, self.change_files = self.folder / "target", self.folder / "changes"

    def make(self):
        mark = self.folder / f"made-{a.scale}"
        if not mark.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.target.mkdir(parents=True)
            self.change_files.mkdir()
            self.make_files(database())
            mark.touch()

    def stored(self, folder):
        hive = "true" if self.partition_by else "false"
        return f"read_parquet('{folder}/**/*.parquet', hive_partitioning={hive}, union_by_name=true)"

    def rows(self):
        return f"select * from {self.stored(self.target)}"

    def changes(self):
        return f"select * from '{self.change_files}/c.parquet'"

    def columns(self, db):
        return ", ".join(f'"{row[0]}"' for row in db.execute(f"describe {self.rows()}").fetchall())

    def merged(self, db, where="true"):
        """SQL of the right rows: the newest record of each key, if it is newer than the stored row."""
        columns = self.columns(db)
        return f"""with last as (select * from ({self.changes()}) qualify row_number() over (partition by id order by seq desc) = 1),
            stored as (select * from ({self.rows()}) where {where})
            select {columns} from stored anti join (select l.id from last l join stored s on l.id = s.id and l.seq > s.seq) using (id)
            union all select {columns} from last where not deleted and id not in (select s.id from stored s join last l on l.id = s.id and s.seq >= l.seq)"""

    def arguments(self):
        more = ["--partition-by", self.partition_by] if self.partition_by else []
        return ["--format", "rows", "--key", "id", "--order", "seq", "--delete-column", "deleted", *more]


class FirstLoad(Situation):
    """Change records in text files, for a table that does not exist."""

    contract_columns = {}

    def contract(self, head):
        columns = ",\n".join(f'  {{ name = "{name}", type = "{t}" }}' for name, t in self.contract_columns.items())
        (self.folder / "contract.toml").write_text(f"{head}\ncolumns = [\n{columns}\n]\n")

    def columns(self, db):
        return ", ".join(f'"{name}"' for name in self.contract_columns)

    def merged(self, db, where="true"):
        return f"""select {self.columns(db)} from ({self.changes()}) qualify row_number() over (partition by id order by seq desc) = 1
            and not deleted"""


class Debezium(FirstLoad):
    contract_columns = {"id": "bigint", "name": "string", "email": "string", "balance": "double", "city": "string",
                        "updated_at": "bigint", "note": "string"}

    def make_files(self, db):
        records, keys = 2_000_000 * a.scale, 500_000
        for part in range(a.scale):
            first, end = part * 2_000_000, (part + 1) * 2_000_000
            db.execute(f"""copy (select struct_pack(id := k) as before,
                case when hash(i + 5) % 20 = 0 then null else struct_pack(id := k, name := 'customer ' || (hash(k) % 100000), email := 'u' || k || '@example.org',
                    balance := (hash(i) % 1000000) / 100.0::double, city := ['Oslo', 'Rome', 'Lima', 'Pune'][1 + (hash(k + 1) % 4)::int],
                    updated_at := 1700000000000000 + i * 1000, note := md5(i::varchar)) end as after,
                struct_pack(version := '3.0.0', connector := 'postgresql', name := 'shop', ts_ms := 1700000000000 + i, snapshot := 'false', db := 'shop',
                    schema := 'public', "table" := 'customer', txId := i, lsn := 1000000 + i * 8) as source,
                case when hash(i + 5) % 20 = 0 then 'd' else 'u' end as op, 1700000000100 + i as ts_ms
                from (select i, (hash(i) % {keys})::bigint as k from range({first}, {end}) t(i)) order by i)
                to '{self.change_files}/{part:02}.jsonl' (format json)""")
        self.contract('key = ["id"]')

    def changes(self):
        row = "STRUCT(id BIGINT, name VARCHAR, email VARCHAR, balance DOUBLE, city VARCHAR, updated_at BIGINT, note VARCHAR)"
        columns = f"""{{before: 'STRUCT(id BIGINT)', "after": '{row}', source: 'STRUCT(lsn BIGINT)', op: 'VARCHAR'}}"""
        names = ", ".join(f'"after".{name} as {name}' for name in self.contract_columns if name != "id")
        return f"""select coalesce("after".id, before.id) as id, {names}, source.lsn as seq, op = 'd' as deleted
            from read_json('{self.change_files}/*.jsonl', format='newline_delimited', columns={columns})"""

    def arguments(self):
        return ["--format", "debezium", "--table", "public.customer", "--schema", self.folder / "contract.toml"]


class Csv(FirstLoad):
    contract_columns = {"seq": "bigint", "id": "bigint", "name": "string", "amount": "decimal(12,2)", "at": "timestamp", "note": "string"}

    def make_files(self, db):
        each = 375_000 * a.scale
        for part in range(8):
            db.execute(f"""copy (select case when hash(i + 3) % 12 = 0 then 'D' when hash(i + 3) % 3 = 0 then 'I' else 'U' end as "Op", i as seq,
                (hash(i) % 1500000)::bigint as id, 'n' || (hash(i + 1) % 100000) as name, ((hash(i + 2) % 10000000) / 100.0)::decimal(12,2) as amount,
                timestamp '2024-01-01' + to_seconds((hash(i + 4) % 30000000)::bigint) as at, md5(i::varchar) as note
                from range({part * each}, {(part + 1) * each}) t(i)) to '{self.change_files}/{part}.csv.gz' (format csv, header, compression gzip)""")
        self.contract('key = ["id"]\norder = ["seq"]')

    def changes(self):
        columns = "{'Op': 'VARCHAR', 'seq': 'BIGINT', 'id': 'BIGINT', 'name': 'VARCHAR', 'amount': 'DECIMAL(12,2)', 'at': 'TIMESTAMP', 'note': 'VARCHAR'}"
        return f"""select * exclude ("Op"), "Op" = 'D' as deleted from read_csv('{self.change_files}/*.csv.gz', header=true, columns={columns})"""

    def arguments(self):
        return ["--format", "rows", "--op", "Op", "--schema", self.folder / "contract.toml", "--key", "id", "--order", "seq"]


class Small(Situation):
    def make_files(self, db):
        import pyarrow.parquet as pq
        rows = db.execute("select i::bigint as id, 1::bigint as seq, md5(i::varchar) as note, (hash(i) % 1000)::int as n from range(2000000) t(i) order by i").to_arrow_table()
        for file in range(5000):
            pq.write_table(rows.slice(file * 400, 400), self.target / f"{file:04}.parquet", compression="zstd")
        db.execute(f"""copy (select (hash(i) % 2020000)::bigint as id, 2::bigint + i as seq, 'c' || md5(i::varchar) as note, (hash(i + 4) % 1000)::int as n,
            hash(i + 7) % 12 = 0 as deleted from range(20000) t(i)) to '{self.change_files}/c.parquet' ({ZSTD})""")


class Partitions(Situation):
    partition_by = "day"

    def make_files(self, db):
        db.execute(f"""copy (select i as id, 1::bigint as seq, date '2023-01-01' + (i // 10960)::int as day, (hash(i) % 100000) / 100.0 as amount,
            md5(i::varchar) as note from range(8000000) t(i)) to '{self.target}' ({ZSTD}, partition_by (day), overwrite_or_ignore)""")
        db.execute(f"""copy (select id, seq, date '2023-01-01' + (id // 10960)::int as day, amount, note, deleted from (select
            (7999999 - (hash(i + 1) % case when hash(i) % 10 < 8 then 32000 else 650000 end))::bigint as id, 2::bigint + i as seq,
            (hash(i + 2) % 100000) / 100.0 as amount, 'c' || md5(i::varchar) as note, hash(i + 7) % 12 = 0 as deleted from range(40000) t(i)))
            to '{self.change_files}/c.parquet' ({ZSTD})""")


class Wide(Situation):
    def make_files(self, db):
        number = lambda c: f"(hash(i * {c} + {c}) % {[10, 1000, 1000000][c % 3]})::{['int', 'bigint', 'double'][c % 3]} as n{c}"
        text = lambda c: f"'v' || (hash(i + {c}) % {[5, 500, 500000][c % 3]}) as s{c}"
        columns = ", ".join(number(c) if c % 2 else text(c) for c in range(148))
        key = "select i, md5(i::varchar) as id"
        for part in range(4):
            db.execute(f"""copy (select id, 1 as seq, {columns} from ({key} from range({part * 75000}, {(part + 1) * 75000}) t(i)))
                to '{self.target}/{part}.parquet' ({ZSTD}, row_group_size 65536)""")
        changed = columns.replace("hash(i", "hash(7 + i")
        db.execute(f"""copy (select *, hash(id) % 10 = 0 as deleted from (select id, 2 as seq, {changed} from
            (select i, md5((hash(i + 99) % 303000)::varchar) as id from range(3000) t(i))) qualify row_number() over (partition by id) = 1)
            to '{self.change_files}/c.parquet' ({ZSTD})""")


class Nested(Situation):
    def make_files(self, db):
        item = lambda salt: f"struct_pack(a := (hash(k + {salt}) % 100)::int, b := 'x' || (hash(k + {salt + 1}) % 1000))"
        columns = lambda salt: f"""k as id, seq, [{item(salt)}, {item(salt + 5)}] as items,
            map(['k1', 'k2'], [(hash(k) % 10)::int, (hash(k + {salt + 3}) % 10)::int]) as attributes, md5((k + {salt})::varchar) as note"""
        for part in range(4):
            db.execute(f"""copy (select {columns(1)} from (select k::bigint as k, 1::bigint as seq from range({part * 250000}, {(part + 1) * 250000}) t(k)))
                to '{self.target}/{part}.parquet' ({ZSTD}, row_group_size 131072)""")
        db.execute(f"""copy (select *, hash(id + 7) % 12 = 0 as deleted from (select {columns(9)} from
            (select (hash(i) % 1010000)::bigint as k, 2::bigint + i as seq from range(10000) t(i)))) to '{self.change_files}/c.parquet' ({ZSTD})""")


SITUATIONS = {"debezium": Debezium, "csv": Csv, "small": Small, "partitions": Partitions, "wide": Wide, "nested": Nested}

# Each peer is a process: peer, situation, folder of the data, folder of the output, SQL of the right rows.
PEER = r'''
import os, pathlib, sys, time
os.environ["POLARS_MAX_THREADS"] = "2"
peer, name, data, out, sql = sys.argv[1:6]
data, out = pathlib.Path(data), pathlib.Path(out)
target, changes = data / "target", data / "changes"
options = "format parquet, compression zstd, compression_level 1, overwrite_or_ignore true"
if peer == "duckdb":
    import duckdb
    start = time.perf_counter()
    db = duckdb.connect()
    db.execute("set threads=2; set memory_limit='12GB'; set timezone='UTC'; set preserve_insertion_order=false")
    out.mkdir(parents=True)
    how = "partition_by (day)" if name == "partitions" else "per_thread_output true"
    db.execute(f"copy ({sql}) to '{out}' ({options}, {how})")
elif peer == "polars":
    import polars as pl
    start = time.perf_counter()
    if name == "debezium":
        row = {"id": pl.Int64, "name": pl.String, "email": pl.String, "balance": pl.Float64, "city": pl.String, "updated_at": pl.Int64, "note": pl.String}
        schema = {"before": pl.Struct({"id": pl.Int64}), "after": pl.Struct(row), "source": pl.Struct({"lsn": pl.Int64}), "op": pl.String, "ts_ms": pl.Int64}
        c = pl.scan_ndjson(str(changes / "*.jsonl"), schema=schema)
        after = pl.col("after").struct
        c = c.select(pl.coalesce(after.field("id"), pl.col("before").struct.field("id")).alias("id"), *[after.field(n) for n in row if n != "id"],
                     pl.col("source").struct.field("lsn").alias("seq"), (pl.col("op") == "d").alias("deleted"))
        rows = c.sort("seq").unique("id", keep="last").filter(~pl.col("deleted")).drop("deleted", "seq")
    elif name == "csv":
        schema = {"Op": pl.String, "seq": pl.Int64, "id": pl.Int64, "name": pl.String, "amount": pl.Decimal(12, 2), "at": pl.Datetime, "note": pl.String}
        c = pl.scan_csv(str(changes / "*.csv.gz"), schema=schema, try_parse_dates=True)
        rows = c.sort("seq").unique("id", keep="last").filter(pl.col("Op") != "D").drop("Op")
    else:
        stored = pl.scan_parquet(str(target / "**/*.parquet"), hive_partitioning=name == "partitions")
        c = pl.scan_parquet(str(changes / "c.parquet"))
        if name == "partitions":
            stored = stored.filter(pl.col("day").is_in(c.select("day").unique().collect()["day"].to_list()))
        last = c.sort("seq").unique("id", keep="last")
        newer = last.select("id", pl.col("seq").alias("newest"))
        kept = stored.join(newer, on="id", how="left").filter(pl.col("newest").is_null() | (pl.col("newest") <= pl.col("seq"))).drop("newest")
        known = stored.join(newer.select("id"), on="id", how="semi").select("id", pl.col("seq").alias("known"))
        new = last.join(known, on="id", how="left").filter((pl.col("known").is_null() | (pl.col("known") < pl.col("seq"))) & ~pl.col("deleted"))
        rows = pl.concat([kept, new.select(kept.collect_schema().names())], how="vertical_relaxed")
    out.mkdir(parents=True)
    place = pl.PartitionBy(out, key="day", include_key=False) if name == "partitions" else out / "0.parquet"
    rows.sink_parquet(place, compression="zstd", compression_level=1, mkdir=True)
elif peer == "chdb":
    from chdb import session
    db = session.Session()
    start = time.perf_counter()
    out.mkdir(parents=True)
    end = "settings max_threads = 2, output_format_parquet_compression_method = 'zstd', engine_file_truncate_on_insert = 1"
    if name == "debezium":
        names = ["name", "email", "balance", "city", "updated_at", "note"]
        after = "id Nullable(Int64), name Nullable(String), email Nullable(String), balance Nullable(Float64), city Nullable(String), updated_at Nullable(Int64), note Nullable(String)"
        read = f"file('{changes}/*.jsonl', 'JSONEachRow', 'before Tuple(id Nullable(Int64)), after Tuple({after}), source Tuple(lsn Int64), op String')"
        last = f"select coalesce(after.id, before.id) as id, argMax(tuple({', '.join('after.' + n for n in names)}, op), source.lsn) as r from {read} group by id"
        rows = f"select id, {', '.join(f'r.{i + 1} as {n}' for i, n in enumerate(names))} from ({last}) where r.7 != 'd'"
    else:
        read = f"file('{changes}/*.csv.gz', 'CSVWithNames', 'Op String, seq Int64, id Int64, name String, amount Decimal(12,2), at DateTime64(6), note String')"
        last = f"select id, argMax(tuple(seq, name, amount, at, note, Op), seq) as r from {read} group by id"
        rows = f"select r.1 as seq, id, r.2 as name, r.3 as amount, r.4 as at, r.5 as note from ({last}) where r.6 != 'D'"
    db.query(f"insert into function file('{out}/0.parquet', 'Parquet') {rows} {end}")
elif peer == "deltalake":
    import polars as pl
    from deltalake import DeltaTable, WriterProperties
    start = time.perf_counter()
    c = pl.read_parquet(changes / "c.parquet").sort("seq").unique("id", keep="last").to_arrow()
    columns = {name: f"s.{name}" for name in c.column_names if name != "deleted"}
    on = "s.id = t.id" + (" and s.day = t.day" if name == "partitions" else "")
    properties = WriterProperties(compression="ZSTD", compression_level=1)
    merge = DeltaTable(str(out)).merge(c, on, source_alias="s", target_alias="t", writer_properties=properties)
    merge = merge.when_matched_delete("s.deleted and s.seq > t.seq").when_matched_update(columns, "s.seq > t.seq")
    merge.when_not_matched_insert(columns, "not s.deleted").execute()
os.sync()
print(time.perf_counter() - start)
'''

DELTA = r'''
import sys, pyarrow as pa, pyarrow.dataset as ds
from deltalake import write_deltalake, WriterProperties
target, out, day = sys.argv[1], sys.argv[2], sys.argv[3] == "partitions"
rows = ds.dataset(target, partitioning="hive" if day else None, format="parquet").to_table()
if day:
    rows = rows.set_column(rows.schema.get_field_index("day"), "day", rows["day"].cast(pa.string()).cast(pa.date32()))
write_deltalake(out, rows, partition_by=["day"] if day else None, writer_properties=WriterProperties(compression="ZSTD", compression_level=1))
'''


def build():
    if a.biscuit:
        return pathlib.Path(a.biscuit)
    subprocess.run("cargo build --release --locked -p biscuit-lake --bin biscuit".split(), check=True, cwd=here.parent)
    out = subprocess.run("cargo metadata --format-version 1 --no-deps".split(), check=True, cwd=here.parent, capture_output=True).stdout
    return pathlib.Path(json.loads(out)["target_directory"]) / "release/biscuit"


def timed(command):
    """Seconds with a sync, or those that a peer prints, and peak memory of the process in MB.

    This process must stay small: a new process counts the memory of the one that starts it.
    """
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, error = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{command[0]} failed: {error.decode()[-2000:]}")
    if command[0] == sys.executable:
        seconds = float(out.split()[-1])
    return seconds, usage.ru_maxrss / 1024


def check(situation, system, folder):
    """Compares rows with the right ones. A peer of `partitions` has written the touched folders only."""
    db = database()
    where = "true"
    if situation.partition_by and system in ("duckdb", "polars"):
        where = f"{situation.partition_by} in (select {situation.partition_by} from ({situation.changes()}))"
    columns = situation.columns(db)
    if system == "deltalake":
        from deltalake import DeltaTable
        db.register("delta", DeltaTable(str(folder)).to_pyarrow_dataset())
        got = f"select {columns} from delta"
    else:
        got = f"select {columns} from {situation.stored(folder)}"
    db.execute(f"create temp table want as {situation.merged(db, where)}")
    for one, other in (("from want", f"from ({got})"), (f"from ({got})", "from want")):
        rows = db.execute(f"select count(*) from (select {columns} {one} except all select {columns} {other})").fetchone()[0]
        if rows:
            sys.exit(f"{situation.name}: {system} has {rows} other rows")


if a.check:
    name, system, folder = a.check
    if system == "make":
        SITUATIONS[name](name).make()
    else:
        check(SITUATIONS[name](name), system, pathlib.Path(folder))
    sys.exit()


def in_process(*check):
    """Makes data, or checks rows, in a process of its own."""
    subprocess.run([sys.executable, __file__, "--work", root, "--scale", str(a.scale), "--check", *map(str, check)], check=True)


biscuit = build()
(root / "peer.py").write_text(PEER)
(root / "delta.py").write_text(DELTA)
all_results = {}
for name in a.situations.split(","):
    situation = SITUATIONS[name](name)
    in_process(name, "make", ".")
    db = database()
    peers = ["duckdb", "polars"] + (["chdb"] if isinstance(situation, FirstLoad) else ["deltalake"])
    results = {system: [] for system in ["biscuit", *peers] if system in a.systems.split(",")}
    touched = f"day in (select day from ({situation.changes()}))" if situation.partition_by else "true"
    sql = situation.merged(db, touched)
    for round in range(a.rounds):
        for system in results:
            shutil.rmtree(root / "out", ignore_errors=True)
            out = root / "out" / name
            out.parent.mkdir()
            if system == "biscuit":
                if any(situation.target.iterdir()):
                    shutil.copytree(situation.target, out)
                memory = ["--memory", a.memory] if a.memory else []
                command = [biscuit, "merge", "--target", out, "--changes", situation.change_files, *situation.arguments(), *memory, "--json"]
            else:
                if system == "deltalake":
                    subprocess.run([sys.executable, root / "delta.py", situation.target, out, name], check=True)
                command = [sys.executable, root / "peer.py", system, name, situation.folder, out, sql]
            seconds, peak = timed(command)
            if round == 0:
                in_process(name, system, out)
            files = sum(1 for f in out.rglob("*.parquet") if not any(part.startswith(("_", ".")) for part in f.relative_to(out).parts))
            results[system].append((seconds, peak, files))
            print(f"{name} {system:<9} {seconds:6.2f} s", file=sys.stderr)
    medians = {s: [statistics.median(r[i] for r in rounds) for i in range(3)] for s, rounds in results.items()}
    best = min((m[0] for s, m in medians.items() if s != "biscuit"), default=medians.get("biscuit", [1])[0])
    print(f"\n{name}, medians of {a.rounds}\n\n| | s | of the fastest peer | peak MB | files |\n| --- | ---: | ---: | ---: | ---: |")
    for s, (seconds, peak, files) in medians.items():
        print(f"| {s} | {seconds:.2f} | {seconds / best:.2f} | {peak:.0f} | {files:.0f} |", flush=True)
    all_results[name] = {"medians": medians, "rounds": results}
if a.json:
    pathlib.Path(a.json).write_text(json.dumps(all_results))
