#!/usr/bin/env python3
"""Times `biscuit merge` on TPC-H orders with change records, beside peers, and checks every answer.

  benches/merge.py [--sf 1] [--locality uniform|recent|tail] [--rounds 3] [--peers duckdb,duckdb-join,copy,cp] [--work DIR]

Prints a table: seconds (median), the ratio to the fastest peer, rows of the target per second, and peak memory. Needs
from PyPI: duckdb, tpchgen-cli; other peers (polars, deltalake, pyspark) need their packages. Builds the release binary.
"""
import argparse, json, os, pathlib, resource, shutil, statistics, subprocess, sys, tempfile, time

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--sf", default="1")
p.add_argument("--locality", default="uniform")
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--peers", default="duckdb,duckdb-join,copy,cp")
p.add_argument("--work")
a = p.parse_args()

subprocess.run(["cargo", "build", "--release", "--locked", "-p", "biscuit-cli"], check=True, cwd=here.parent)
meta = json.loads(subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], check=True, cwd=here.parent, capture_output=True).stdout)
biscuit = pathlib.Path(meta["target_directory"]) / "release" / "biscuit"
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-bench-"))
work = root / f"sf{a.sf}-{a.locality}"
if not (work / "expected.json").exists():
    subprocess.run([sys.executable, here / "make_workload.py", work, "--sf", a.sf, "--locality", a.locality], check=True, stdout=subprocess.DEVNULL)
expected = json.loads((work / "expected.json").read_text())


def check(out):
    got = subprocess.run([sys.executable, here / "run_peer.py", "check", work, out], capture_output=True, text=True)
    return got.stdout.strip() or got.stderr.strip().splitlines()[-1]


def merge(lake):
    """Merges into a fresh copy of the target, which is not timed; the sync of the disk is."""
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(work / "target", lake / "orders")
    os.sync()
    start = time.perf_counter()
    ran = subprocess.run([biscuit, "merge", "--target", lake / "orders", "--changes", work / "changes", "--format", "rows",
                          "--key", "o_orderkey", "--order", "effective_date", "--delete-column", "_deleted", "--json"],
                         capture_output=True, text=True)
    os.sync()
    seconds = time.perf_counter() - start
    if ran.returncode:
        sys.exit(f"biscuit failed: {ran.stdout}{ran.stderr}")
    return seconds, json.loads(ran.stdout)["peak_memory_bytes"], check(lake / "orders")


def peer(name, out):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    ran = subprocess.run([sys.executable, here / "run_peer.py", name, work, out], capture_output=True, text=True)
    if ran.returncode:
        return None, None, (ran.stderr.strip().splitlines() or ["failed"])[-1]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    answer = "-" if name in ("copy", "cp") else check(out)
    # Peaks of children only ever grow: a peer's own is known where it is the largest so far.
    return float(ran.stdout.split()[-1]), peak * 1024 if peak > before else None, answer


contenders = ["biscuit"] + [x for x in a.peers.split(",") if x]
runs = {name: [] for name in contenders}
for _ in range(a.rounds):
    for name in contenders:
        runs[name].append(merge(root / "lake") if name == "biscuit" else peer(name, root / "out"))

rows = expected["target_rows"]
median = {n: statistics.median(r[0] for r in rs) for n, rs in runs.items() if all(r[0] for r in rs)}
rivals = [s for n, s in median.items() if n not in ("biscuit", "copy", "cp") and all(r[2] == "ok" for r in runs[n])]
best = min(rivals, default=None)
print(f"\nsf {a.sf}, {a.locality}: {rows:,} rows, {expected['change_rows']:,} change records, {a.rounds} rounds")
print(f"| {'':<12} | seconds | to best peer | rows/s     | peak MB | answer |")
print(f"| {'-' * 12} | ------: | -----------: | ---------: | ------: | ------ |")
for name in contenders:
    answer = runs[name][-1][2]
    if name not in median:
        print(f"| {name:<12} | {'':>7} | {'':>12} | {'':>10} | {'':>7} | {answer} |")
        continue
    s, peak = median[name], max((r[1] or 0 for r in runs[name]))
    ratio = f"{s / best:.2f}" if best else ""
    print(f"| {name:<12} | {s:7.2f} | {ratio:>12} | {rows / s:10,.0f} | {peak / 1e6 if peak else 0:7.0f} | {answer} |")
sys.exit(any(r[2] not in ("ok", "-") for r in runs["biscuit"]))
