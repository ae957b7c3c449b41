"""All pins for all platforms: what ``lockfiles/<name>/`` says, as frozen values.

Identity is computed in ``envbuild.lock.identity`` from these; ``envbuild.lock.files`` reads and writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from envbuild.platforms import Platform
from envbuild.specs.git import parse_git_address
from envbuild.specs.model import PREFIX

LOCK_FORMAT = 1
"""Version of ``envbuild.lock`` this envbuild writes; a reader refuses a newer one by name."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class DebianPin:
    """One .deb. ``file`` is its path below the archive's root (``pool/main/…``); ``archive`` names that
    root (``debian`` or ``debian-security``), whose address is a setting of the machine."""

    name: str
    version: str
    architecture: str
    archive: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DebianBase:
    """A base composed from Debian packages: the closure, sorted by name."""

    suite: str
    packages: tuple[DebianPin, ...]
    glibc: str
    """``2.41``: sets conda's ``__glibc`` and the manylinux tag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBase:
    """A base taken by digest. ``digest`` is of the single-platform manifest; ``reference`` is the fully
    qualified name without digest (``docker.io/library/debian:trixie-slim``) or ``oci:DIR`` as written."""

    reference: str
    digest: str
    index_digest: str | None = None
    glibc: str | None = None
    layers: int = 0
    """How many layers it has; our own budget is what is left."""
    diff_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ImagePin:
    """An image that a Dockerfile names. ``reference`` is its full name with its tag; ``digest`` that of the
    manifest or, for several platforms, the index that the tag named."""

    reference: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextBase:
    """A user's own Dockerfile and what lies beside it, as a snapshot. What its steps do is not known."""

    digest: str
    """Of the snapshot: paths, modes and contents of everything the build can see."""
    dockerfile: str
    """Its path in the context."""
    images: tuple[ImagePin, ...] = ()
    """Sorted; of the images that the Dockerfile names without a digest, those whose registry answered."""


Base = DebianBase | ImageBase | ContextBase


def base_title(base: Base) -> str:
    """``base`` as a message names it."""
    if isinstance(base, DebianBase):
        return f"Debian {base.suite}"
    return (
        f"the image {base.reference}" if isinstance(base, ImageBase) else f"the Dockerfile {base.dockerfile}"
    )


DEFAULT_GLIBC = "2.17"
"""Assumed of a base that doesn't say: the oldest that wheels are still made for (manylinux2014)."""


OCCUPIED_HINT = (
    f"take the image that this one was built on (envbuild inspect names it), or one without {PREFIX}, and "
    "ask for what it holds in the spec"
)


def occupied_base(base: ImageBase, paths: Sequence[str]) -> str:
    """Why ``base`` is refused that has ``paths`` where the software goes: the two would be mixed, to modules
    that no lock names and two versions of one distribution."""
    named = ", ".join(f"/{path}" for path in paths)
    return f"the base {base.reference}@{base.digest} already has files in {PREFIX}: {named}"


