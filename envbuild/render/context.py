"""A build context as a tar for an engine, or as a directory for people. Same context, same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import posixpath
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from envbuild.compose.base import Entry, EntryKind
from envbuild.compose.tar import END, check_path, entry_stream
from envbuild.errors import BuildError, SpecError, UsageError
from envbuild.lock.model import ContextBase
from envbuild.oci.digest import CHUNK, digest_file
from envbuild.render.base import BuildContext, ContextFile
from envbuild.specs.context import ContextContents, ContextEntry, read_context
from envbuild.specs.dockerfile_images import with_digests

RECORD = ".envbuild-context"
"""The file of a written context that lists what envbuild wrote there. A ``.dockerignore`` should name it."""

_PART = ".envbuild-part-"
_MAX_RECORD = 64 << 20
_LINK, _DIRECTORY = "link", "directory"


def context_tar(context: BuildContext) -> Iterator[bytes]:
    """The context as an uncompressed tar, read as it is sent: owner 0, one time for all, sorted by path.

    Directories that only files imply are there too, with mode 0755, so that no engine makes them its own
    way. Raises ``BuildError`` for paths that no context can have, before the first byte.
    """
    return _tar(_entries(context))


def context_size(context: BuildContext) -> int:
    """The bytes of all contents."""
    return sum(
        len(file.content) if isinstance(file.content, bytes) else _size(file.content)
        for file in context.files
    )


def write_context(context: BuildContext, directory: Path) -> None:
    """Makes ``directory`` hold exactly the context, and :data:`RECORD`.

    A directory that isn't there is made. One that holds anything but what an earlier call wrote there,
    unchanged, is refused with ``UsageError`` and not touched. All is written beside the files first and
    only then moved to its place, so a full disk changes nothing. Raises ``BuildError`` for that. Two calls
    at once for one directory come one after the other.
    """
    entries = _entries(context)
    for entry in entries:
        if entry.path.split("/")[0] == RECORD or entry.path.startswith(_PART):
            raise BuildError(f"{entry.path} is a name of envbuild's own in a written context")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory):
            before = _known(directory)
            part = directory / f"{_PART}{secrets.token_hex(8)}"
            try:
                part.mkdir(mode=0o700)
                after = {entry.path: _write(entry, part) for entry in entries}
                _replace(directory, part, before, after, entries)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise BuildError(
            f"can't write to {directory}: {error.strerror or error}",
            hint="check the directory's permissions and the space on its disk",
        ) from error


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Waits until no other call writes into the directory, and keeps others waiting meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some network file systems lock no directories; there, as without a lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _entries(context: BuildContext) -> list[Entry]:
    """What the context has, with the directories in between, sorted. Raises ``BuildError``."""
    entries: dict[str, Entry] = {}
    for file in context.files:
        check_path(file.path)
        if file.path in entries:
            raise BuildError(f"{file.path} is in the build context twice")
        entries[file.path] = _entry(file)
    for path in list(entries):
        parent = path
        while parent := parent.rpartition("/")[0]:
            above = entries.setdefault(parent, Entry(path=parent, kind=EntryKind.DIRECTORY, mode=0o755))
            if above.kind is not EntryKind.DIRECTORY:
                raise BuildError(f"{parent} is no directory of the build context, but {path} lies below it")
    return [entries[path] for path in sorted(entries)]


def _entry(file: ContextFile) -> Entry:
    if file.directory:
        # Whoever may read a directory may enter it: the default mode is one of files.
        mode = (file.mode | (file.mode & 0o444) >> 2) & 0o7777
        return Entry(path=file.path, kind=EntryKind.DIRECTORY, mode=mode)
    if file.target is not None:
        if not file.target or "\0" in file.target:
            raise BuildError(f"{file.path}: {file.target!r} is no link target")
        return Entry(path=file.path, kind=EntryKind.SYMLINK, target=file.target)
    return Entry(path=file.path, mode=file.mode & 0o7777, content=file.content)


def _tar(entries: list[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield from entry_stream(entry)
    yield END


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BuildError(f"can't read {path}: {error.strerror}") from error


# --- a directory ----------------------------------------------------------------------------------------


def _known(directory: Path) -> set[tuple[str, str]]:
    """What is in the directory, all of it written by an earlier call. Raises ``UsageError`` if not."""
    recorded = _recorded(directory / RECORD)
    here: set[tuple[str, str]] = set()
    for path, entry in _walk(directory, ""):
        if path.startswith(_PART) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)  # What a killed call left behind.
            continue
        if path == RECORD:
            continue
        kind = _kind(entry)
        if (path, kind) not in recorded:
            known = any(path == name for name, _ in recorded)
            what = "has been changed since" if known else "is not of an earlier rendering"
            raise UsageError(
                f"{directory} is not written to: {path} {what}",
                hint="name a new or an empty directory, or move what is yours out of this one",
            )
        here.add((path, kind))
    return here


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below, parents first; symlinks are not followed, nor are our own leftovers entered."""
    with os.scandir(directory) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        yield path, entry
        if entry.is_dir(follow_symlinks=False) and not path.startswith(_PART):
            yield from _walk(Path(entry.path), f"{path}/")


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return f"{_LINK}:{_hash(os.fsencode(Path(entry.path).readlink()))}"
    if entry.is_dir(follow_symlinks=False):
        return _DIRECTORY
    if not entry.is_file(follow_symlinks=False):
        return "special"
    return digest_file(Path(entry.path)).removeprefix("sha256:")


