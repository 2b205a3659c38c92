#!/usr/bin/env python3
"""Times late changes in a table of periods by `biscuit snapshot`, and a rebuild of the affected periods by other systems.

  benches/periods.py [--sf 1] [--periods 24] [--late 6] [--locality tail,uniform] [--rounds 5] [--work DIR] [--json FILE]

The table is TPC-H orders (1.5 million rows at SF 1) in 8 Parquet files with row groups of 262,144 rows, with one full copy for each
month. Each month, 2 % of the rows change (updates, inserts, deletes). Then change records for 0.1 % of the rows arrive that take effect
in the last months. All systems run in turn, round by round, each on a new copy of the table. The disk is synced inside of every timing.
  biscuit      `biscuit snapshot`
  again        the same changes again, which change no file
  naive        rebuilds each affected period, oldest first, from its rows and the changes up to its end: the newest record of each
               key, all of it encoded again, with the merge of data frames of biscuit-merge and the writer of biscuit-dataset
  floor        arrow-rs decodes and encodes the files of the affected periods and merges nothing: no rebuild can be faster
  duckdb       rebuilds each affected period, oldest first, with a window query
  duckdb-join  the same with an anti join, as an expert writes it
Every answer is compared with the full rebuild of each period in SQL, from all events. A rebuild from existing rows does not know which
keys were deleted, so that late records bring some of them back. Prints a table of medians: seconds, ratio to Biscuit, bytes read and
written by the process, files that changed.
Needs from PyPI: duckdb, tpchgen-cli.
"""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time
import duckdb

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--sf", default="1")
p.add_argument("--periods", type=int, default=24)
p.add_argument("--late", type=int, default=6)
p.add_argument("--locality", default="tail,uniform")
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--systems", default="biscuit,again,naive,floor,duckdb,duckdb-join")
p.add_argument("--work")
p.add_argument("--json")
a = p.parse_args()
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-bench-"))
MONTHS = [f"{2022 + m // 12}-{m % 12 + 1:02}" for m in range(a.periods + 1)]
END = {m: MONTHS[i + 1] + "-01 00:00:00+00" for i, m in enumerate(MONTHS[:-1])}
COLS = "o_orderkey,o_custkey,o_orderstatus,o_totalprice,o_orderdate,o_orderpriority,o_clerk,o_shippriority,o_comment,effective_date"
COPY = "format parquet, compression zstd, compression_level 1, row_group_size 262144"


def build():
    command = "cargo build --release --locked -p biscuit-lake -p biscuit-partition -p biscuit-rewrite --bin biscuit --example naive --example floor"
    subprocess.run(command.split(), check=True, cwd=here.parent)
    out = subprocess.run("cargo metadata --format-version 1 --no-deps".split(), check=True, cwd=here.parent, capture_output=True).stdout
    return pathlib.Path(json.loads(out)["target_directory"]) / "release"


release = build()


def duck():
    db = duckdb.connect()
    db.execute("set threads=2; set memory_limit='12GB'; set timezone='UTC'; set preserve_insertion_order=false")
    return db


def snapshot(table, changes, as_of):
    return [release / "biscuit", "snapshot", "--dataset", table, "--changes", changes, "--format", "rows", "--key", "o_orderkey", "--order",
            "effective_date", "--delete-column", "_deleted", "--by", "effective", "--effective-column", "effective_date", "--granularity",
            "month", "--as-of", as_of, "--json"]


def events(db, path, rows, top, start, span, locality, seed):
    """Writes change records from an instant on: 70 % updates, 18 % inserts, 12 % deletes, each with another time."""
    u = {"uniform": "random()", "tail": "0.95 + 0.05 * random()"}[locality]
    db.execute(f"select setseed({(seed % 100) / 100})")
    db.execute(f"create or replace temp table ev as select range as i, {u} as u, random() as k from range({rows})")
    db.execute(f"""copy (select floor(u * {top} / 32)::bigint * 32 + case when k < 0.18 then 9 + (hash(i, {seed}) % 20)::bigint else 1 + (hash(i, {seed}) % 7)::bigint end as o_orderkey,
        (hash(i) % 1500000)::bigint + 1 as o_custkey, 'O' as o_orderstatus, ((hash(i + 9) % 50000000) / 100.0)::decimal(15,2) as o_totalprice,
        (date '1995-01-01' + (hash(i + 5) % 2000)::int) as o_orderdate, '3-MEDIUM' as o_orderpriority,
        'Clerk#' || lpad((hash(i + 6) % 10000)::varchar, 9, '0') as o_clerk, 0::int as o_shippriority, 'changed ' || md5(i::varchar) as o_comment,
        (timestamptz '{start}' + to_microseconds((i * {span} / {rows})::bigint)) as effective_date, k >= 0.88 as _deleted
        from ev order by hash(i)) to '{path}' (format parquet, compression zstd)""")


