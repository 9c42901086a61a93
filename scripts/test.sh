#!/usr/bin/env bash
# Runs every test, from the units to the released binary under real input. A missing tool is a failure, not a skip.
# Usage: scripts/test.sh [--quick | --long]
#   --quick: only `cargo test` and the release build
#   --long:  the server is killed 50 times under load instead of 5
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/tools.sh
. scripts/lib/tools.sh

quick=
case ${1:-} in
  --quick) quick=1 ;;
  --long) export TERSE_CRASH_ROUNDS=50 ;;
  '') ;;
  *) die "usage: scripts/test.sh [--quick | --long]" ;;
esac
need cargo cc python3 curl

say "1/4 cargo test --workspace"
cargo test --workspace

say "2/4 release build of terse"
cargo build --release -p terse-server
binary=$(cargo metadata --no-deps --format-version 1 \
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/terse

if [ -n "$quick" ]; then
  say "--quick: NOT RUN: 3/4 the real list, 4/4 schemathesis. Run scripts/test.sh without it before you trust a change."
  exit 0
fi

say "3/4 the real list, through the command line and HTTP"
python3 scripts/real_list.py "$binary"

say "4/4 schemathesis, from the OpenAPI document"
scripts/schemathesis.sh "$binary"

say "all tests passed"
