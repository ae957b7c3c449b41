"""A store with a clock that moves a second with each change, and digests by number."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from envbuild.workspace.base import NewImage, NewVersion
from envbuild.workspace.store import EnvironmentStore

START = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)


def clock() -> Callable[[], datetime]:
    now = START

    def tick() -> datetime:
        nonlocal now
        now += timedelta(seconds=1)
        return now

    return tick


def open_store(location: str | Path, actor: str = "ada") -> EnvironmentStore:
    return EnvironmentStore(location, actor=actor, clock=clock())


def digest(number: int) -> str:
    """A digest whose first digits already differ from those of any other number."""
    return f"sha256:{number:08x}" + "a" * 56


def new_version(name: str, number: int, **changed: object) -> NewVersion:
    """The definition ``number`` as a version of ``name``."""
    values = {"environment": name, "definition": digest(number), "content": f"n: {number}\n", **changed}
    return NewVersion(**values)  # type: ignore[arg-type]


def image(number: int, *, definition: int = 1, lock: str | None = None, **changed: object) -> NewImage:
    values: dict[str, object] = {
        "digest": digest(number),
        "platform": "linux/amd64",
        "lock_digest": digest(900 + number),
        "lock": lock,
        "definition": digest(definition),
        "level": "L3",
        "engine": "native",
        "size": 12_345,
        "envbuild": "0.1.0",
        **changed,
    }
    return NewImage(**values)  # type: ignore[arg-type]
