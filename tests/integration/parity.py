"""What two images hold, compared path by path; the differences that docs/dockerfiles.md explains."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPLAINED = {
    "a Dockerfile was used": r"usr/share/envbuild/Dockerfile",
    "venv makes them": r"opt/env/(\.gitignore|include(/.*)?|bin/(activate(\..*)?|Activate\.ps1))",
    "venv's links and settings": r"opt/env/(bin/python[0-9.]*|pyvenv\.cfg)",
    "pip's wrappers of entry points": r"opt/env/bin/[^/]+",
    "pip says that it was pip": r".*\.dist-info/(INSTALLER|REQUESTED|RECORD)",
    "records as the installer words them": r"opt/env/conda-meta/([^/]+\.json|history)",
    "marshal marks by reference counts": r".*/__pycache__/[^/]+\.pyc",
    "the engine's own files": r"\.dockerenv|dev/.*|etc/(hostname|hosts|mtab|resolv\.conf)|proc|sys|dev",
}
"""Reasons, and the paths that may differ for them."""

_IN_BOTH = {
    "pip's wrappers of entry points",
    "records as the installer words them",
    "marshal marks by reference counts",
}
"""Reasons why a path may have another content, never why it may be missing."""

PACKAGES = """
import importlib.metadata as metadata, json
print(json.dumps(sorted(f"{each.name} {each.version}" for each in metadata.distributions())))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One path of an image. ``content`` is a SHA-256, or a link's target."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str


def docker(*arguments: str) -> str:
    """What the command says; fails the test where it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def members(image: str) -> dict[str, Member]:
    """Every path of an image that the engine has."""
    container = docker("create", "--network=host", image, "true").strip()
    found = {}
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as archive:
                for each in archive:
                    content = each.linkname
                    if each.isreg():
                        file = archive.extractfile(each)
                        assert file is not None
                        content = hashlib.sha256(file.read()).hexdigest()
                    kind = "file" if each.isreg() or each.islnk() else each.type.decode()
                    found[each.name] = Member(
                        kind=kind, mode=each.mode & 0o7777, owner=(each.uid, each.gid), content=content
                    )
            assert export.wait(timeout=60) == 0
    finally:
        docker("rm", container)
    return found


def differences(one: Mapping[str, Member], other: Mapping[str, Member]) -> dict[str, list[str]]:
    """The paths that differ, under the first reason of :data:`EXPLAINED` that covers them; those that
    nothing explains under ``""``. A wrapper must be there in both: only its wording is pip's own."""
    found: dict[str, list[str]] = {}
    for path in sorted({*one, *other}):
        mine, theirs = one.get(path), other.get(path)
        if mine == theirs:
            continue
        reason = next((why for why, pattern in EXPLAINED.items() if re.fullmatch(pattern, path)), "")
        in_both = mine is not None and theirs is not None
        only_content = (
            mine is not None
            and theirs is not None
            and (mine.kind, mine.mode, mine.owner) == (theirs.kind, theirs.mode, theirs.owner)
        )
        if reason in _IN_BOTH and not in_both:
            reason = ""
        if in_both and not only_content and reason != "the engine's own files":
            reason = ""
        found.setdefault(reason, []).append(path)
    return found


def config(image: str) -> dict[str, Any]:
    """What of an image's config a container starts with. A directory that is twice on a PATH, because
    the base is an image of ours, counts once: a Dockerfile can only put one PATH before another."""
    (inspected,) = json.loads(docker("image", "inspect", image))
    whole = inspected["Config"]
    found = {
        key: whole.get(key) or None for key in ("User", "Cmd", "Entrypoint", "WorkingDir", "ExposedPorts")
    }
    env = dict(each.split("=", 1) for each in whole["Env"])
    env["PATH"] = ":".join(dict.fromkeys(env.get("PATH", "").split(":")))
    return {**found, "Env": env}


def packages(image: str) -> list[str]:
    """The Python distributions that an image's python sees."""
    said = docker("run", "--rm", "--network=host", image, "python", "-c", PACKAGES)
    found: list[str] = json.loads(said)
    return found
