"""What was asked for: the frozen values every later stage reads.

Loaders (``envbuild.specs.load``) make these from people's files; nothing in here reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path, PurePosixPath

from envbuild.platforms import LINUX_AMD64, Platform


class EnvironmentType(str, Enum):
    """Who decides what is installed (docs/design.md §4)."""

    SYSTEM_MANAGED = "system-managed"
    USER_MANAGED = "user-managed"
    CURATED = "curated"


class PythonProvider(str, Enum):
    """Who brings python (docs/design.md §4)."""

    BASE = "base"
    STANDALONE = "standalone"
    CONDA = "conda"


class Runtime(str, Enum):
    """What the environment is for."""

    PYTHON = "python"
    SPARK = "spark"
    DOCKER = "docker"


class Clashes(str, Enum):
    """What is done where two packages bring different files under one path."""

    WARN = "warn"
    """The later one of a fixed order is kept, as pip and conda do, and said."""
    ERROR = "error"


class ActivationScripts(str, Enum):
    """What is done with the scripts that conda sources when an environment is activated."""

    RUN = "run"
    """They run once, when the image is composed, and what they set are variables of the image."""
    IGNORE = "ignore"


class Bytecode(str, Enum):
    """Whether an import compares byte code with its source (PEP 552)."""

    CHECKED = "checked"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, kw_only=True, slots=True)
class DebianBaseSpec:
    """``base: {debian: trixie, packages: […]}``. ``suite`` is None where the python pin decides."""

    suite: str | None = None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBaseSpec:
    """``image: …``: a registry reference, or a layout or an archive of this machine: ``oci:DIR[:TAG]``,
    ``oci-archive:FILE[:TAG]``, ``docker-archive:FILE[:TAG]``."""

    reference: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildContextSpec:
    """``build: {path, dockerfile_path}`` of a user-managed environment."""

    path: Path
    dockerfile_path: str = "Dockerfile"
    digest: str = ""
    """Of the context's snapshot (``specs.context``): covered by the definition digest instead of the path."""


