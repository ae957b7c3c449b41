"""Source distributions, each built once into the wheel that is locked, in isolation.

A lock says of such a wheel what it was built from (``PipPin.sdist``), so that a machine whose store doesn't
have it builds it again, from the lock alone, and finds the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envbuild.compose.artifacts import python
from envbuild.compose.artifacts.conda import source as conda
from envbuild.compose.artifacts.deb import source as deb
from envbuild.compose.artifacts.sdist.backend import PATIENCE, BuildBackend
from envbuild.compose.artifacts.sdist.files import SdistFiles
from envbuild.compose.artifacts.sdist.source import BuildSystem, load_build_system, unpack_sdist
from envbuild.compose.artifacts.wheel.index import package_indexes
from envbuild.compose.artifacts.wheel.install import WheelInstall, install_options
from envbuild.compose.base import ComposeContext, SourceFactory, interpreter_target
from envbuild.compose.base_image import base_images
from envbuild.compose.interpreter import (
    UnpackBase,
    interpreter_artifacts,
    interpreter_rootfs,
    rootfs_key,
)
from envbuild.errors import BuildError, FetchError, ResolveError
from envbuild.lock.base import PipRequest, PipResolver, PipTarget, SdistRequest
from envbuild.lock.debian.selection import python_closure
from envbuild.lock.model import DebianBase, PipPin, PlatformLock, PythonPin, Sdist, glibc_of
from envbuild.lock.sdist import (
    CanonicalWheel,
    ImpureWheel,
    built_pin,
    canonical_wheel,
    dump_build_requires,
    load_build_requires,
    source_pin,
)
from envbuild.plan.model import ArtifactKind, Interpreter
from envbuild.platforms import Platform
from envbuild.progress import Progress, Silent
from envbuild.specs.git import subdirectory_of
from envbuild.specs.model import BuildDependencies, Origin, PipRequirement, PipSpec
from envbuild.store.content import Store, commit_file
from envbuild.store.leases import Lease
from envbuild.store.locks import locked

_BY_ADDRESS = "give a wheel of it by address (name @ https://…/name.whl)"
Requirements = Callable[[tuple[str, ...]], tuple[PipPin, ...]]
"""Pins what a build needs, from what the source tree and its backend state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SdistBuilds:
    """Builds sdists with the python of a lock. ``sources`` bring the interpreter's own packages."""

    store: Store
    files: SdistFiles
    sources: Mapping[ArtifactKind, SourceFactory]
    unpack_base: UnpackBase | None = None
    progress: Progress = field(default_factory=Silent)
    host: Platform = field(default_factory=Platform.host)
    patience: float = PATIENCE
    """Seconds that each call of a backend may take."""

    def build(
        self, source: PipPin, interpreter: PlatformLock, requirements: Requirements
    ) -> tuple[CanonicalWheel, tuple[PipPin, ...]]:
        """The canonical wheel of the sdist ``source``, in the store, and what it was built with.

        ``requirements`` is asked twice at the most: for the static ones, and with the backend's own.
        Raises ``BuildError``."""
        python = interpreter.python
        if python is None or interpreter.platform != self.host:
            raise BuildError(
                f"{source.file}: building it needs a python of the lock that runs on this machine "
                f"({self.host}), and the lock has none",
                hint=f"add {self.host} to the platforms, or {_BY_ADDRESS}",
            )
        target = PipTarget(
            platform=interpreter.platform, python=python.version, glibc=glibc_of(interpreter.base)
        )
        try:
            with locked(self.store.root / "locks" / f"sdist-{source.sha256}"), Lease(self.store) as lease:
                lease.use(f"artifacts/{source.sha256}")
                archive = self.files.fetch(source, target)
                rootfs = self._unpack_interpreter(interpreter, python, lease)
                with (
                    self.store.scratch() as scratch,
                    self.progress.task("build", source.file, unit="wheels", total=1) as task,
                ):
                    work = _SdistBuild(
                        builds=self,
                        source=source,
                        python=python,
                        target=target,
                        rootfs=rootfs,
                        scratch=scratch,
                    )
                    wheel, pins = work.make(archive, requirements)
                    lease.use(f"artifacts/{wheel.sha256}")
                    commit_file(work.result, self.store.artifact(wheel.sha256))
                    task.advance(1)
        except OSError as error:
            raise BuildError(
                f"{source.file} can't be built in {self.store.root}: {error.strerror or error}",
                hint="check the space on its disk, or set ENVBUILD_CACHE_DIR to another",
            ) from error
        return wheel, pins

    def _unpack_interpreter(self, interpreter: PlatformLock, python: PythonPin, lease: Lease) -> Path:
        """Where the interpreter is unpacked; ``lease`` names it before it is looked for."""
        base = interpreter.base
        if python.provider == "debian" and isinstance(base, DebianBase):
            # As a plan has it, so that a build from the lock runs in the very same place.
            interpreter = replace(interpreter, base=replace(base, packages=python_closure(base, python)))
        target = interpreter_target(interpreter)
        wanted = Interpreter(python=python, lock=interpreter)
        packages = (f"artifacts/{artifact.sha256}" for artifact in interpreter_artifacts(wanted, whole=True))
        lease.use(f"rootfs/{rootfs_key(wanted, whole=True)}", *packages)
        return interpreter_rootfs(
            wanted,
            self.store,
            {kind: partial(open_source, target) for kind, open_source in self.sources.items()},
            unpack_base=self.unpack_base,
            whole=True,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _SdistBuild:
    """One build under way, in a directory of its own."""

    builds: SdistBuilds
    source: PipPin
    python: PythonPin
    target: PipTarget
    rootfs: Path
    scratch: Path

    @property
    def result(self) -> Path:
        return self.scratch / "wheel"

    def make(self, archive: Path, requirements: Requirements) -> tuple[CanonicalWheel, tuple[PipPin, ...]]:
        """The canonical wheel of ``archive`` as ``result``, and what it was built with."""
        source = self.source
        unpacked = self.scratch / "source"
        unpacked.mkdir()
        tree = unpack_sdist(archive, source.file, unpacked)
        subdirectory = subdirectory_of(source.url)
        system = load_build_system(tree / subdirectory, source.file)
        if subdirectory and not (tree / subdirectory).is_dir():
            raise BuildError(f"{source.file}: it has no directory {subdirectory}")
        pins = requirements(system.requires)
        backend = self._open_backend(system, tree, pins, "first")
        more = backend.requirements()
        if more:
            wanted = tuple(sorted({*system.requires, *more}))
            pins = requirements(wanted)
            backend = self._open_backend(system, tree, pins, "second")
        built = backend.wheel()
        name, version = source.name, source.version
        try:
            wheel = canonical_wheel(built, built.name, self.result, name=name, version=version)
        except ImpureWheel as error:
            raise BuildError(
                f"{source.file}: no wheel of {name} {version} fits, and the one that is built from this "
                f"isn't taken: {error.message}",
                hint=f"pin a version of {name} that has a wheel, take it from conda, or {_BY_ADDRESS}",
            ) from error
        return wheel, pins

    def _open_backend(
        self, system: BuildSystem, tree: Path, pins: tuple[PipPin, ...], name: str
    ) -> BuildBackend:
        """The backend with ``pins`` beside it."""
        place = self.scratch / name
        requires = place / "requires"
        requires.mkdir(parents=True)
        if pins:
            self._install_requirements(pins, requires)
        return BuildBackend(
            file=self.source.file,
            system=system,
            source=tree,
            subdirectory=subdirectory_of(self.source.url),
            requires=requires,
            rootfs=self.rootfs,
            executable=self.python.executable,
            scratch=place,
            patience=self.builds.patience,
        )

    def _install_requirements(self, pins: tuple[PipPin, ...], directory: Path) -> None:
        """Unpacks the wheels ``pins`` into ``directory``, flat, as PYTHONPATH wants them."""
        indexes, target = self.builds.files.indexes, self.target
        place = directory.with_name("installed")
        place.mkdir(mode=0o700)
        options = install_options(self.python, target.platform, target.glibc, offline=indexes.offline)
        WheelInstall(options=options, indexes=indexes).run(pins, place)
        libraries = [path for path in sorted((place / "prefix").glob("lib*")) if not path.is_symlink()]
        for library in libraries:
            for path in sorted(library.glob("python3.*/site-packages/*")):
                path.rename(directory / path.name)


def sdist_builds(context: ComposeContext) -> SdistBuilds:
    """Builds in the store and with the settings of ``context``."""
    return SdistBuilds(
        store=context.store,
        files=SdistFiles(store=context.store, fetcher=context.fetcher, indexes=package_indexes(context)),
        sources={
            ArtifactKind.DEBIAN: partial(deb.open_source, context),
            ArtifactKind.PYTHON: partial(python.open_source, context),
            ArtifactKind.CONDA: partial(conda.open_source, context),
        },
        unpack_base=base_images(context).unpack,
        progress=context.progress,
    )


class LockedSdists:
    """A ``SdistBuilder``: the wheels of a lock under way."""

    def __init__(self, builds: SdistBuilds, resolver: Callable[[], PipResolver]) -> None:
        self._builds = builds
        self._resolver = resolver
        self.host = builds.host
        self._made: dict[tuple[str, str], PipPin] = {}
        self._guard = threading.Lock()

    def wheel(self, request: SdistRequest) -> PipPin:
        """See ``SdistBuilder``. A lock's second platform gets the wheel of the first."""
        pin, preferred = request.pin, request.preferred
        same = preferred is not None and _project(source_pin(preferred)) == _project(pin)
        if same and preferred and preferred.sdist and _allows(request.build, pin.name, preferred.sdist):
            return replace(
                pin,
                file=preferred.file,
                size=preferred.size,
                sha256=preferred.sha256,
                sdist=preferred.sdist,
            )
        with self._guard:
            built = self._made.get(_project(pin))
            if built is None:
                built = self._made[_project(pin)] = self._build(request)
        return replace(built, via=pin.via, url=pin.url)

    def _build(self, request: SdistRequest) -> PipPin:
        pin, interpreter = request.pin, request.interpreter

        def requirements(stated: tuple[str, ...]) -> tuple[PipPin, ...]:
            stated = (*stated, *dict(request.build.extra).get(pin.name, ()))
            if not stated:
                return ()
            assert interpreter.python is not None
            spec = PipSpec(
                requirements=tuple(
                    PipRequirement(text=text, origin=Origin(file=pin.file)) for text in stated
                ),
                constraints=request.build.constraints,
                # Wheels alone: resolving an sdist runs its code, and what builds can't be built itself.
                options=(*self._builds.files.indexes.open_lines, "--only-binary :all:"),
            )
            own = PipTarget(
                platform=interpreter.platform,
                python=interpreter.python.version,
                glibc=glibc_of(interpreter.base),
            )
            try:
                return self._resolver().resolve(
                    PipRequest(spec=spec, target=own, as_of=request.as_of, offline=request.offline)
                )
            except ResolveError as error:
                raise ResolveError(
                    f"{pin.file}: what its build requires: {error.message}", hint=error.hint
                ) from error

        try:
            wheel, pins = self._builds.build(pin, interpreter, requirements)
            size = self._builds.store.artifact(pin.sha256).stat().st_size
        except (BuildError, FetchError) as error:
            raise ResolveError(error.message, hint=error.hint) from error
        return built_pin(pin, wheel, pins, size=size)


def _allows(build: BuildDependencies, name: str, sdist: Sdist) -> bool:
    """Whether what a wheel of ``name`` was built with is what would be taken for it today, too."""
    versions = {pin.name: pin.version for pin in load_build_requires(sdist.requires)}
    constraints = [Requirement(line.text) for line in build.constraints]
    extra = [Requirement(text) for text in dict(build.extra).get(name, ())]
    missing = {canonicalize_name(requirement.name) for requirement in extra} - set(versions)
    return not missing and all(
        requirement.specifier.contains(versions[canonicalize_name(requirement.name)], prereleases=True)
        for requirement in (*constraints, *extra)
        if canonicalize_name(requirement.name) in versions
    )


def _project(source: PipPin) -> tuple[str, str]:
    """Which project an sdist's pin is of: an archive may hold several."""
    return source.sha256, subdirectory_of(source.url)


class SdistWheels:
    """The built wheels of a lock that is there. ``interpreter`` builds those that the store lacks."""

    def __init__(self, builds: SdistBuilds, interpreter: Interpreter | None) -> None:
        self._builds = builds
        self._interpreter = interpreter

    def fetch(self, pin: PipPin) -> Path:
        """The canonical wheel of ``pin`` (``sdist`` set), a file of the store; built where it isn't there.

        Raises ``BuildError``: it can't be built here, or gives other bytes than those that are pinned."""
        sdist = pin.sdist
        if sdist is None:
            raise BuildError(f"{pin.file} isn't built from a source distribution")
        there = self._builds.store.verified_artifact(pin.sha256)
        if there is not None:
            return there
        if self._interpreter is None:
            raise BuildError(
                f"{pin.file}: it must be built from {sdist.file}, and the lock has no python that runs on "
                f"this machine ({self._builds.host})",
                hint="build on a machine of one of the lock's platforms, or lock again",
            )
        pinned = load_build_requires(sdist.requires)
        wheel, pins = self._builds.build(source_pin(pin), self._interpreter.lock, lambda _: pinned)
        assert dump_build_requires(pins) == tuple(sorted(sdist.requires))
        if wheel.sha256 != pin.sha256:
            raise BuildError(
                f"{sdist.file} builds another wheel here than the one that is locked: {wheel.file}, "
                f"{wheel.size} bytes, SHA-256 {wheel.sha256}; locked is {pin.file}, {pin.size} bytes, "
                f"{pin.sha256}",
                hint="its build isn't reproducible: lock again (envbuild lock --upgrade-package "
                f"{pin.name}), or {_BY_ADDRESS}",
            )
        return self._builds.store.artifact(pin.sha256)
