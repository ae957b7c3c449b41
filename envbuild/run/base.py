"""What starts a command in an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from envbuild.errors import UsageError
from envbuild.oci.image import Image

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


class Runner(Protocol):
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
