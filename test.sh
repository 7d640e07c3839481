#!/usr/bin/env bash
# ./test.sh          lint, types, unit tests, a real ComfyUI server, its page in headless Chromium
# ./test.sh slow     the same, and the tests that are marked slow
# ./test.sh fast     lint, types and unit tests: no server, no browser
# ./test.sh lint     lint and types only
# Further arguments go to pytest: ./test.sh fast -k quads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
mode=all
case "${1:-}" in fast | lint | all | slow) mode=$1 && shift ;; esac

options=(--dev)
[ "$mode" = all ] || [ "$mode" = slow ] && options+=(--browser)
python=$(python3 scripts/comfy_env.py "${options[@]}")

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" scripts/typecheck.py
[ "$mode" = lint ] && exit 0

if [ "$mode" = fast ]; then
  exec "$python" -m pytest -m "not comfy and not browser and not slow" "$@"
fi
if [ "$mode" = slow ]; then
  exec "$python" -m pytest "$@"
fi
exec "$python" -m pytest -m "not slow" "$@"
