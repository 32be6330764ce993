#!/usr/bin/env bash
# Builds the system and what torments it, then runs schedules: `make chaos SEED=n` one, `make chaos
# SCHEDULES=n` so many, less those that have passed. Real Kafka and PostgreSQL, as in the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/require.sh test
cargo build --release --locked -p tollgate -p tollgate-chaos
exec target/release/tollgate-chaos "$@"
