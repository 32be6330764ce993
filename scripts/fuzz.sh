#!/usr/bin/env bash
# Runs libFuzzer on each target, or on those named, for SECONDS_EACH seconds (60 by default), and
# prints how many inputs each has tried. Needs the pinned toolchain and a C++ compiler, nothing
# else. What a target fails on is left in fuzz/artifacts; put it into fuzz/corpus once it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, without a sanitizer: there is no unsafe code in the workspace.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host"

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v tollgate-fuzz)
fi
for target in "${targets[@]}"; do
  mkdir -p "fuzz/artifacts/$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target"
  log="fuzz/target/$target.log"
  seeds=("fuzz/corpus/$target")
  [ "$target" = body ] && seeds+=(crates/voicecall/tests/samples)
  if ! "fuzz/target/$host/release/$target" "fuzz/target/corpus/$target" "${seeds[@]}" \
    -max_total_time="${SECONDS_EACH:-60}" -max_len=65536 -rss_limit_mb=1024 -timeout=10 \
    -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 >"$log" 2>&1; then
    tail -n 40 "$log"
    echo "$target has failed; the input is in fuzz/artifacts/$target" >&2
    exit 1
  fi
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: //p' "$log") inputs"
done
