"""One file that people wrote: where it is, how it was named, and its text within bounds."""

from __future__ import annotations

import codecs
import itertools
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.errors import SpecError
from envbuild.oci.digest import digest_bytes

YAML_LIMIT = 4 << 20
"""Bytes. A hand-written YAML file is a few thousand; one with a thousand pins and all their hashes fits."""
REQUIREMENTS_LIMIT = 16 << 20
"""Bytes. A compiled requirements file with all hashes of some thousand packages fits."""
NAMES_LIMIT = 100_000
"""Names in one directory: more than any environment has packages."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


_CODING = re.compile(rb"#.*?coding[:=][ \t]*([-\w.]+)")
"""A line that names the file's encoding (PEP 263)."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file by its absolute path, and by the name the user knows it under."""

    path: Path
    shown: str
    reads: dict[Path, str] | None = field(default=None, compare=False, repr=False)
    """Where each file that is read, this one or one beside it, is noted with its digest; ``""`` where one was
    looked for and wasn't there."""
    fragment: str = ""
    """What was written behind ``#``: which parts of the file are asked for."""
    parsed: list[object] = field(default_factory=list, compare=False, repr=False)
    """The file as a document, once it was read as one: every importer that is asked looks at the same."""

    @classmethod
    def at(cls, path: Path, reads: dict[Path, str] | None = None, fragment: str = "") -> SourceFile:
        return cls(Path(os.path.normpath(path.absolute())), path.as_posix(), reads, fragment)

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

    def names(self) -> tuple[str, ...]:
        """What stands in the directory at its path, sorted; none where there is no directory. It is noted, so
        that what comes and goes there is noticed. Raises ``SpecError`` for one that can't be read."""
        try:
            with os.scandir(self.path) as entries:
                names = sorted(entry.name for entry in itertools.islice(entries, NAMES_LIMIT + 1))
        except FileNotFoundError:
            if self.reads is not None:
                self.reads[self.path] = ""
            return ()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SpecError(f"{self.shown}: can't be read: {reason}") from error
        if len(names) > NAMES_LIMIT:
            raise SpecError(f"{self.shown}: has more than {NAMES_LIMIT} entries")
        if self.reads is not None:
            self.reads[self.path] = state_of(self.path, names=names)
        return tuple(names)

    def relative_to(self, root: Path) -> str:
        """Its path as seen from ``root``, with forward slashes; may lead upwards."""
        return Path(os.path.relpath(self.path, root)).as_posix()

    def read(self, limit: int, *, coded: bool = False) -> str:
        """Its text. Raises ``SpecError``: missing, not a regular file, over ``limit`` bytes, not UTF-8.

        ``coded``: one of its first two lines may name another encoding (PEP 263)."""
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
            self.reads[self.path] = state_of(self.path, data=data)
        return self._decode(data, coded)

    def _decode(self, data: bytes, coded: bool) -> str:
        mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
        if coded and not mark:
            named = [match for line in data.split(b"\n", 2)[:2] if (match := _CODING.match(line.lstrip()))]
            encoding = named[0][1].decode("ascii", "replace") if named else encoding
        try:
            return data[len(mark) :].decode(encoding)
        except (LookupError, ValueError) as error:
            if not isinstance(error, UnicodeDecodeError):
                raise SpecError(
                    f"{self.shown}: its coding line names {encoding!r:.60}, which is no encoding of text",
                    hint="save it as UTF-8 and remove the line",
                ) from error
            line = data[: error.start].count(b"\n") + 1
            raise SpecError(
                f"{self.shown}:{line}: is not {encoding.upper()} text; save it as UTF-8"
            ) from error


def state_of(path: Path, *, data: bytes | None = None, names: Sequence[str] | None = None) -> str:
    """What is noted of a path: a file's digest, that of a directory's names, ``""`` where nothing is.

    ``data`` and ``names`` are what was read there already. Raises ``OSError``.
    """
    if data is None and names is None:
        if not path.exists():
            return ""
        if path.is_dir():
            names = sorted(member.name for member in path.iterdir())
        else:
            data = path.read_bytes()
    return digest_bytes(data if data is not None else os.fsencode("directory\0" + "\0".join(names or ())))
