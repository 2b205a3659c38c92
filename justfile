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

# The merge on TPC-H orders beside its peers and its floor; benches/merge.py --help says what it needs.
bench *ARGS:
    python3 benches/merge.py {{ARGS}}

# Twenty million change records to one per key within a budget, beside peers.
bench-reduce *ARGS:
    python3 benches/reduce.py {{ARGS}}
