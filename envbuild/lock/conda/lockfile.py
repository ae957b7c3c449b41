"""``conda-lock.yml``: conda-lock's unified lockfile, format version 1.

Written through conda-lock's own models, so that what is written is what it reads; read by YAML alone,
because importing those models takes more than a second and every build reads its lock.

The same pins give the same bytes, in whatever order they come: no time, user, git state or path of this
machine is in it, and no credential. The format carries name, version, build, URL, hashes and
dependencies; size, build number, timestamp, constraints, noarch and python's site-packages path are not
in it (:func:`carried` says what is left) and stand in ``envbuild.lock``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from envbuild.errors import EnvbuildError, LockError
from envbuild.lazy import lazy
from envbuild.lock.conda.channels import without_credentials
from envbuild.lock.conda.records import split_depend
from envbuild.lock.model import CondaPin
from envbuild.oci.digest import canonical_digest
from envbuild.platforms import Platform

if TYPE_CHECKING:
    import yaml
else:
    yaml = lazy("yaml")

CONDA_LOCK_FORMAT = 1
_HEAD = "# Written by envbuild; conda-lock reads it: conda-lock install -n NAME conda-lock.yml\n"
_FILE = re.compile(r"([A-Za-z0-9_.\-]+)-([A-Za-z0-9_.!+]+)-([A-Za-z0-9_.+]+)\.(?:conda|tar\.bz2)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}|")


def dump_conda_lock(channels: Sequence[str], pins: Mapping[Platform, Sequence[CondaPin]]) -> str:
    """The text of ``conda-lock.yml`` for the pins of each platform and the channels they came from."""
    with warnings.catch_warnings():
        # conda-lock's vendored conda warns about itself when it is imported.
        warnings.simplefilter("ignore")
        from conda_lock.lockfile.v1.models import (  # type: ignore[import-untyped]
            HashModel,
            LockedDependency,
            Lockfile,
            LockMeta,
        )
        from conda_lock.models.channel import Channel  # type: ignore[import-untyped]

    channels = [without_credentials(channel) if "://" in channel else channel for channel in channels]
    subdirs = {platform.subdir: pin for platform, pin in pins.items()}
    packages = [
        LockedDependency(
            name=pin.name,
            version=pin.version,
            manager="conda",
            platform=subdir,
            dependencies=dict(sorted(split_depend(depend) for depend in pin.depends)),
            url=without_credentials(pin.url),
            hash=HashModel(md5=pin.md5, sha256=pin.sha256),
            build=pin.build,
            category="main",
            optional=False,
        )
        for subdir, pins in sorted(subdirs.items())
        for pin in sorted(pins, key=lambda pin: pin.name)
    ]
    packages.sort(key=lambda package: (package.name, package.platform))
    lock = Lockfile(
        package=packages,
        metadata=LockMeta(
            content_hash={
                subdir: canonical_digest(
                    "conda-lock", 1, [channels, subdir, sorted(f"{pin.url}#{pin.sha256}" for pin in pins)]
                ).removeprefix("sha256:")
                for subdir, pins in sorted(subdirs.items())
            },
            # Channel objects, not strings: from a string conda-lock looks for credentials in the environment.
            channels=[Channel(url=channel, used_env_vars=frozenset()) for channel in channels],
            platforms=sorted(subdirs),
            sources=[],
        ),
    )
    return _HEAD + _yaml(lock.dict_for_output())


def _yaml(value: object) -> str:
    return str(yaml.dump(value, sort_keys=False, allow_unicode=True, width=10_000))


def load_conda_lock(text: str) -> dict[Platform, tuple[CondaPin, ...]]:
    """The conda pins of each platform, sorted by name, with what the format carries.

    Entries of other managers are left out. Raises ``LockError`` with every problem of the text.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LockError(f"conda-lock.yml is not YAML: {_first_line(error)}", hint=_HINT) from error
    if not isinstance(document, dict):
        raise LockError("conda-lock.yml is not a mapping", hint=_HINT)
    version = document.get("version")
    if version != CONDA_LOCK_FORMAT:
        raise LockError(
            f"conda-lock.yml has format version {version!r}; this envbuild reads version {CONDA_LOCK_FORMAT}",
            hint="lock again, or use an envbuild that knows this format",
        )
    entries = document.get("package")
    if not isinstance(entries, list):
        raise LockError("conda-lock.yml: package is not a list", hint=_HINT)
    problems: list[str] = []
    by_platform: dict[Platform, dict[str, CondaPin]] = {}
    for subdir in _subdirs(document, problems):
        by_platform[subdir] = {}
    for index, entry in enumerate(entries):
        where = f"package[{index}]"
        if not isinstance(entry, dict):
            problems.append(f"{where}: not a mapping")
            continue
        if entry.get("manager") == "pip":
            continue
        try:
            platform, pin = _pin(entry)
        except (ValueError, EnvbuildError) as error:
            problems.append(f"{where} ({entry.get('name')!s:.80}): {error}")
            continue
        others = by_platform.setdefault(platform, {})
        if others.setdefault(pin.name, pin) != pin:
            problems.append(f"{where}: {pin.name} stands twice for {platform.subdir}, with other contents")
    if problems:
        raise LockError("conda-lock.yml: " + "\nconda-lock.yml: ".join(problems), hint=_HINT)
    return {
        platform: tuple(pin for _, pin in sorted(pins.items()))
        for platform, pins in sorted(by_platform.items())
    }