def _recorded(file: Path) -> set[tuple[str, str]]:
    """Paths and kinds of an earlier call; empty where the record isn't there or isn't one."""
    try:
        if file.is_symlink() or file.stat().st_size > _MAX_RECORD:
            return set()
        rows = [line.partition("  ") for line in file.read_text(encoding="utf-8").split("\n") if line]
        return {(str(json.loads(path)), kind) for kind, _, path in rows}
    except (OSError, ValueError):
        return set()


def _write(entry: Entry, part: Path) -> str:
    """Writes the entry below ``part``, its parents being there, and returns its kind."""
    path = part / entry.path
    if entry.kind is EntryKind.SYMLINK:
        path.symlink_to(entry.target)
        return f"{_LINK}:{_hash(os.fsencode(entry.target))}"
    if entry.kind is EntryKind.DIRECTORY:
        path.mkdir()
        return _DIRECTORY
    state = hashlib.sha256()
    with path.open("xb") as file:
        for piece in _pieces(entry.content):
            state.update(piece)
            file.write(piece)
        os.fchmod(file.fileno(), entry.mode)
    return state.hexdigest()


def _pieces(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def _replace(
    directory: Path,
    part: Path,
    before: set[tuple[str, str]],
    after: dict[str, str],
    entries: list[Entry],
) -> None:
    """Moves what is in ``part`` to its place and removes the rest. Killed in between, the directory is still
    one that the next call takes for its own: the record names old and new until the end."""
    _record(directory, part, {*before, *after.items()})
    for path, kind in sorted(before, reverse=True):
        place = directory / path
        if kind == _DIRECTORY:
            if after.get(path) != _DIRECTORY:
                place.rmdir()
        elif path not in after or after[path] == _DIRECTORY:
            place.unlink(missing_ok=True)
    for entry in entries:
        place = directory / entry.path
        if entry.kind is EntryKind.DIRECTORY:
            with contextlib.suppress(FileExistsError):
                place.mkdir()
        else:
            (part / entry.path).replace(place)
    for entry in reversed(entries):
        if entry.kind is EntryKind.DIRECTORY:
            (directory / entry.path).chmod(entry.mode)
    _record(directory, part, set(after.items()))


def _record(directory: Path, part: Path, lines: set[tuple[str, str]]) -> None:
    file = part / RECORD
    text = "".join(f"{kind}  {json.dumps(path, ensure_ascii=False)}\n" for path, kind in sorted(lines))
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)
    file.replace(directory / RECORD)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def snapshot_context(context: Path, directory: Path, base: ContextBase, scratch: Path) -> BuildContext:
    """The directory ``context``, relative to ``directory``; its files are copies in ``scratch``, which must
    last as long.

    The digest of the copies is the lock's; the Dockerfile then has the digests of the lock's images. Raises
    ``BuildError`` where it isn't, and for what can't be read.
    """
    copies = scratch / "context"
    try:
        copies.mkdir(parents=True, exist_ok=True)
        build_context = read_context(directory / context, base.dockerfile, copies=copies)
    except SpecError as error:
        raise BuildError(f"build context {context}: {error}", hint=error.hint) from error
    except OSError as error:
        raise BuildError(f"can't copy the build context into {scratch}: {error.strerror}") from error
    if build_context.digest != base.digest:
        raise BuildError(
            f"the build context {context} was changed after it was locked",
            hint="bring the lock up to date with: envbuild lock",
        )
    files = [_file(entry, copies) for entry in build_context.entries]
    if base.images:
        files = _with_digests(files, build_context, base)
    return BuildContext(files=tuple(files), dockerfile=base.dockerfile)


def _with_digests(
    files: Sequence[ContextFile], build_context: ContextContents, base: ContextBase
) -> list[ContextFile]:
    """``files`` with the Dockerfile naming its images as the lock has them: every builder, and whoever builds
    what was written for people, takes those."""
    entry = build_context.file_at(posixpath.normpath(base.dockerfile))
    digests = {pin.reference: pin.digest for pin in base.images}

    def pinned(file: ContextFile) -> ContextFile:
        if entry is None or file.path != entry.path or isinstance(file.content, bytes):
            return file
        text = file.content.read_bytes().decode(errors="surrogateescape")
        return replace(file, content=with_digests(text, digests).encode(errors="surrogateescape"))

    return [pinned(file) for file in files]


def _file(entry: ContextEntry, copies: Path) -> ContextFile:
    held = entry.target is None and not entry.directory
    return ContextFile(
        path=entry.path,
        content=copies / entry.sha256 if held else b"",
        mode=entry.mode,
        target=entry.target,
        directory=entry.directory,
    )
