"""Puts a lock together: base, then conda, then pip, for every platform of a spec.

Resolvers are passed in. What the present lock says is offered to each of them as what to keep, so a
lock changes only where the spec, or the person who asked for an upgrade, forces it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

from envbuild.errors import ResolveError
from envbuild.lock.base import (
    BaseRequest,
    BaseResolver,
    CondaRequest,
    CondaResolver,
    CondaTarget,
    LockRequest,
    MavenRequest,
    MavenResolver,
    PipRequest,
    PipResolver,
    PipTarget,
    PythonRequest,
    PythonResolver,
    ResolvedBase,
    SdistBuilder,
    SdistRequest,
    what_stays,
)
from envbuild.lock.conda.distributions import CondaDistributions
from envbuild.lock.conda.satisfied import provided_distributions, virtual_packages
from envbuild.lock.debian.selection import python_closure, suite_glibc, suite_python
from envbuild.lock.git.repository import GitRepositories
from envbuild.lock.git.requirements import GitRequirements, names_git
from envbuild.lock.installer import installer_bases
from envbuild.lock.model import (
    OCCUPIED_HINT,
    Base,
    CondaPin,
    ContextBase,
    DebianBase,
    ImageBase,
    Lock,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonPin,
    RuntimeSettings,
    glibc_of,
    occupied_base,
)
from envbuild.lock.python.choice import (
    PythonChoice,
    alternatives,
    base_lacks_python,
    check_glibc,
    choose_python,
    matches_python,
    with_conda_python,
)
from envbuild.lock.sdist import source_pin
from envbuild.lock.spark import spark_spec
from envbuild.platforms import LINUX_AMD64, Platform
from envbuild.progress import Progress
from envbuild.specs.definition import definition_digest
from envbuild.specs.importers.pip.requirement import name_of
from envbuild.specs.model import (
    PREFIX,
    BaseSpec,
    BuildContextSpec,
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    PythonProvider,
    Spec,
)
from envbuild.specs.paths import located_pip, relative_address

_T = TypeVar("_T")
_WITH_PIP = {"pip", "setuptools", "wheel"}
"""What comes with conda's pip."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolvers:
    """The resolvers of one call; made when first needed, because some are slow to import."""

    bases: Sequence[Callable[[], BaseResolver]]
    """Asked in this order whether they accept a base."""
    conda: Callable[[], CondaResolver]
    pip: Callable[[], PipResolver]
    has_debian: Callable[[], bool]
    """Whether this machine knows a Debian mirror."""
    sdists: Callable[[], SdistBuilder] | None = None
    distributions: Callable[[], CondaDistributions] | None = None
    """Reads what conda packages bring for pip."""
    maven: Callable[[], MavenResolver] | None = None
    git: Callable[[], GitRepositories] | None = None
    standalone: Callable[[], PythonResolver] | None = None

    def base_for(self, spec: BaseSpec) -> BaseResolver | None:
        """The first resolver that accepts ``spec``."""
        made = (make() for make in self.bases)
        return next((resolver for resolver in made if resolver.accepts(spec)), None)


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
    if request.upgrade or request.upgrade_packages:
        for note in what_stays(spec):
            _log.warning("%s", note)
    return _LockMaker(spec, request, present, resolvers, progress, offline).make()