def carried(pin: CondaPin) -> CondaPin:
    """What is left of a pin in a ``conda-lock.yml``: :func:`load_conda_lock` gives exactly this."""
    return replace(
        pin,
        size=0,
        build_number=0,
        timestamp=None,
        constrains=(),
        noarch=None,
        python_site_packages_path=None,
        distributions=(),
        channel=pin.url.rsplit("/", 2)[0],
        subdir=pin.url.split("/")[-2],
    )


_HINT = "the file was edited or is damaged: restore it, or lock again"


def _subdirs(document: dict[str, Any], problems: list[str]) -> list[Platform]:
    metadata = document.get("metadata")
    named = metadata.get("platforms") if isinstance(metadata, dict) else None
    if not isinstance(named, list):
        problems.append("metadata.platforms is not a list")
        return []
    platforms = []
    for name in named:
        try:
            platforms.append(Platform.parse(str(name)))
        except EnvbuildError as error:
            problems.append(f"metadata.platforms: {error}")
    return platforms


def _pin(entry: dict[str, Any]) -> tuple[Platform, CondaPin]:
    if entry.get("manager") != "conda":
        raise ValueError(f"unknown manager {entry.get('manager')!r}")
    platform = Platform.parse(_text(entry, "platform"))
    url = _text(entry, "url")
    if without_credentials(url) != url:
        raise ValueError("the URL holds a credential or a query")
    parts = url.split("/")
    match = _FILE.fullmatch(parts[-1])
    if match is None or len(parts) < 3:
        raise ValueError(f"not a conda package's address: {url}")
    if parts[-2] not in (platform.subdir, "noarch"):
        raise ValueError(f"a package of {parts[-2]!r} for {platform.subdir}")
    name, version, build = match.groups()
    if name != _text(entry, "name") or version != _text(entry, "version"):
        raise ValueError(f"name or version does not fit the file {parts[-1]}")
    if entry.get("build", build) != build:
        raise ValueError(f"build does not fit the file {parts[-1]}")
    hashes = entry.get("hash")
    if not isinstance(hashes, dict):
        raise ValueError("no hash")
    sha256, md5 = hashes.get("sha256"), hashes.get("md5") or ""
    if not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
        raise ValueError("no SHA-256")
    if not isinstance(md5, str) or _MD5.fullmatch(md5) is None:
        raise ValueError("not an MD5")
    dependencies = entry.get("dependencies", {})
    if not isinstance(dependencies, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in dependencies.items()
    ):
        raise ValueError("dependencies is not a mapping of text")
    return platform, CondaPin(
        name=name,
        version=version,
        build=build,
        subdir=parts[-2],
        url=url,
        channel="/".join(parts[:-2]),
        size=0,
        sha256=sha256,
        md5=md5,
        depends=tuple(sorted(f"{key} {value}".strip() for key, value in dependencies.items())),
    )


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is not text")
    return value


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
