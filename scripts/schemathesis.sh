#!/usr/bin/env bash
# Sends a running terse what its OpenAPI document allows and what it forbids; any finding is a failure.
# Usage: scripts/schemathesis.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/tools.sh
. scripts/lib/tools.sh

[ -x "${1:-}" ] || die "usage: scripts/schemathesis.sh BINARY"
mapfile -t pins < <(grep -v '^#' scripts/requirements-schemathesis.txt)
venv=$(python_tool schemathesis "${pins[@]}")
# The server's address and key are in the environment of the command only.
# shellcheck disable=SC2016
exec python3 scripts/lib/servers.py "$1" sh -c '
  exec "$0" --config-file scripts/schemathesis.toml run "$TERSE_TEST_URL/api/v1/openapi.json"
' "$venv/bin/schemathesis"
