"""A command to be started in an image, and what the image's config says about its process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from envbuild.errors import BuildError, RunError, UsageError
from envbuild.oci.image import Image
from envbuild.store.content import Store
from envbuild.store.images import read_config

WORKDIR = PurePosixPath("/workspace")
"""Where the caller's directory is mounted, and where the command starts. A path of its own, so that no
directory of the caller can hide one of the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A file or directory of this machine, seen at ``target`` inside."""

    source: Path
    target: PurePosixPath
    read_only: bool = False

    @classmethod
    def parse(cls, text: str, *, relative_to: Path) -> Mount:
        """The mount written ``SOURCE:TARGET[:ro|:rw]``. Raises ``UsageError``: another form, a source
        that isn't there, a target that isn't absolute or is the root."""
        parts = text.split(":")
        mode = parts.pop() if len(parts) == 3 else "rw"
        if len(parts) != 2 or not all(parts) or mode not in ("ro", "rw"):
            raise UsageError(f"not a mount: {text!r}", hint="write SOURCE:TARGET or SOURCE:TARGET:ro")
        source, target = relative_to / Path(parts[0]).expanduser(), PurePosixPath(parts[1])
        if not source.exists():
            raise UsageError(f"mount {text!r}: {source} does not exist")
        if not target.is_absolute() or ".." in target.parts or target == PurePosixPath("/"):
            raise UsageError(f"mount {text!r}: the target must be an absolute path below /")
        return cls(source=source.resolve(), target=target, read_only=mode == "ro")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command and all it is to see. ``arguments`` follow the image's entry point and stand for its
    default command, as with ``docker run``; empty: the image's own command."""

    image: Image
    arguments: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    """Over the image's own; a later one of the same name wins."""
    workdir: Path | None = None
    """Mounted at ``WORKDIR`` and made the working directory; None: nothing mounted, the image's own."""
    mounts: tuple[Mount, ...] = ()
    network: bool = True


class CommandRunner(Protocol):
    """One way to start a command.

    In every one: standard input, output and error are the caller's, but where they are a terminal it is one
    of the command's own, relayed to the caller's; files that the command makes in a mounted directory belong
    to the caller; the image itself can't be changed; ``/tmp`` is fresh and is ``HOME`` where
    the image sets none."""

    name: str

    def available(self) -> str | None:
        """None where it can work on this machine, else the reason it can't."""

    def run(self, command: Command) -> int:
        """Runs to the end and returns the exit status (128 + n where signal n ended it).
        Raises ``RunError`` where the command can't be started at all."""


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMERIC = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")


def image_config(image: Image, store: Store) -> Mapping[str, Any]:
    """The ``config`` object of the image's config (OCI image-spec, config). Raises ``RunError``."""
    try:
        return read_config(image, store).settings
    except BuildError as error:
        raise RunError(error.message, hint=error.hint) from error


def numeric_user(config: Mapping[str, Any]) -> tuple[int, int]:
    """The image's user and group where it gives them as numbers; else root's."""
    match = _NUMERIC.fullmatch(str(config.get("User") or ""))
    if match is None:
        return 0, 0
    uid = int(match[1])
    return uid, int(match[2]) if match[2] is not None else uid


def argv(config: Mapping[str, Any], command: Command) -> list[str]:
    """Entry point and arguments; raises ``RunError`` where neither image nor caller names a command."""
    entrypoint = [str(word) for word in config.get("Entrypoint") or ()]
    arguments = list(command.arguments) or [str(word) for word in config.get("Cmd") or ()]
    if not entrypoint and not arguments:
        raise RunError("the image has no command of its own", hint="add one: envbuild run SPEC -- COMMAND")
    return [*entrypoint, *arguments]


def environment(config: Mapping[str, Any], command: Command) -> dict[str, str]:
    """The variables of the process: the image's, then the caller's. Nothing else of this machine's
    gets in but the defaults: ``PATH`` and ``HOME`` where nobody sets them."""
    variables = {"PATH": _PATH, "HOME": "/tmp"}
    for line in config.get("Env") or ():
        name, _, value = str(line).partition("=")
        variables[name] = value
    variables.update(command.env)
    return variables
