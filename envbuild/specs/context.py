"""A build context: everything a Dockerfile can see, read once, with a digest of its own.

What counts is what an image can show: each path, whether a file can be executed (modes are 0644 or 0755),
its content, where a link points, and empty directories. Times, owners, umask and the place of the directory
do not. Links are kept as links and never followed.

Left out are: what the ignore files say (``<dockerfile>.dockerignore``, else ``.dockerignore``, by Docker's
rules, and ``.amlignore``, or the ``.gitignore`` files where there is neither, by git's); ``.git``, which
changes with each command of git, unless a ``!`` line of the ``.dockerignore`` names it; and
``envbuild.lock`` files, since a lock can't hold its own digest. The Dockerfile and its ``.dockerignore`` are
never left out. The ``BaseDockerfile`` of an Azure ML directory is built from its text alone: nothing
beside it is seen.

The code of a job is read by the same rules but for two: it has no Dockerfile, and ``__pycache__`` is left
out, since what Python writes there differs with each machine.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from envbuild.errors import SpecError
from envbuild.oci.digest import CHUNK, canonical_digest
from envbuild.specs.ignore import DockerIgnore, docker_ignore, git_ignore, git_leaves_out
from envbuild.specs.model import BuildContextSpec

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_FORMAT = 1
_IGNORE_LIMIT = 1 << 20
_OWN = re.compile(r"envbuild\.lock|\.envbuild\.lock\.[0-9a-f]+\.part")
"""What envbuild writes beside a spec: it must not change what it is the lock of."""
_TOLD = 20
"""Problems of one context that are named."""
_LINKS = 40
"""From one link to the next."""
_CACHE = "__pycache__"
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextLimits:
    """What a context may hold; more is a directory that was not meant."""

    entries: int = 100_000
    size: int = 10_000_000_000
    """Bytes of all files together."""
    depth: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextEntry:
    """One file, link or empty directory. ``path`` is relative and ``/``-separated."""

    path: str
    mode: int = 0o644
    sha256: str = ""
    """Of a file's content, bare hex."""
    size: int = 0
    target: str | None = None
    """Set: a link to it, as written."""
    directory: bool = False

    @property
    def canonical(self) -> list[str]:
        """What counts for the digest."""
        if self.directory:
            return [self.path, "directory"]
        if self.target is not None:
            return [self.path, "link", self.target]
        return [self.path, f"{self.mode:04o}", self.sha256]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextContents:
    """What a context held when it was read, sorted by path."""

    entries: tuple[ContextEntry, ...]

    @property
    def digest(self) -> str:
        """Equal for equal contexts, wherever they stand."""
        return canonical_digest("build-context", _FORMAT, [entry.canonical for entry in self.entries])

    def file_at(self, path: str) -> ContextEntry | None:
        """The file that ``path`` means, itself or through links inside the context."""
        by_path = {entry.path: entry for entry in self.entries}
        links = 0
        while (entry := by_path.get(path)) is not None and entry.target is not None and links < _LINKS:
            links += 1
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))
        return None if entry is None or entry.directory or entry.target is not None else entry


def read_context(
    root: Path, dockerfile: str, *, copies: Path | None = None, limits: ContextLimits | None = None
) -> ContextContents:
    """What a build of ``dockerfile`` (a path below ``root``) can see.

    With ``copies``, each file's content is written there under its SHA-256 (bare hex) while it is hashed: the
    copy is what the digest is of, whatever happens to the directory meanwhile. Raises ``SpecError`` with
    every problem: what can't be read, what no context can hold, and contexts beyond ``limits``.
    """
    dockerfile = posixpath.normpath(dockerfile)
    return _ContextReading(
        root=root, dockerfile=dockerfile, copies=copies, limits=limits or ContextLimits()
    ).contents()


def read_code(root: Path, *, copies: Path, limits: ContextLimits | None = None) -> ContextContents:
    """The files of a job's code, each copied into ``copies``, as ``read_context`` does."""
    return _ContextReading(
        root=root, dockerfile=None, copies=copies, limits=limits or ContextLimits()
    ).contents()


def read_model(
    root: Path, *, copies: Path, without: Container[str] = (), limits: ContextLimits | None = None
) -> ContextContents:
    """All files of a model but those whose paths are in ``without``: no file names what is left out. Raises
    ``SpecError`` as ``read_context`` does."""
    reading = _ContextReading(
        root=root, dockerfile=None, copies=copies, limits=limits or ContextLimits(), named="model"
    )
    entries = reading.contents().entries
    return ContextContents(entries=tuple(entry for entry in entries if entry.path not in without))


