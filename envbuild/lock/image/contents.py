"""What a base image brings, found by reading its layers, without running anything: glibc and python."""

from __future__ import annotations

import posixpath
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envbuild.errors import BuildError, FetchError
from envbuild.lock.image.inventory import inventory
from envbuild.lock.model import PythonPin, RuntimeSettings
from envbuild.oci.image import Image
from envbuild.oci.layer import open_layer
from envbuild.specs.model import PREFIX, EnvironmentType
from envbuild.specs.serving import DEFAULTS, DEFAULTS_MINIMUM, WANTED, serves
from envbuild.store.content import Store

_PYTHON = re.compile(r"(?:usr/local/bin|usr/bin|opt/conda/bin)/python(3\.\d+)")
_STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
_LIBC = re.compile(r"(?:usr/)?lib(?:64)?/(?:[a-z0-9_]+-linux-gnu/)?libc(?:\.so\.6|-[0-9.]+\.so)")
_HEADER = re.compile(r"(?:usr/local|usr|opt/conda)/include/python3\.\d+/patchlevel\.h")
_CONDA = re.compile(r"opt/conda/conda-meta/python-(3\.\d+\.\d+)-[^/]+\.json")
_GLIBC_TEXT = re.compile(rb"GNU C Library [^\n]{0,200}?version (2\.\d+)")
_FULL = re.compile(r"3\.\d+\.\d+")
_PREFIX = f"{PREFIX}/".lstrip("/")
_NAMED = 3
"""Files in the prefix that are named."""
_LIMIT = 64 << 20
"""Bytes of a file that is read whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """``glibc`` is None for an image without it (musl); ``python`` where there is none. ``prefix`` are the
    first paths of what it has where an environment's software goes."""

    glibc: str | None
    python: PythonPin | None
    prefix: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class _BaseView:
    """The few paths of interest, as they stand after the layers read so far."""

    texts: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def remove(self, path: str) -> None:
        for below in [name for name in self.names if name == path or name.startswith(f"{path}/")]:
            self.names.discard(below)
            self.texts.pop(below, None)


def read_facts(layers: Sequence[tuple[Path, str]], config: Mapping[str, Any]) -> ImageFacts:
    """What layers (blob and media type, lowest first) and the inner ``config`` say.

    python is the one of ``PYTHON_VERSION`` where the official images set it, else the newest of
    ``/usr/local/bin``, conda's and ``/usr/bin``, in this order of preference. Raises ``FetchError``."""
    view = _BaseView()
    for blob, media_type in layers:
        _read_layer(blob, media_type, view)
    packages = _packages(view)
    return ImageFacts(
        glibc=_glibc(view, packages),
        python=_python(view, packages, config),
        prefix=tuple(sorted(name for name in view.names if name.startswith(_PREFIX))[:_NAMED]),
    )


def _read_layer(blob: Path, media_type: str, view: _BaseView) -> None:
    added: set[str] = set()
    try:
        with open_layer(blob, media_type) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]
                name = posixpath.normpath("/" + member.name).lstrip("/")
                parent, _, base = name.rpartition("/")
                if base == ".wh..wh..opq":
                    for hidden in [n for n in view.names if n.startswith(f"{parent}/") and n not in added]:
                        view.remove(hidden)
                elif base.startswith(".wh."):
                    victim = posixpath.join(parent, base.removeprefix(".wh."))
                    if victim not in added:
                        view.remove(victim)
                elif _wanted(name) and not member.isdir():
                    view.names.add(name)
                    added.add(name)
                    view.texts.pop(name, None)
                    if member.isreg() and member.size <= _LIMIT and _is_read(name):
                        file = archive.extractfile(member)
                        if file is not None:
                            view.texts[name] = _summary(name, file.read())
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise FetchError(f"the layer {blob.name} can't be read: {error}") from error


def _wanted(name: str) -> bool:
    patterns = (_PYTHON, _STATUS, _LIBC, _HEADER, _CONDA)
    return name.startswith(_PREFIX) or any(pattern.fullmatch(name) for pattern in patterns)


