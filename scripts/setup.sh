#!/usr/bin/env bash
# Makes .venv with mu_jax and everything it needs, pinned. Quick when it is up to date.
# Prints nothing but what goes on; afterwards .venv/bin/mu and .venv/bin/python work.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
if [ "$(cat .venv/.mu_jax 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
  exit 0
fi

# The newest interpreter that really runs: a name on PATH may be a shim with nothing
# behind it, and a system Python may lack venv or pip.
python=""
for name in python3.13 python3.12 python3.11 python3 python; do
  if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
      >/dev/null 2>&1; then
    python=$name
    break
  fi
done
if [ -z "$python" ]; then
  echo "setup: no Python 3.11 to 3.13 with venv on PATH; install one and run this again" >&2
  exit 1
fi

echo "setup: $("$python" --version) into .venv; the first time takes about two minutes" >&2
rm -rf .venv
"$python" -m venv .venv
export PIP_DISABLE_PIP_VERSION_CHECK=1
.venv/bin/python -m pip install --quiet --constraint constraints.txt \
  --editable '.[gemma3-270m,test]' 2> >(grep -v '^WARNING' >&2 || true)
echo "$wanted" > .venv/.mu_jax
echo "setup: done" >&2
