"""Options that every kind of target takes, and the check of all that a target is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches

from envbuild.errors import EnvbuildError, UsageError
from envbuild.oci.reference import Reference, without_login
from envbuild.platforms import Platform
from envbuild.targets.base import Limits, Option, TargetRecord

_SECRET = re.compile(
    r"://[^/@\s]*:[^/@\s]*@|-----BEGIN|(?:^|[^A-Za-z])(?:pass(?:word|wd|phrase)?|token|secret|api[_-]?key|credentials?)\s*=",
    re.IGNORECASE,
)
_LONGEST = 4096
_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")
_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(k|M|G|T)?B?")
_UNITS = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _platform(text: str) -> Platform:
    try:
        return Platform.parse(text)
    except EnvbuildError as error:
        raise ValueError(error.message) from error


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError("must be a version like 12.4")
    return text


def whole(text: str) -> int:
    """A whole number above 0. Raises ``ValueError``."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) == 0:
        raise ValueError("must be a whole number above 0")
    return int(text)


def size(text: str) -> int:
    """Bytes: ``8 GB`` and ``500M`` are decimal, as everywhere here. Raises ``ValueError``."""
    match = _SIZE.fullmatch(text.strip())
    found = int(Decimal(match[1]) * _UNITS[match[2]]) if match is not None else 0
    if found == 0:
        raise ValueError("must be a size like 8GB")
    return found


def repository_prefix(text: str) -> str:
    """``registry.example.org/team``. Raises ``ValueError``."""
    try:
        found = Reference.parse(f"{text}/x")
    except EnvbuildError as error:
        raise ValueError(
            f"must be a registry and a path, as registry.example.org/team: {error.message}"
        ) from error
    if "@" in text or not (
        "." in text.split("/")[0] or ":" in text.split("/")[0] or text.startswith("localhost")
    ):
        raise ValueError("must begin with a registry's host, as registry.example.org/team")
    return found.name.removesuffix("/x")


COMMON: tuple[Option, ...] = (
    Option(name="platform", help="what it runs, like linux/amd64", check=_platform),
    Option(name="registry", help="where it pulls images from: HOST/PATH", check=repository_prefix),
    Option(name="glibc", help="the oldest glibc an image may have", check=_version),
    Option(name="cuda", help="the newest CUDA that its driver runs", check=_version),
    Option(name="layers", help="the most layers of an image", check=whole),
    Option(name="size", help="the largest image, compressed, like 10GB", check=size),
    Option(name="layer-size", help="the largest layer, compressed, like 8GB", check=size),
)


def check_options(record: TargetRecord, own: Sequence[Option]) -> dict[str, str]:
    """The options of ``record``, defaults filled in. Raises ``UsageError`` with all that don't fit."""
    known = {option.name: option for option in (*COMMON, *own)}
    given = dict(record.options)
    problems = []
    for name, value in given.items():
        option = known.get(name)
        if option is None:
            near = get_close_matches(name, known, n=1)
            problems.append(
                f"a {record.kind} target has no option {name!r}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        elif (wrong := _refused(value)) is not None:
            # Without the value, which may be the secret.
            problems.append(f"{name}: {wrong}")
        elif option.check is not None:
            try:
                option.check(value)
            except ValueError as error:
                shown = without_login(value) if name == "registry" else value
                problems.append(f"{name}={shown}: {error}")
    problems += [
        f"a {record.kind} target needs the option {option.name}: {option.help}"
        for option in known.values()
        if option.required and option.name not in given
    ]
    if problems:
        raise UsageError(
            "\n".join([f"target {record.name}:", *problems]),
            hint=f"options of {record.kind}: {', '.join(sorted(known))}",
        )
    return {**{each.name: each.default for each in known.values() if each.default is not None}, **given}


def _refused(value: str) -> str | None:
    """What is wrong with a value whatever its option is: it is shown to all who may read the workspace, and
    written into scripts and manifests."""
    if _SECRET.search(value):
        return "looks like a secret; options only name where secrets are kept"
    if not value.strip() or len(value) > _LONGEST or not value.isprintable():
        return f"must be one line of 1 to {_LONGEST} characters"
    return None


def limits_of(options: dict[str, str]) -> Limits:
    """The limits among checked options."""

    def number(name: str) -> int | None:
        return size(options[name]) if name in options else None

    return Limits(
        platform=_platform(options["platform"]) if "platform" in options else None,
        glibc=options.get("glibc"),
        cuda=options.get("cuda"),
        layers=whole(options["layers"]) if "layers" in options else None,
        size=number("size"),
        layer_size=number("layer-size"),
    )
