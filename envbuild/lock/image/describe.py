"""An existing image as a spec: what is installed in it, as exact as its records say.

Of several Pythons and conda environments the one that leads ``PATH`` counts. Conda packages are those of
``conda-meta``, Python distributions are exact pins, and of Debian's packages those count that somebody asked
for: not what every system has, and not what came with others.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envbuild.errors import SpecError
from envbuild.lock.image.inventory import InstalledPackage, Inventory
from envbuild.platforms import Platform
from envbuild.specs import fields
from envbuild.specs.fields import carried
from envbuild.specs.importers.conda.prefix import CondaRecord, explicit_packages
from envbuild.specs.importers.pip.installed import Distribution, exact_requirements
from envbuild.specs.model import CondaSpec, DebianBaseSpec, PipSpec, Spec
from envbuild.specs.problems import Refused

_SITE = re.compile(r"(?:(?P<prefix>.*)/)?lib/python(?P<python>3\.\d+)t?/(?:site|dist)-packages/.*")
_CONDA = re.compile(r"(?:(?P<prefix>.*)/)?conda-meta/[^/]+")
_EVERYWHERE = frozenset({"required", "important"})
_PATH = "PATH"
_OF_PYTHON = frozenset(
    {
        *("GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256", "PYTHON_PIP_VERSION", "PYTHON_SETUPTOOLS_VERSION"),
        *("PYTHON_GET_PIP_URL", "PYTHON_GET_PIP_SHA256", "VIRTUAL_ENV", "CONDA_DIR", "CONDA_PREFIX"),
    }
)
"""Variables that say how the Python that is replaced was made, and where it was."""
_SETTINGS = (
    "Entrypoint",
    "Cmd",
    "WorkingDir",
    "ExposedPorts",
    "Volumes",
    "Healthcheck",
    "StopSignal",
    "Labels",
)


def describe_image(
    inventory: Inventory, config: Mapping[str, Any], platform: Platform, *, name: str, source: Path
) -> Spec:
    """The spec of an image with this inventory and this inner ``config`` (OCI image-spec, ``config``).

    ``source`` is where the spec would be written; ``name`` may be any text. Raises ``SpecError`` where
    nothing is known of what is inside.
    """
    if not (inventory.distributions or inventory.conda_packages or inventory.debian_packages):
        raise SpecError(f"{name}: neither conda's, Python's nor Debian's packages are known in this image")
    left_out: list[str] = []
    environment = dict(_environment(config))
    prefix = _prefix(inventory, environment)
    conda = _conda(inventory, prefix, platform, left_out)
    owned = _owned(inventory, prefix)
    python: str | None = None
    distributions: list[Distribution] = []
    for distribution in inventory.distributions:
        site = _SITE.fullmatch(distribution.path)
        if site is None or (site["prefix"] or "") != prefix:
            continue
        place = _place(distribution.path)
        installer = distribution.detail("installer")
        python = python or site["python"]
        if place not in owned and installer != "conda":
            distributions.append(
                Distribution(
                    name=distribution.name,
                    version=distribution.version,
                    place=place,
                    installer=installer,
                    direct_url=distribution.detail("direct_url"),
                )
            )
    pins, lines = exact_requirements(distributions)
    left_out += lines
    left_out += _elsewhere(inventory, prefix)
    base = _base(inventory, left_out)
    own = {_PATH, *_OF_PYTHON}
    variables, lines = carried((key, value) for key, value in environment.items() if key not in own)
    left_out += lines
    own_variables = sorted(own & set(environment))
    if own_variables:
        left_out.append(f"environment variables of its own Python: {', '.join(own_variables)}")
    user = _user(config, left_out)
    left_out += [f"its {key}" for key in _SETTINGS if config.get(key)]
    brings_python = conda is not None and any("/python-3" in package.url for package in conda.explicit)
    return Spec(
        name=fields.fit_name(name),
        source=source,
        platforms=(platform,),
        python=None if brings_python else _full(python, inventory, environment, prefix),
        base=base,
        conda=conda,
        pip=PipSpec(requirements=pins, complete=bool(pins)),
        environment_variables=variables,
        user=user,
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _environment(config: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    listed = config.get("Env")
    pairs = (str(variable).partition("=") for variable in listed) if isinstance(listed, list) else ()
    return [(key, value) for key, equals, value in pairs if equals]


def _prefix(inventory: Inventory, environment: Mapping[str, str]) -> str:
    """The prefix that is meant, without a leading slash: the first in PATH that has packages, else the one
    that has most of them."""
    counts: dict[str, int] = {}
    for package in (*inventory.conda_packages, *inventory.distributions):
        match = _CONDA.fullmatch(package.path) or _SITE.fullmatch(package.path)
        if match is not None:
            counts[match["prefix"] or ""] = counts.get(match["prefix"] or "", 0) + 1
    for directory in environment.get(_PATH, "").split(":"):
        prefix, slash, last = directory.strip("/").rpartition("/")
        if slash and last == "bin" and prefix in counts:
            return prefix
    return max(sorted(counts), key=lambda count: counts[count], default="usr/local")


def _conda(inventory: Inventory, prefix: str, platform: Platform, left_out: list[str]) -> CondaSpec | None:
    records = [
        CondaRecord(
            title=f"{package.name} {package.version}",
            url=package.detail("url"),
            subdir=package.detail("subdir"),
            sha256=package.detail("sha256"),
            md5=package.detail("md5"),
        )
        for package in inventory.conda_packages
        if _prefix_of(package) == prefix
    ]
    packages, lines = explicit_packages(records, platform)
    left_out += lines
    return CondaSpec(channels=(), dependencies=(), explicit=packages) if packages else None


def _owned(inventory: Inventory, prefix: str) -> frozenset[str]:
    """The directories of metadata that conda packages brought."""
    lead = f"{prefix}/" if prefix else ""
    return frozenset(
        lead + place
        for package in inventory.conda_packages
        if _prefix_of(package) == prefix
        for place in package.detail("owned").splitlines()
    )


def _elsewhere(inventory: Inventory, prefix: str) -> list[str]:
    """What is installed in other prefixes, counted."""
    counts: dict[str, int] = {}
    for package in inventory.conda_packages:
        if (other := _prefix_of(package)) != prefix:
            counts[f"packages of conda in /{other}"] = counts.get(f"packages of conda in /{other}", 0) + 1
    for distribution in inventory.distributions:
        site = _SITE.fullmatch(distribution.path)
        if site is None:
            # In dist-packages, where Debian's own packages put them: they come with those.
            continue
        if (other := site["prefix"] or "") != prefix:
            what = f"Python distributions in /{other}"
            counts[what] = counts.get(what, 0) + 1
    return [f"{count} {what}" for what, count in sorted(counts.items())]


def _base(inventory: Inventory, left_out: list[str]) -> DebianBaseSpec | None:
    release = dict(inventory.release)
    suite = release.get("VERSION_CODENAME", "")
    packages = inventory.debian_packages
    if release.get("ID") != "debian" or not re.fullmatch(r"[a-z][a-z0-9-]{1,40}", suite):
        title = " ".join(filter(None, (release.get("ID"), release.get("VERSION_ID")))) or "an unknown system"
        count = f"{len(packages)} packages" if packages else "the packages"
        left_out.append(f"{count} of {title}: a base is composed of Debian's")
        return None
    asked = set()
    for package in packages:
        if package.detail("automatic") or package.detail("priority") in _EVERYWHERE:
            continue
        try:
            asked.add(fields.debian_package(package.name))
        except Refused as refused:
            left_out.append(refused.what)
    rest = len({package.name for package in packages} - asked)
    if rest:
        left_out.append(f"{rest} packages of Debian that every system has or that came with others")
    if packages:
        left_out.append(
            f"the versions of {len(packages)} packages of Debian: a lock chooses those of its day"
        )
    return DebianBaseSpec(suite=suite, packages=tuple(sorted(asked)))


def _user(config: Mapping[str, Any], left_out: list[str]) -> str:
    """``User`` in numbers; an image that names none runs as root."""
    written = config.get("User") or "0:0"
    try:
        return fields.user(str(written))
    except Refused:
        left_out.append(f"its user {str(written)[:100]!r}, which is no number: 1000:1000 takes its place")
        return "1000:1000"


def _full(
    python: str | None, inventory: Inventory, environment: Mapping[str, str], prefix: str
) -> str | None:
    """``python`` (3.13) with its last part where that is known for sure."""
    if python is None:
        return None
    candidates = [environment.get("PYTHON_VERSION", "")] if prefix != "usr" else []
    candidates += [
        package.version for package in inventory.debian_packages if package.name == f"python{python}-minimal"
    ]
    for candidate in candidates:
        full = re.match(r"3\.\d+\.\d+", candidate)
        if full and full[0].startswith(f"{python}."):
            return full[0]
    return python


def _prefix_of(package: InstalledPackage) -> str:
    match = _CONDA.fullmatch(package.path)
    return (match["prefix"] or "") if match else ""


def _place(path: str) -> str:
    """The directory of metadata that a record lies in; the record itself where it is a file of its own."""
    return path if path.endswith(".egg-info") else posixpath.dirname(path)
