#!/usr/bin/env python3
"""Times the reduction of change records to one for each key, from Parquet to Parquet, and checks every answer.

Biscuit merges into an empty table within a memory budget; other systems do the same with a query.

  benches/reduce.py [--records 20000000] [--memory 512MB] [--rounds 5] [--peers duckdb,polars,datafusion] [--work DIR] [--json FILE]

The records are TPC-H orders with an effective date and a delete flag, two for each key, shuffled. The disk is synced inside of
every timing. Peers that support a memory budget get the same one. Prints a table of medians: seconds, million records per second,
ratio to Biscuit, CPU seconds, peak memory, bytes written.
Needs from PyPI: duckdb, tpchgen-cli, and for the peers polars, datafusion.
"""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--records", type=int, default=20_000_000)
p.add_argument("--memory", default="512MB")
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--peers", default="duckdb,polars,datafusion")
p.add_argument("--work")
p.add_argument("--json")
p.add_argument("--peer", help=argparse.SUPPRESS)
a = p.parse_args()
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-bench-"))
work = root / f"reduce-{a.records}"
changes, out = work / "changes.parquet", root / "reduce-lake" / "orders"
CHECK = "select count(*), sum(o_orderkey)::varchar, bit_xor(hash(o_orderkey, o_totalprice::varchar, o_comment, epoch_us(effective_date)))::varchar from"
NEWEST = "row_number() over (partition by o_orderkey order by effective_date desc)"


def make():
    import duckdb

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    keys = a.records // 2
    scale = max(1, -(-keys // 1_500_000))
    gen = shutil.which("tpchgen-cli") or str(pathlib.Path(sys.executable).parent / "tpchgen-cli")
    subprocess.run([gen, "parquet", "-s", str(scale), "--tables=orders", f"--output-dir={work}/raw"], check=True, stdout=subprocess.DEVNULL)
    db = duckdb.connect()
    db.execute("set timezone='UTC'")
    # Two records for each key, microseconds apart, in random sequence.
    db.execute(f"""copy (select * exclude (n), timestamptz '2024-01-01' + to_microseconds((hash(o_orderkey, n) % 2505600000000)::bigint * 2 + n) as effective_date,
        false as _deleted from (select * from read_parquet('{work}/raw/**/*.parquet') limit {keys}), (select unnest([0, 1]) as n)
        order by hash(o_orderkey, n, 7)) to '{changes}' (format parquet, compression zstd, compression_level 1, row_group_size 122880)""")
    shutil.rmtree(work / "raw")
    want = db.execute(f"{CHECK} (select * from '{changes}' qualify {NEWEST} = 1)").fetchone()
    (work / "expected.json").write_text(json.dumps(want))


def timed(command):
    os.sync()
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        os.sync()
        seconds = time.perf_counter() - start
        log.seek(0)
        text = log.read()
    if status:
        return {"failed": (text.strip().splitlines() or ["failed"])[-1][:90]}
    return {"s": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}


def peer(name):
    """Runs a peer. Called in a separate process, so that its memory can be measured."""
    out.mkdir()
    if name == "duckdb":
        import duckdb

        db = duckdb.connect()
        db.execute(f"set memory_limit='{a.memory}'; set threads=2; set preserve_insertion_order=false; set temp_directory='{root}/tmp'")
        db.execute(f"copy (select * exclude (_deleted) from '{changes}' qualify {NEWEST} = 1 and not _deleted) to '{out}/part.parquet' (format parquet, compression zstd, compression_level 1, row_group_size 262144)")
    elif name == "polars":
        import polars as pl

        newest = pl.scan_parquet(changes).sort("effective_date").unique("o_orderkey", keep="last").filter(~pl.col("_deleted")).drop("_deleted")
        newest.sink_parquet(out / "part.parquet", compression="zstd", compression_level=1, row_group_size=262144)
    elif name == "datafusion":
        from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext

        mb = int(a.memory.removesuffix("MB"))
        context = SessionContext(SessionConfig().with_target_partitions(2), RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(mb << 20))
        context.register_parquet("c", str(changes))
        rows = context.sql(f"select * from (select *, {NEWEST} as rn from c) where rn = 1 and not _deleted").drop("rn", "_deleted")
        rows.write_parquet(str(out), compression="zstd(1)")


def right():
    import duckdb

    db = duckdb.connect()
    db.execute("set timezone='UTC'")
    found = db.execute(f"{CHECK} read_parquet('{out}/**/*.parquet')").fetchone()
    return "ok" if list(found) == json.loads((work / "expected.json").read_text()) else f"WRONG {found}"


def written():
    return sum(f.stat().st_size for f in out.rglob("*.parquet"))


if a.peer:
    peer(a.peer)
    sys.exit()
if not (work / "expected.json").exists():
    make()
subprocess.run(["cargo", "build", "--release", "--locked", "-p", "biscuit-lake"], check=True, cwd=here.parent)
metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], check=True, cwd=here.parent, capture_output=True)
biscuit = pathlib.Path(json.loads(metadata.stdout)["target_directory"]) / "release" / "biscuit"
runs = {"biscuit": [biscuit, "merge", "--changes", changes, "--target", out, "--format", "rows", "--key", "o_orderkey", "--order", "effective_date",
                    "--delete-column", "_deleted", "--memory", a.memory, "--json"]}
runs |= {n: [sys.executable, __file__, "--peer", n, "--work", root, "--records", a.records, "--memory", a.memory] for n in a.peers.split(",") if n}
results = {}
for _ in range(a.rounds):
    for name, command in runs.items():
        # The state root of the table is beside it and must be deleted too.
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        r = timed(command)
        r |= {} if "failed" in r else {"check": right(), "bytes": written()}
        results.setdefault(name, []).append(r)
        print(name, r, file=sys.stderr)
print(f"{a.records:,} records of {a.records // 2:,} keys, {changes.stat().st_size / 1e6:.0f} MB, budget {a.memory}, medians of {a.rounds}\n")
print("| | s | M records/s | of biscuit | CPU s | peak MB | written MB | answer |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
base = None
for name, rounds in results.items():
    done = [r for r in rounds if "s" in r]
    if not done:
        print(f"| {name} | | | | | | | {rounds[0]['failed']} |")
        continue
    m = {k: statistics.median(r[k] for r in done) for k in ("s", "cpu", "peak", "bytes")}
    base = base or m["s"]
    answer = next((r["check"] for r in done if r["check"] != "ok"), "ok") + ("" if len(done) == len(rounds) else f", {len(rounds) - len(done)} failed")
    print(f"| {name} | {m['s']:.2f} | {a.records / m['s'] / 1e6:.2f} | {m['s'] / base:.2f} | {m['cpu']:.1f} | {m['peak'] / 1e6:.0f} | {m['bytes'] / 1e6:.0f} | {answer} |")
if a.json:
    pathlib.Path(a.json).write_text(json.dumps(results, indent=1))