class _LockMaker:
    """Makes one lock: the base, what conda installs on it, what pip installs on both, then jars."""

    def __init__(
        self,
        spec: Spec,
        request: LockRequest,
        present: Lock | None,
        resolvers: Resolvers,
        progress: Progress,
        offline: bool,
    ) -> None:
        self.definition = definition_digest(spec)
        self.spec = spark_spec(spec)
        self.upgrade = request.resolver_upgrade
        self.request = request
        self.present = present
        self.resolvers = resolvers
        self.progress = progress
        self.offline = offline
        self.as_of, self.as_of_kept = request.bound(spec, present)
        if self.as_of_kept and request.as_of is None:
            progress.note(f"as of {self.as_of}, as an earlier --as-of said; --as-of none takes it back")
        self.engines: dict[str, str] = {}
        self.pip_cached = False
        """Whether the pip resolver's cache has just been filled."""

    def make(self) -> Lock:
        spec = self.spec
        if spec.type is EnvironmentType.USER_MANAGED:
            return self._lock_user_managed()
        preferred = None if self.upgrade.everything else self._present(spec.platforms[0])
        choice = choose_python(
            spec,
            has_debian=self.resolvers.has_debian,
            present=preferred.base if preferred else None,
            locked=preferred.python if preferred else None,
        )
        choice = self._prefer_wheels(choice)
        with self._fill_pip_cache(choice), self.progress.stage("resolve base"):
            bases = _for_each(spec.platforms, lambda platform: self._resolve_chosen_base(choice, platform))
        provider = self._provider(choice, bases)
        standalone = self._resolve_standalone(
            provider, {pins: bases[pins].base for pins in bases}, choice.series
        )
        conda_spec = self._conda_spec(provider)
        conda = self._identify_distributions(self._resolve_conda(conda_spec, bases))
        below = [
            PlatformLock(
                platform=platform,
                base=bases[platform].base,
                python=standalone.get(platform) or _find_python(bases[platform], conda.get(platform, ())),
                conda=conda.get(platform, ()),
            )
            for platform in sorted(spec.platforms)
        ]
        tools = cache(lambda: self._resolve_toolchain(below, choice, provider, conda_spec))
        pip = self._resolve_pip(below, tools)
        maven = self._resolve_maven(spec.platforms)
        platforms = [
            replace(pins, pip=pip.get(pins.platform, ()), maven=maven.get(pins.platform, ()))
            for pins in below
        ]
        bytecode = self._bytecode()
        # Building an sdist again takes an interpreter just as compiling does.
        runs_python = bytecode or any(pin.sdist for pins in platforms for pin in pins.pip)
        return Lock(
            definition=self.definition,
            platforms=tuple(platforms),
            bytecode=bytecode,
            runtime=runtime_settings(spec),
            channels=self.resolvers.conda().channels(conda_spec) if conda_spec else (),
            as_of=self.as_of.isoformat() if self.as_of else None,
            as_of_kept=self.as_of_kept,
            toolchain=tools() if runs_python else (),
            installer=installer_bases(
                platforms,
                self.present.installer if self.present else (),
                self._resolve_base,
                has_debian=self.resolvers.has_debian(),
                progress=self.progress,
            ),
            engines=tuple(sorted(self.engines.items())),
        )

    def _lock_user_managed(self) -> Lock:
        """Nothing is resolved but the image's digest, or those of the images that a Dockerfile names: what is
        inside is taken as it is, and what the spec lists is only a promise of what is there."""
        spec = self.spec
        pins = []
        with self.progress.stage("resolve base"):
            for platform in sorted(spec.platforms):
                assert spec.base is not None
                base = self._resolve_base(
                    spec.base, platform, with_python=False, preferred=self._present_base(platform)
                )
                pins.append(PlatformLock(platform=platform, base=base.base, python=base.python))
        return Lock(
            definition=self.definition,
            platforms=tuple(pins),
            bytecode=False,
            runtime=runtime_settings(spec),
            as_of=self.as_of.isoformat() if self.as_of else None,
            as_of_kept=self.as_of_kept,
        )

    def _present_base(self, platform: Platform) -> Base | None:
        before = self._present(platform)
        return before.base if before else None

    def _prefer_wheels(self, choice: PythonChoice) -> PythonChoice:
        """``choice``, or another Python that the spec takes too, where all distributions have wheels for
        that one and not for the one chosen. Where some have none for either, that stays: they are built."""
        spec, choices = self.spec, alternatives(self.spec, choice)
        formats = any(option.startswith(("--no-binary", "--only-binary")) for option in spec.pip.options)
        if self.offline or not spec.pip.requirements or formats or len(choices) == 1:
            return choice
        resolver = self.resolvers.pip()
        if not resolver.remembers:
            return choice
        pip = located_pip(spec.pip, spec.directory)
        wheels = replace(pip, options=(*pip.options, "--only-binary :all:"))
        reason = ""
        for other in choices:
            build = not other.from_base and other != choice
            if build and ("wheels" not in reason or self.resolvers.standalone is None):
                break
            assert isinstance(other.base, DebianBaseSpec)
            glibc = suite_glibc(other.base.suite or "")
            try:
                for platform in spec.platforms:
                    target = PipTarget(platform=platform, python=f"{other.python}.0", glibc=glibc or "")
                    request = PipRequest(spec=wheels, target=target, as_of=self.as_of, offline=self.offline)
                    pins = resolver.resolve(request)
            except ResolveError as error:
                if error.hint is not None and "network" in error.hint:
                    return choice
                reason = reason or error.message
                continue
            if other != choice:
                names = [pin.name for pin in pins if re.search(rf"(?<![\w-]){pin.name}(?![\w-])", reason)]
                self.progress.note(
                    f"python {other.python} instead of {choice.python}: only there "
                    f"{', '.join(names) or 'all pip packages'} can be had as wheels; say python: to choose"
                )
            return other
        return choice

    @contextmanager
    def _fill_pip_cache(self, choice: PythonChoice) -> Iterator[None]:
        """Resolves the requirements while the base is being resolved, for the resolver's cache.

        A Debian suite's python and glibc are known but for the patch version, so these pins aren't used;
        what the index said is then cached, and the real request needs no network."""
        base, pip = choice.base, self.spec.pip
        if not (isinstance(base, DebianBaseSpec) and base.suite and choice.from_base and pip.requirements):
            yield
            return
        resolver = self.resolvers.pip()
        glibc = suite_glibc(base.suite)
        if self.offline or not resolver.remembers or glibc is None or names_git(pip):
            yield
            return
        python = f"{suite_python(base.suite)}.0"

        def resolve(platform: Platform) -> None:
            before = self._present(platform)
            resolver.resolve(
                PipRequest(
                    spec=located_pip(pip, self.spec.directory),
                    target=PipTarget(platform=platform, python=python, glibc=glibc),
                    preferred=_sources(before),
                    upgrade=self.upgrade,
                    as_of=self.as_of,
                )
            )

        with ThreadPoolExecutor(len(self.spec.platforms), thread_name_prefix="early") as pool:
            futures = [pool.submit(resolve, platform) for platform in self.spec.platforms]
            yield
        self.pip_cached = all(future.exception() is None for future in futures)

    def _bytecode(self) -> bool:
        if self.request.bytecode is not None:
            return self.request.bytecode
        return self.present.bytecode if self.present else True

    def _present(self, platform: Platform) -> PlatformLock | None:
        return self.present.platform(platform) if self.present else None

    def _resolve_chosen_base(self, choice: PythonChoice, platform: Platform) -> ResolvedBase:
        return self._resolve_base(
            choice.base,
            platform,
            with_python=choice.from_base,
            preferred=self._present_base(platform),
            python_optional=choice.provider is not PythonProvider.BASE,
        )

    def _resolve_base(
        self,
        spec: BaseSpec,
        platform: Platform,
        *,
        with_python: bool,
        preferred: Base | None,
        python_optional: bool = False,
    ) -> ResolvedBase:
        resolver = self.resolvers.base_for(spec)
        if resolver is None:
            raise ResolveError(f"{self.spec.source}: no resolver knows this kind of base")
        resolved = resolver.resolve(
            BaseRequest(
                spec=spec,
                platform=platform,
                with_python=with_python,
                python_optional=python_optional,
                preferred=preferred,
                upgrade=self.upgrade,
                as_of=self.as_of,
                offline=self.offline,
            )
        )
        installs = self.spec.type is not EnvironmentType.USER_MANAGED
        if isinstance(resolved.base, ImageBase) and resolved.base.glibc is None and installs:
            raise ResolveError(
                f"base image {resolved.base.reference}: "
                "it has no glibc, which wheels and conda packages need",
                hint="choose an image of a distribution that has it, such as Debian's or Ubuntu's",
            )
        if isinstance(resolved.base, ImageBase) and resolved.prefix and installs:
            raise ResolveError(occupied_base(resolved.base, resolved.prefix), hint=OCCUPIED_HINT)
        return resolved

    def _provider(
        self, choice: PythonChoice, bases: Mapping[Platform, ResolvedBase]
    ) -> PythonProvider | None:
        """Who brings python; None: there needn't be one. Raises ``ResolveError`` where it is to be the base,
        and one has another."""
        wanted = self.spec.python
        unfit = [
            resolved
            for resolved in bases.values()
            if resolved.python is None or not matches_python(wanted, resolved.python.version)
        ]
        if choice.from_base and not unfit:
            return PythonProvider.BASE
        if not choice.needed:
            return None
        if choice.provider is PythonProvider.BASE:
            raise base_lacks_python(self.spec, unfit[0] if unfit else next(iter(bases.values())))
        return choice.provider

    def _resolve_standalone(
        self, provider: PythonProvider | None, bases: Mapping[Platform, Base], wanted: str | None = None
    ) -> dict[Platform, PythonPin]:
        """The standalone python of each platform, where there is to be one. ``wanted``: not the spec's."""
        if provider is not PythonProvider.STANDALONE or self.resolvers.standalone is None:
            return {}
        for base in bases.values():
            check_glibc(base)
        present = (*self.present.platforms, *self.present.toolchain) if self.present else ()
        with self.progress.stage("resolve python"):
            return self.resolvers.standalone().resolve(
                PythonRequest(
                    wanted=wanted or self.spec.python,
                    platforms=list(bases),
                    preferred={
                        pins.platform: pins.python for pins in reversed(present) if pins.python is not None
                    },
                    upgrade=self.upgrade,
                    as_of=self.as_of,
                    offline=self.offline,
                )
            )

    def _conda_spec(self, provider: PythonProvider | None) -> CondaSpec | None:
        """What conda is asked for; python joins where conda is to bring it."""
        if provider is not PythonProvider.CONDA:
            return self.spec.conda
        conda = with_conda_python(self.spec.conda, self.spec.python)
        names = {name_of(requirement.text) for requirement in self.spec.pip.requirements}
        # Who asks the index for one of these has another version in mind than the one that conda would add.
        return replace(conda, add_pip=False) if names & _WITH_PIP else conda

    def _resolve_conda(
        self, spec: CondaSpec | None, bases: Mapping[Platform, ResolvedBase]
    ) -> dict[Platform, tuple[CondaPin, ...]]:
        if spec is None:
            return {}
        with self.progress.stage("resolve conda"):
            present = self.present.platforms if self.present else ()
            return self._solve(
                spec, {platform: resolved.base for platform, resolved in bases.items()}, present
            )

    def _identify_distributions(
        self, conda: dict[Platform, tuple[CondaPin, ...]]
    ) -> dict[Platform, tuple[CondaPin, ...]]:
        """``conda`` with the distributions that pip needn't install, where it is to install any."""
        if not conda or not self.spec.pip.requirements or self.resolvers.distributions is None:
            return conda
        with self.progress.stage("resolve conda"):
            return self.resolvers.distributions().identify(conda)

    def _solve(
        self, spec: CondaSpec, bases: Mapping[Platform, Base], present: Sequence[PlatformLock]
    ) -> dict[Platform, tuple[CondaPin, ...]]:
        resolver = self.resolvers.conda()
        self.engines[resolver.name] = resolver.version()
        return resolver.resolve(
            CondaRequest(
                spec=spec,
                targets=[
                    CondaTarget(
                        platform=platform,
                        virtual_packages=virtual_packages(
                            glibc_of(base), platform, stated=self.spec.system_requirements
                        ),
                    )
                    for platform, base in bases.items()
                ],
                preferred={before.platform: before.conda for before in present if before.platform in bases},
                upgrade=self.upgrade,
                as_of=self.as_of,
                offline=self.offline,
            )
        )

    def _resolve_pip(
        self, below: Sequence[PlatformLock], tools: Callable[[], Sequence[PlatformLock]]
    ) -> dict[Platform, tuple[PipPin, ...]]:
        """The pins of each platform, installed over what is ``below`` them."""
        if not self.spec.pip.requirements:
            return {}
        resolver = self.resolvers.pip()
        self.engines[resolver.name] = resolver.version()

        platforms = {pins.platform: pins for pins in below}

        def resolve(platform: Platform) -> tuple[PipPin, ...]:
            pins = platforms[platform]
            resolved = self._resolve_distributions(resolver, pins, git)
            wheels = (self._build_wheel(pin, pins, below, tools) for pin in resolved)
            # No lock holds a path of this machine.
            return tuple(
                replace(pin, url=relative_address(pin.url, self.spec.directory)) if pin.url else pin
                for pin in wheels
            )

        with self.progress.stage("resolve pip"), self._git_requirements() as git:
            return _for_each(list(platforms), resolve)

    @contextmanager
    def _git_requirements(self) -> Iterator[GitRequirements | None]:
        """What brings the git requirements; None where there is none."""
        if not names_git(self.spec.pip) or self.resolvers.git is None:
            yield None
            return
        repositories = self.resolvers.git()
        present = self.present.platforms if self.present else ()
        kept = [pin for pins in present for pin in pins.pip if not self.upgrade.allows(pin.name)]
        with repositories.store.scratch() as scratch:
            yield GitRequirements(repositories=repositories, directory=scratch, kept=kept)

    def _resolve_distributions(
        self, resolver: PipResolver, below: PlatformLock, git: GitRequirements | None
    ) -> tuple[PipPin, ...]:
        """What the requirements give on one platform, sdists among it."""
        python = below.python
        if python is None:
            raise ResolveError(
                f"{self.spec.source}: there are pip packages, "
                f"but nothing brings a python on {below.platform}",
                hint="add python to the conda dependencies, or choose a base that has one",
            )
        before = self._present(below.platform)
        same_python = before and before.python and before.python.short == python.short
        target = PipTarget(platform=below.platform, python=python.version, glibc=glibc_of(below.base))
        spec = located_pip(self.spec.pip, self.spec.directory)
        request = PipRequest(
            spec=git.locate(spec, target) if git else spec,
            target=target,
            preferred=_sources(before) if same_python else (),
            upgrade=self.upgrade,
            provided=provided_distributions(below.conda),
            as_of=self.as_of,
            offline=self.offline,
        )
        if self.pip_cached:
            with suppress(ResolveError):
                return resolver.resolve(replace(request, offline=True))
        resolved = resolver.resolve(request)
        return git.restore(resolved) if git else resolved

    def _resolve_maven(self, platforms: Iterable[Platform]) -> dict[Platform, tuple[MavenPin, ...]]:
        """The same jars for every platform: a jar has none."""
        spark = self.spec.spark
        if spark is None or not spark.packages or not spark.precache_packages or self.resolvers.maven is None:
            return {}
        resolver = self.resolvers.maven()
        self.engines[resolver.name] = resolver.version()
        before = self._present(self.spec.platforms[0])
        unchanged = self.present is not None and self.present.definition == self.definition
        if self.offline and unchanged and before and before.maven:
            # Exact versions were asked for, and they still are: the answer can't be another.
            return dict.fromkeys(platforms, before.maven)
        with self.progress.stage("resolve maven"):
            jars = resolver.resolve(
                MavenRequest(
                    spec=spark,
                    preferred=before.maven if before else (),
                    upgrade=self.upgrade,
                    offline=self.offline,
                )
            )
        return dict.fromkeys(platforms, jars)

    def _build_wheel(
        self,
        pin: PipPin,
        target: PlatformLock,
        below: Sequence[PlatformLock],
        tools: Callable[[], Sequence[PlatformLock]],
    ) -> PipPin:
        """``pin``, or the wheel for ``target`` that the sdist it names is built into."""
        if pin.is_wheel or self.resolvers.sdists is None or target.python is None:
            return pin
        builder = self.resolvers.sdists()
        before = None if self.upgrade.allows(pin.name) else self._present(target.platform)

        def runnable(platforms: Sequence[PlatformLock]) -> Iterator[PlatformLock]:
            for pins in platforms:
                same = pins.python and target.python and pins.python.version == target.python.version
                if same and pins.platform == builder.host:
                    yield pins

        # The platform's own where there is no other: the builder says why it can't.
        interpreter = next(runnable(below), None) or next(runnable(tools()), target)
        present = before.pip if before else ()
        return builder.wheel(
            SdistRequest(
                pin=pin,
                target=PipTarget(
                    platform=target.platform, python=target.python.version, glibc=glibc_of(target.base)
                ),
                interpreter=interpreter,
                preferred=next((kept for kept in present if kept.name == pin.name), None),
                build=self.spec.pip.build,
                as_of=self.as_of,
                offline=self.offline,
            )
        )

    def _resolve_toolchain(
        self,
        pins: Sequence[PlatformLock],
        choice: PythonChoice,
        provider: PythonProvider | None,
        conda: CondaSpec | None,
    ) -> tuple[PlatformLock, ...]:
        """An interpreter for linux/amd64, so that byte code of another platform can be compiled there."""
        pythons = {pin.python.version for pin in pins if pin.python}
        if not pythons or any(pin.platform == LINUX_AMD64 for pin in pins):
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
            python_optional=choice.provider is not PythonProvider.BASE,
        )
        packages: tuple[CondaPin, ...] = ()
        if conda is not None and any(pin.conda for pin in pins):
            dependencies = (f"python=={version}",)
            exact = CondaSpec(channels=conda.channels, dependencies=dependencies, add_pip=False)
            packages = self._solve(exact, {LINUX_AMD64: base.base}, present)[LINUX_AMD64]
        standalone = self._resolve_standalone(provider, {LINUX_AMD64: base.base}, wanted=f"=={version}")
        python = standalone.get(LINUX_AMD64) or _find_python(base, packages)
        if python is None or python.version != version:
            stated = python.version if python else "none"
            raise ResolveError(
                f"{self.spec.source}: python {version} is not there for linux/amd64 (found: {stated}), "
                "and byte code for this platform is compiled with it",
                hint="add linux/amd64 to platforms, or lock with --no-bytecode",
            )
        needed = base.base
        if isinstance(needed, DebianBase) and python.provider == "debian":
            needed = replace(needed, packages=python_closure(needed, python))
        return (PlatformLock(platform=LINUX_AMD64, base=needed, python=python, conda=packages),)


