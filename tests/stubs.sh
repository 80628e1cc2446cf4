#!/usr/bin/env bash
# Writes the stub of the compiled module from the installed one (needs pybind11-stubgen); with --check, only compares.
#   tests/stubs.sh [PYTHON] [--check]
set -euo pipefail
[ "${1:---check}" != --check ] || set -- "$(command -v python)" "$@"
python="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
stub="$(cd "$(dirname "$0")/../python/mfld/_core" && pwd)/_binding.pyi"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd "$fresh" && "$python" -m pybind11_stubgen mfld._core._binding --output-dir . --exit-code >/dev/null)
if [ "${2:-}" = --check ]; then
  diff -u "$stub" "$fresh/mfld/_core/_binding.pyi" || { echo "the stub is stale: run tests/stubs.sh $python" >&2; exit 1; }
else
  cp "$fresh/mfld/_core/_binding.pyi" "$stub"
fi
