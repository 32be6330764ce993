#!/usr/bin/env bash
# Runs libFuzzer on each target for SECONDS_EACH seconds (60 by default). Needs the nightly
# toolchain and cargo-fuzz; `make test` replays the corpus on the pinned toolchain without them.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
command -v cargo-fuzz >/dev/null 2>&1 || {
  echo "cargo-fuzz is missing; install it: cargo install cargo-fuzz" >&2
  exit 1
}
for target in $(cargo +nightly fuzz list); do
  echo "== $target"
  cargo +nightly fuzz run "$target" -- -max_total_time="${SECONDS_EACH:-60}"
done