def _is_read(name: str) -> bool:
    """Whether more counts of a wanted file than that it is there."""
    return not name.startswith(_PREFIX) and not _PYTHON.fullmatch(name)


def _summary(name: str, content: bytes) -> bytes:
    """Of a library only the line that states its version: it is megabytes otherwise."""
    if _LIBC.fullmatch(name):
        match = _GLIBC_TEXT.search(content)
        return match[1] if match else b""
    return content


def _packages(view: _BaseView) -> dict[str, str]:
    """Names and versions of the installed Debian packages that matter here."""
    packages: dict[str, str] = {}
    for name, text in view.texts.items():
        if not _STATUS.fullmatch(name):
            continue
        for paragraph in text.decode(errors="replace").split("\n\n"):
            fields = dict(
                line.split(": ", 1)
                for line in paragraph.splitlines()
                if ": " in line and not line.startswith((" ", "\t"))
            )
            package = fields.get("Package", "")
            if "Status" in fields and not fields["Status"].endswith(" installed"):
                continue
            if package == "libc6" or package.startswith(("python3", "libpython3")):
                packages[package] = fields.get("Version", "")
    return packages


def _glibc(view: _BaseView, packages: Mapping[str, str]) -> str | None:
    match = re.match(r"(?:\d+:)?(2\.\d+)", packages.get("libc6", ""))
    if match:
        return match[1]
    versions = {text.decode() for name, text in view.texts.items() if _LIBC.fullmatch(name) and text}
    return max(versions, key=_key) if versions else None


def _python(view: _BaseView, packages: Mapping[str, str], config: Mapping[str, Any]) -> PythonPin | None:
    programs = [name for name in view.names if _PYTHON.fullmatch(name)]
    variables = dict(str(variable).partition("=")[::2] for variable in config.get("Env") or ())
    for place in ("usr/local/bin", "opt/conda/bin", "usr/bin"):
        for program in sorted((n for n in programs if posixpath.dirname(n) == place), key=_key, reverse=True):
            short = posixpath.basename(program).removeprefix("python")
            version = _full_version(place, short, view, packages, variables)
            if version is not None:
                return PythonPin(version=version, provider="image", executable=f"/{program}")
    return None


def _full_version(
    place: str, short: str, view: _BaseView, packages: Mapping[str, str], variables: Mapping[str, str]
) -> str | None:
    candidates: list[str] = []
    if place == "usr/local/bin":
        candidates.append(variables.get("PYTHON_VERSION", ""))
    if place == "opt/conda/bin":
        candidates += [match[1] for name in view.names if (match := _CONDA.fullmatch(name))]
    if place == "usr/bin":
        for package in (f"python{short}-minimal", f"libpython{short}-minimal", f"python{short}"):
            candidates.append(packages.get(package, ""))
    header = view.texts.get(f"{posixpath.dirname(place)}/include/python{short}/patchlevel.h", b"")
    if stated := re.search(rb'#define\s+PY_VERSION\s+"([^"]+)"', header):
        candidates.append(stated[1].decode(errors="replace"))
    for candidate in candidates:
        numbers = _FULL.match(candidate)
        if numbers and numbers[0].startswith(f"{short}."):
            return numbers[0]
    return None


def _key(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", text))


def check_serving(image: Image, store: Store, runtime: RuntimeSettings) -> None:
    """Returns if ``image``, made of a lock with ``runtime``, can serve or isn't to.

    Only a user-managed environment is looked into: what envbuild installs is in its lock. Raises
    ``BuildError`` where neither package of the rule is inside, or a layer can't be read."""
    if runtime.type != EnvironmentType.USER_MANAGED.value or not runtime.ports:
        return
    contents = inventory(image, store)
    if serves((distribution.name, distribution.version) for distribution in contents.distributions):
        return
    old = [distribution.version for distribution in contents.distributions if distribution.name == DEFAULTS]
    having = f"it has {DEFAULTS} {old[0]}, older than {DEFAULTS_MINIMUM}" if old else "neither is inside"
    raise BuildError(
        f"the environment has an inference_config, but its image for {image.platform} can't serve: it needs "
        f"{WANTED}, and {having}",
        hint="install it in the image, or leave inference_config out",
    )
