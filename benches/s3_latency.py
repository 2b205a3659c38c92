#!/usr/bin/env python3
"""Times `biscuit merge` on S3 where every request takes 50 ms longer, beside delta-rs.

  benches/s3_latency.py [--rounds 5] [--latency 0.05] [--biscuit PROGRAM] [--work DIR] [--trace] [--json FILE]

  first    20,000 rows into a table that does not exist
  merge    2,000 changes of these rows; the table is one file
  nothing  the same merge again: no row changes

The store is moto, a server of the S3 API in memory, behind a proxy on 127.0.0.1 that delays what clients send. Both write to the same
server, round by round, with put-if-absent commits. The changes of Biscuit are a local Parquet file; delta-rs gets them as Arrow data.
The time of Biscuit is that of the whole process; that of delta-rs begins when its libraries are imported. The rows are compared. Prints
medians, ratios, and the number of requests; --trace prints every request with its begin in milliseconds.
Needs from PyPI: deltalake, pyarrow, moto[server].
"""
import argparse, asyncio, json, os, pathlib, shutil, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request
import pyarrow as pa, pyarrow.parquet as pq

here = pathlib.Path(__file__).resolve().parent
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--latency", type=float, default=0.05)
p.add_argument("--biscuit", help="program to time; default: build it")
p.add_argument("--work")
p.add_argument("--trace", action="store_true")
p.add_argument("--json")
a = p.parse_args()
root = pathlib.Path(a.work or tempfile.mkdtemp(prefix="biscuit-s3-"))
root.mkdir(parents=True, exist_ok=True)


class SlowServer:
    """moto behind a proxy that delays what clients send."""

    def __enter__(self):
        self.requests = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.upstream = free.getsockname()[1]
        moto = pathlib.Path(sys.executable).parent / "moto_server"
        self.moto = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(self.upstream)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.upstream}/moto-api/data.json").read()
                break
            except OSError:
                time.sleep(0.05)
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.upstream}/lake", method="PUT")).read()
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.serve(started)), daemon=True).start()
        started.wait()
        return self

    def __exit__(self, *_):
        self.moto.kill()
        self.moto.wait()

    async def serve(self, started):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def connection(self, reader, writer):
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        methods = (b"GET ", b"PUT ", b"POST", b"HEAD", b"DELE")

        async def pipe(source, target, delay):
            due, loop = asyncio.Queue(), asyncio.get_running_loop()

            async def send():
                while (item := await due.get()) is not None:
                    at, data = item
                    await asyncio.sleep(max(0, at - loop.time()))
                    target.write(data)
                    await target.drain()
                target.close()

            sender = asyncio.create_task(send())
            try:
                while data := await source.read(1 << 20):
                    if delay and data[:4] in methods:
                        self.requests.append((time.monotonic(), data.split(b"\r\n", 1)[0].decode().rsplit(" ", 1)[0]))
                    due.put_nowait((loop.time() + delay, data))
            except ConnectionError:
                pass
            due.put_nowait(None)
            await sender

        await asyncio.gather(pipe(reader, up_writer, a.latency), pipe(up_reader, writer, 0), return_exceptions=True)


def rows(first, end, seq):
    ids = range(first, end)
    return pa.table({
        "id": pa.array(ids, pa.int64()),
        "name": [f"customer {i * 7919 % 10007}" for i in ids],
        "balance": [(i * 31 + seq) % 100000 / 100 for i in ids],
        "seq": pa.array([seq] * (end - first), pa.int64()),
    })


def changes():
    return rows(9_000, 11_000, 2)


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def biscuit(server, program, table, name):
    command = [program, "merge", "--target", f"s3://lake/{table}", "--changes", root / f"{name}.parquet", "--format", "rows", "--key", "id",
               "--order", "seq", "--endpoint-url", f"http://127.0.0.1:{server.port}", "--json"]
    start = time.monotonic()
    done = subprocess.run(command, env={**os.environ, **CREDENTIALS}, capture_output=True, text=True)
    took = time.monotonic() - start
    if done.returncode:
        sys.exit(f"biscuit failed: {done.stdout}{done.stderr}")
    return start, took


