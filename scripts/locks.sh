#!/bin/bash
# Locks every curated environment anew, as `make locks` does; names of environments as arguments: only those.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
[ $# -gt 0 ] || set -- lockfiles/*/
for each in "$@"; do
    name=$(basename "$each")
    echo "locks: $name" >&2
    envbuild lock "lockfiles/$name" --lock-dir lockfiles --upgrade
done
