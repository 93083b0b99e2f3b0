#!/usr/bin/env bash
# The main job on the real Gemma 3 270M: find the fact-lookup MLPs, edit them and others
# of equal size, compare. Takes up at what is already done; arguments override settings,
# for example: bash scripts/demo.sh --edit.steps 20
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
unset PYTHONDONTWRITEBYTECODE # installed modules are compiled when they are imported, once
exec .venv/bin/mu run configs/gemma3_270m_sports.py "$@"
