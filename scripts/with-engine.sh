#!/bin/bash
# Runs a command with DOCKER_HOST at a Docker engine: the one that is set, else a private one of its own
# (scripts/dockerd.sh, as root), which ends with the command. Without either the command runs without one.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${DOCKER_HOST:-}" ]; then exec "$@"; fi
if [ "$(id -u)" != 0 ] || ! PATH=$PATH:/usr/sbin:/sbin command -v dockerd >/dev/null; then
    echo "with-engine: no dockerd, or not root: going on without a Docker engine" >&2
    exec "$@"
fi
directory=$(mktemp -d /tmp/envbuild-engine.XXXXXX)
stop() {
    scripts/dockerd.sh stop "$directory" || true
    # dockerd leaves the network namespace of its host-network containers mounted.
    awk -v root="$directory/" 'index($2, root) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount || true
    rm -rf "$directory" || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
address=$(scripts/dockerd.sh start "$directory")
export "${address?}"
# Not exec: the engine must be stopped when the command has ended.
"$@"
