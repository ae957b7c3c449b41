"""The default conda resolver: rattler's gateway and solver, embedded; no conda is needed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from envbuild.errors import ResolveError, did_you_mean
from envbuild.http.base import Fetcher
from envbuild.lazy import lazy
from envbuild.lock.base import CondaRequest, CondaTarget
from envbuild.lock.conda.channels import ChannelNames, hide_credentials, split_channel, without_credentials
from envbuild.lock.conda.configuration import CondaConfiguration
from envbuild.lock.conda.explicit import ExplicitList, hash_archive
from envbuild.lock.conda.records import pin_of, record_of, split_depend, virtual_package
from envbuild.lock.model import CondaPin
from envbuild.platforms import Platform
from envbuild.specs.model import CondaSpec

if TYPE_CHECKING:
    import rattler
    from rattler import Gateway, MatchSpec, RepoDataRecord
    from rattler import channel as rattler_channel
    from rattler import exceptions as rattler_exceptions
    from rattler import networking as rattler_networking
    from rattler.repo_data import gateway as rattler_gateway
else:
    rattler = lazy("rattler")
    rattler_channel = lazy("rattler.channel")
    rattler_exceptions = lazy("rattler.exceptions")
    rattler_networking = lazy("rattler.networking")
    rattler_gateway = lazy("rattler.repo_data.gateway")

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_NEWEST_CUDA = "13.0"
"""Of the machines that a solution for GPUs is tried for."""
_SAY_CUDA = 'which CUDA the drivers have, system_requirements: {cuda: "12.9"}'
_SETTLE = 0.05
"""Seconds."""


@dataclass
class RattlerResolver:
    """A :class:`envbuild.lock.base.CondaResolver`. ``cache_dir`` keeps the channels' metadata between
    calls and is what an offline call answers from; credentials come from rattler's own auth file. ``fetcher``
    gets the archives of listed packages that a channel's metadata doesn't know."""

    cache_dir: Path
    configuration: CondaConfiguration = field(default_factory=CondaConfiguration)
    retries: int = 3
    fetcher: Fetcher | None = None
    name: str = "rattler"

    @property
    def channel_names(self) -> ChannelNames:
        return self.configuration.names

    def version(self) -> str:
        return version("py-rattler")

    def channels(self, spec: CondaSpec) -> tuple[str, ...]:
        """See ``CondaResolver``; of a list of packages those that it names."""
        names = self.channel_names
        if spec.explicit:
            addresses = tuple(address for channel in spec.channels for address in names.addresses(channel))
        else:
            addresses = names.of(spec)
        return tuple(dict.fromkeys(map(without_credentials, addresses)))

    def resolve(self, request: CondaRequest) -> dict[Platform, tuple[CondaPin, ...]]:
        """Pins of every target, sorted by name; all targets are solved at once over one gateway.

        ``as_of`` includes that whole day (UTC); a package without a time stamp isn't taken then.
        Raises ``ResolveError``: unsatisfiable (with the solver's reason), unknown channel or package,
        a match spec that can't be read, no network. A list of packages isn't solved (``conda.explicit``).
        """
        spec, targets, offline = request.spec, request.targets, request.offline
        if spec.explicit:
            listed = ExplicitList(records=partial(self._listed, offline), fetcher=self.fetcher)
            return listed.resolve(request)
        channels = self.channel_names.of(spec)
        specs = self._match_specs(spec)
        gateway = self._gateway(offline)

        async def solve_all() -> list[tuple[CondaPin, ...]]:
            return list(
                await asyncio.gather(
                    *(self._solve(gateway, channels, specs, target, request) for target in targets)
                )
            )

        try:
            solved = _run_coroutine(solve_all())
        except ResolveError as error:
            if offline and error.hint is None:
                raise ResolveError(error.message, hint="drop --offline to ask the channels") from error
            raise
        return {target.platform: pins for target, pins in zip(targets, solved, strict=True)}

    def records(
        self, spec: CondaSpec, platform: Platform, names: Sequence[str], *, offline: bool = False
    ) -> dict[str, CondaPin]:
        """All packages with one of these names that the spec's channels have, by SHA-256.

        Raises ``ResolveError`` where a channel does not answer."""
        channels = self.channel_names.of(spec)
        gateway = self._gateway(offline)

        async def query() -> list[RepoDataRecord]:
            return await _records_of(gateway, channels, platform.subdir, names)

        try:
            records = [json.loads(record.to_json()) for record in _run_coroutine(query())]
        except (rattler_exceptions.GatewayError, rattler_exceptions.FetchRepoDataError) as error:
            raise _unreachable(str(error), channels) from error
        return {str(record["sha256"]): pin_of(record) for record in records if record.get("sha256")}

    def _listed(
        self, offline: bool, channel: str, platform: Platform, names: Sequence[str]
    ) -> Iterable[CondaPin]:
        spec = CondaSpec(channels=(channel,), dependencies=())
        return self.records(spec, platform, names, offline=offline).values()

    def _gateway(self, offline: bool) -> rattler.Gateway:
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        return rattler.Gateway(
            cache_dir=self.cache_dir,
            default_config=rattler_gateway.SourceConfig(
                cache_action="force-cache-only" if offline else "cache-or-fetch"
            ),
            client=self._client(0 if offline else self.retries),
        )

    def _client(self, retries: int) -> rattler.networking.Client:
        """rattler's own client, which asks mirrors in the place of what they stand for."""
        mirrors = self.configuration.mirrors
        if not mirrors:
            return rattler_networking.Client.default_client(max_retries=retries)
        return rattler_networking.Client(
            [
                rattler_networking.RetryMiddleware(retries),
                rattler_networking.MirrorMiddleware(
                    {
                        canonical: [f"{address}/" for address in addresses]
                        for canonical, addresses in mirrors.items()
                    }
                ),
                rattler_networking.AuthenticationMiddleware(),
                rattler_networking.OciMiddleware(),
                rattler_networking.GCSMiddleware(),
                rattler_networking.S3Middleware(),
            ]
        )

    def _match_specs(self, spec: CondaSpec) -> list[rattler.MatchSpec]:
        specs, problems = [], []
        for written, dependency in zip(spec.dependencies, self.channel_names.dependencies(spec), strict=True):
            try:
                specs.append(rattler.MatchSpec(dependency, strict=False))
            except (
                rattler_exceptions.InvalidMatchSpecError,
                rattler_exceptions.InvalidChannelError,
            ) as error:
                problems.append(
                    f"conda dependency {hide_credentials(written)!r}: {hide_credentials(str(error))}"
                )
        if problems:
            raise ResolveError("\n".join(problems), hint="see conda's match specifications")
        return specs

    async def _solve(
        self,
        gateway: Gateway,
        channels: Sequence[str],
        specs: Sequence[MatchSpec],
        target: CondaTarget,
        request: CondaRequest,
    ) -> tuple[CondaPin, ...]:
        subdir, before = target.platform.subdir, request.before
        kept = request.kept(target.platform)

        def solve_with(
            priority: rattler_channel.ChannelPriority, virtual: Mapping[str, str], locked: Sequence[CondaPin]
        ) -> Awaitable[list[RepoDataRecord]]:
            return rattler.solve(
                sources=[rattler.Channel(channel) for channel in channels],
                specs=list(specs),
                gateway=gateway,
                platforms=[subdir, "noarch"],  # type: ignore[list-item]
                locked_packages=[record_of(pin) for pin in locked],
                virtual_packages=[virtual_package(name, version) for name, version in virtual.items()],
                channel_priority=priority,
                constraints=list(self.configuration.pinned_packages),
                exclude_newer=before,
                channel_relations="disabled",
                add_pip_as_python_dependency=add_pip,
            )

        async def solve(virtual: Mapping[str, str], locked: Sequence[CondaPin]) -> list[RepoDataRecord]:
            strict = rattler_channel.ChannelPriority.Strict
            disabled = rattler_channel.ChannelPriority.Disabled
            if self.configuration.priority == "disabled":
                return await solve_with(disabled, virtual, locked)
            try:
                return await solve_with(strict, virtual, locked)
            except rattler_exceptions.SolverError:
                # rattler has no middle way: what goes first excludes the others, or all are compared.
                if self.configuration.priority == "strict":
                    raise
                return await solve_with(disabled, virtual, locked)

        virtual, add_pip = target.virtual_packages, False
        try:
            if request.spec.add_pip:
                # A channel without pip is one that conda can't install python from.
                add_pip = bool(await _records_of(gateway, channels, subdir, ["pip"]))
            records = await solve(virtual, kept)
            if "__cuda" not in virtual and await _knows_gpus(gateway, channels, subdir, records):
                with suppress(rattler_exceptions.SolverError):
                    others = await solve({**virtual, "__cuda": _NEWEST_CUDA}, ())
                    _warn_of_cpu_builds(records, others, target)
        except rattler_exceptions.SolverError as error:
            unknown = await self._unknown(gateway, channels, specs, subdir)
            if unknown:
                raise ResolveError(
                    "\n".join(unknown),
                    hint="correct the name, or add the channel that has the package",
                ) from error
            reason = hide_credentials(str(error), channels).strip()
            hint = "loosen one of the named requirements" + (
                ", or take a later --as-of" if before is not None else ""
            )
            if "__cuda" in reason and "__cuda" not in virtual:
                hint = f"these packages need a GPU: say {_SAY_CUDA}"
            raise ResolveError(
                f"no conda packages for {subdir} fit together:\n{reason}", hint=hint
            ) from error
        except (rattler_exceptions.GatewayError, rattler_exceptions.FetchRepoDataError) as error:
            raise _unreachable(str(error), channels) from error
        present = {(pin.name, pin.sha256): pin for pin in kept}
        pins = [self._pin(json.loads(record.to_json()), request.offline) for record in records]
        # A kept package comes back as it was given to the solver, which holds less than its pin.
        return tuple(sorted((present.get((pin.name, pin.sha256), pin) for pin in pins), key=_by_name))

    def _pin(self, record: dict[str, Any], offline: bool) -> CondaPin:
        """The pin of a channel's record. Old channels state MD5 alone: then the archive is fetched, once, as
        its SHA-256 stands in the lock from then on."""
        if record.get("sha256") or not record.get("md5") or self.fetcher is None:
            return pin_of(record)
        if offline:
            raise ResolveError(
                f"conda package {record['name']}: the channel states MD5 alone, and its archive isn't here",
                hint="drop --offline once: the lock keeps its SHA-256",
            )
        sha256, size = hash_archive(str(record["url"]), str(record["md5"]).lower(), self.fetcher)
        return pin_of({**record, "sha256": sha256, "size": size})

    async def _unknown(
        self, gateway: Gateway, channels: Sequence[str], specs: Sequence[MatchSpec], subdir: str
    ) -> list[str]:
        """One line for each requirement whose name no channel has, with near names."""
        try:
            answers = await gateway.names(
                [rattler.Channel(channel) for channel in channels],
                [subdir, "noarch"],  # type: ignore[list-item]
            )
        except (rattler_exceptions.GatewayError, rattler_exceptions.FetchRepoDataError):
            return []
        names = {name.normalized for name in answers}
        lines = []
        for spec in specs:
            package = _package_name(spec)
            if package in names or package.startswith("__"):
                continue
            where = ", ".join(without_credentials(channel) for channel in channels)
            guess = did_you_mean(package, names)
            lines.append(f"no conda package is named {package!r} in {where} for {subdir}{guess}")
        return lines


async def _knows_gpus(
    gateway: Gateway, channels: Sequence[str], subdir: str, records: Sequence[RepoDataRecord]
) -> bool:
    """Whether any version of the packages ``records`` is for GPUs: else no other solution is looked for."""
    versions = await _records_of(gateway, channels, subdir, [record.name.normalized for record in records])
    return any("__cuda" in depend for record in versions for depend in record.depends)


async def _records_of(
    gateway: Gateway, channels: Sequence[str], subdir: str, names: Sequence[str]
) -> list[RepoDataRecord]:
    """All packages with one of these names."""
    answers = await gateway.query(
        [rattler.Channel(channel) for channel in channels],
        [subdir, "noarch"],  # type: ignore[list-item]
        list(names),
        recursive=False,
        channel_relations="disabled",
    )
    return [record for answer in answers for record in answer]


def _warn_of_cpu_builds(
    records: Sequence[RepoDataRecord], others: Sequence[RepoDataRecord], target: CondaTarget
) -> None:
    """Names those of ``records`` that are others in a solution for machines with a GPU."""
    builds = {record.name.normalized: (str(record.version), record.build) for record in others}
    differing = [
        f"{record.name.normalized} {record.version} {record.build}"
        for record in records
        if builds.get(record.name.normalized) not in (None, (str(record.version), record.build))
    ]
    if differing:
        _log.warning(
            "%s: locked for machines without a GPU: %s; for those with one, say %s",
            target.platform,
            ", ".join(sorted(differing)),
            _SAY_CUDA,
        )


def _by_name(pin: CondaPin) -> str:
    return pin.name


def _package_name(spec: MatchSpec) -> str:
    return split_depend(split_channel(str(spec))[1])[0].lower()


def _unreachable(reason: str, channels: Sequence[str]) -> ResolveError:
    """The error for a channel that did not answer, or that isn't one."""
    address = next((channel for channel in channels if channel in reason), None)
    where = without_credentials(address) if address else ", ".join(map(without_credentials, channels))
    clean = hide_credentials(reason, channels).strip()
    if "no usable repodata cache" in reason:
        return ResolveError(
            f"conda channel {where} is not in the cache", hint="drop --offline once, so that it is fetched"
        )
    if "could not find subdir" in reason or "404 Not Found" in reason:
        return ResolveError(
            f"unknown conda channel {where}: {clean}", hint="check the channel's name or address"
        )
    if "401 Unauthorized" in reason or "403 Forbidden" in reason:
        return ResolveError(
            f"conda channel {where} refuses access: {clean}",
            hint="log in with `rattler auth login` or `pixi auth login`, or set RATTLER_AUTH_FILE",
        )
    return ResolveError(
        f"conda channel {where} does not answer: {clean}",
        hint="check the network, or use --offline to answer from the cache",
    )


def _run_coroutine(work: Coroutine[object, object, _T]) -> _T:
    """Runs a coroutine to its end, also from a thread that already has an event loop (a notebook)."""

    async def settle() -> _T:
        # py-rattler's worker threads let go of Python objects shortly after they have answered; an
        # interpreter that ends in that moment dies of a signal (seen in 11 of 100 runs, none with this).
        try:
            return await work
        finally:
            await asyncio.sleep(_SETTLE)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(settle())
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, settle()).result()
