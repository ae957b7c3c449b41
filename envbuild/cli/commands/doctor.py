"""``envbuild doctor``: what is here, and what each absent thing means."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
from uv import find_uv_bin

import envbuild
from envbuild.cli.call import Call
from envbuild.cli.options import display_options, json_option, store_options
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import paint, size_text, table
from envbuild.docker.client import NoEngine, connect
from envbuild.engines.buildx.command import NoBuilder, find_builder
from envbuild.errors import EnvbuildError
from envbuild.lock.conda.configuration import conda_configuration
from envbuild.redact import redact
from envbuild.render.access import index_lines
from envbuild.settings import Settings

ENOUGH_SPACE = 2_000_000_000
"""Bytes that one larger environment takes in the store, download and segments together."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing looked for.

    ``state`` is ``ok``, ``absent`` (something can't be used) or ``bad`` (nothing works)."""

    what: str
    state: str
    detail: str


@click.command(short_help="Show what envbuild finds on this machine.")
@store_options
@json_option
@display_options
@with_call
def command(call: Call, as_json: bool) -> int:
    """Show what envbuild finds on this machine. Exit 1 where it can't work here."""
    findings = look(call)
    if as_json:
        call.out(
            json_text(
                {finding.what: {"state": finding.state, "detail": finding.detail} for finding in findings}
            )
        )
    else:
        colors = {"ok": "green", "absent": "yellow", "bad": "red"}
        rows = [(finding.state, finding.what, finding.detail) for finding in findings]
        for finding, line in zip(findings, table(rows), strict=True):
            state = paint(finding.state, colors[finding.state], color=call.color and call.stdout.isatty())
            call.out(state + line[len(finding.state) :])
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def look(call: Call) -> tuple[Diagnosis, ...]:
    """All findings, in a fixed order. Makes no connection but to the local engine, and writes nothing."""
    settings = call.settings()
    checks: list[Callable[[], Diagnosis]] = [
        lambda: Diagnosis("envbuild", "ok", f"{envbuild.__version__}, python {sys.version.split()[0]}"),
        _uv,
        lambda: Diagnosis("indexes", "ok", "; ".join(index_lines(call.environ))),
        lambda: _conda(settings, call.environ),
        lambda: _engine(call.environ),
        lambda: _buildkit(call.environ),
        _user_namespaces,
        lambda: _debian_mirror(settings.debian_mirror),
        lambda: _cache(settings.cache_dir),
    ]
    findings = [check() for check in checks]
    # Addresses come from variables, and may have a login.
    return tuple(replace(finding, detail=redact(finding.detail)) for finding in findings)


def _uv() -> Diagnosis:
    try:
        path = find_uv_bin()
    except (ImportError, FileNotFoundError):
        return Diagnosis("uv", "bad", "not found; install envbuild again, it brings uv")
    words = _words([path, "--version"])
    return Diagnosis("uv", "ok" if words else "bad", words or f"{path} doesn't start")


def _conda(settings: Settings, environ: Mapping[str, str]) -> Diagnosis:
    try:
        lines = conda_configuration(settings, environ).lines()
    except EnvbuildError as error:
        return Diagnosis("conda channels", "bad", error.message)
    return Diagnosis("conda channels", "ok", "; ".join(lines) or "no configuration of conda's")


def _engine(environ: Mapping[str, str]) -> Diagnosis:
    client = connect(environ)
    if isinstance(client, NoEngine):
        return Diagnosis(
            "engine", "absent", f"{client.reason}; --engine docker, --load and run --backend docker need one"
        )
    try:
        version = client.version()
    except Exception as error:  # noqa: BLE001 - the SDK lets errors of requests and of sockets through
        return Diagnosis("engine", "absent", f"it stopped answering ({type(error).__name__})")
    finally:
        client.close()
    return Diagnosis("engine", "ok", f"Docker {version.get('Version', '?')}")


def _buildkit(environ: Mapping[str, str]) -> Diagnosis:
    """What ``--engine buildx`` would build with."""
    builder = find_builder(environ)
    if isinstance(builder, NoBuilder):
        return Diagnosis("buildkit", "absent", f"{'; '.join(builder.reasons)}; --engine buildx needs it")
    with_what = f"buildx, driver {builder.driver}" if builder.buildx else "BuildKit of the Docker engine"
    platforms = f", for {', '.join(builder.platforms)}" if builder.platforms else ""
    return Diagnosis("buildkit", "ok", f"{builder.executable}: {with_what}{platforms}")


def _user_namespaces() -> Diagnosis:
    if not sys.platform.startswith("linux"):
        return Diagnosis("user namespaces", "absent", "not Linux; run needs a Docker engine")
    unshare = shutil.which("unshare")
    if unshare is None:
        return Diagnosis(
            "user namespaces", "absent", "no unshare (util-linux); byte code and run need it or Docker"
        )
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["refused"])[-1]
        return Diagnosis("user namespaces", "absent", f"{reason}; byte code and run need them or root")
    return Diagnosis("user namespaces", "ok", "programs of an image can be run without a daemon")


def _debian_mirror(mirror: str | None) -> Diagnosis:
    if mirror:
        return Diagnosis("debian mirror", "ok", "from the settings")
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for place in places:
        try:
            text = place.read_text(errors="replace")
        except OSError:
            continue
        if any(line.split(None, 1)[0] in ("deb", "URIs:") for line in text.splitlines() if line.strip()):
            return Diagnosis("debian mirror", "ok", f"from {place}")
    return Diagnosis(
        "debian mirror", "absent", "no apt sources here; set debian-mirror, or name an image as base"
    )


def _cache(directory: Path) -> Diagnosis:
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK)):
        return Diagnosis("store", "bad", f"{directory} can't be written; set ENVBUILD_CACHE_DIR")
    free = shutil.disk_usage(place).free
    state = "ok" if free >= ENOUGH_SPACE else "absent"
    return Diagnosis("store", state, f"{directory}, {size_text(free)} free")


def _words(command: list[str]) -> str | None:
    """What a program prints, None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
