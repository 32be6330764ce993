#!/usr/bin/env bash
# Builds what is measured and what measures, then measures. Real Kafka and PostgreSQL, started as in
# the tests. Takes `quick`, `long`, or the arguments of tollgate-bench: of `edge` if they begin with
# an option.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/require.sh test
cargo build --release --locked -p tollgate -p tollgate-bench
bench=target/release/tollgate-bench

case "${1:-all}" in
  all)
    "$bench" edge --rounds 5 --markdown target/bench.md
    "$bench" pipeline --rounds 5 --markdown target/bench-pipeline.md
    "$bench" memory --markdown target/bench-memory.md
    "$bench" outage --markdown target/bench-outage.md
    cargo bench --locked -p tollgate -p tollgate-bench --bench micro
    ;;
  quick)
    "$bench" edge --rounds 1 --seconds 2 --only base --only CDRs
    "$bench" pipeline --rounds 1 --records 20000 --only consumers
    ;;
  long)
    mkdir -p target/bench-long
    "$bench" growth --markdown target/bench-long/growth.md
    [ -e target/bench-long/outage.md ] ||
      "$bench" outage --seconds 600 --markdown target/bench-long/outage.md
    [ -e target/bench-long/overload.md ] ||
      "$bench" overload --rounds 5 --seconds 20 --markdown target/bench-long/overload.md
    [ -e target/bench-long/overload-full.md ] ||
      "$bench" overload --full --rounds 5 --seconds 20 --markdown target/bench-long/overload-full.md
    ;;
  -*) "$bench" edge --markdown target/bench.md "$@" ;;
  *) "$bench" "$@" ;;
esac
