#!/usr/bin/env bash
# Makes .venv from requirements.lock, with the project itself editable. Safe to run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON="${PYTHON:-python3}"

say() { printf 'setup: %s\n' "$*" >&2; }

# Tools of the machine: git does the work, ssh-keygen signs, bubblewrap isolates (without it we isolate less, and say so).
missing_tools() {
  command -v git >/dev/null || echo git
  command -v ssh-keygen >/dev/null || echo openssh-client
  command -v bwrap >/dev/null || echo bubblewrap
}

install_tools() {
  local missing=("$@")
  if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
      return
    fi
  fi
  say "please install: ${missing[*]} (Debian, Ubuntu: sudo apt-get install ${missing[*]}); going on without"
}

require_python() {
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "Python 3.11 or newer is needed; install it, or name one: make setup PYTHON=/path/to/python3"
    exit 1
  fi
}

# uv from the machine, else our own inside .venv.
make_venv() {
  if command -v uv >/dev/null; then
    uv venv --quiet --allow-existing --python "$PYTHON" .venv
    UV=uv
    return
  fi
  if ! "$PYTHON" -m venv .venv; then
    say "making .venv failed; on Debian and Ubuntu install python3-venv"
    exit 1
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
  UV=.venv/bin/uv
}

mapfile -t missing < <(missing_tools)
[[ ${#missing[@]} -eq 0 ]] || install_tools "${missing[@]}"
require_python
make_venv
export VIRTUAL_ENV="$PWD/.venv"
"$UV" pip install --quiet --require-hashes --requirements requirements.lock
"$UV" pip install --quiet --no-deps --editable .
# Every process of ours imports some thousand modules; compiled once, it starts in a third of the time, also where
# PYTHONDONTWRITEBYTECODE keeps it from doing that itself.
.venv/bin/python -m compileall -q -j 0 .venv/lib models activities workflows worker api cli >/dev/null || true
say "ready"
