"""One file that people wrote: where it is, how it was named, and its text within bounds."""

from __future__ import annotations

import codecs
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.digest import digest_bytes
from envbuild.errors import SpecError

YAML_LIMIT = 1 << 20
"""Bytes. A hand-written YAML file is a few thousand."""
REQUIREMENTS_LIMIT = 16 << 20
"""Bytes. A compiled requirements file with all hashes of some thousand packages fits."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file by its absolute path, and by the name the user knows it under."""

    path: Path
    shown: str
    reads: dict[Path, str] | None = field(default=None, compare=False, repr=False)
    """Where each file that is read, this one or one beside it, is noted with its digest; ``""`` where one was
    looked for and wasn't there."""

    @classmethod
    def at(cls, path: Path, reads: dict[Path, str] | None = None) -> SourceFile:
        return cls(Path(os.path.normpath(path.absolute())), path.as_posix(), reads)

    def beside(self, written: str) -> SourceFile:
        """The file that a relative path written in this one means."""
        shown = Path(os.path.normpath(Path(self.shown).parent / written))
        path = Path(os.path.normpath(self.path.parent / written))
        return SourceFile(path, shown.as_posix(), self.reads)

    def is_there(self) -> bool:
        """Whether anything stands at its path; an absent file is noted: one that appears matters."""
        try:
            there = self.path.exists()
        except (OSError, ValueError):
            there = False
        if not there and self.reads is not None:
            self.reads[self.path] = ""
        return there

    def relative_to(self, root: Path) -> str:
        """Its path as seen from ``root``, with forward slashes; may lead upwards."""
        return Path(os.path.relpath(self.path, root)).as_posix()

    def read(self, limit: int) -> str:
        """Its text. Raises ``SpecError``: missing, not a regular file, over ``limit`` bytes, not UTF-8."""
        try:
            mode = self.path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise SpecError(f"{self.shown}: is a directory, not a file")
            if not stat.S_ISREG(mode):
                raise SpecError(f"{self.shown}: is not a regular file")
            with self.path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError as error:
            raise SpecError(f"{self.shown}: no such file") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SpecError(f"{self.shown}: can't be read: {reason}") from error
        if len(data) > limit:
            raise SpecError(f"{self.shown}: is larger than {limit >> 20} MiB")
        if self.reads is not None:
            self.reads[self.path] = digest_bytes(data)
        return self._decode(data)

    def _decode(self, data: bytes) -> str:
        mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
        try:
            return data[len(mark) :].decode(encoding)
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise SpecError(
                f"{self.shown}:{line}: is not {encoding.upper()} text; save it as UTF-8"
            ) from error