def glibc_of(base: Base) -> str:
    """The glibc that software must fit."""
    return DEFAULT_GLIBC if isinstance(base, ContextBase) else base.glibc or DEFAULT_GLIBC


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PythonBuild:
    """A build of python that needs nothing but a C library: an archive as python-build-standalone's
    ``install_only`` ones are, with all below ``python/``. ``url`` has no credential; a mirror is a setting of
    the machine."""

    version: str
    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return "python"

    @property
    def file(self) -> str:
        return unquote(self.url.rsplit("/", 1)[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonPin:
    """The interpreter: its full version, who brings it, and its path in the image."""

    version: str
    provider: str
    """``debian``, ``image``, ``conda`` or ``standalone``."""
    executable: str
    build: PythonBuild | None = None
    """What is installed, of a standalone one."""

    @property
    def short(self) -> str:
        """``3.13``."""
        return ".".join(self.version.split(".")[:2])

    @property
    def of_base(self) -> bool:
        """Whether it comes with the base, and goes with it."""
        return self.provider in ("debian", "image")


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class CondaPin:
    """One conda package. ``url`` has no credential. ``sha256`` and ``md5`` are bare hex."""

    name: str
    version: str
    build: str
    subdir: str
    url: str
    size: int
    sha256: str
    md5: str
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: str | None = None
    """``python``, ``generic`` or None."""
    channel: str = ""
    build_number: int = 0
    timestamp: int | None = None
    """Milliseconds since the epoch, as the channel says."""
    python_site_packages_path: str | None = None
    distributions: tuple[str, ...] = ()
    """The Python distributions inside, ``name==version`` each, where its name and version don't say so."""

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Sdist:
    """A source distribution and what a wheel is built from it with: equal inputs give an equal wheel."""

    file: str
    size: int
    sha256: str
    requires: tuple[str, ...] = ()
    """The build backend and all it needs, each ``name==version --hash=sha256:<hex>``, sorted."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class GitCommit:
    """What a git address meant when it was locked: the names of the commit and of its tree."""

    commit: str
    tree: str


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PipPin:
    """One Python distribution file. ``name`` is normalised (PEP 503)."""

    name: str
    version: str
    file: str
    """``numpy-2.3.5-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl`` or an sdist's name."""
    size: int
    sha256: str
    url: str | None = None
    """Only for a direct reference (``pkg @ url``); an index's address is a setting of the machine."""
    via: tuple[str, ...] = ()
    """Names of the distributions, or ``-r file`` origins, that asked for it; information only."""
    sdist: Sdist | None = None
    """Set: no index has this wheel; envbuild built it from this file, in the canonical form of
    ``lock.sdist``, and ``url`` is the sdist's."""
    git: GitCommit | None = None
    """Set: ``url`` is a git address as the spec writes it, and the sdist is the commit's tree as
    ``lock.git.archive`` packs it."""

    @property
    def is_wheel(self) -> bool:
        return self.file.endswith(".whl")

    @property
    def exact_url(self) -> str | None:
        """``url``, of a git repository at the commit that was locked."""
        if self.url is None or self.git is None:
            return self.url
        return str(parse_git_address(self.url)[0].at(self.git.commit))


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class MavenPin:
    """One jar. ``file`` is its path below a Maven repository's root, whose address is no part of a lock."""

    group: str
    artifact: str
    version: str
    file: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """``group:artifact``."""
        return f"{self.group}:{self.artifact}"


Pin = DebianPin | PythonBuild | CondaPin | PipPin | MavenPin


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformLock:
    """The pins of one platform, each tuple sorted by name."""

    platform: Platform
    base: Base
    python: PythonPin | None
    conda: tuple[CondaPin, ...] = ()
    pip: tuple[PipPin, ...] = ()
    maven: tuple[MavenPin, ...] = ()

    @property
    def files(self) -> tuple[Pin, ...]:
        """Every file that is pinned: the base's, python's, conda's, pip's, jars."""
        debian = self.base.packages if isinstance(self.base, DebianBase) else ()
        build = (self.python.build,) if self.python and self.python.build else ()
        return (*debian, *build, *self.conda, *self.pip, *self.maven)


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSettings:
    """What a container starts with and how files are put into it; kept in the lock so that an image is a
    function of the lock alone."""

    environment_variables: tuple[tuple[str, str], ...] = ()
    """Sorted pairs."""
    user: str = "1000:1000"
    """``uid:gid``; empty: the image's own, in a user-managed environment."""
    ports: tuple[int, ...] = ()
    """Sorted; the ports of the serving routes."""
    type: str = "system-managed"
    """``specs.model.EnvironmentType``'s value."""
    runtime: str = "python"
    """``specs.model.Runtime``'s value."""
    spark_packages: tuple[str, ...] = ()
    """``group:artifact:version`` that Spark fetches when it starts, where the spec says not to precache."""
    spark_repositories: tuple[str, ...] = ()
    """Where it is to look for them."""
    clashes: str = "warn"
    """``specs.model.Clashes``'s value."""
    activation: str = "run"
    """``specs.model.ActivationScripts``'s value."""
    bytecode: str = "checked"
    """``specs.model.Bytecode``'s value, where byte code is compiled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A whole lock. ``toolchain`` has the interpreters needed to compile byte code for a platform on a
    machine of another architecture, where no platform of the lock provides it."""

    definition: str
    """The definition digest that this lock answers."""
    platforms: tuple[PlatformLock, ...]
    bytecode: bool = True
    runtime: RuntimeSettings = RuntimeSettings()
    channels: tuple[str, ...] = ()
    """Conda channels in order of priority, without credentials."""
    as_of: str | None = None
    """The date that bounded the resolution, ``2026-11-01``."""
    as_of_kept: bool = False
    """``as_of`` was asked for by an option, which holds until another one moves it, and isn't the spec's."""
    toolchain: tuple[PlatformLock, ...] = ()
    installer: tuple[PlatformLock, ...] = ()
    """For each platform with conda packages and a base without python: the base with python that a
    Dockerfile's installer stage stands on. Nothing of it reaches an image."""
    engines: tuple[tuple[str, str], ...] = field(default=())
    """Resolvers and their versions; information only."""

    def platform(self, platform: Platform) -> PlatformLock | None:
        return next((pins for pins in self.platforms if pins.platform == platform), None)
