#!/bin/bash
# Installs the Debian packages that some tests use as judges, where that is possible: as root, on Debian or Ubuntu.
# Elsewhere it says what is missing; the tests that need it are skipped and say so too.
set -euo pipefail
declare -A package=([skopeo]=skopeo [umoci]=umoci [dockerd]=docker.io [unshare]=util-linux
    [docker-registry]=docker-registry [sshd]=openssh-server [ssh]=openssh-client
    [slurmctld]=slurmctld [slurmd]=slurmd [sbatch]=slurm-client [munged]=munge)
missing=()
for command in "${!package[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("${package[$command]}")
done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "system: not installed: ${missing[*]}; tests that need them are skipped" >&2
    exit 0
fi
echo "system: installing ${missing[*]} with apt" >&2
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
    echo "system: apt could not install ${missing[*]}; tests that need them are skipped" >&2
fi
