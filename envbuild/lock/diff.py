"""What differs between two locks, pin by pin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from envbuild.lock.model import DebianBase, ImageBase, Lock, PlatformLock


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PinChange:
    """One pin that differs: ``before`` or ``after`` is None where it was added or removed."""

    platform: str
    kind: str
    """``base``, ``image``, ``python``, ``debian``, ``conda``, ``pip``, ``maven``, ``toolchain`` or
    ``installer``."""
    name: str
    before: str | None
    after: str | None


def lock_changes(before: Lock | None, after: Lock) -> tuple[PinChange, ...]:
    """Every pin that was added, removed or changed, by platform, kind and name.

    A pin that keeps its version but not its file shows the file's name (or its hash) instead."""
    old, new = dict(_pins(before)), dict(_pins(after))
    changes = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        platform, kind, name = key
        same_version = was is not None and now is not None and was[0] == now[0]
        changes.append(
            PinChange(
                platform=platform,
                kind=kind,
                name=name,
                before=was and (" ".join(was) if same_version else was[0]),
                after=now and (" ".join(now) if same_version else now[0]),
            )
        )
    return tuple(changes)


_Key = tuple[str, str, str]


def _pins(lock: Lock | None) -> Iterator[tuple[_Key, tuple[str, str]]]:
    if lock is None:
        return
    for platform in lock.platforms:
        yield from _platform_pins(platform)
    for kind, needed in (("toolchain", lock.toolchain), ("installer", lock.installer)):
        for platform_lock in needed:
            python = platform_lock.python.version if platform_lock.python else ""
            yield (str(platform_lock.platform), kind, "python"), (python, "")


def _platform_pins(pins: PlatformLock) -> Iterator[tuple[_Key, tuple[str, str]]]:
    platform = str(pins.platform)
    base = pins.base
    if isinstance(base, DebianBase):
        yield (platform, "base", "debian"), (base.suite, "")
        for deb in base.packages:
            yield (platform, "debian", deb.name), (deb.version, deb.sha256[:12])
    elif isinstance(base, ImageBase):
        yield (platform, "base", base.reference), (base.digest, "")
    else:
        yield (platform, "base", base.dockerfile), (base.digest, "")
        for image in base.images:
            yield (platform, "image", image.reference), (image.digest, "")
    if pins.python:
        build = pins.python.build
        yield (
            (platform, "python", "python"),
            (
                pins.python.version,
                f"{pins.python.provider} {build.sha256[:12]}" if build else pins.python.provider,
            ),
        )
    for package in pins.conda:
        yield (platform, "conda", package.name), (f"{package.version} {package.build}", package.sha256[:12])
    for wheel in pins.pip:
        yield (platform, "pip", wheel.name), (wheel.version, wheel.file)
    for jar in pins.maven:
        yield (platform, "maven", jar.name), (jar.version, jar.sha256[:12])
