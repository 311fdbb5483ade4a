#!/bin/sh
# Print the first Python of the given minor versions, or say what is missing.
#   sh tools/find_python.sh 3.12 3.13 3.11
for version in "$@"; do
  for candidate in "python$version" python3 python \
    "$HOME"/.pyenv/versions/"$version"*/bin/python "/usr/bin/python$version"; do
    found=$("$candidate" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' \
      2>/dev/null) || continue
    if [ "$found" = "$version" ]; then
      command -v "$candidate"
      exit 0
    fi
  done
done
{
  echo "error: radapt_jax needs Python $(echo "$*" | sed 's/ / or /g') with venv; found $(
    python3 --version 2>/dev/null || echo no python3
  )."
  echo "Install one (pyenv install 3.12, uv python install 3.12, or your system's python3.12 and"
  echo "python3.12-venv), or name it: make PYTHON=/path/to/python3.12 ..."
} >&2
exit 1