def delta(server, table, name):
    import deltalake
    options = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ALLOW_HTTP": "true", "aws_conditional_put": "etag"}
    url, data = f"s3://lake/{table}", pq.read_table(root / f"{name}.parquet")
    start = time.monotonic()
    if name == "first":
        deltalake.write_deltalake(url, data, storage_options=options)
    else:
        merge = deltalake.DeltaTable(url, storage_options=options).merge(
            data, "s.id = t.id and s.seq > t.seq" if name == "nothing" else "s.id = t.id", source_alias="s", target_alias="t")
        merge.when_matched_update_all(predicate="s.seq > t.seq").execute()
    return start, time.monotonic() - start


def stored_by_delta(server, table):
    import deltalake
    options = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.upstream}", "AWS_ALLOW_HTTP": "true"}
    return deltalake.DeltaTable(f"s3://lake/{table}", storage_options=options).to_pyarrow_table().sort_by("id")


def stored(server, table):
    import pyarrow.fs as fs
    s3 = fs.S3FileSystem(access_key="test", secret_key="test", endpoint_override=f"127.0.0.1:{server.upstream}", scheme="http", region="us-east-1")
    files = [f.path for f in s3.get_file_info(fs.FileSelector(f"lake/{table}", recursive=True)) if f.path.endswith(".parquet")]
    files = [f for f in files if "/_" not in f]
    return pa.concat_tables(pq.read_table(f, filesystem=s3) for f in files).sort_by("id")


def main():
    program = a.biscuit
    if not program:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "biscuit-lake", "--bin", "biscuit"], cwd=here.parent, check=True)
        target = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=here.parent))["target_directory"]
        program = f"{target}/release/biscuit"
    pq.write_table(rows(0, 20_000, 1), root / "first.parquet")
    for name in ("merge", "nothing"):
        pq.write_table(changes(), root / f"{name}.parquet")
    right = pa.concat_tables([rows(0, 9_000, 1), changes(), rows(11_000, 20_000, 1)])
    times, requests = {}, {}
    with SlowServer() as server:
        import deltalake  # Outside of the timings.
        for round_ in range(a.rounds):
            for name in ("first", "merge", "nothing"):
                runs = {"biscuit": lambda: biscuit(server, program, f"b{round_}", name)}
                if name != "nothing":
                    runs["deltalake"] = lambda: delta(server, f"d{round_}", name)
                for system, run in runs.items():
                    server.requests.clear()
                    start, took = run()
                    times.setdefault((name, system), []).append(took)
                    requests[name, system] = len(server.requests)
                    if a.trace and round_ == 0:
                        print(f"{name} {system} {took:.3f} s")
                        for at, line in server.requests:
                            print(f"  {(at - start) * 1000:6.0f} {line[:180]}")
            for system, found in [("biscuit", stored(server, f"b{round_}")), ("delta-rs", stored_by_delta(server, f"d{round_}"))]:
                if not found.select(right.column_names).cast(right.schema).equals(right):
                    sys.exit(f"the rows of {system} are wrong")
    medians = {key: statistics.median(values) for key, values in times.items()}
    print("| run | system | seconds | to delta-rs | requests |\n| --- | --- | ---: | ---: | ---: |")
    for (name, system), seconds in medians.items():
        ratio = f"{seconds / medians[name, 'deltalake']:.2f}" if (name, "deltalake") in medians else "-"
        print(f"| {name} | {system} | {seconds:.2f} | {ratio} | {requests[name, system]} |")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps([{"run": n, "system": s, "seconds": v, "requests": requests[n, s]} for (n, s), v in medians.items()]))
    if not a.work:
        shutil.rmtree(root)


main()
