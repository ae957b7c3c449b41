"""Artifacts made up by tests: a source that holds their entries in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from envbuild.compose.base import ByteCompiler, Entry, EntryKind
from envbuild.lock.model import DebianBase, PipPin, PlatformLock, PythonPin
from envbuild.plan.model import Artifact, ArtifactKind, ImageConfig, Interpreter, Plan, PlannedLayer
from envbuild.platforms import LINUX_AMD64, Platform

PYTHON = PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13")
SITE = "opt/env/lib/python3.13/site-packages"


def file(path: str, content: bytes | Path = b"", mode: int = 0o644) -> Entry:
    return Entry(path=path, content=content, mode=mode)


def symlink(path: str, target: str) -> Entry:
    return Entry(path=path, kind=EntryKind.SYMLINK, target=target)


def directory(path: str, mode: int = 0o755) -> Entry:
    return Entry(path=path, kind=EntryKind.DIRECTORY, mode=mode)


def artifact(
    name: str, *, version: str = "1.0", kind: ArtifactKind = ArtifactKind.WHEEL, size: int = 1000
) -> Artifact:
    digest = hashlib.sha256(f"{kind.value} {name} {version}".encode()).hexdigest()
    pin = None
    if kind is ArtifactKind.WHEEL:
        pin = PipPin(
            name=name, version=version, file=f"{name}-{version}-py3-none-any.whl", size=size, sha256=digest
        )
    return Artifact(kind=kind, name=name, version=version, sha256=digest, size=size, pin=pin)


def plan(
    *layers: PlannedLayer,
    bytecode: bool = False,
    compression: str = "gzip",
    lock_digest: str = "sha256:" + "1" * 64,
    created: int = 0,
    refuse_clashes: bool = False,
) -> Plan:
    base = DebianBase(suite="trixie", packages=(), glibc="2.41")
    host = Platform.host()
    return Plan(
        platform=LINUX_AMD64,
        lock_digest=lock_digest,
        definition_digest="sha256:" + "2" * 64,
        level="L3",
        base=base,
        python=PYTHON,
        layers=layers,
        config=ImageConfig(env=(("PATH", "/opt/env/bin:/usr/bin"),), user="1000:1000", cmd=("python",)),
        bytecode=bytecode,
        interpreter=Interpreter(python=PYTHON, lock=PlatformLock(platform=host, base=base, python=PYTHON))
        if bytecode
        else None,
        compression=compression,
        created=created,
        refuse_clashes=refuse_clashes,
    )


@dataclass
class FakeSource:
    """Brings what the test made up, and remembers what was asked of it. A value that is an exception is
    raised when the artifact is fetched, a function is called for the entries."""

    contents: Mapping[str, Sequence[Entry] | Exception | Callable[[], Iterator[Entry]]]
    fetched: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> FakeSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed += 1

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        for each in artifacts:
            with self._lock:
                self.fetched.append(each.name)
            content = self.contents[each.name]
            if isinstance(content, Exception):
                raise content

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        with self._lock:
            self.opened.append(artifact.name)
        content = self.contents[artifact.name]
        if callable(content):
            yield from content()
        elif not isinstance(content, Exception):
            yield from sorted(content, key=lambda entry: entry.path)


@dataclass
class FakeCompiler:
    """Byte code that is the source upside down; a source that begins ``!`` is left out as invalid."""

    identity: str = "fake-3.13.5"
    calls: list[list[str]] = field(default_factory=list)

    def compile(self, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        names: list[str] = []
        self.calls.append(names)
        for path, source in files:
            names.append(path)
            if not source.startswith(b"!"):
                head, _, tail = path.rpartition("/")
                yield f"{head}/__pycache__/{tail[:-3]}.cpython-313.pyc", source[::-1]


@dataclass
class FakeCompilers:
    """A factory of one :class:`FakeCompiler`."""

    compiler: FakeCompiler = field(default_factory=FakeCompiler)

    def identity(self, python: PythonPin, *, checked: bool) -> str:
        return self.compiler.identity if checked else f"{self.compiler.identity}-unchecked"

    def __call__(self, python: PythonPin, rootfs: Path, *, checked: bool) -> ByteCompiler:
        assert rootfs.is_dir()
        return self.compiler
