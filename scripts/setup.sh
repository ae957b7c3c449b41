#!/bin/bash
# Makes the virtual environment DIR with envbuild (editable) and its development tools in it, as requirements/dev.txt
# locks them; with "newest" behind DIR, their newest versions. Idempotent.
# Usage: scripts/setup.sh DIR [newest]. PYTHON names the interpreter; otherwise the newest fitting one is taken.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
versions=${2:-locked}

fits() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 10))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python; do
        if command -v "$candidate" >/dev/null && fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.10 or newer; apt-get install python3 python3-venv, or set PYTHON" >&2
    return 1
}

python=$(find_python)

# What brings uv, by its hashes too: it installs all the rest.
requirement=$(mktemp)
trap 'rm -f "$requirement"' EXIT
if [ "$versions" = newest ]; then
    echo uv >"$requirement"
else
    awk '/^[a-z]/ {wanted = /^uv==/} wanted' requirements/dev.txt >"$requirement"
fi

# Debian splits pip's bootstrap off into python3-venv. Without it a venv can still be made by a uv
# or a pip that is already there, or by root after installing the package.
make_venv() {
    local site
    [ -x "$venv/bin/python" ] && fits "$venv/bin/python" && "$venv/bin/python" -m uv --version >/dev/null 2>&1 && return
    rm -rf "$venv"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirement"
    elif "$python" -m pip --version >/dev/null 2>&1 && "$python" -c 'import venv' 2>/dev/null; then
        "$python" -m venv --without-pip "$venv"
        # --target works with every pip and isn't stopped by EXTERNALLY-MANAGED (PEP 668).
        site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --target "$site" \
            --requirement "$requirement"
    elif command -v uv >/dev/null; then
        uv venv --quiet --python "$python" "$venv"
        uv pip install --quiet --python "$venv/bin/python" --requirement "$requirement"
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing python3-venv with apt" >&2
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirement"
    else
        echo "setup: $python can't make a virtual environment; apt-get install python3-venv (as root) first" >&2
        return 1
    fi
}

make_venv
echo "setup: installing envbuild and its tools ($versions) into $venv" >&2
install() { "$venv/bin/python" -m uv pip install --quiet --python "$venv/bin/python" "$@"; }
if [ "$versions" = newest ]; then
    install --upgrade --editable '.[kubernetes,postgres,sign]' --group dev
else
    install --require-hashes --requirement requirements/dev.txt
    # What builds it is locked, too.
    install --no-deps --no-build-isolation --editable .
fi
