"""An existing conda environment: the exact packages of its ``conda-meta``, and what pip put beside them.

Addresses lose the credentials and tokens that conda wrote into them. Nothing is solved: the packages are all
there is, and what pip installed is all there is, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from envbuild.errors import SpecError, UsageError
from envbuild.platforms import LINUX_AMD64, Platform
from envbuild.specs.fields import carried
from envbuild.specs.importers.pip.installed import exact_requirements, inside, read_site, site_packages
from envbuild.specs.importers.pip.virtualenv import environment_name
from envbuild.specs.match import explicit_package
from envbuild.specs.model import CondaSpec, ExplicitPackage, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

RECORD_LIMIT = 64 << 20
"""Bytes of one package's record: it names every file."""
_TOKEN = re.compile(r"^/t/[^/]+(?=/)")
_RECORD = re.compile(r"(?P<place>.+\.(?:dist-info|egg-info))(?:/.*)?")


class CondaPrefixImporter:
    """Reads a conda environment by its ``conda-meta``."""

    name = "conda-prefix"
    markers: tuple[str, ...] = ("conda-meta/",)

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "conda-meta" and file.path.is_dir()

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        records = list(_records(file, problems))
        problems.raise_if_any(hint="conda can't use this environment either: 'conda doctor' says more")
        prefix = file.beside(".")
        if not records:
            raise SpecError(f"{prefix.shown}: no package is installed in this conda environment")
        platform = platform_of({record.subdir for record in records}, prefix.shown)
        packages, lines = explicit_packages(records, platform)
        left_out = list(lines)
        owned = {f"{prefix.path.name}/{place}" for record in records for place in record.owned}
        distributions = [
            distribution
            for site in site_packages(prefix)
            for distribution in read_site(site, prefix.path.parent, left_out)
            if distribution.place not in owned and distribution.installer != "conda"
        ]
        pins, lines = exact_requirements(distributions)
        variables = _variables(inside(file, "state"), left_out)
        if inside(file, "pinned").is_there():
            left_out.append("conda-meta/pinned: only a solve reads it")
        return Spec(
            name=environment_name(prefix.path),
            source=prefix.path,
            platforms=(platform,),
            conda=CondaSpec(channels=(), dependencies=(), explicit=packages) if packages else None,
            pip=PipSpec(requirements=pins, complete=bool(pins)),
            environment_variables=variables,
            left_out=(*left_out, *lines),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaRecord:
    """What counts of a file of ``conda-meta``. ``owned`` are the directories of Python metadata it brought,
    relative to the prefix."""

    title: str
    url: str
    subdir: str
    sha256: str = ""
    md5: str = ""
    owned: tuple[str, ...] = ()
    build: str = ""
    size: str = ""
    """In bytes, as digits; empty where it isn't known."""
    license: str = ""
    depends: tuple[str, ...] = ()


def conda_record(text: str) -> CondaRecord:
    """The record that ``text`` is. Raises ``ValueError``."""
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("no mapping")
    files = document.get("files")
    paths = [file for file in files if isinstance(file, str)] if isinstance(files, list) else []
    owned = [_RECORD.fullmatch(path) for path in paths if "-info" in path]
    depends, size = document.get("depends"), document.get("size")
    return CondaRecord(
        title=f"{_text(document, 'name')} {_text(document, 'version')}"[:200],
        url=_text(document, "url"),
        subdir=_text(document, "subdir"),
        sha256=_text(document, "sha256").lower(),
        md5=_text(document, "md5").lower(),
        owned=tuple(sorted({owner["place"] for owner in owned if owner})),
        build=_text(document, "build"),
        size=str(size) if type(size) is int and 0 < size < 1 << 60 else "",
        license=_text(document, "license"),
        depends=tuple(depend for depend in depends if isinstance(depend, str))
        if isinstance(depends, list)
        else (),
    )


def explicit_packages(
    records: Iterable[CondaRecord], platform: Platform
) -> tuple[tuple[ExplicitPackage, ...], tuple[str, ...]]:
    """The packages of ``records``, sorted, and a line for each that has no address or no hash."""
    packages, lines = [], []
    for record in records:
        try:
            packages.append(_package(record, platform))
        except Refused as refused:
            lines.append(f"{record.title}: {refused.what}")
    return tuple(sorted(packages)), tuple(lines)


def platform_of(subdirs: Iterable[str], shown: str) -> Platform:
    """The one platform that packages of these subdirs are for. Raises ``SpecError`` where no image has it."""
    known = sorted({subdir for subdir in subdirs if subdir and subdir != "noarch"})
    try:
        if len(known) <= 1:
            return Platform.parse(known[0]) if known else LINUX_AMD64
    except UsageError:
        pass  # Said below.
    raise SpecError(
        f"{shown}: its packages are of {', '.join(known)[:200]}; an image needs those of one Linux platform",
        hint="write down what was asked for: conda env export --from-history > environment.yml",
    )


def _package(record: CondaRecord, platform: Platform) -> ExplicitPackage:
    try:
        parts = urlsplit(record.url)
    except ValueError as error:
        raise Refused("its address can't be read") from error
    if parts.scheme not in ("https", "http"):
        raise Refused("installed from a file of this machine" if parts.scheme else "no address is recorded")
    if not record.sha256 and not record.md5:
        raise Refused("no hash is recorded")
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], _TOKEN.sub("", parts.path), "", ""))
    hashes = (("sha256", record.sha256), ("md5", record.md5))
    return explicit_package(
        f"{url}#" + ",".join(f"{kind}:{value}" for kind, value in hashes if value), platform
    )


def _records(directory: SourceFile, problems: Problems) -> Iterator[CondaRecord]:
    for name in directory.names():
        if not name.endswith(".json") or name.startswith("."):
            continue
        file = inside(directory, name)
        try:
            yield conda_record(file.read(RECORD_LIMIT))
        except SpecError as error:
            problems.include(error)
        except ValueError:
            problems.add(Place(file=file.shown), "is no record of a conda package")


def _variables(file: SourceFile, left_out: list[str]) -> tuple[tuple[str, str], ...]:
    """The environment variables that ``conda env config vars set`` keeps."""
    if not file.is_there():
        return ()
    variables: dict[str, str] = {}
    try:
        state = json.loads(file.read(YAML_LIMIT))
        for name, value in state.get("env_vars", {}).items():
            if isinstance(value, str) and value != "***unset***":
                variables[name] = value
    except (SpecError, ValueError, AttributeError, RecursionError):
        left_out.append("conda-meta/state: the variables in it can't be read")
        return ()
    kept, lines = carried(variables.items())
    left_out += lines
    return kept


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
