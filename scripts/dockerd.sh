#!/bin/sh
# A private Docker engine for tests and benchmarks: its own data, socket, containerd and pid file.
#
#   scripts/dockerd.sh start DIR   starts it (as root), waits until it answers, prints DOCKER_HOST=unix://…
#   scripts/dockerd.sh stop DIR    stops it by its pid and waits until it has gone
#
# Two engines that share the bridge docker0 break each other's networks, so this one has no bridge and
# leaves iptables alone: containers and builds use the host's network (docker build --network=host).
set -eu

usage() {
    echo "usage: $0 start|stop DIR" >&2
    exit 2
}

[ $# -eq 2 ] || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
pidfile=$dir/dockerd.pid
socket=$dir/docker.sock

alive() {
    [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null
}

answers() {
    DOCKER_HOST="unix://$socket" docker version >/dev/null 2>&1
}

install_engine() {
    command -v dockerd >/dev/null 2>&1 && return
    [ "$(id -u)" -eq 0 ] || { echo "dockerd is not installed; run: apt-get install docker.io" >&2; exit 1; }
    command -v apt-get >/dev/null 2>&1 || { echo "dockerd is not installed, and there is no apt-get" >&2; exit 1; }
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io; } \
        >"$dir/install.log" 2>&1 || { echo "docker.io could not be installed; see $dir/install.log" >&2; exit 1; }
}

case $action in
start)
    if [ "${#socket}" -gt 100 ]; then
        echo "the path of the socket $socket is too long for the kernel; choose a shorter directory" >&2
        exit 1
    fi
    if ! alive; then
        install_engine
        [ "$(id -u)" -eq 0 ] || { echo "only root can start dockerd" >&2; exit 1; }
        rm -f "$pidfile" "$socket"
        echo '{}' >"$dir/daemon.json"
        dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$pidfile" \
            --host "unix://$socket" --bridge none --iptables=false --ip6tables=false --ip-masq=false \
            >"$dir/dockerd.log" 2>&1 </dev/null &
    fi
    tries=0
    until answers; do
        tries=$((tries + 1))
        if [ "$tries" -gt 150 ] || { [ "$tries" -gt 15 ] && ! alive; }; then
            echo "the engine did not start; the end of $dir/dockerd.log:" >&2
            tail -n 20 "$dir/dockerd.log" >&2
            exit 1
        fi
        sleep 0.2
    done
    echo "DOCKER_HOST=unix://$socket"
    ;;
stop)
    if alive; then
        pid=$(cat "$pidfile")
        kill "$pid"
        tries=0
        while kill -0 "$pid" 2>/dev/null; do
            tries=$((tries + 1))
            if [ "$tries" -gt 150 ]; then
                kill -9 "$pid" 2>/dev/null || true
                break
            fi
            sleep 0.2
        done
    fi
    rm -f "$pidfile"
    ;;
*) usage ;;
esac
