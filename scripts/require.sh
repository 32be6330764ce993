#!/usr/bin/env bash
# Makes sure that what the build (or, with `test`, the tests) needs is installed. Installs Debian
# packages where it may (root, apt-get), otherwise says exactly what to install.
set -euo pipefail

purpose=${1:-build}
packages=()

need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }

need cc build-essential
need make build-essential
need perl perl
if [ "$purpose" = test ]; then
  if ! java -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])'; then
    packages+=(openjdk-17-jre-headless)
  fi
  need mvn maven
  need setpriv util-linux
  need faketime faketime
  need promtool prometheus
  ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || packages+=(postgresql)
fi

if [ ${#packages[@]} -gt 0 ]; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing: ${packages[*]}"
    apt-get update -qq
    # The packages of PostgreSQL and Prometheus would start servers of their own; the tests start
    # theirs.
    mkdir -p /etc/postgresql-common /etc/systemd/system
    [ -e /etc/postgresql-common/createcluster.conf ] ||
      echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    case " ${packages[*]} " in
      *" prometheus "*) ln -sf /dev/null /etc/systemd/system/prometheus.service ;;
    esac
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
  else
    echo "missing packages; install them and try again:" >&2
    case " ${packages[*]} " in
      *" prometheus "*) echo "  sudo systemctl mask prometheus   # tests start their own" >&2 ;;
    esac
    echo "  sudo apt-get install ${packages[*]}" >&2
    exit 1
  fi
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "cargo is missing; install rustup (package rustup on Debian 13 and Ubuntu 24.04, otherwise" >&2
  echo "see https://rustup.rs); the toolchain itself is chosen by rust-toolchain.toml" >&2
  exit 1
fi
