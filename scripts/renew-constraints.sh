#!/usr/bin/env bash
# Resolves pyproject.toml's dependencies anew in an empty environment and writes the versions to constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check '.[dev,spec]'
{
  echo "# Exact versions of everything that runs, builds and tests raftkv; 'make install' uses them."
  echo "# Renew with scripts/renew-constraints.sh, then run 'make check'."
  "$work/venv/bin/python" -m pip freeze --exclude raftkv 2>/dev/null | sort -f
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
