#!/usr/bin/env bash
# Attacks on the release build's memory at full scale: 10,000 idle connections, 25,000 slow ones,
# or as many as the limit of open files allows. Takes some minutes and prints its figures.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/require.sh test
ulimit -n "$(ulimit -Hn)"
echo "open files: at most $(ulimit -n) for a process"
ATTACKS=full cargo test --release --locked -p tollgate --test attacks
cat target/tmp/attacks.md
