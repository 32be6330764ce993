#!/usr/bin/env bash
# Builds what is measured and what measures, then measures. Real Kafka, started as in the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/require.sh test
cargo build --release --locked -p tollgate -p tollgate-bench
exec target/release/tollgate-bench "$@"