BaseSpec = DebianBaseSpec | ImageBaseSpec | BuildContextSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a line was written, for messages: a file and a 1-based line, or a key path in it."""

    file: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.where}" if self.where else self.file


@dataclass(frozen=True, kw_only=True, slots=True)
class PipRequirement:
    """One requirement line in PEP 508 form (``pkg[extra]>=1; marker``, ``pkg @ url``) with its hashes.

    ``hashes`` are ``sha256:<hex>`` as a requirements file gives them, sorted; empty where none was given.
    ``text`` never holds a credential.
    """

    text: str
    hashes: tuple[str, ...] = ()
    origin: Origin

    @property
    def canonical(self) -> tuple[str, tuple[str, ...]]:
        """What counts for identity."""
        return self.text, self.hashes


INDEX_STRATEGIES = ("first-index", "unsafe-best-match")
"""As uv calls them: only the first index that has a name at all, or the best version of all indexes."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PackageIndex:
    """An index of single distributions, which come from no other place; or the name of one of all."""

    url: str
    """Without a credential."""
    packages: tuple[str, ...] = ()
    """Normalised names, sorted, each perhaps with a marker: ``torch; platform_machine == "x86_64"``. Empty:
    the options say what it is asked for."""
    name: str = ""
    """Under which uv's variables have a login for it (``UV_INDEX_<NAME>_USERNAME``); it changes no image."""

    @property
    def option(self) -> str:
        """The option that has it asked for everything: what is pinned by a hash may come from any index."""
        return f"--extra-index-url {self.name and f'{self.name}='}{self.url}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildDependencies:
    """What building the wheels of source distributions takes beside what each of them states, for a
    resolver's look at their metadata and for our own builds."""

    constraints: tuple[PipRequirement, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Sorted pairs of a distribution's normalised name and the requirements that its build misses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipSpec:
    """Everything that was said to pip. ``options`` are its long options, one ``--name value`` each.

    Only options that change a resolution are kept: ``--index-url``, ``--extra-index-url``, ``--find-links``,
    ``--no-index``, ``--trusted-host``, ``--pre``, ``--no-binary``, ``--only-binary``, ``--prefer-binary``.
    """

    requirements: tuple[PipRequirement, ...] = ()
    constraints: tuple[PipRequirement, ...] = ()
    options: tuple[str, ...] = ()
    complete: bool = False
    """The requirements come from a lock and are all there is: nothing is added to them."""
    index_strategy: str | None = None
    """One of ``INDEX_STRATEGIES``: what counts where several indexes have a name. None: the best match of
    all, as in pip."""
    build: BuildDependencies = field(default_factory=BuildDependencies)
    indexes: tuple[PackageIndex, ...] = ()
    """Sorted by address. Those with packages aren't asked for anything else."""

    @property
    def named_options(self) -> tuple[str, ...]:
        """``options``, with the names of the indexes that have any: ``--index-url NAME=https://…``."""
        names = {index.url: f"{index.name}=" for index in self.indexes if index.name}
        pairs = [option.partition(" ") for option in self.options]
        return tuple(
            f"{option}{space}{names.get(value.rstrip('/'), '')}{value}" for option, space, value in pairs
        )


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ExplicitPackage:
    """One conda package by its address, as an explicit list or another tool's lock names it."""

    platform: Platform
    url: str
    """Without a credential."""
    sha256: str | None = None
    md5: str | None = None
    """Bare hex; at least one of the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaSpec:
    """Channels in order of priority and dependencies as conda match specs (``channel::name >=1``)."""

    channels: tuple[str, ...]
    dependencies: tuple[str, ...]
    explicit: tuple[ExplicitPackage, ...] = ()
    """Set: exactly these packages, sorted; nothing is solved, and ``dependencies`` is empty."""
    add_pip: bool = True
    """pip is installed where python is, as conda and mamba do (their ``add_pip_as_python_dependency``)."""


SYSTEM_REQUIREMENTS = ("archspec", "cuda", "glibc", "linux")
"""What may be asked of the machines that an image runs on: conda's virtual packages, without ``__``."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class SystemRequirement:
    """A virtual package that the machines are promised to have, one of :data:`SYSTEM_REQUIREMENTS`."""

    name: str
    version: str
    """Of ``archspec`` a microarchitecture: ``x86_64_v3``."""
    platform: str = ""
    """``linux/amd64``; empty: every platform of the spec."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MavenPackage:
    group: str
    artifact: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkSpec:
    packages: tuple[MavenPackage, ...] = ()
    repositories: tuple[str, ...] = ()
    precache_packages: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    path: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    liveness_route: Route
    readiness_route: Route
    scoring_route: Route


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """One environment, as described. Mappings are sorted pairs; ``source`` is the file it came from."""

    name: str
    source: Path
    version: str | None = None
    description: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    type: EnvironmentType = EnvironmentType.SYSTEM_MANAGED
    runtime: Runtime = Runtime.PYTHON
    platforms: tuple[Platform, ...] = (LINUX_AMD64,)
    python: str | None = None
    """A version or PEP 440/conda constraint as written: ``3.11``, ``3.11.*``, ``>=3.10,<3.13``."""
    python_provider: PythonProvider | None = None
    """None: conda where there are conda packages, else the base where its python fits, else a standalone
    build."""
    base: BaseSpec | None = None
    conda: CondaSpec | None = None
    pip: PipSpec = PipSpec()
    environment_variables: tuple[tuple[str, str], ...] = ()
    spark: SparkSpec | None = None
    inference_config: InferenceConfig | None = None
    user: str = "1000:1000"
    """``uid:gid``, numbers only: names would need a look into the base. Empty: the image's own, where a
    user-managed environment names none."""
    as_of: date | None = None
    named: bool = False
    """Whether the source gives the name, or somebody did; else it was made of a file's or directory's name.
    Never part of the definition."""
    clashes: Clashes = Clashes.WARN
    activation: ActivationScripts = ActivationScripts.RUN
    system_requirements: tuple[SystemRequirement, ...] = ()
    """Sorted."""
    bytecode: Bytecode = Bytecode.CHECKED
    left_out: tuple[str, ...] = ()
    """What the source says and an environment can't carry, a line each with its place; never part of the
    definition."""
    unrelated: tuple[str, ...] = ()
    """Those lines of ``left_out`` that are no part of an environment: what runs in it, where, and how."""

    @property
    def directory(self) -> Path:
        """The directory that relative paths and the lock directory stand in."""
        return self.source.parent


PREFIX = PurePosixPath("/opt/env")
"""Where the software of every image lives (docs/design.md §4)."""
STANDALONE = PurePosixPath("/opt/python")
"""Where a standalone build of python is unpacked."""
