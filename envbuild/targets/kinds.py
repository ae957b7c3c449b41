"""The kinds of targets there are: ours, and those that other packages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from envbuild.errors import UsageError, did_you_mean
from envbuild.progress import Progress
from envbuild.store.content import Store
from envbuild.targets.base import Target, TargetOption, TargetRecord
from envbuild.targets.options import AnyOptions, options_of, parse_options

AnyTarget = TypeVar("AnyTarget", bound=Target, covariant=True)

GROUP = "envbuild.targets"
"""Entry points of this group name a ``TargetKind`` each, by the kind's name."""
_OURS = {
    "local": "envbuild.targets.local",
    "docker": "envbuild.targets.docker",
    "kubernetes": "envbuild.targets.kubernetes.target",
    "slurm": "envbuild.targets.slurm.target",
    "spark": "envbuild.targets.spark.target",
    "ray": "envbuild.targets.ray.target",
    "azureml": "envbuild.targets.azureml",
}
"""Modules whose ``KIND`` is the kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetContext:
    """What a target may use of this process. ``state`` is a directory for files that outlive a run; whoever
    writes there makes it."""

    store: Store
    progress: Progress
    state: Path
    environ: Mapping[str, str] = field(repr=False)


class ConfiguredTarget(Generic[AnyOptions]):
    """The part of a target that its options say."""

    def __init__(self, record: TargetRecord, options: AnyOptions, context: TargetContext) -> None:
        self.record = record
        self.limits = options.limits
        self.registry: str | None = options.registry
        self._options = options
        self._context = context


class TargetKind(Protocol):
    """What an entry point names: how targets of one kind are made."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Sequence[TargetOption]:
        """Besides those that every kind takes (``targets.options.COMMON``)."""

    def open(self, record: TargetRecord, context: TargetContext) -> Target:
        """The target, without a connection. Raises ``UsageError`` with all options that don't fit."""


@dataclass(frozen=True, slots=True)
class ConfiguredKind(Generic[AnyOptions, AnyTarget]):
    """A kind of ours. ``make`` gets a target's options, checked and parsed."""

    name: str
    values: type[AnyOptions]
    make: Callable[[TargetRecord, AnyOptions, TargetContext], AnyTarget]

    @property
    def options(self) -> Sequence[TargetOption]:
        return options_of(self.values)

    def open(self, record: TargetRecord, context: TargetContext) -> AnyTarget:
        return self.make(record, parse_options(record, self.values), context)


def kind_names() -> tuple[str, ...]:
    """All kinds, ours first. Imports none of them."""
    return (*_OURS, *sorted({other.name for other in _other_entry_points()} - set(_OURS)))


def kind(name: str) -> TargetKind:
    """The kind of that name. Raises ``UsageError`` where there is none, or where it can't be loaded."""
    if name in _OURS:
        try:
            ours: TargetKind = import_module(_OURS[name]).KIND
        except ModuleNotFoundError as error:
            raise UsageError(
                f"targets of the kind {name} need a module that isn't installed: {error.name}"
            ) from error
        return ours
    for point in _other_entry_points():
        if point.name == name:
            return _load_kind(point)
    raise UsageError(
        f"unknown kind of target {name!r}{did_you_mean(name, kind_names())}",
        hint=f"known: {', '.join(kind_names())}",
    )


def open_target(record: TargetRecord, context: TargetContext) -> Target:
    """The target of ``record``. Raises ``UsageError`` for an unknown kind and options that don't fit."""
    return kind(record.kind).open(record, context)


def _other_entry_points() -> tuple[EntryPoint, ...]:
    return tuple(point for point in entry_points(group=GROUP) if point.name not in _OURS)


def _load_kind(point: EntryPoint) -> TargetKind:
    try:
        kind: TargetKind = point.load()
    except Exception as error:  # whatever another package's module raises
        raise UsageError(
            f"the kind of target {point.name!r} can't be loaded from {point.value}: {error}",
            hint="upgrade or remove the package that brings it",
        ) from error
    missing = [part for part in ("options", "open") if not hasattr(kind, part)]
    if missing or isinstance(kind, type):
        lacks = "is a class, not a kind" if isinstance(kind, type) else f"has no {' and no '.join(missing)}"
        raise UsageError(
            f"the kind of target {point.name!r} can't be used: {point.value} {lacks}",
            hint="upgrade or remove the package that brings it",
        )
    return kind
