#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml reads, once; existing ones stay. They are not committed.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
random() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }
[ -e postgres_password ] || random >postgres_password
[ -e query_token ] || random >query_token
[ -e database_url ] || printf 'postgres://tollgate:%s@postgres:5432/tollgate' "$(cat postgres_password)" >database_url
# The containers' users are not this one.
chmod 644 postgres_password query_token database_url
