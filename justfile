# All tests, without network and services.
test:
    cargo test --workspace

# What CI runs.
ci:
    bash .ci/run

# Formatting and lints.
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# Damages inputs of every kind, for decoders and for the command: just damage --inputs 35000 --commands 15000 --seed 1
damage *ARGS:
    cargo build --release --locked -p biscuit-cli -p biscuit-flows --bins
    "${CARGO_TARGET_DIR:-target}/release/corrupt" {{ARGS}}

# The merge on TPC-H orders beside its peers and its floor; benches/merge.py --help says what it needs.
bench *ARGS:
    python3 benches/merge.py {{ARGS}}

# Twenty million change records to one per key within a budget, beside peers.
bench-reduce *ARGS:
    python3 benches/reduce.py {{ARGS}}

# Late changes brought to the periods of a table, beside rebuilding these; benches/periods.py --help says what it needs.
bench-periods *ARGS:
    python3 benches/periods.py {{ARGS}}

# Raw JSON to clean Parquet, beside peers; benches/raw.py --help says what it needs.
bench-raw *ARGS:
    python3 benches/raw.py {{ARGS}}

# A hundred thousand objects deleted on an S3 server, beside s5cmd and the AWS command line; benches/delete.py --help says what it needs.
bench-delete *ARGS:
    python3 benches/delete.py {{ARGS}}

# What encrypting and tokenizing values costs, beside the cipher alone.
bench-pii:
    cargo bench -p biscuit-pii

# What it costs that files encrypt columns themselves, beside pyarrow; benches/encrypted.py --help says what it needs.
bench-encrypted FOLDER *ARGS:
    python3 benches/encrypted.py {{FOLDER}} {{ARGS}}

# Static binaries for Linux in dist/, by cargo-zigbuild and zig (pip install cargo-zigbuild ziglang).
dist:
    rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    cargo zigbuild --release --locked -p biscuit-cli --bin biscuit --target x86_64-unknown-linux-musl
    cargo zigbuild --release --locked -p biscuit-cli --bin biscuit --target aarch64-unknown-linux-musl
    mkdir -p dist
    cp "${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/release/biscuit" dist/biscuit-amd64
    cp "${CARGO_TARGET_DIR:-target}/aarch64-unknown-linux-musl/release/biscuit" dist/biscuit-arm64