def make(work, locality):
    """Makes the table with all its periods, the late changes, and the expected content of each period."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "raw").mkdir(parents=True), (work / "changes").mkdir(), (work / "late").mkdir()
    gen = shutil.which("tpchgen-cli") or str(pathlib.Path(sys.executable).parent / "tpchgen-cli")
    subprocess.run([gen, "parquet", "-s", a.sf, "--tables=orders", "--parts=8", f"--output-dir={work / 'raw'}"], check=True, stdout=subprocess.DEVNULL)
    first = work / "lake" / "t" / f"period={MONTHS[0]}"
    first.mkdir(parents=True)
    db = duck()
    for i, f in enumerate(sorted((work / "raw" / "orders").glob("*.parquet"))):
        db.execute(f"""copy (select *, timestamptz '{MONTHS[0]}-01 00:00:00+00' + to_microseconds((hash(o_orderkey) % 2400000000000)::bigint) as effective_date
            from read_parquet('{f}') order by o_orderkey) to '{first}/part-{i}.parquet' ({COPY})""")
    rows, top = db.execute(f"select count(*), max(o_orderkey) from read_parquet('{first}/*.parquet')").fetchone()
    shutil.copytree(first, work / "first")
    for n, month in enumerate(MONTHS[1:-1], 1):
        changes = work / "changes" / f"{month}.parquet"
        events(db, changes, rows // 50, top, f"{month}-01 00:00:00+00", 2400000000000, locality, n)
        subprocess.run([str(c) for c in snapshot(work / "lake" / "t", changes, f"{month}-28")], check=True, stdout=subprocess.DEVNULL)
    start = MONTHS[-1 - a.late]
    events(db, work / "late" / "late.parquet", rows // 1000, top, f"{start}-01 00:00:00+00", a.late * 2500000000000, locality, 99)
    expected = {}
    all_events = f"""select {COLS}, false as _deleted from read_parquet('{work}/first/*.parquet') union all
        select {COLS}, _deleted from read_parquet(['{work}/changes/*.parquet', '{work}/late/*.parquet'])"""
    for month in MONTHS[:-1]:
        expected[month] = fingerprint(db, f"""select * from ({all_events}) where effective_date < timestamptz '{END[month]}'
            qualify row_number() over (partition by o_orderkey order by effective_date desc) = 1""", "where not _deleted")
    # Copies are hard links: every system replaces files, and none writes into an existing one.
    shutil.copytree(work / "lake", work / "pristine", copy_function=os.link)
    json.dump(expected, open(work / "expected.json", "w"))


def fingerprint(db, rows, where=""):
    return list(db.execute(f"""select count(*), sum(o_orderkey)::varchar,
        bit_xor(hash(o_orderkey, o_totalprice::decimal(15,2)::varchar, o_comment, epoch_us(effective_date)))::varchar from ({rows}) {where}""").fetchone())


def check(work, table):
    expected, db = json.load(open(work / "expected.json")), duck()
    wrong, surplus = 0, 0
    for month, want in expected.items():
        got = fingerprint(db, f"select * from read_parquet('{table}/period={month}/*.parquet', hive_partitioning=false)")
        wrong, surplus = wrong + (got != want), surplus + got[0] - want[0]
    return f"wrong in {wrong} periods, {surplus:+} rows" if wrong else "ok"


def files(table):
    return {str(f.relative_to(table)): f.stat().st_mtime_ns for f in table.rglob("*.parquet")}


LAST = "select * from (select *, row_number() over (partition by o_orderkey order by effective_date desc) as rn_ from C) where rn_ = 1"
REBUILD = {
    "duckdb": f"""select {COLS} from (select *, row_number() over (partition by o_orderkey order by effective_date desc) as rn_ from
        (select {COLS}, false as _deleted from T union all select {COLS}, _deleted from C)) where rn_ = 1 and not _deleted""",
    "duckdb-join": f"""with last as ({LAST})
        select {COLS} from T where not exists (select 1 from last where last.o_orderkey = T.o_orderkey and last.effective_date > T.effective_date)
        union all select {COLS} from last where not _deleted and not exists
          (select 1 from T where T.o_orderkey = last.o_orderkey and T.effective_date >= last.effective_date)""",
}


def run_duckdb(system, work, table):
    """Returns a command that runs DuckDB in a separate process, so that its resources can be measured."""
    code = f"""
