#!/usr/bin/env bash
# Runs everything: format, lints, tests, documentation tests, documentation, a whole campaign in demo mode.
# Needs Rust (with rustfmt and clippy), a C compiler, the programs of Postgres 14 or newer and redis-server, which it installs with apt-get
# where they are missing (as root, or with sudo). The tests start what they talk to themselves, on sockets and free ports of the loopback
# interface and in temporary folders; a Postgres or Redis that runs already is left alone.
#
#   ./test.sh              everything, as continuous integration runs it
#   KILLS=50 ./test.sh     the kill loops with 50 kills instead of 5, that of nodes with 50 instead of 4 and 20,000 messages
#   LINKED_DEVICES=20 LINKED_PEOPLE=2000 ./test.sh   the campaign over linked devices with 20 of them and 2,000 people instead of 4 and 60
#   SOAK_SECS=3600 ./test.sh   an hour of faults at random on 200 linked devices instead of a minute
#   SIM_SEEDS=10000 ./test.sh   more seeds for the simulation instead of 500
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

for tool in cargo cc; do
    command -v "$tool" >/dev/null || { echo "test.sh: '$tool' is missing: install Rust (rustup) and a C compiler (apt-get install build-essential)" >&2; exit 1; }
done

# install NAME PACKAGE WHAT: installs a package with apt-get.
install() {
    say "$1 is missing: installing it with apt-get"
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -q
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends "$2" ||
        { echo "test.sh: install $1 (apt-get install $2); $3" >&2; exit 1; }
}

if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    install "Postgres 14 or newer" postgresql "its initdb has to be in PATH or in /usr/lib/postgresql"
fi
command -v redis-server >/dev/null || install Redis redis-server "its redis-server has to be in PATH"

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

say "the server without its demonstration"
cargo check -p wa-server-example --no-default-features

say "a whole campaign in demo mode"
cargo run --quiet -- demo --exit

say "all passed"
