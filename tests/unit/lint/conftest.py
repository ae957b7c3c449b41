"""Specs from real files, and what the rules find in them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from envbuild.lint.check import lint
from envbuild.lint.subject import Finding
from envbuild.lock.model import CondaPin, DebianBase, ImageBase, Lock, PipPin, PlatformLock, PythonPin
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec

TODAY = date(2026, 11, 23)
TRIXIE = DebianBase(suite="trixie", packages=(), glibc="2.41")
IMAGE = ImageBase(reference="docker.io/library/debian:trixie-slim", digest="sha256:" + "a" * 64)


def a_lock(
    pip: tuple[str, ...] = (),
    conda: tuple[str, ...] = (),
    python: str | None = "3.13.5",
    base: DebianBase | ImageBase = TRIXIE,
) -> Lock:
    """A lock of linux/amd64 with pins as ``name==version``."""

    def parts(pin: str) -> dict[str, Any]:
        name, _, version = pin.partition("==")
        return {"name": name, "version": version, "size": 1, "sha256": "1" * 64}

    return Lock(
        definition="sha256:" + "d" * 64,
        platforms=(
            PlatformLock(
                platform=LINUX_AMD64,
                base=base,
                python=None
                if python is None
                else PythonPin(version=python, provider="debian", executable="/usr/bin/python3"),
                conda=tuple(
                    CondaPin(build="0", subdir="linux-64", url="https://c.example/x", md5="", **parts(each))
                    for each in conda
                ),
                pip=tuple(PipPin(file="x.whl", **parts(each)) for each in pip),
            ),
        ),
    )


class Found(list[Finding]):
    """Findings, and the two ways tests look at them."""

    @property
    def codes(self) -> list[str]:
        return [each.code for each in self]

    def of(self, code: str) -> list[tuple[str, int | None, str]]:
        """File, line and message of each finding of one code."""
        return [(each.where.file, each.where.line, each.message) for each in self if each.code == code]


def look(spec: Spec, lock: Lock | None = None, today: date = TODAY) -> Found:
    return Found(lint(spec, today=today, lock=lock))


Looker = Callable[..., Found]


@pytest.fixture
def found(tmp_path: Path) -> Looker:
    """What is found in a spec of that text; ``files`` are written beside it."""

    def run(text: str, lock: Lock | None = None, *, name: str = "envbuild.yaml", **files: str) -> Found:
        for other, content in files.items():
            path = tmp_path / other
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / name).write_text(text)
        return look(load_spec(tmp_path / name), lock)

    return run
