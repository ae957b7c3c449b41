#!/bin/bash
# Locks every curated environment anew, as `make locks` does; names of environments as arguments: only those.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
# What pip is set to on this machine is no part of a lock that everyone has.
export PIP_CONFIG_FILE=/dev/null
[ $# -gt 0 ] || set -- lockfiles/*/
for each in "$@"; do
    name=$(basename "$each")
    echo "locks: $name" >&2
    envbuild lock "lockfiles/$name" --lock-dir lockfiles --upgrade
done
