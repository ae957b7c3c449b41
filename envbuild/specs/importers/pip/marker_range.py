"""Which of a lock's packages an image needs, over all images there can be.

Images are Linux of a few architectures with CPython, so a marker of a lock is decided by architecture and
Python version alone. What a package's markers come to, over a whole graph of dependencies, is therefore
found by trying every case, and written down as one marker of those two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from envbuild.platforms import PLATFORMS, Platform
from envbuild.redact import redact
from envbuild.specs.problems import Refused

CASES_LIMIT = 100
"""Python versions at which anything of a lock changes."""
_NEWEST = 20
"""Minor version of Python 3 that nothing is asked about any more."""
_VERSION = re.compile(r"\d+(?:\.\d+)*")
_EXTRA = re.compile(r"""\bextra\s*(==|!=)\s*(?:'([^']*)'|"([^"]*)")""")

Release = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of image: an architecture, and a Python version that stands for all up to the next case."""

    platform: Platform
    python: Release

    @property
    def environment(self) -> dict[str, str]:
        """What markers are evaluated with (PEP 508)."""
        full = ".".join(map(str, self.python))
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.platform.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": f"{self.python[0]}.{self.python[1]}",
            "sys_platform": "linux",
            "extra": "",
        }


class Cases:
    """All kinds of images that a lock may be for.

    ``requires`` is its ``requires-python``; ``markers`` are all of its markers, whose versions part the
    cases; ``supported`` are the environments it was made for (empty: all). Raises :class:`Refused`: a marker
    that is none, a lock for no Linux image at all.
    """

    def __init__(
        self,
        requires: str | None,
        markers: Collection[str],
        *,
        supported: Collection[str] = (),
        extras: Collection[str] = (),
        groups: Collection[str] = (),
        active: Collection[str] = (),
    ) -> None:
        self._extras, self._groups, self._active = frozenset(extras), frozenset(groups), frozenset(active)
        self._markers: dict[str, Marker] = {}
        self._known: dict[tuple[str, Case], bool] = {}
        try:
            allowed = SpecifierSet(requires or "")
        except InvalidSpecifier as error:
            raise Refused(f"requires-python: {redact(requires or '')!r} is no version specifier") from error
        pythons = [
            release
            for release in _releases([requires or "", *markers, *supported])
            if allowed.contains(".".join(map(str, release)))
        ]
        if len(pythons) > CASES_LIMIT:
            raise Refused(f"its markers tell more than {CASES_LIMIT} versions of Python apart")
        self._pythons = pythons
        self.all = frozenset(
            case
            for case in (Case(platform, python) for platform in PLATFORMS for python in pythons)
            if not supported or any(self.holds(marker, case) for marker in supported)
        )
        if not self.all:
            raise Refused("it was made for no environment that an image can be")

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Those the lock was made for, in the usual order."""
        return tuple(
            platform for platform in PLATFORMS if any(case.platform == platform for case in self.all)
        )

    def holds(self, marker: str | None, case: Case) -> bool:
        """Whether ``marker`` holds for ``case``; none holds for all. Raises :class:`Refused`."""
        if not marker:
            return True
        known = self._known.get((marker, case))
        if known is not None:
            return known
        environment: dict[str, str | frozenset[str]] = {
            **case.environment,
            "extras": self._extras,
            "dependency_groups": self._groups,
        }
        try:
            parsed = self._markers.get(marker)
            if parsed is None:
                parsed = self._markers[marker] = Marker(_EXTRA.sub(self._chosen, marker))
            outcome = parsed.evaluate(environment, context="lock_file")
        except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, RecursionError) as error:
            raise Refused(f"{redact(marker)[:200]!r} is no marker") from error
        self._known[marker, case] = outcome
        return outcome

    def marker(self, cases: Collection[Case]) -> str:
        """The marker that holds for just these of :attr:`all`, canonical; empty where it is all of them."""
        if frozenset(cases) >= self.all:
            return ""
        ranges: dict[str, list[Platform]] = {}
        for platform in self.platforms:
            ranges.setdefault(self._range(platform, cases), []).append(platform)
        none = ranges.pop("never", [])
        parts = []
        for condition, platforms in ranges.items():
            machines = [f'platform_machine == "{pins.machine}"' for pins in platforms]
            if len(platforms) == len(self.platforms) and not none:
                machines = [""]
            parts += [" and ".join(node for node in (machine, condition) if node) for machine in machines]
        marker = " or ".join(f"({part})" if " or " in part and " and " in part else part for part in parts)
        return str(Marker(marker)) if marker else 'python_version < "0"'

    def _range(self, platform: Platform, cases: Collection[Case]) -> str:
        """The condition on Python: empty where there is none, ``never`` where nothing fulfils it."""
        mine = [python for python in self._pythons if Case(platform, python) in self.all]
        chosen = [Case(platform, release) in cases for release in mine]
        if all(chosen):
            return ""
        if not any(chosen):
            return "never"
        runs = []
        for index, (python, wanted) in enumerate(zip(mine, chosen, strict=True)):
            if not wanted or (index and chosen[index - 1]):
                continue
            after = next((number for number in range(index, len(mine)) if not chosen[number]), None)
            bounds = [
                *([f'python_full_version >= "{_short(python)}"'] if index else []),
                *([f'python_full_version < "{_short(mine[after])}"'] if after is not None else []),
            ]
            runs.append(" and ".join(bounds))
        return runs[0] if len(runs) == 1 else "(" + " or ".join(f"({run})" for run in runs) + ")"

    def _chosen(self, match: re.Match[str]) -> str:
        """A condition on extras as one on what every image is: uv marks its conflicts so."""
        named = match[2] if match[2] is not None else match[3]
        holds = (named in self._active) == (match[1] == "==")
        return "os_name == 'posix'" if holds else "os_name != 'posix'"


def reachable(
    roots: Iterable[str],
    edges: Callable[[str], Iterable[tuple[str, str | None]]],
    cases: Cases,
) -> Mapping[str, frozenset[Case]]:
    """The nodes that ``roots`` lead to, each with the cases in which they do. ``edges`` gives a node's
    neighbours with the marker of each edge."""
    reached: dict[str, set[Case]] = {}
    for case in cases.all:
        seen: set[str] = set()
        todo = list(roots)
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            todo += [other for other, marker in edges(node) if cases.holds(marker, case)]
        for node in seen:
            reached.setdefault(node, set()).add(case)
    return {node: frozenset(cases) for node, cases in reached.items()}


def _releases(texts: Iterable[str]) -> list[Release]:
    """Every version of Python at which something in ``texts`` may change, sorted, and each minor version."""
    releases: set[Release] = {(3, minor, 0) for minor in range(8, _NEWEST + 1)}
    for text in texts:
        if "python" not in text and not text.lstrip().startswith(("<", ">", "=", "~", "!")):
            continue
        for match in _VERSION.findall(text):
            numbers = [min(int(part[:6]), 99999) for part in match.split(".")[:3]]
            if numbers[0] != 3:
                continue
            minor = numbers[1] if len(numbers) > 1 else 0
            patch = numbers[2] if len(numbers) > 2 else 0
            releases |= {(3, minor, 0), (3, minor + 1, 0), (3, minor, patch), (3, minor, patch + 1)}
    return sorted(releases)


def _short(release: Release) -> str:
    return ".".join(map(str, release if release[2] else release[:2]))
