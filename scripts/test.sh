#!/usr/bin/env bash
# Everything that must hold: format, lints, unit, integration and whole-system tests. The last
# line counts the tests. Nothing is skipped: what cannot run fails and says why.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/require.sh test

log=target/test.log
mkdir -p target
started=$SECONDS
step() { printf '\n== %s (%ds)\n' "$1" $((SECONDS - started)); }

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
# Outside tests nothing may panic for want of a value, unless the code says why it cannot.
cargo clippy --workspace --lib --bins --locked -- -D warnings -D clippy::unwrap_used -D clippy::expect_used
# A workspace of its own, which nothing else here builds.
cargo metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null

step "build"
cargo build --workspace --all-targets --locked

step "tests"
status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

passed=$(awk '/^test result:/ {for (i = 2; i <= NF; i++) if ($i ~ /^passed/) sum += $(i-1)} END {print sum + 0}' "$log")
failed=$(awk '/^test result:/ {for (i = 2; i <= NF; i++) if ($i ~ /^failed/) sum += $(i-1)} END {print sum + 0}' "$log")
ignored=$(awk '/^test result:/ {for (i = 2; i <= NF; i++) if ($i ~ /^ignored/) sum += $(i-1)} END {print sum + 0}' "$log")
step "done"
if [ "$failed" != 0 ] || [ "$status" != 0 ]; then
  grep -E '^(test .* FAILED|error: test failed)' "$log" | sort -u || true
  # What each of them said, without its backtrace.
  awk '/^---- .* stdout ----$/ {show = 30} /^Stack backtrace:|^stack backtrace:/ {show = 0} show-- > 0' "$log"
fi
if [ "$ignored" != 0 ]; then
  echo "$ignored tests were ignored; no test may be" >&2
  status=1
fi
echo "$passed passed, $failed failed"
exit "$status"
