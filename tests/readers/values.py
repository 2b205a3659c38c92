#!/usr/bin/env python3
"""Checks that other engines read exactly the values that Biscuit was given.

Random rows of every type are written to a table through each reader and format, then through a compaction, a periodic snapshot, and
treatments of personal data and their reversal. pyarrow and DuckDB must find the rows of a plain list. A file with one value that is
not valid for its column must be refused with file, row and column, and the table must remain unchanged.

  tests/readers/values.py BISCUIT [SEED [ROUNDS]]

BISCUIT is the binary. Needs from PyPI: duckdb, pyarrow.
"""
import csv, datetime, decimal, glob, json, pathlib, random, subprocess, sys, tempfile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

biscuit = str(pathlib.Path(sys.argv[1]).resolve())
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 8
dice = random.Random(seed)
duckdb.execute("set timezone = 'UTC'")
D = decimal.Decimal
decimal.getcontext().prec = 60
EPOCH = datetime.datetime(1970, 1, 1)


def text(_):
    letters = "aZ0 \"',;|\\\t\n\r#éß中\U0001f600=%/"
    return "".join(dice.choice(letters) for _ in range(dice.randrange(12))) + "x"


def time_of(us):
    return (EPOCH + datetime.timedelta(microseconds=us)).time()


def stamp(_):
    return datetime.datetime(1, 1, 1) + datetime.timedelta(microseconds=dice.randrange(315_537_897_599_999_999))


def near(*bounds):
    """Returns a generator of any value between the bounds, and in a fifth of the cases of one of the given values."""
    return lambda _: dice.choice(bounds) if dice.random() < 0.2 else dice.randrange(bounds[0], bounds[1] + 1)


# For each type: its Arrow type, a generator of values, and texts that are not valid values.
TYPES = {
    "tinyint": (pa.int8(), near(-128, 127, 0), ["128", "-129", "1.5", "x"]),
    "int": (pa.int32(), near(-2**31, 2**31 - 1, 0), ["2147483648", "0.1", "1e10"]),
    "bigint": (pa.int64(), near(-2**63, 2**63 - 1, 0, 2**53 + 1), ["9223372036854775808", "seven"]),
    "double": (pa.float64(), lambda _: dice.choice([0.0, 1e308, 5e-324, -0.1, dice.uniform(-1e6, 1e6)]), ["1e400", "1,5", "9007199254740993"]),
    "decimal(18,4)": (pa.decimal128(18, 4), lambda _: D(near(-10**18 + 1, 10**18 - 1, 1)(0)).scaleb(-4), ["100000000000000", "0.00001", "NaN"]),
    "decimal(38,0)": (pa.decimal128(38, 0), lambda _: D(near(-10**38 + 1, 10**38 - 1, 10**19)(0)), ["1" + "0" * 38, "0.5"]),
    "boolean": (pa.bool_(), lambda _: dice.random() < 0.5, ["2", "perhaps"]),
    "date": (pa.date32(), lambda i: stamp(i).date(), ["2023-02-29", "29/02/2024", "20240229"]),
    "time": (pa.time64("us"), lambda _: time_of(dice.choice([0, 86_399_999_999, dice.randrange(86_400_000_000)])), ["24:00:00", "-01:00:00"]),
    "timestamp": (pa.timestamp("us"), stamp, ["2024-02-30T00:00:00", "2024-01-01T00:00:00.1234567"]),
    "string": (pa.string(), text, []),
}
NAMES = {t: "v_" + "".join(c for c in t if c.isalnum()) for t in TYPES}
SCHEMA = pa.schema([("id", pa.int64()), ("seq", pa.int64())] + [(NAMES[t], TYPES[t][0]) for t in TYPES])


def rows(first, count):
    value = lambda t: None if dice.random() < 0.1 else TYPES[t][1](0)
    return [{"id": i, "seq": 1, **{NAMES[t]: value(t) for t in TYPES}} for i in range(first, first + count)]


def shown(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (datetime.datetime, datetime.date, datetime.time)):
        return v.isoformat()
    if isinstance(v, float):
        return repr(v)
    return f"{v:f}" if isinstance(v, D) else str(v)


def contract(folder):
    columns = [("id", "bigint"), ("seq", "bigint"), *((NAMES[t], t) for t in TYPES)]
    lines = ["key = ['id']", "order = ['seq']"] + [f"[[columns]]\nname = '{n}'\ntype = '{t}'" for n, t in columns]
    (folder / "contract.toml").write_text("\n".join(lines) + "\n")


