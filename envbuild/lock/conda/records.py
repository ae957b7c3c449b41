"""Conda packages as pins: from a channel's record and back to one that rattler can match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from envbuild.errors import ResolveError
from envbuild.lazy import lazy
from envbuild.lock.conda.channels import split_channel, without_credentials
from envbuild.lock.model import CondaPin

if TYPE_CHECKING:
    import rattler
    from rattler import package as rattler_package
else:
    rattler = lazy("rattler")
    rattler_package = lazy("rattler.package")

_NAME = re.compile(r"\s*([A-Za-z0-9_.\-]+)\s*(.*?)\s*", re.DOTALL)
_FILE = re.compile(r"[A-Za-z0-9_.!+\-]+\.(?:conda|tar\.bz2)")
_HEX = re.compile(r"[0-9a-f]+")


def pin_of(record: Mapping[str, Any]) -> CondaPin:
    """The pin of a channel's record (a ``repodata.json`` entry with ``url`` and ``channel``).

    Raises ``ResolveError`` for a record without SHA-256: such a package can't be pinned."""
    name = str(record["name"])
    url = without_credentials(str(record["url"]))
    sha256 = str(record.get("sha256") or "").lower()
    md5 = str(record.get("md5") or "").lower()
    if len(sha256) != 64 or not _HEX.fullmatch(sha256):
        raise ResolveError(
            f"conda package {name}: the channel states no SHA-256 for {url}",
            hint="ask the channel's owner to index it again",
        )
    if _FILE.fullmatch(url.rsplit("/", 1)[-1]) is None:
        raise ResolveError(f"conda package {name}: not a conda package's address: {url}")
    return CondaPin(
        name=name,
        version=str(record["version"]),
        build=str(record["build"]),
        build_number=int(record.get("build_number") or 0),
        subdir=str(record["subdir"]),
        url=url,
        channel=url.rsplit("/", 2)[0],
        size=int(record.get("size") or 0),
        sha256=sha256,
        md5=md5,
        depends=normal_depends(record.get("depends") or ()),
        constrains=tuple(sorted(record.get("constrains") or ())),
        noarch=record.get("noarch") or None,
        timestamp=record.get("timestamp"),
        python_site_packages_path=record.get("python_site_packages_path"),
    )


def channel_record(pin: CondaPin) -> dict[str, Any]:
    """The pin as a record of a channel or of ``conda-meta`` has it; None for what isn't stated."""
    return {
        "build": pin.build,
        "build_number": pin.build_number,
        "channel": pin.channel,
        "constrains": sorted(pin.constrains),
        "depends": sorted(pin.depends),
        "fn": pin.file,
        "md5": pin.md5 or None,
        "name": pin.name,
        "noarch": pin.noarch,
        "python_site_packages_path": pin.python_site_packages_path,
        "sha256": pin.sha256,
        "size": pin.size or None,
        "subdir": pin.subdir,
        "timestamp": pin.timestamp,
        "url": pin.url,
        "version": pin.version,
    }


def split_depend(depend: str) -> tuple[str, str]:
    """``(name, the rest)`` of a match spec as packages state them: ``python >=3.9,<3.10.0a0 *_cpython``."""
    match = _NAME.fullmatch(depend)
    if match is None:
        return depend.strip(), ""
    return match.group(1), match.group(2)


def normal_depends(depends: Iterable[str]) -> tuple[str, ...]:
    """``depends`` sorted, each name once: several ranges of one name are joined by a comma.

    It is what a ``conda-lock.yml`` can carry, which maps each name to one condition."""
    joined: dict[str, list[str]] = {}
    for depend in depends:
        name, rest = split_depend(depend)
        conditions = joined.setdefault(name, [])
        if rest and rest != "*" and rest not in conditions:
            conditions.append(rest)
    return tuple(f"{name} {_join(conditions)}".strip() for name, conditions in sorted(joined.items()))


def _join(conditions: list[str]) -> str:
    if len(conditions) < 2:
        return "".join(conditions)
    versions, builds = [], []
    for condition in conditions:
        version, _, build = condition.partition(" ")
        if version != "*":
            versions.append(version)
        if build.strip():
            builds.append(build.strip())
    # conda has no conjunction of builds; the narrowest is kept, which is what packages mean by two.
    build = max(builds, key=len, default="")
    return f"{','.join(versions) or '*'} {build}".strip()


def record_of(pin: CondaPin) -> rattler.RepoDataRecord:
    """The pin as a record that rattler's solver and match specs understand."""
    record = rattler.PackageRecord(
        name=pin.name,
        version=pin.version,
        build=_build(pin.build),
        build_number=pin.build_number,
        subdir=pin.subdir,
        noarch=pin.noarch,  # type: ignore[arg-type]
        depends=list(pin.depends),
        constrains=list(pin.constrains),
        sha256=bytes.fromhex(pin.sha256),
        md5=bytes.fromhex(pin.md5) if pin.md5 else None,
        size=pin.size or None,
        python_site_packages_path=pin.python_site_packages_path,
    )
    return rattler.RepoDataRecord(record, pin.file, pin.url, pin.channel)


def virtual_record(name: str, version: str) -> rattler.PackageRecord:
    """A virtual package as a record; ``version`` may hold a build string: ``1=x86_64``."""
    number, _, build = version.partition("=")
    return rattler.PackageRecord(
        name=name, version=number or "0", build=_build(build or "0"), build_number=0, subdir="noarch"
    )


def virtual_package(name: str, version: str) -> rattler.GenericVirtualPackage:
    """A virtual package for the solver; ``version`` may hold a build string: ``1=x86_64``."""
    number, _, build = version.partition("=")
    return rattler.GenericVirtualPackage(
        rattler.PackageName(name), rattler.Version(number or "0"), _build(build or "0")
    )


def _build(text: str) -> Any:
    return rattler_package.BuildString(text)


def link_order(pins: Iterable[CondaPin]) -> list[CondaPin]:
    """``pins`` as conda links them, whatever order they come in: of several with one path the last one's file
    stays.

    As in conda's ``PrefixGraph``: packages that neither depend on another one nor are depended on come first;
    then, in rounds, all whose dependencies are there; by name where nothing else decides. A circle is entered
    where the fewest are missing."""
    by_name = {pin.name: pin for pin in pins}
    needs = {name: _needs(by_name[name], by_name.keys()) for name in sorted(by_name)}
    # Conda itself breaks this circle so.
    needs.get("python", set()).discard("pip")
    needed = set().union(*needs.values()) if needs else set()
    ordered = [name for name, others in needs.items() if not others and name not in needed]
    left = {name: set(others) for name, others in needs.items() if name not in ordered}
    while left:
        ready = [name for name, others in left.items() if not others]
        if not ready:
            circle = [name for name in left if name in _reached(left, name)]
            ready = [min(circle, key=lambda name: (len(left[name]), name))]
        ordered += ready
        for name in ready:
            del left[name]
        for others in left.values():
            others.difference_update(ready)
    return [by_name[name] for name in ordered]


def _reached(needs: Mapping[str, set[str]], start: str) -> set[str]:
    """All that ``start`` leads to: itself only in a circle."""
    reached: set[str] = set()
    todo = [*needs[start]]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += needs.get(name, ())
    return reached


def _needs(pin: CondaPin, names: Iterable[str]) -> set[str]:
    """The packages among ``names`` that ``pin`` depends on."""
    depends = {split_depend(split_channel(text)[1])[0] for text in pin.depends}
    return (depends & set(names)) - {pin.name}
