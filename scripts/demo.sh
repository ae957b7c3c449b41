#!/bin/bash
# The main job on a real environment: lock, check, build, run. `make demo` has set everything up before.
set -euo pipefail
cd "$(dirname "$0")/.."
# What pip is set to on this machine is no part of an example.
export PIP_CONFIG_FILE=/dev/null
PATH=$PWD/.venv/bin:$PATH
example=examples/sklearn
say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
if [ -n "${NO_COLOR:-}" ] || [ ! -t 2 ]; then say() { printf '\n== %s\n' "$*" >&2; }; fi

say "1. Lock $example: what is pinned stays, and the check needs no network"
envbuild lock "$example"
envbuild lock "$example" --check

say "2. Build the image from it, without a daemon"
result=$(mktemp)
trap 'rm -f "$result" "$result.log"' EXIT
build() { envbuild build "$example" --locked --metadata-file "$result" -v; }
if ! reference=$(build); then
    # Debian's mirrors drop a package when a newer one replaces it; a lock that is old enough meets that.
    build >/dev/null 2>"$result.log" || true
    grep -q -- --upgrade-package "$result.log" || exit 1
    say "A pinned Debian package has left the mirror: lock the example anew"
    envbuild lock "$example" --upgrade
    reference=$(build)
fi

say "3. Train a model in it"
(cd "$example" && envbuild run . --locked -- python train.py)

say "4. Build it again: nothing is left to do"
again=$(envbuild build "$example" --locked)
if [ "$again" != "$reference" ]; then
    echo "demo: the second build gave $again, the first $reference" >&2
    exit 1
fi

say "The image"
python - "$result" <<'PY'
import json, sys

built = json.load(open(sys.argv[1]))
size = sum(layer["size"] for layer in built["layers"])
artifacts = sum(len(layer["artifacts"]) for layer in built["layers"])
print(f"reference  {built['reference']}")
print(f"level      {built['level']}")
print(f"platform   {built['platform']}")
print(f"layers     {len(built['layers'])}, {artifacts} artifacts, {size / 1e6:.1f} MB compressed")
print(f"lock       {built['lock_digest']}")
print(f"built in   {built['seconds']:.1f} s")
PY
