#!/usr/bin/env bash
# Makes .venv with raftkv (editable) and everything that runs, builds and tests it, at the versions of constraints.txt.
# Needs Python >= 3.11 and pip. Where Debian's python3-venv is missing, the machine's own pip fills the environment.
# A second argument names one more extra, such as `spec`.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
extras=dev${2:+,$2}

is_usable() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14 python; do
    if is_usable "$candidate"; then echo "$candidate"; return; fi
  done
  echo "raftkv needs Python 3.11 or newer, and none was found. Install it (Debian: apt-get install python3 python3-pip" >&2
  echo "python3-venv), or name one: make install PYTHON=/path/to/python3.11" >&2
  return 1
}

python=$(find_python)
if ! is_usable "$venv/bin/python"; then
  rm -rf "$venv"
  "$python" -m venv "$venv" 2>/dev/null || { rm -rf "$venv"; "$python" -m venv --without-pip "$venv"; }
fi
if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  install=("$venv/bin/python" -m pip install)
elif "$python" -m pip --version >/dev/null 2>&1; then
  install=("$python" -m pip --python "$venv/bin/python" install)
else
  echo "raftkv needs pip, and $python has none (Debian: apt-get install python3-pip python3-venv)" >&2
  exit 1
fi
install+=(--quiet --disable-pip-version-check --constraint constraints.txt)

echo "Installing raftkv into $venv ($("$venv/bin/python" --version)) ..."
# The build backend first, at its pinned version, so that nothing unpinned is fetched to build with.
"${install[@]}" hatchling editables
"${install[@]}" --no-build-isolation --editable ".[$extras]"
echo "Installed: $venv/bin/raftkv"