def with_digest(base: BuildContextSpec, directory: Path) -> BuildContextSpec:
    """``base`` with the digest of what its context holds now; ``directory`` is its spec's."""
    return replace(base, digest=read_context(directory / base.path, base.dockerfile_path).digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Here:
    """One directory of the walk, and what the rules said on the way to it."""

    path: str = ""
    handle: int
    depth: int = 0
    docker: tuple[bool, ...] = ()
    git: Mapping[str, GitIgnoreSpec] = field(default_factory=dict)
    by_docker: bool = False
    """Left out by the ``.dockerignore``; something below may be brought back."""
    by_git: bool = False
    """Left out by git's rules; only the Dockerfile and its ``.dockerignore`` may be below."""

    def join(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name


@dataclass(kw_only=True)
class _ContextReading:
    root: Path
    dockerfile: str | None
    """None: the directory is the code of a job."""
    copies: Path | None
    limits: ContextLimits
    entries: list[ContextEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    size: int = 0
    ignore: DockerIgnore = field(default_factory=DockerIgnore)
    nested: bool = False
    """Whether the ``.gitignore`` of each directory counts."""
    needed: tuple[str, ...] = ()
    """What is never left out."""
    named: str = "code"
    """What a directory without a Dockerfile is: of a ``model`` nothing is left out."""

    def contents(self) -> ContextContents:
        try:
            with _directory(self.root) as handle:
                self.walk(self.rules(handle))
        except OSError as error:
            raise SpecError(f"{self.what} can't be read: {error.strerror}") from error
        if self.dockerfile is not None and not self.problems:
            self.check_dockerfile(self.dockerfile)
        if self.problems:
            more = len(self.problems) - _TOLD
            shown = [*self.problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])]
            raise SpecError(shown[0], hint=self.remedy, problems=shown)
        return ContextContents(entries=tuple(sorted(self.entries, key=lambda entry: entry.path)))

    @property
    def what(self) -> str:
        return "the build context" if self.dockerfile is not None else f"the {self.named} in {self.root}"

    @property
    def remedy(self) -> str:
        if self.named == "model":
            return "name the directory that holds the model and nothing else"
        if self.dockerfile is None:
            return "leave out with an .amlignore or .gitignore what the job doesn't need"
        return "leave out with a .dockerignore what the build doesn't need"

    def rules(self, handle: int) -> _Here:
        """The root, with the rules that hold for all of it."""
        if self.dockerfile == "BaseDockerfile" and (self.root / "azureml_environment.json").is_file():
            self.ignore, self.needed = docker_ignore("*", self.dockerfile), (self.dockerfile,)
            return _Here(handle=handle, docker=self.ignore.nothing)
        own = [f"{self.dockerfile}.dockerignore", ".dockerignore"] if self.dockerfile is not None else []
        docker = next((name for name in own if (self.root / name).is_file()), None)
        self.needed = tuple(name for name in (self.dockerfile, docker) if name is not None)
        if docker:
            self.ignore = docker_ignore(self.text(self.root / docker, docker), docker)
        git: dict[str, GitIgnoreSpec] = {}
        if self.named == "model":
            return _Here(handle=handle, docker=self.ignore.nothing)
        if (self.root / ".amlignore").is_file():
            git[""] = git_ignore(self.text(self.root / ".amlignore", ".amlignore"), ".amlignore")
        else:
            self.nested = docker is None
        return _Here(handle=handle, docker=self.ignore.nothing, git=git)

    def text(self, path: Path, shown: str) -> str:
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise SpecError(f"{shown}: links to a file outside of {self.what}")
        try:
            with _regular(path) as file:
                data = file.read(_IGNORE_LIMIT + 1)
        except OSError as error:
            raise SpecError(f"{shown}: can't be read: {error.strerror}") from error
        if len(data) > _IGNORE_LIMIT:
            raise SpecError(f"{shown}: is larger than {_IGNORE_LIMIT >> 20} MiB")
        return data.decode(errors="surrogateescape")

    # --- the walk -------------------------------------------------------------------------------------

    def walk(self, here: _Here) -> bool:
        """Reads a directory. False where it holds nothing but what git's rules or ours leave out, so that it
        counts as not being there itself."""
        before, lost = len(self.entries), False
        try:
            names = sorted(os.listdir(here.handle))  # noqa: PTH208
        except OSError as error:
            self.problem(here.path or ".", f"can't be read: {error.strerror}")
            return True
        if self.nested and ".gitignore" in names and not here.by_git:
            here = self.with_gitignore(here)
        for name in names:
            lost |= not self.entry(here, name)
        if len(self.entries) > before or not here.path:
            return True
        if lost or here.by_git:
            return False
        if not here.by_docker:
            self.add(ContextEntry(path=here.path, mode=0o755, directory=True))
        return True

    def with_gitignore(self, here: _Here) -> _Here:
        """``here`` with the rules of its own ``.gitignore``."""
        path = here.join(".gitignore")
        try:
            with _entry(".gitignore", here.handle) as file:
                text = file.read(_IGNORE_LIMIT).decode(errors="surrogateescape")
        except OSError as error:
            # Git doesn't read one that is a link or no file either.
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EMLINK, errno.EINVAL, errno.EISDIR):
                self.problem(path, f"can't be read: {error.strerror}")
            return here
        return replace(here, git={**here.git, here.path: git_ignore(text, path)})

    def entry(self, here: _Here, name: str) -> bool:
        """Reads one entry of a directory. False where git's rules or ours leave it out."""
        path = here.join(name)
        if name == ".git" and not self.ignore.keeps_name(".git"):
            return True
        if name == _CACHE and self.dockerfile is None:
            return False
        try:
            state = os.stat(name, dir_fd=here.handle, follow_symlinks=False)
        except FileNotFoundError:
            return True  # It went away while this was read.
        except OSError as error:
            self.problem(path, f"can't be read: {error.strerror}")
            return True
        directory = stat.S_ISDIR(state.st_mode)
        if _OWN.fullmatch(name) and not directory:
            return False
        docker = self.ignore.at(path, here.docker)
        by_docker = self.ignore.leaves_out(docker)
        by_git = here.by_git or git_leaves_out(here.git, path, directory=directory)
        if directory:
            needed = any(needed_path.startswith(f"{path}/") for needed_path in self.needed)
            if (by_git or (by_docker and not self.ignore.may_keep_below(path))) and not needed:
                return not by_git
            below = replace(here, path=path, depth=here.depth + 1, docker=docker)
            return self.enter(replace(below, by_docker=by_docker, by_git=by_git), name)
        if (by_docker or by_git) and path not in self.needed:
            return not by_git
        self.read(here, name, path, state.st_mode)
        return True

    def enter(self, below: _Here, name: str) -> bool:
        if below.depth > self.limits.depth:
            self.problem(below.path, f"lies deeper than {self.limits.depth} directories")
            return True
        try:
            with _directory(name, below.handle) as handle:
                return self.walk(replace(below, handle=handle))
        except OSError as error:
            self.problem(below.path, f"can't be read: {error.strerror}")
            return True

    def read(self, here: _Here, name: str, path: str, mode: int) -> None:
        try:
            if stat.S_ISLNK(mode):
                target = os.readlink(name, dir_fd=here.handle)
                if _is_text(target):
                    self.add(ContextEntry(path=path, mode=0o777, target=target))
                else:
                    self.problem(path, "points at a name that isn't UTF-8")
            elif stat.S_ISREG(mode):
                with _entry(name, here.handle) as file:
                    self.add(self.file(path, file))
            else:
                kind = _KINDS.get(stat.S_IFMT(mode), "no file")
                self.problem(path, f"is {kind}, which no build context can hold")
        except OSError as error:
            self.problem(path, f"can't be read: {error.strerror}")

    def file(self, path: str, file: BinaryIO) -> ContextEntry:
        """The entry of an open file, its content copied where copies are asked for."""
        mode = 0o755 if os.fstat(file.fileno()).st_mode & 0o100 else 0o644
        digest, size = hashlib.sha256(), 0
        with _Copy(self.copies) as copy:
            while piece := file.read(CHUNK):
                digest.update(piece)
                size += len(piece)
                self.size += len(piece)
                if self.size > self.limits.size:
                    raise SpecError(
                        f"{path}: {self.what} is larger than {self.limits.size} bytes", hint=self.remedy
                    )
                copy.write(piece)
            copy.keep(digest.hexdigest())
        return ContextEntry(path=path, mode=mode, sha256=digest.hexdigest(), size=size)

    def add(self, entry: ContextEntry) -> None:
        if not _is_text(entry.path):
            self.problem(entry.path, "its name isn't UTF-8")
            return
        if len(self.entries) >= self.limits.entries:
            hint = self.remedy
            if self.dockerfile is not None:
                hint += ", or give the Dockerfile a directory of its own"
            raise SpecError(f"{entry.path}: {self.what} has more than {self.limits.entries} files", hint=hint)
        self.entries.append(entry)

    def problem(self, path: str, what: str) -> None:
        # A name that isn't UTF-8 is shown with its bytes escaped.
        self.problems.append(
            f"{path.encode(errors='surrogateescape').decode(errors='backslashreplace')}: {what}"
        )

    def check_dockerfile(self, dockerfile: str) -> None:
        """Sees that the Dockerfile is in the context, itself or as a link to a file of the context."""
        if ContextContents(entries=tuple(self.entries)).file_at(dockerfile) is None:
            target = next((entry.target for entry in self.entries if entry.path == dockerfile), None)
            by = f": it links to {target}" if target else ""
            self.problem(dockerfile, f"is no file of the build context{by}")


class _Copy:
    """The copy of one file in the making; nothing where there is no directory for it."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Copy:
        if self._directory is not None:
            with self._told():
                self._file = (self._directory / "part").open("wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, piece: bytes) -> None:
        if self._file is not None:
            with self._told():
                view = memoryview(piece)
                while view:
                    view = view[self._file.write(view) :]

    def keep(self, name: str) -> None:
        if self._directory is not None:
            with self._told():
                (self._directory / "part").replace(self._directory / name)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SpecError(f"can't copy the build context: {error.strerror}") from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def _directory(name: str | Path, above: int | None = None) -> Iterator[int]:
    """An open directory; below the context's root never one that a link leads to."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if above is None else os.O_NOFOLLOW)
    handle = os.open(name, flags, dir_fd=above)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _entry(name: str, above: int) -> Iterator[BinaryIO]:
    """A regular file of a directory, never one that a link leads to, and never waiting for a writer."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=above), "rb") as file:
        _check_regular(file)
        yield file


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _check_regular(file)
        yield file


def _check_regular(file: BinaryIO) -> None:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
