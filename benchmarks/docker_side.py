"""The other side of the benchmark: ``docker build`` with pip, from the same lock on the same base."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.measure import Measurement, measure

BASE = "envbuild-bench-base:latest"
DOCKERFILE = f"""\
FROM {BASE}
USER 0:0
ARG PIP_INDEX_URL
ARG PIP_CERT=/tmp/bench/ca.crt
COPY ca.crt requirements.txt /tmp/bench/
RUN python3 -m venv /opt/bench \\
 && /opt/bench/bin/pip install --no-cache-dir --require-hashes -r /tmp/bench/requirements.txt
"""
BASE_SPEC = """\
name: envbuild-bench-base
python: "3.13"
base: {debian: trixie, packages: [python3-venv]}
user: "0:0"
"""
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True, slots=True)
class DockerSide:
    """A build context in a directory of its own, and an engine that answers."""

    context: Path
    version: str

    def write(self, requirements: Path) -> None:
        """Makes the context: the Dockerfile, the lock's requirements and this machine's CA bundle."""
        self.context.mkdir(parents=True, exist_ok=True)
        (self.context / "Dockerfile").write_text(DOCKERFILE)
        shutil.copyfile(requirements, self.context / "requirements.txt")
        named = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), *_BUNDLES)
        bundle = next((Path(each) for each in named if each and Path(each).is_file()), None)
        (self.context / "ca.crt").write_bytes(bundle.read_bytes() if bundle else b"")

    def build(self, *, cache: bool) -> Measurement:
        """``docker build``, with or without what the engine has cached."""
        command = ["docker", "build", "--network", "host", "-t", "envbuild-bench:latest"]
        if not cache:
            command.append("--no-cache")
        for name, value in _arguments().items():
            command += ["--build-arg", f"{name}={value}"]
        return measure([*command, str(self.context)])


def rendered_build(context: Path) -> Measurement:
    """``docker build`` of a context that needs no network, with nothing cached and the classic builder, which
    is what our engine talks to as well."""
    command = ["docker", "build", "--no-cache", "--network", "none", "-t", "envbuild-bench:latest"]
    return measure([*command, str(context)], env={"DOCKER_BUILDKIT": "0"})


def find_engine() -> str | None:
    """The version of the Docker engine that answers, None where there is none."""
    if shutil.which("docker") is None:
        return None
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def drop_build_cache() -> None:
    """Forgets what earlier builds left in the engine, so that a cold build is cold."""
    subprocess.run(["docker", "builder", "prune", "--all", "--force"], capture_output=True, check=False)
    subprocess.run(
        ["docker", "image", "rm", "--force", "envbuild-bench:latest"], capture_output=True, check=False
    )


def _arguments() -> dict[str, str]:
    """Proxies and the index of this machine. Build arguments end up in the image's history, so an index
    with a credential in its address is left out."""
    found = {}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL"):
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value and "@" not in urlsplit(value).netloc:
            found[name] = value
    return found
