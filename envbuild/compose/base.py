"""What the composer asks of each kind of artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from envbuild.http.base import Fetcher
from envbuild.lock.model import Base, PlatformLock, PythonPin
from envbuild.plan.model import Artifact, Inputs, Interpreter, Plan
from envbuild.platforms import Platform
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.store.content import Store

if TYPE_CHECKING:
    from envbuild.registry.client import RegistryClient


class EntryKind(str, Enum):
    FILE = "file"
    SYMLINK = "symlink"
    DIRECTORY = "directory"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One path of an image. Hard links are given as files of equal content, directories only where
    they are empty or their mode or owner isn't 0755 root.

    ``path`` is relative, in normal form (no ``..``, no empty part, no leading slash), ``/``-separated.
    A source gives the mode its archive states, cut to the permission bits, never one of a file on this
    machine's disk. ``content`` is bytes for small files, else a file of this machine to be streamed.
    """

    path: str
    kind: EntryKind = EntryKind.FILE
    mode: int = 0o644
    content: bytes | Path = b""
    target: str = ""
    uid: int = 0
    gid: int = 0


class ArtifactSource(Protocol):
    """Brings artifacts of one kind to this machine and says what each puts into the image.

    Opened per build (``SourceFactory``): its scratch space goes when it is closed. ``entries`` may be
    called from several threads for different artifacts after ``fetch``.
    """

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        """Makes all of ``artifacts`` available and verified, in parallel and from caches where it can.

        Raises ``BuildError`` that names the artifact and where it was looked for: a hash that does not
        match, a truncated download, one that has left the mirror, no network."""

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        """The artifact's entries, sorted by path, no path twice. A pure function of the artifact, the
        prefix and the python. Raises ``BuildError`` for an archive that isn't safe to unpack."""


@runtime_checkable
class ForeseeingSource(Protocol):
    """A source that can tell early what it will refuse."""

    def foresee(self, artifacts: Sequence[Artifact]) -> None:
        """Raises ``BuildError`` naming all of ``artifacts`` that can't be composed, before anything is
        fetched, as far as that can be known by then; ``fetch`` still refuses the others."""


@runtime_checkable
class ActivatingSource(Protocol):
    """A source of packages that may bring what is read when an environment is activated."""

    def activating(self, artifacts: Sequence[Artifact]) -> list[Artifact]:
        """Those of ``artifacts`` that do; fetched only where that can't be known otherwise."""


class ArtifactFiles(Protocol):
    """Fetches artifacts, of one kind or of several, as the very files that their hashes are of."""

    def fetch_files(self, artifacts: Sequence[Artifact]) -> Mapping[str, Path]:
        """SHA-256 (bare hex) to a verified file in the store, for each of ``artifacts``. Raises
        ``BuildError`` or ``FetchError`` naming what can't be had."""


class ByteCompiler(Protocol):
    """Compiles Python source with the image's own interpreter. Thread safe."""

    identity: str
    """What its output depends on (implementation and full version): part of every cache key."""

    def compile(self, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """``(absolute path in the image, source)`` pairs, sorted, to ``(path of the .pyc, its bytes)``.

        One fresh interpreter for one call, so one artifact's result never depends on another. Files
        that aren't valid Python are left out, as pip does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposeContext:
    """What composing uses of a call: this machine's store, settings and connections, and the build's inputs.

    ``fetcher`` and ``registry`` are asked for when something is to be fetched."""

    store: Store
    settings: Settings
    environ: Mapping[str, str]
    progress: Progress
    fetcher: Callable[[], Fetcher]
    registry: Callable[[], RegistryClient]
    inputs: Inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceTarget:
    """The image that sources bring artifacts for."""

    platform: Platform
    base: Base
    python: PythonPin | None
    interpreter: Interpreter | None = None
    """Runs on this machine and builds the wheels that no index has."""
    bytecode: bool = True
    """Byte code is compiled, so that none that artifacts bring is needed."""


SourceFactory = Callable[[SourceTarget], AbstractContextManager[ArtifactSource]]


def source_target(plan: Plan) -> SourceTarget:
    return SourceTarget(
        platform=plan.platform,
        base=plan.base,
        python=plan.python,
        interpreter=plan.interpreter,
        bytecode=plan.bytecode,
    )


def interpreter_target(lock: PlatformLock) -> SourceTarget:
    """The root file system of the interpreter of ``lock``."""
    return SourceTarget(platform=lock.platform, base=lock.base, python=lock.python)


def cannot_build(name: str, reasons: Sequence[str]) -> str:
    """What an engine is said to refuse, each of the ``reasons`` of an engine's ``unable`` on its own line."""
    return f"the {name} engine can't build this:\n" + "\n".join(f"  {reason}" for reason in reasons)