def as_json(values):
    """Formats a row as JSON: half of the numbers as numbers, and all other values as text."""
    def one(v):
        if v is None or isinstance(v, bool):
            return json.dumps(v)
        if isinstance(v, (int, float, D)) and dice.random() < 0.5:
            return shown(v)
        return json.dumps(shown(v))
    return "{" + ",".join(f"{json.dumps(k)}:{one(v)}" for k, v in values.items()) + "}"


def write_json(path, all_rows):
    path.write_text("\n".join(map(as_json, all_rows)) + "\n")


def write_csv(path, all_rows):
    with open(path, "w", newline="") as f:
        out = csv.writer(f, lineterminator=dice.choice(["\n", "\r\n"]), quoting=csv.QUOTE_NONNUMERIC)
        out.writerow(SCHEMA.names)
        out.writerows([["" if v is None else shown(v) for v in r.values()] for r in all_rows])


def write_parquet(path, all_rows):
    pq.write_table(pa.Table.from_pylist(all_rows, schema=SCHEMA), path)


def write_parquet_texts(path, all_rows):
    texts = [{k: v if v is None or k in ("id", "seq") else shown(v) for k, v in r.items()} for r in all_rows]
    schema = pa.schema([(n, pa.int64() if n in ("id", "seq") else pa.string()) for n in SCHEMA.names])
    pq.write_table(pa.Table.from_pylist(texts, schema=schema), path)


def write_debezium(path, all_rows):
    """Writes envelopes whose embedded schema declares every column as text."""
    fields = [{"field": n, "type": "int64" if n == "id" else "string", "optional": True} for n in SCHEMA.names if n != "seq"]
    schema = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]}
    def line(r):
        after = {k: v if v is None or k == "id" else shown(v) for k, v in r.items() if k != "seq"}
        source = {"connector": "postgresql", "db": "d", "schema": "s", "table": "t", "lsn": 1}
        return json.dumps({"schema": schema, "payload": {"op": "c", "before": None, "after": after, "source": source}})
    path.write_text("\n".join(map(line, all_rows)) + "\n")


def merge(form):
    return lambda table, file: ["merge", "--target", table, "--format", form, "--schema", "contract.toml", "--changes", file]


def job(form):
    def words(table, file):
        name = f"{table.replace('/', '_')}.toml"
        source = f"[sources.s]\nurl = '{file}'\nformat = '{form}'\ncontract = 'contract.toml'\nbookmark = false\n"
        pathlib.Path(folder / name).write_text(f"name = 'j'\n{source}[target]\nurl = '{table}'\nmode = 'replace'\n")
        return ["run", name]
    return words


# For each reader: ending of the file, function that writes it, command that reads it, and number of its first row.
READERS = {
    "merge, JSON": ("jsonl", write_json, merge("rows"), 1),
    "merge, CSV": ("csv", write_csv, merge("rows"), 2),
    "merge, Parquet": ("parquet", write_parquet, merge("rows"), 1),
    "merge, Parquet of texts": ("parquet", write_parquet_texts, merge("rows"), 1),
    "merge, Debezium": ("json", write_debezium, lambda t, f: [w.replace("contract.toml", "debezium.toml") for w in merge("debezium")(t, f)], 1),
    "run, JSON": ("jsonl", write_json, job("json"), 1),
    "run, CSV": ("csv", write_csv, job("csv"), 2),
    "run, Parquet": ("parquet", write_parquet, job("parquet"), 1),
    "run, Parquet of texts": ("parquet", write_parquet_texts, job("parquet"), 1),
}