import duckdb, pathlib, shutil
db = duckdb.connect(); db.execute("set threads=2; set memory_limit='12GB'; set timezone='UTC'; set preserve_insertion_order=false")
for month, end in {[(m, END[m]) for m in MONTHS[-1 - a.late:-1]]!r}:
    folder = pathlib.Path({str(table)!r}) / f"period={{month}}"; new = folder.with_name(f"new-{{month}}"); new.mkdir()
    db.execute(f"create or replace view T as from read_parquet('{{folder}}/*.parquet', hive_partitioning=false)")
    db.execute(f"create or replace view C as from read_parquet('{work}/late/*.parquet') where effective_date < timestamptz '{{end}}'")
    db.execute(f'''copy ({REBUILD[system]}) to '{{new}}' ({COPY}, per_thread_output true, overwrite_or_ignore true)''')
    shutil.rmtree(folder); new.rename(folder)
"""
    return [sys.executable, "-c", code]


def command(system, work, table):
    late = work / "late"
    if system in ("biscuit", "again"):
        return snapshot(table, late, f"{MONTHS[-2]}-28")
    if system == "naive":
        return [release / "examples" / "naive", table, late, *MONTHS[-1 - a.late:-1]]
    if system == "floor":
        each = [f"{release}/examples/floor '{table}/period={m}' '{work}/floor/{m}'" for m in MONTHS[-1 - a.late:-1]]
        return ["bash", "-c", " && ".join(each)]
    return run_duckdb(system, work, table)


def timed(command):
    os.sync()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err)
        io = {}
        while process.poll() is None:
            try:
                io = dict(line.split(": ") for line in open(f"/proc/{process.pid}/io").read().splitlines())
            except (OSError, ValueError):
                pass
            time.sleep(0.005)
        status = process.returncode
        os.sync()
        seconds = time.perf_counter() - start
        out.seek(0), err.seek(0)
        if status:
            sys.exit(f"{command[0]} failed: {err.read()[-2000:]}{out.read()[-500:]}")
        return {"s": seconds, "read": int(io.get("rchar", 0)), "written": int(io.get("wchar", 0)), "out": out.read()}


def bench(locality):
    work = root / f"periods-{locality}-{a.sf}-{a.periods}"
    if not (work / "expected.json").exists():
        make(work, locality)
    systems = a.systems.split(",")
    results = {s: [] for s in systems}
    for _ in range(a.rounds):
        # The state of a table contains its path, so each round uses the same path.
        table = work / "lake" / "t"
        for system in systems:
            if system != "again":
                shutil.rmtree(work / "lake", ignore_errors=True)
                shutil.copytree(work / "pristine", work / "lake", copy_function=os.link)
            shutil.rmtree(work / "floor", ignore_errors=True)
            before = files(table)
            ran = timed(command(system, work, table))
            after = files(table)
            ran["touched"] = len([f for f in after if before.get(f) != after[f]]) + len([f for f in before if f not in after])
            ran["answer"] = "-" if system == "floor" else check(work, table)
            if system == "again" and ran["touched"]:
                ran["answer"] = "TOUCHED files"
            results[system].append(ran)
    print(f"\n{locality}: {a.periods} periods, late changes in the last {a.late}; medians of {a.rounds}\n")
    print("| | s | of biscuit | MB read | MB written | files changed | rows |\n| --- | --- | --- | --- | --- | --- | --- |")
    middle = lambda s, what: statistics.median(r[what] for r in results[s])
    for s in systems:
        base = middle("biscuit", "s")
        answer = next((r["answer"] for r in results[s] if r["answer"] not in ("ok", "-")), results[s][0]["answer"])
        print(f"| {s} | {middle(s, 's'):.2f} | {middle(s, 's') / base:.2f} | {middle(s, 'read') / 1e6:.0f} | {middle(s, 'written') / 1e6:.0f} | {middle(s, 'touched'):.0f} | {answer} |")
    return {s: [{k: v for k, v in r.items() if k != "out"} for r in rs] for s, rs in results.items()}


everything = {locality: bench(locality) for locality in a.locality.split(",")}
if a.json:
    json.dump(everything, open(a.json, "w"), indent=1)
