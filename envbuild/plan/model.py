"""The ordered, typed steps from the lock of one platform to an image.

Both engines read the same plan: the native composer turns each artifact into a cached segment and each
planned layer into a blob; a Dockerfile is rendered from the very same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from envbuild.lock.model import (
    Base,
    CondaPin,
    DebianPin,
    MavenPin,
    Pin,
    PipPin,
    PlatformLock,
    PythonBuild,
    PythonPin,
)
from envbuild.platforms import Platform
from envbuild.specs.model import PackageIndex


class ArtifactKind(str, Enum):
    """What an artifact is; each kind has one source in ``compose``."""

    DEBIAN = "debian"
    PYTHON = "python"
    CONDA = "conda"
    WHEEL = "wheel"
    JAR = "jar"
    GENERATED = "generated"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedFile:
    """A file, directory or symlink that envbuild itself writes. ``path`` has no leading slash."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    target: str | None = None
    """Set: a symlink to it."""
    directory: bool = False
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One thing that is installed as a whole.

    ``sha256`` (bare hex) is of the artifact's own bytes, or of the canonical form of generated files.
    ``size`` is in bytes, compressed, as the lock says.
    """

    kind: ArtifactKind
    name: str
    version: str
    sha256: str
    size: int
    pin: Pin | None = None
    files: tuple[GeneratedFile, ...] = ()

    @classmethod
    def of(cls, pin: Pin) -> Artifact:
        """The artifact that ``pin`` is of."""
        return cls(
            kind=_KINDS[type(pin)],
            name=pin.name,
            version=pin.version,
            sha256=pin.sha256,
            size=pin.size,
            pin=pin,
        )


_KINDS = {
    DebianPin: ArtifactKind.DEBIAN,
    PythonBuild: ArtifactKind.PYTHON,
    CondaPin: ArtifactKind.CONDA,
    PipPin: ArtifactKind.WHEEL,
    MavenPin: ArtifactKind.JAR,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLayer:
    """A layer to be: artifacts in the order their entries are written."""

    name: str
    """``base``, ``python``, ``numpy``, ``bucket-03``, ``settings``…: for people; not part of the bytes."""
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """The runtime part of the OCI image config. Mappings are sorted pairs."""

    env: tuple[tuple[str, str], ...]
    user: str
    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    inherit: bool = False
    """Whether the base's own command, entry point and user stay where nothing is said here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """The python that byte code is compiled with: its pin, and the lock it can be unpacked from.

    ``lock`` is of a platform whose programs this machine runs; its python has the same version."""

    python: PythonPin
    lock: PlatformLock


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything an engine needs, and nothing that could differ between two machines but ``interpreter`` and
    ``system``."""

    platform: Platform
    lock_digest: str
    definition_digest: str
    level: str
    base: Base
    python: PythonPin | None
    layers: tuple[PlannedLayer, ...]
    config: ImageConfig
    bytecode: bool
    interpreter: Interpreter | None
    system: PlatformLock | None = None
    """A base whose shell runs on this machine, where conda packages may have scripts: the platform's own or
    another's of the lock."""
    created: int = 0
    """Seconds since the epoch: SOURCE_DATE_EPOCH, or 0."""
    compression: str = "gzip"
    """``gzip`` or ``zstd``."""
    type: str = "system-managed"
    runtime: str = "python"
    channels: tuple[str, ...] = ()
    """Conda channels in order of priority."""
    installer: PlatformLock | None = None
    """The base with python that a Dockerfile's installer stage stands on, where ``base`` has none."""
    checked_bytecode: bool = True
    """Byte code notices a source that was patched later (``specs.model.Bytecode``)."""
    activate: bool = True
    """What conda sources to activate an environment is run (``specs.model.ActivationScripts``)."""
    refuse_clashes: bool = False
    """Packages with different files under one path are refused (``specs.model.Clashes``)."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(artifact for layer in self.layers for artifact in layer.artifacts)

    @property
    def artifact_names(self) -> tuple[str, ...]:
        """The pinned files as leases and the index of images name them."""
        return tuple(f"artifacts/{artifact.sha256}" for artifact in self.artifacts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Below the application no spec travels: a lock says what is built, this says where its parts are."""

    directory: Path
    """What relative paths of the lock are relative to."""
    source: Path | None = None
    """The file that people wrote, for messages."""
    context: Path | None = None
    """The build context, relative to ``directory``; None: the spec has none."""
    pip_options: tuple[str, ...] = ()
    """``--index-url …``, ``--find-links …``; their paths are absolute."""
    package_indexes: tuple[PackageIndex, ...] = ()
    """Those of single packages."""
    spark_repositories: tuple[str, ...] = ()
    """Maven repositories of the spec, which go before the setting's."""
