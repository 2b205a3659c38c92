# Run all tests. They need no network and no services.
test:
    cargo test --workspace

# Run everything that CI runs.
ci:
    bash .ci/run

# Check formatting and lints.
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# Damage inputs of every kind, for decoders and for the command: just damage --inputs 35000 --commands 15000 --seed 1
damage *ARGS:
    cargo build --release --locked -p biscuit-lake -p biscuit-flows --bins
    "${CARGO_TARGET_DIR:-target}/release/corrupt" {{ARGS}}

# Compare a merge into TPC-H orders with other systems and with a plain rewrite. Needs: benches/merge.py --help
bench *ARGS:
    python3 benches/merge.py {{ARGS}}

# Time merges on S3 with 50 ms for each request, beside delta-rs. Needs: benches/s3_latency.py --help
bench-s3 *ARGS:
    python3 benches/s3_latency.py {{ARGS}}

# Compare merges of text change files, small files, small partitions, wide and nested rows. Needs: benches/situations.py --help
bench-situations *ARGS:
    python3 benches/situations.py {{ARGS}}

# Compare the reduction of 20 million change records to one per key, within a memory budget. Needs: benches/reduce.py --help
bench-reduce *ARGS:
    python3 benches/reduce.py {{ARGS}}

# Compare late changes in a table of periods with a rebuild of the periods. Needs: benches/periods.py --help
bench-periods *ARGS:
    python3 benches/periods.py {{ARGS}}

# Compare the conversion of raw JSON to clean Parquet with other systems. Needs: benches/raw.py --help
bench-raw *ARGS:
    python3 benches/raw.py {{ARGS}}

# Compare the deletion of 100,000 objects on an S3 server with s5cmd and the AWS command line. Needs: benches/delete.py --help
bench-delete *ARGS:
    python3 benches/delete.py {{ARGS}}

# Compare the encryption and tokenization of values with the cipher alone.
bench-pii:
    cargo bench -p biscuit-pii

# Measure the cost of encrypted columns in Parquet files, for Biscuit and pyarrow. Needs: benches/encrypted.py --help
bench-encrypted FOLDER *ARGS:
    python3 benches/encrypted.py {{FOLDER}} {{ARGS}}

# Build static binaries for Linux in dist/ with cargo-zigbuild and zig (pip install cargo-zigbuild ziglang).
dist:
    rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    cargo zigbuild --release --locked -p biscuit-lake --bin biscuit --target x86_64-unknown-linux-musl
    cargo zigbuild --release --locked -p biscuit-lake --bin biscuit --target aarch64-unknown-linux-musl
    mkdir -p dist
    cp "${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/release/biscuit" dist/biscuit-amd64
    cp "${CARGO_TARGET_DIR:-target}/aarch64-unknown-linux-musl/release/biscuit" dist/biscuit-arm64
