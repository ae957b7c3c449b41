"""The context of an own Dockerfile, copied and hashed in one reading: what is built is what was locked."""

from __future__ import annotations

from pathlib import Path

from envbuild.errors import BuildError, SpecError
from envbuild.lock.model import ContextBase
from envbuild.render.base import BuildContext, ContextFile
from envbuild.specs.context import ContextEntry, read_context


def snapshot_context(context: Path, directory: Path, base: ContextBase, scratch: Path) -> BuildContext:
    """The directory ``context``, relative to ``directory``; its files are copies in ``scratch``, which must
    last as long.

    The digest of the copies is the lock's. Raises ``BuildError`` where it isn't, and for what can't be read.
    """
    copies = scratch / "context"
    try:
        copies.mkdir(parents=True, exist_ok=True)
        found = read_context(directory / context, base.dockerfile, copies=copies)
    except SpecError as error:
        raise BuildError(f"build context {context}: {error}", hint=error.hint) from error
    except OSError as error:
        raise BuildError(f"can't copy the build context into {scratch}: {error.strerror}") from error
    if found.digest != base.digest:
        raise BuildError(
            f"the build context {context} was changed after it was locked",
            hint="bring the lock up to date with: envbuild lock",
        )
    return BuildContext(
        files=tuple(_file(entry, copies) for entry in found.entries), dockerfile=base.dockerfile
    )


def _file(entry: ContextEntry, copies: Path) -> ContextFile:
    held = entry.target is None and not entry.directory
    return ContextFile(
        path=entry.path,
        content=copies / entry.sha256 if held else b"",
        mode=entry.mode,
        target=entry.target,
        directory=entry.directory,
    )
