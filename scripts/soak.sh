#!/usr/bin/env bash
# Runs the property tests TIMES times over (100 by default), each time with other cases, on a release
# build: what `make test` tries a few hundred times may fail once in thousands. Needs no broker and no
# database. Names of packages run those only.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=("$@")
if [ ${#packages[@]} = 0 ]; then
  packages=(schema voicecall rating spool stream billing simulator user-state)
fi
# Where they are: the rest of a package's tests may need a broker.
declare -A tests=(
  [schema]="--lib --test canonical" [voicecall]="--lib --test properties"
  [rating]="--lib --test properties" [spool]="--lib --test faults" [stream]="--lib --test embedded_log"
  [billing]="--test order" [simulator]="--lib" [user-state]="--lib"
)
for package in "${packages[@]}"; do
  read -ra of_package <<<"${tests[$package]:?no package with property tests}"
  run=(cargo test --release --locked --quiet -p "tollgate-$package" "${of_package[@]}")
  "${run[@]}" --no-run
  for ((time = 1; time <= ${TIMES:-100}; time++)); do
    if ! out=$("${run[@]}" 2>&1); then
      printf '%s\n' "$out" | tail -n 60
      echo "$package has failed, the ${time}th time; the case is above" >&2
      exit 1
    fi
  done
  echo "$package: ${TIMES:-100} times"
done
