"""One run of ``uv pip install`` into a prefix of its own, and what its refusals mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from envbuild.compose.artifacts.wheel.index import PackageIndexes
from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, PythonPin
from envbuild.lock.pip.command import python_options, uv_platform
from envbuild.plan.model import Artifact
from envbuild.platforms import Platform

_REFUSED = re.compile(
    r"[Tt]he wheel is invalid|unacceptable filename|\(os error 2\)\s+at path\s+\"[^\"]*/bin/"
)
"""uv's words about a wheel that is whole, but not of the form that it installs."""
_UNSAFE = re.compile(r"Skipping unsafe file name: (.*)")
_OWNER = re.compile(r"Files (.*) are listed in `RECORD` but missing from the wheel archive for `([^`=]+)")


def install_options(python: PythonPin, platform: Platform, glibc: str, *, offline: bool) -> tuple[str, ...]:
    """What uv is told of the target, and that it installs what is pinned and nothing else."""
    return (
        *python_options(),
        *("--python-version", python.version),
        *("--python-platform", uv_platform(platform, glibc)),
        *("--no-deps", "--require-hashes", "--no-build", "--link-mode", "hardlink"),
        # A hash says which file it must be, so it may come from any index, not only the first with that name.
        *("--index-strategy", "unsafe-best-match"),
        *(["--offline"] if offline else []),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelInstall:
    """Installs pins with uv. ``options`` are those of :func:`install_options`."""

    options: tuple[str, ...]
    indexes: PackageIndexes

    def run(self, pins: Sequence[PipPin], directory: Path, *, fresh: bool = False) -> None:
        """Unpacks ``pins`` below ``directory/prefix``. ``fresh``: past uv's cache. Raises ``BuildError``,
        and ``UnusualWheel`` where another installer is needed."""
        files = self.indexes.write_pins(pins, directory, hashes=True)
        answer = self.indexes.run_uv(
            [
                *("pip", "install", "--quiet", "--prefix", str(directory / "prefix")),
                *(part for file in files for part in ("-c" if file == "hashes.txt" else "-r", file)),
                *self.options,
                *(["--cache-dir", str(directory / "cache")] if fresh else []),
            ],
            directory,
            # uv leaves unsafe names out and says so only in its log.
            log="uv_extract=warn,uv_install_wheel=debug,uv_distribution=debug",
        )
        self._refuse_unsafe(answer.stderr, pins, directory)
        if answer.status != 0:
            raise self._failure(answer.stderr, pins, directory)

    def _refuse_unsafe(self, log: str, pins: Sequence[PipPin], directory: Path) -> None:
        names = _UNSAFE.findall(log)
        if not names:
            return
        owners = {owner for _, owner in _OWNER.findall(log)} & {pin.name for pin in pins}
        suspects = [pin for pin in pins if pin.name in owners] or list(pins)
        # Else the next run would find it unpacked, without the unsafe names, and say nothing.
        self.indexes.run_uv(["cache", "clean", "--quiet", *(pin.name for pin in suspects)], directory)
        raise BuildError(
            f"{file_names(suspects)}: it holds {', '.join(sorted(set(names))[:5])}, which leads "
            "out of its prefix",
            hint="don't use this wheel; report it to its index",
        )

    def _failure(self, log: str, pins: Sequence[PipPin], directory: Path) -> BuildError:
        reason = self.indexes.explanation(_without_log(log), directory, [pin.url or "" for pin in pins])
        named = [pin for pin in pins if _is_named(pin, reason)]
        if named and _REFUSED.search(reason):
            raise UnusualWheel(named)
        files = file_names(named) if named else "wheels"
        if re.search(r"[Hh]ash mismatch|[Nn]o matching hash|do not match|with matching hashes", reason):
            hint = "the index serves another file than the one that was locked: find out why, or lock again"
        elif re.search(r"Failed to extract", reason):
            hint = (
                "the file is damaged, at the index or on its way: try again, after uv cache clean if need be"
            )
        elif self.indexes.offline or "network was disabled" in reason:
            hint = "it isn't in uv's cache: run once without --offline"
        elif re.search(r"error sending request|tcp connect|dns error|timed out|Request failed", reason):
            hint = "check the network, the proxy and the index (UV_INDEX_URL)"
        elif re.search(r"No space left|os error 28", reason):
            hint = "free some space, or set ENVBUILD_CACHE_DIR and UV_CACHE_DIR to another disk"
        elif re.search(r"not found|unsatisfiable|404", reason):
            hint = (
                "it may have left the index: envbuild lock --upgrade-package, or set the index it came from"
            )
        else:
            hint = "if the file is damaged in uv's cache: uv cache clean, then try again"
        return BuildError(f"{files}: uv can't install from the lock: {reason}", hint=hint)


class UnusualWheel(Exception):
    """uv doesn't install the wheels ``pins``, which pip may."""

    def __init__(self, pins: Sequence[PipPin]) -> None:
        super().__init__(file_names(pins))
        self.pins = tuple(pins)


def wheel_pin(artifact: Artifact) -> PipPin:
    """The pin of an artifact that is a wheel. Raises ``BuildError`` for all others."""
    pin = artifact.pin
    if not isinstance(pin, PipPin):
        raise BuildError(f"{artifact.name} {artifact.version} is no wheel")
    if not pin.is_wheel:
        raise BuildError(
            f"{pin.file}: only a source distribution of {pin.name} {pin.version} fits, and installing that "
            "runs its own code",
            hint=f"lock again, so that a wheel is built from it: envbuild lock --upgrade-package {pin.name}",
        )
    if canonicalize_name(pin.name) != pin.name:
        raise BuildError(f"{pin.name} is not a normalised name", hint="lock again: envbuild lock")
    return pin


def file_names(pins: Sequence[PipPin]) -> str:
    """The files of ``pins`` for messages: three of them, and how many more."""
    names = [pin.file for pin in pins]
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _is_named(pin: PipPin, text: str) -> bool:
    stem = re.escape(pin.name).replace(r"\-", "[-_.]")
    return re.search(rf"(?<![\w.-]){stem}(?![\w]|-[a-z])", text, re.IGNORECASE) is not None


def _without_log(log: str) -> str:
    """uv's explanation, without the lines of its log."""
    lines = [line for line in log.splitlines() if not re.match(r"\s*(TRACE|DEBUG|INFO|WARN)\s", line)]
    return re.sub(r"^error: ", "", "\n".join(lines).strip()) or "it did not say why"
