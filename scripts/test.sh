#!/usr/bin/env bash
# Style, layers, types and all the tests. Arguments go to pytest, and then only it runs:
# bash scripts/test.sh tests/facts -x
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh plan test
unset PYTHONDONTWRITEBYTECODE # or each process that a test starts compiles what it imports
if [ $# -eq 0 ]; then
  # Most of the time is compiling, on one core; files go out in conftest's order.
  set -- -n 2 --dist loadfile --no-loadscope-reorder
  .venv/bin/ruff check .
  .venv/bin/ruff format --check .
  .venv/bin/lint-imports
  .venv/bin/basedpyright --level error
fi
exec .venv/bin/python -m pytest -q --durations 10 "$@"