def _for_each(platforms: Sequence[Platform], resolve: Callable[[Platform], _T]) -> dict[Platform, _T]:
    """``resolve`` of every platform, side by side; the first platform's error is the one raised."""
    if len(platforms) == 1:
        return {platforms[0]: resolve(platforms[0])}
    with ThreadPoolExecutor(len(platforms)) as pool:
        return dict(zip(platforms, pool.map(resolve, platforms), strict=True))


def _find_python(base: ResolvedBase, conda: Sequence[CondaPin]) -> PythonPin | None:
    """Conda's python, else the base's."""
    for pin in conda:
        if pin.name == "python":
            short = ".".join(pin.version.split(".")[:2])
            return PythonPin(version=pin.version, provider="conda", executable=f"{PREFIX}/bin/python{short}")
    return base.python


def context_base(spec: BuildContextSpec) -> ContextBase:
    """The base that a build context is, by the digest of its snapshot."""
    return ContextBase(digest=spec.digest, dockerfile=spec.dockerfile_path)


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
    later = spec.spark if spec.spark and not spec.spark.precache_packages else None
    return RuntimeSettings(
        environment_variables=tuple(sorted(spec.environment_variables)),
        user=spec.user,
        ports=tuple(sorted(ports)),
        type=spec.type.value,
        runtime=spec.runtime.value,
        spark_packages=tuple(
            sorted(
                f"{package.group}:{package.artifact}:{package.version}"
                for package in (later.packages if later else ())
            )
        ),
        spark_repositories=later.repositories if later else (),
        clashes=spec.clashes.value,
        activation=spec.activation.value,
        bytecode=spec.bytecode.value,
    )


def _sources(lock: PlatformLock | None) -> tuple[PipPin, ...]:
    """The pip pins as an index has them: of a wheel that was built, its sdist."""
    return tuple(source_pin(pin) for pin in lock.pip) if lock else ()
