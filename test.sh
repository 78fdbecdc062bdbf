#!/usr/bin/env bash
# Runs everything: format, lints, tests, documentation tests, documentation, a whole campaign in demo mode.
# Needs Rust (with rustfmt and clippy) and a C compiler, and nothing else: the tests start what they talk to themselves, on
# free ports of the loopback interface and in temporary folders.
#
#   ./test.sh              everything, as continuous integration runs it
#   KILLS=50 ./test.sh     the kill loop with 50 kills instead of 5
#   SIM_SEEDS=10000 ./test.sh   more seeds for the simulation instead of 500
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

for tool in cargo cc; do
    command -v "$tool" >/dev/null || { echo "test.sh: '$tool' is missing: install Rust (rustup) and a C compiler (apt-get install build-essential)" >&2; exit 1; }
done

say "format"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets --all-features -- -D warnings

say "tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --all-features --no-fail-fast
else
    cargo test --workspace --all-features --all-targets --no-fail-fast
fi

say "documentation tests"
cargo test --workspace --all-features --doc

say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

say "wa-core alone, as an embedder without extra features builds it"
cargo check -p wa-core --no-default-features

say "a whole campaign in demo mode"
cargo run --quiet -- demo --exit

say "all passed"
