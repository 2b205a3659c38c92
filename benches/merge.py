#!/usr/bin/env python3
"""Times `biscuit merge` of change records into TPC-H orders and the same merge by other systems, and checks every answer.

  benches/merge.py [--sf 10] [--locality uniform,recent,tail] [--changes 0.01] [--rounds 5] [--peers ...] [--work DIR] [--json FILE]

A workload is made for each locality and stored in DIR. Then all systems run in turn, round by round: Biscuit, the floor (arrow-rs
decodes and encodes the same files and merges nothing), and each peer of run_peer.py. The disk is synced inside of every timing.
Prints a table of medians: seconds, ratios to the fastest peer with a right answer, to `copy`, to the floor and to `cp`, CPU
seconds, peak memory, bytes written. With `--changes 0.000001` a handful of keys change.
Needs from PyPI: duckdb, tpchgen-cli, and for the peers polars, pyarrow, datafusion, deltalake, pyspark (with Java 17).
"""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time

here = pathlib.Path(__file__).resolve().parent
PEERS = "duckdb,duckdb-join,polars,datafusion,datafusion-join,deltalake,pyspark,pyspark-join"
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--sf", default="10")
p.add_argument("--locality", default="uniform,recent,tail")
p.add_argument("--changes", default="0.01")
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--peers", default=PEERS)
p.add_argument("--memory", help="memory budget of Biscuit")
p.add_argument("--work")
p.add_argument("--json")
a = p.parse_args()
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-bench-"))


def build():
    command = ["cargo", "build", "--release", "--locked", "-p", "biscuit-lake", "-p", "biscuit-rewrite", "--bin", "biscuit", "--example", "floor"]
    subprocess.run(command, check=True, cwd=here.parent)
    metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    out = json.loads(subprocess.run(metadata, check=True, cwd=here.parent, capture_output=True).stdout)
    return pathlib.Path(out["target_directory"]) / "release"


release = build()


def timed(command, wall=None):
    """Runs a command and syncs the disk. Returns seconds of both, CPU seconds and peak memory of the command, and its output.

    `wall` returns the seconds from the output, for peers that measure themselves, including their sync."""
    os.sync()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        os.sync()
        seconds = time.perf_counter() - start
        out.seek(0), err.seek(0)
        text, errors = out.read(), err.read()
    if status:
        return {"failed": (errors.strip().splitlines() or text.strip().splitlines() or ["failed"])[-1][:80]}
    return {"s": wall(text) if wall else seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024, "out": text}


def check(work, out):
    ran = subprocess.run([sys.executable, here / "run_peer.py", "check", work, out], capture_output=True, text=True)
    return (ran.stdout.strip() or ran.stderr.strip().splitlines()[-1])[:60]


def size(folder):
    return sum(f.stat().st_size for f in pathlib.Path(folder).rglob("*.parquet"))


def biscuit(work):
    """Merges into a new copy of the target. Only new files count as written."""
    lake = root / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(work / "target", lake / "orders")
    old = {f.name for f in (lake / "orders").iterdir()}
    budget = ["--memory", a.memory] if a.memory else []
    ran = timed([release / "biscuit", "merge", "--target", lake / "orders", "--changes", work / "changes", "--format", "rows", "--key", "o_orderkey",
                 "--order", "effective_date", "--delete-column", "_deleted", "--json", *budget])
    if "failed" not in ran:
        new = [f for f in (lake / "orders").iterdir() if f.name not in old]
        ran |= {"answer": check(work, lake / "orders"), "bytes": sum(f.stat().st_size for f in new), "size": size(lake / "orders"),
                "files": json.loads(ran["out"])["files"]}
    return ran


def floor(work):
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    ran = timed([release / "examples" / "floor", work / "target", out, "2"])
    return ran | {"answer": "-", "bytes": size(out)} if "failed" not in ran else ran


def peer(name, work):
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    ran = timed([sys.executable, here / "run_peer.py", name, work, out], wall=lambda text: float(text.split()[-1]))
    if "failed" not in ran:
        ran |= {"answer": "-" if name in ("copy", "cp") else check(work, out), "bytes": size(out)}
    return ran


def table(locality, work):
    expected = json.loads((work / "expected.json").read_text())
    names = ["biscuit", "floor"] + [x for x in a.peers.split(",") if x] + ["copy", "cp"]
    runs = {name: [] for name in names}
    for _ in range(a.rounds):
        for name in names:
            last = runs[name][-1] if runs[name] else {}
            run = {"biscuit": biscuit, "floor": floor}.get(name, lambda work, name=name: peer(name, work))
            # A peer that has failed once does not run again.
            runs[name].append(last if "failed" in last else run(work))
    median = {n: statistics.median(r["s"] for r in rs) for n, rs in runs.items() if all("s" in r for r in rs)}
    right = [n for n in median if n not in ("biscuit", "floor", "copy", "cp") and all(r["answer"] == "ok" for r in runs[n])]
    best = min(right, key=median.get, default=None)
    print(f"\n{locality}: {expected['target_rows']:,} rows, {expected['change_rows']:,} change records, {a.rounds} rounds, source {size(work / 'target') / 1e6:.1f} MB")
    print("| | seconds | to best peer | to copy | to floor | to cp | CPU s | peak MB | MB written | answer |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for name in names:
        if name not in median:
            print(f"| {name} | | | | | | | | | {runs[name][-1].get('failed', '?')} |")
            continue
        ratio = lambda to: f"{median[name] / median[to]:.2f}" if to in median else ""
        middle = lambda key: statistics.median(r[key] for r in runs[name])
        print(f"| {name} | {median[name]:.2f} | {ratio(best)} | {ratio('copy')} | {ratio('floor')} | {ratio('cp')} | {middle('cpu'):.2f} "
              f"| {max(r['peak'] for r in runs[name]) / 1e6:.0f} | {middle('bytes') / 1e6:.1f} | {runs[name][-1]['answer']} |", flush=True)
    ours = runs["biscuit"][-1]
    if "size" in ours:
        print(f"\nbest peer: {best}; the table afterwards has {ours['size'] / size(work / 'target'):.3f} of the source's bytes; files: {ours['files']}")
    for rs in runs.values():
        for r in rs:
            r.pop("out", None)
    return {"expected": expected, "runs": runs}, ours.get("answer") == "ok"


results, good = {}, True
for locality in a.locality.split(","):
    work = root / f"sf{a.sf}-{locality}-{a.changes}"
    if not (work / "expected.json").exists():
        command = [sys.executable, here / "make_workload.py", work, "--sf", a.sf, "--locality", locality, "--changes", a.changes]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results[locality], ok = table(locality, work)
    good &= ok
if a.json:
    pathlib.Path(a.json).write_text(json.dumps(results, indent=1))
sys.exit(not good)
