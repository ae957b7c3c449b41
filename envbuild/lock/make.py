"""Puts a lock together: base, then conda, then pip, for every platform of a spec.

Resolvers are passed in. What the present lock says is offered to each of them as what to keep, so a
lock changes only where the spec, or the person who asked for an upgrade, forces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from envbuild.errors import ResolveError
from envbuild.lock.base import (
    BaseResolver,
    CondaResolver,
    CondaTarget,
    PipResolver,
    PipTarget,
    ResolvedBase,
)
from envbuild.lock.conda.satisfied import provided_distributions, virtual_packages
from envbuild.lock.debian.selection import python_closure, suite_glibc, suite_python
from envbuild.lock.model import (
    Base,
    CondaPin,
    DebianBase,
    ImageBase,
    Lock,
    PipPin,
    PlatformLock,
    PythonPin,
    RuntimeSettings,
    glibc_of,
)
from envbuild.lock.python import PythonChoice, choose_python, matches_python, with_conda_python
from envbuild.lock.request import LockRequest
from envbuild.platforms import LINUX_AMD64, Platform
from envbuild.progress import Progress
from envbuild.spec.definition import definition_digest
from envbuild.spec.located import located_pip, relative_address
from envbuild.spec.model import (
    PREFIX,
    BaseSpec,
    BuildContextSpec,
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    Runtime,
    Spec,
)

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolvers:
    """The resolvers of one call; made when first needed, because some are slow to import."""

    bases: Sequence[Callable[[], BaseResolver]]
    """Asked in this order whether they accept a base."""
    conda: Callable[[], CondaResolver]
    pip: Callable[[], PipResolver]
    has_debian: Callable[[], bool]
    """Whether this machine knows a Debian mirror."""


def make_lock(
    spec: Spec,
    request: LockRequest,
    present: Lock | None,
    resolvers: Resolvers,
    *,
    progress: Progress,
    offline: bool = False,
) -> Lock:
    """The lock of ``spec``, with the pins of ``present`` that can stay. Raises ``ResolveError``."""
    _refuse(spec)
    return _Making(spec, request, present, resolvers, progress, offline).lock()


def _refuse(spec: Spec) -> None:
    if isinstance(spec.base, BuildContextSpec) or spec.type is EnvironmentType.USER_MANAGED:
        raise ResolveError(
            f"{spec.source}: a user-managed environment is not resolved, it is built from its own Dockerfile",
            hint="this version of envbuild composes system-managed environments only",
        )
    if spec.runtime is not Runtime.PYTHON or spec.spark is not None:
        raise ResolveError(
            f"{spec.source}: runtime {spec.runtime.value} can't be locked by this version of envbuild",
            hint="use runtime: python",
        )


class _Making:
    """One lock being made."""

    def __init__(
        self,
        spec: Spec,
        request: LockRequest,
        present: Lock | None,
        resolvers: Resolvers,
        progress: Progress,
        offline: bool,
    ) -> None:
        self.spec = spec
        self.upgrade = request.resolver_upgrade
        self.request = request
        self.present = present
        self.resolvers = resolvers
        self.progress = progress
        self.offline = offline
        self.as_of = request.as_of or spec.as_of
        self.engines: dict[str, str] = {}
        self.asked = False
        """Whether the pip resolver's cache has just been filled."""

    def lock(self) -> Lock:
        spec = self.spec
        before = None if self.upgrade.everything else self._present(spec.platforms[0])
        choice = choose_python(
            spec, has_debian=self.resolvers.has_debian, present=before.base if before else None
        )
        with self._asked_early(choice), self.progress.stage("resolve base"):
            bases = self._each(spec.platforms, lambda platform: self._base(choice, platform))
        conda_spec = self._conda_spec(choice, bases)
        conda = self._conda(conda_spec, bases)
        pins = []
        pythons = {platform: self._python(bases[platform], conda.get(platform, ())) for platform in bases}
        pip = self._pip(bases, pythons, conda)
        for platform in spec.platforms:
            pins.append(
                PlatformLock(
                    platform=platform,
                    base=bases[platform].base,
                    python=pythons[platform],
                    conda=conda.get(platform, ()),
                    pip=pip.get(platform, ()),
                )
            )
        pins.sort(key=lambda each: each.platform)
        bytecode = self._bytecode()
        return Lock(
            definition=definition_digest(spec),
            platforms=tuple(pins),
            bytecode=bytecode,
            runtime=runtime_settings(spec),
            channels=conda_spec.channels if conda_spec else (),
            as_of=self.as_of.isoformat() if self.as_of else None,
            toolchain=self._toolchain(pins, choice, conda_spec) if bytecode else (),
            engines=tuple(sorted(self.engines.items())),
        )

    @contextmanager
    def _asked_early(self, choice: PythonChoice) -> Iterator[None]:
        """Asks the index about the requirements while the base is being resolved.

        A Debian suite's python and glibc are known but for the patch version, so this answer isn't used;
        what it leaves in the resolver's cache lets the real question be answered without a network."""
        base, pip = choice.base, self.spec.pip
        if not (isinstance(base, DebianBaseSpec) and base.suite and choice.from_base and pip.requirements):
            yield
            return
        resolver = self.resolvers.pip()
        glibc = suite_glibc(base.suite)
        if self.offline or not resolver.remembers or glibc is None:
            yield
            return
        python = f"{suite_python(base.suite)}.0"

        def ask(platform: Platform) -> None:
            before = self._present(platform)
            resolver.resolve(
                located_pip(pip, self.spec.directory),
                PipTarget(platform=platform, python=python, glibc=glibc),
                preferred=before.pip if before else (),
                upgrade=self.upgrade,
                as_of=self.as_of,
            )

        with ThreadPoolExecutor(len(self.spec.platforms), thread_name_prefix="early") as pool:
            asked = [pool.submit(ask, platform) for platform in self.spec.platforms]
            yield
        self.asked = all(each.exception() is None for each in asked)

    def _bytecode(self) -> bool:
        if self.request.bytecode is not None:
            return self.request.bytecode
        return self.present.bytecode if self.present else True

    def _present(self, platform: Platform) -> PlatformLock | None:
        return self.present.platform(platform) if self.present else None

    def _base(self, choice: PythonChoice, platform: Platform) -> ResolvedBase:
        before = self._present(platform)
        return self._resolve_base(
            choice.base, platform, with_python=choice.from_base, preferred=before.base if before else None
        )

    def _resolve_base(
        self, spec: BaseSpec, platform: Platform, *, with_python: bool, preferred: Base | None
    ) -> ResolvedBase:
        made = (make() for make in self.resolvers.bases)
        resolver = next((each for each in made if each.accepts(spec)), None)
        if resolver is None:
            raise ResolveError(f"{self.spec.source}: no resolver knows this kind of base")
        found = resolver.resolve(
            spec,
            platform,
            with_python=with_python,
            preferred=preferred,
            upgrade=self.upgrade,
            as_of=self.as_of,
            offline=self.offline,
        )
        if isinstance(found.base, ImageBase) and found.base.glibc is None:
            raise ResolveError(
                f"base image {found.base.reference}: it has no glibc, which wheels and conda packages need",
                hint="choose an image of a distribution that has it, such as Debian's or Ubuntu's",
            )
        return found

    def _conda_spec(self, choice: PythonChoice, bases: Mapping[Platform, ResolvedBase]) -> CondaSpec | None:
        """What conda is asked for; python joins where the base's own isn't the one that was asked for."""
        wanted = self.spec.python
        fits = choice.from_base and all(
            base.python is not None and matches_python(wanted, base.python.version) for base in bases.values()
        )
        if fits or not choice.needed:
            return self.spec.conda
        return with_conda_python(self.spec.conda, wanted)

    def _conda(
        self, spec: CondaSpec | None, bases: Mapping[Platform, ResolvedBase]
    ) -> dict[Platform, tuple[CondaPin, ...]]:
        if spec is None:
            return {}
        with self.progress.stage("resolve conda"):
            present = self.present.platforms if self.present else ()
            return self._solve(spec, {platform: each.base for platform, each in bases.items()}, present)

    def _solve(
        self, spec: CondaSpec, bases: Mapping[Platform, Base], present: Sequence[PlatformLock]
    ) -> dict[Platform, tuple[CondaPin, ...]]:
        resolver = self.resolvers.conda()
        self.engines[resolver.name] = resolver.version()
        return resolver.resolve(
            spec,
            [
                CondaTarget(platform=platform, virtual_packages=virtual_packages(glibc_of(base), platform))
                for platform, base in bases.items()
            ],
            preferred={each.platform: each.conda for each in present if each.platform in bases},
            upgrade=self.upgrade,
            as_of=self.as_of,
            offline=self.offline,
        )

    @staticmethod
    def _python(base: ResolvedBase, conda: Sequence[CondaPin]) -> PythonPin | None:
        for pin in conda:
            if pin.name == "python":
                short = ".".join(pin.version.split(".")[:2])
                return PythonPin(
                    version=pin.version, provider="conda", executable=f"{PREFIX}/bin/python{short}"
                )
        return base.python

    def _pip(
        self,
        bases: Mapping[Platform, ResolvedBase],
        pythons: Mapping[Platform, PythonPin | None],
        conda: Mapping[Platform, tuple[CondaPin, ...]],
    ) -> dict[Platform, tuple[PipPin, ...]]:
        if not self.spec.pip.requirements:
            return {}
        resolver = self.resolvers.pip()
        self.engines[resolver.name] = resolver.version()

        def resolve(platform: Platform) -> tuple[PipPin, ...]:
            python = pythons[platform]
            if python is None:
                raise ResolveError(
                    f"{self.spec.source}: there are pip packages, but nothing brings a python on {platform}",
                    hint="add python to the conda dependencies, or choose a base that has one",
                )
            before = self._present(platform)
            same_python = before and before.python and before.python.short == python.short
            ask = partial(
                resolver.resolve,
                located_pip(self.spec.pip, self.spec.directory),
                PipTarget(platform=platform, python=python.version, glibc=glibc_of(bases[platform].base)),
                preferred=before.pip if before and same_python else (),
                upgrade=self.upgrade,
                provided=provided_distributions(conda.get(platform, ())),
                as_of=self.as_of,
            )
            found = None
            if self.asked:
                with suppress(ResolveError):
                    found = ask(offline=True)
            if found is None:
                found = ask(offline=self.offline)
            for pin in found:
                if not pin.is_wheel:
                    self.progress.note(f"{pin.file} is no wheel: it can be locked, but not composed natively")
            # No lock holds a path of this machine.
            return tuple(
                replace(pin, url=relative_address(pin.url, self.spec.directory)) if pin.url else pin
                for pin in found
            )

        with self.progress.stage("resolve pip"):
            return self._each(list(bases), resolve)

    def _toolchain(
        self, pins: Sequence[PlatformLock], choice: PythonChoice, conda: CondaSpec | None
    ) -> tuple[PlatformLock, ...]:
        """An interpreter for linux/amd64, so that byte code of another platform can be compiled there."""
        pythons = {each.python.version for each in pins if each.python}
        if not pythons or any(each.platform == LINUX_AMD64 for each in pins):
            return ()
        if len(pythons) > 1:
            raise ResolveError(
                f"{self.spec.source}: the platforms' pythons differ: {', '.join(sorted(pythons))}"
            )
        version = pythons.pop()
        present = self.present.toolchain if self.present else ()
        base = self._resolve_base(
            choice.base,
            LINUX_AMD64,
            with_python=choice.from_base,
            preferred=present[0].base if present else None,
        )
        packages: tuple[CondaPin, ...] = ()
        if conda is not None and any(each.conda for each in pins):
            exact = CondaSpec(channels=conda.channels, dependencies=(f"python=={version}",))
            packages = self._solve(exact, {LINUX_AMD64: base.base}, present)[LINUX_AMD64]
        python = self._python(base, packages)
        if python is None or python.version != version:
            found = python.version if python else "none"
            raise ResolveError(
                f"{self.spec.source}: python {version} is not there for linux/amd64 (found: {found}), "
                "and byte code for this platform is compiled with it",
                hint="add linux/amd64 to platforms, or lock with --no-bytecode",
            )
        needed = base.base
        if isinstance(needed, DebianBase) and python.provider == "debian":
            needed = replace(needed, packages=python_closure(needed, python))
        return (PlatformLock(platform=LINUX_AMD64, base=needed, python=python, conda=packages),)

    @staticmethod
    def _each(platforms: Sequence[Platform], resolve: Callable[[Platform], _T]) -> dict[Platform, _T]:
        """``resolve`` of every platform, side by side; the first platform's error is the one raised."""
        if len(platforms) == 1:
            return {platforms[0]: resolve(platforms[0])}
        with ThreadPoolExecutor(len(platforms)) as pool:
            return dict(zip(platforms, pool.map(resolve, platforms), strict=True))


def runtime_settings(spec: Spec) -> RuntimeSettings:
    """What of ``spec`` a container starts with."""
    ports: set[int] = set()
    if spec.inference_config:
        routes = spec.inference_config
        ports = {
            routes.liveness_route.port,
            routes.readiness_route.port,
            routes.scoring_route.port,
        }
    return RuntimeSettings(
        environment_variables=tuple(sorted(spec.environment_variables)),
        user=spec.user,
        ports=tuple(sorted(ports)),
    )
