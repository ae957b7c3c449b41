"""What a target is, and what is done on one: a job that trains, a service that answers.

A target is kept in the workspace as a name, a kind and options; a kind is one module here, or an entry
point ``envbuild.targets`` of another package. Credentials stand in no option: an option names where they are
kept (a context of kubeconfig, a host of ``ssh_config``, a secret of the cluster).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from envbuild.errors import EnvbuildError
from envbuild.lock.model import PlatformLock
from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.specs.model import InferenceConfig

CODE_DIRECTORY = PurePosixPath("/workspace")
"""Where a job's code lies in its image, and where its command starts."""
OUTPUTS = CODE_DIRECTORY / "outputs"
"""What a job writes here is brought back, where the target can."""
MODEL_DIRECTORY = PurePosixPath("/var/azureml-app/azureml-models")
"""Where a service finds its model, as on Azure ML; also in ``AZUREML_MODEL_DIR``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetLimits:
    """What a target can take. None: nothing is known, so nothing is checked."""

    platform: Platform | None = None
    glibc: str | None = None
    """The oldest glibc an image may have, as libraries of the target (GPU drivers) are mounted into it."""
    cuda: str | None = None
    """The newest CUDA that the target's driver runs: ``12.4``."""
    layers: int | None = None
    size: int | None = None
    """Of an image, compressed, in bytes."""
    layer_size: int | None = None
    """Of one layer, compressed, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetOption:
    """One option that a kind of target takes: ``envbuild target add NAME KIND key=value``."""

    name: str
    help: str
    required: bool = False
    default: str | None = None
    parse: Callable[[str], object] = str
    """The value of a text. Raises ``ValueError`` with what is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRecord:
    """A target as the workspace keeps it. ``options`` are checked by its kind, and hold no secret."""

    name: str
    kind: str
    options: tuple[tuple[str, str], ...] = ()
    """Sorted pairs."""

    def option(self, name: str) -> str | None:
        return next((value for key, value in self.options if key == name), None)


LOCAL = TargetRecord(name="local", kind="local")
"""This machine: the target that is there without being added."""


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """Something a look before the start found. Only an error keeps a job from starting."""

    text: str
    error: bool = field(default=True, kw_only=True)
    hint: str | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, problem: EnvbuildError, *, error: bool = True) -> PreflightFinding:
        return cls(text=problem.message, error=error, hint=problem.hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetFile:
    """A file that a target takes: a manifest, a script. Deterministic."""

    name: str
    """A file name, no path."""
    content: str
    executable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A command to be run once on a target."""

    name: str
    """Of the run: lower-case letters, digits and ``-``, at most 63, so that every target takes it."""
    reference: str
    """The image by digest, as the target pulls it; a local name where nothing is pulled."""
    image: Image
    """With the code's layer on top, in the store."""
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    """Over the image's own."""
    environment: str = ""
    """``name:version`` of the workspace, for people."""
    code_digest: str | None = None
    """Of the directory whose files are the layer on top; None: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """An image that answers HTTP, made from an environment with an ``inference_config``."""

    name: str
    """As a job's."""
    reference: str
    image: Image
    port: int
    liveness: str
    """Path, like ``/``; so are the next two."""
    readiness: str
    scoring: str
    env: tuple[tuple[str, str], ...] = ()
    environment: str = ""
    replicas: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedEnvironment:
    """An environment without a use yet, for targets that keep environments under names of their own."""

    name: str
    version: str | None
    """Of the workspace; None where nothing is recorded."""
    description: str | None
    tags: tuple[tuple[str, str], ...]
    reference: str
    """The environment's own image by digest, without code."""
    image: Image
    inference_config: InferenceConfig | None


class Execution(Protocol):
    """A job that was started. All methods raise ``RunError`` where the target has gone."""

    @property
    def identity(self) -> str:
        """What the target calls the job (a container's id, a pod's or a Slurm job's); for people."""

    def logs(self) -> Iterator[bytes]:
        """What the job prints, as it comes, until it has ended. Read in a thread of its own, also while
        ``stop`` is under way."""

    def wait(self) -> int:
        """Its exit status, once it has ended (128 + n where signal n ended it)."""

    def stop(self) -> None:
        """Ends it, and returns when it has ended; nothing where it had."""

    def bring_outputs(self, directory: Path) -> bool:
        """Once it has ended: puts what it wrote below ``OUTPUTS`` into ``directory``, which is there and
        empty. False where there is nothing, or where the target can't."""

    def close(self) -> None:
        """Takes away what the job left on the target; it must have ended. Never raises."""


class Target(Protocol):
    """One place where images run. Made without a connection; only ``findings`` and ``submit`` make one."""

    record: TargetRecord
    limits: TargetLimits
    registry: str | None
    """The repository prefix that it pulls from; None: images are not pulled but brought by ``submit``."""

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        """What is in the way besides the limits: can it be reached, are its credentials here…"""

    def bytes_to_pull(self, image: Image) -> int | None:
        """What the target lacks of ``image``, compressed, in bytes; None where it can't say."""

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        """What ``submit`` would hand in: shown by ``--dry-run``. Makes no connection."""

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        """What starts the service there. Raises ``UsageError`` where the kind serves nothing."""

    def submit(self, job: Job) -> Execution:
        """Starts the job. Raises ``RunError``."""


@runtime_checkable
class ReadsPins(Protocol):
    """A target whose own software must fit that of the environment. Optional."""

    def findings_of_pins(self, image: Image, pins: PlatformLock | None) -> Sequence[PreflightFinding]:
        """``findings``, with what ``pins``, that ``image`` was made from, add to them."""


@runtime_checkable
class EnvironmentFiles(Protocol):
    """A target that takes an environment by itself, before anything runs in it. Optional."""

    def environment_files(self, published: PublishedEnvironment) -> tuple[TargetFile, ...]:
        """What makes the environment known there. Makes no connection."""


@runtime_checkable
class Serves(Protocol):
    """A target whose services answer on this machine. Optional."""

    def serve(self, service: Service, port: int) -> Execution:
        """Starts the service: it answers on 127.0.0.1 at ``port``, and nowhere else. Raises ``RunError``."""


@runtime_checkable
class WritesOnly(Protocol):
    """A target that starts nothing: its files are handed in by a tool of its own. Optional."""

    def how_to_submit(self, files: Sequence[TargetFile]) -> tuple[str, ...]:
        """The commands that hand ``files`` in, from their directory, in that order; for people."""