def call(*words):
    done = subprocess.run([biscuit, *words, "--json"], cwd=folder, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def ok(*words):
    code, report, err = call(*words)
    assert code == 0, (words, report, err)
    return report


def files(table):
    return sorted(glob.glob(f"{folder}/{table}/**/*.parquet", recursive=True))


def by_pyarrow(table):
    got = pa.concat_tables([pq.ParquetFile(f).read() for f in files(table)]).sort_by("id")
    return [{n: r[n] for n in SCHEMA.names if n in r} for r in got.to_pylist()]


def by_duckdb(table):
    names = ", ".join(n for n in SCHEMA.names if n in pq.ParquetFile(files(table)[0]).schema_arrow.names)
    got = duckdb.execute(f"select {names} from read_parquet({files(table)!r}, hive_partitioning = false) order by id")
    columns = [c[0] for c in got.description]
    return [dict(zip(columns, r)) for r in got.fetchall()]


def same(got, want, what):
    assert len(got) == len(want), (what, len(got), len(want))
    for g, w in zip(got, want):
        for name in g:
            a, b = g[name], w[name]
            assert a == b, (what, "row", w["id"], name, a, b)


def compare(table, want, what):
    same(by_pyarrow(table), want, f"{what}, read by pyarrow")
    same(by_duckdb(table), want, f"{what}, read by DuckDB")


def spoil(all_rows):
    """Replaces one value by a text that is not valid for its column. Returns the rows, the index of the row and the column."""
    t = dice.choice([t for t in TYPES if TYPES[t][2]])
    at = dice.randrange(len(all_rows))
    bad = [dict(r) for r in all_rows]
    bad[at][NAMES[t]] = dice.choice(TYPES[t][2])
    return bad, at, NAMES[t]



with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    contract(folder)
    (folder / "debezium.toml").write_text((folder / "contract.toml").read_text().replace("order = ['seq']\n", ""))
    refused = 0
    for number in range(rounds):
        for what, (ending, write, words, first) in READERS.items():
            want, table = rows(0, dice.randrange(1, 40)), f"lake/{number}/{what.replace(', ', '_').replace(' ', '_')}"
            write(folder / f"good.{ending}", want)
            ok(*words(table, f"good.{ending}"))
            compare(table, want, what)
            if write in (write_parquet,):
                continue
            bad, at, column = spoil(rows(0, dice.randrange(1, 40)))
            write(folder / f"bad.{ending}", bad)
            before = files(table)
            code, report, err = call(*words(table, f"bad.{ending}"))
            error = report.get("error", {})
            assert code == 3, (what, column, bad[at][column], code, report, err)
            place = (error.get("column"), error.get("row"), error.get("file", "").rsplit("/", 1)[-1])
            # Texts in CSV may contain line breaks, and the number of a row is its line.
            breaks = sum(str(v).count("\n") for r in bad[:at] for v in r.values()) if ending == "csv" else 0
            assert place[0] == column and place[2] == f"bad.{ending}" and place[1] == at + first + breaks, (what, place, column, at, error)
            assert files(table) == before, "nothing has changed"
            refused += 1
        # Later operations must not change stored values.
        want, table = rows(0, 60), f"lake/{number}/whole"
        half = [want[:30], want[30:]]
        for i, part in enumerate(half):
            write_json(folder / f"part{i}.jsonl", part)
            ok(*merge("rows")(table, f"part{i}.jsonl"))
        ok("compact", table)
        compare(table, want, "compacted")
        ok("snapshot", "--target", f"{table}_s", "--changes", "part0.jsonl", "part1.jsonl", "--format", "rows", "--schema", "contract.toml",
           "--granularity", "month", "--by", "ingestion", "--as-of", "2024-03-05")
        compare(f"{table}_s", want, "snapshot")
        # Columns are encrypted or tokenized, and then revealed again.
        if number == 0:
            ok("pii", "keygen", "keys.toml")
        columns = "".join(f"{NAMES[t]} = \"{'tokenize' if i % 2 else 'encrypt'}\"\n" for i, t in enumerate(TYPES))
        (folder / "policy.toml").write_text(f"keys = 'keys.toml'\nstore = 'tokens.redb'\n[columns]\n{columns}")
        write_parquet(folder / "clear.parquet", want)
        ok("pii", "apply", "clear.parquet", f"lake/{number}/pii", "--policy", "policy.toml")
        out = f"back{number}.parquet"
        asked = ",".join(NAMES[t] if t == "string" else f"{NAMES[t]}:{t}" for t in TYPES)
        ok("pii", "detokenize", f"lake/{number}/pii", "--policy", "policy.toml", "--columns", asked, "--reason", "test", "--who", "test",
           "--audit", "audit.jsonl", "--out", out)
        back = pq.ParquetFile(folder / out).read().sort_by("id").to_pylist()
        same([{n: r[n] for n in SCHEMA.names} for r in back], want, "back from tokens and ciphertexts")
    print(f"seed {seed}: {rounds} rounds of {len(READERS)} readers, all equal by pyarrow and DuckDB; {refused} files refused by file, row and column")
