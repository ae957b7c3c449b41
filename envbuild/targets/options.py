"""Options of targets: each is declared once, with its parser and help, and all are checked together."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, TypeVar

from envbuild.errors import EnvbuildError, UsageError, did_you_mean
from envbuild.oci.reference import Reference, without_login
from envbuild.platforms import Platform
from envbuild.targets.base import TargetLimits, TargetOption, TargetRecord

_SECRET = re.compile(
    r"://[^/@\s]*:[^/@\s]*@|-----BEGIN|(?:^|[^A-Za-z])(?:pass(?:word|wd|phrase)?|token|secret|api[_-]?key|credentials?)\s*=",
    re.IGNORECASE,
)
_LONGEST = 4096
_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(k|M|G|T)?B?")
_UNITS = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

AnyOptions = TypeVar("AnyOptions", bound="TargetOptions")

# --- parsers: they raise ``ValueError`` with what is wrong with a text -------------------------------------


def matching(pattern: re.Pattern[str] | str, words: str) -> Callable[[str], str]:
    """A parser of what ``pattern`` matches as a whole; ``words`` say what that is."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {words}")
        return text

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    return matching("|".join(choices), f"{', '.join(choices[:-1])} or {choices[-1]}")


def listed(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of ``A,B``."""
    return lambda text: tuple(parse(part) for part in text.split(","))


def switch(text: str) -> bool:
    return one_of("true", "false")(text) == "true"


def whole(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) == 0:
        raise ValueError("must be a whole number above 0")
    return int(text)


def byte_size(text: str) -> int:
    """Bytes: ``8 GB`` and ``500M`` are decimal, as everywhere here."""
    match = _SIZE.fullmatch(text.strip())
    number = int(Decimal(match[1]) * _UNITS[match[2]]) if match is not None else 0
    if number == 0:
        raise ValueError("must be a size like 8GB")
    return number


def repository_prefix(text: str) -> str:
    """``registry.example.org/team``."""
    try:
        Reference.parse(f"{text}/x")
    except EnvbuildError as error:
        raise ValueError(
            f"must be a registry and a path, as registry.example.org/team: {error.message}"
        ) from error
    host = text.split("/")[0]
    if "@" in text or not ("." in host or ":" in host or text.startswith("localhost")):
        raise ValueError("must begin with a registry's host, as registry.example.org/team")
    return text


def parse_platform(text: str) -> Platform:
    try:
        return Platform.parse(text)
    except EnvbuildError as error:
        raise ValueError(error.message) from error


_version = matching(r"[0-9]{1,4}\.[0-9]{1,4}", "a version like 12.4")

# --- what kinds declare ------------------------------------------------------------------------------------


def option(
    help: str,
    parse: Callable[[str], object] = str,
    *,
    default: str | None = None,
    absent: object = None,
    required: bool = False,
) -> Any:
    """A field of a kind's options: its name, with ``-`` for ``_``, is that of the option. ``default`` is a
    text that people see, ``absent`` the value of an option that isn't given and has none."""
    declared = TargetOption(name="", help=help, parse=parse, default=default, required=required)
    value = parse(default) if default is not None else absent
    return field(default=MISSING if required else value, metadata={"option": declared})


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetOptions:
    """Options that every kind of target takes; a kind adds its own as fields of a class below."""

    platform: Platform | None = option(  # noqa: RUF009 - it is a field
        "what it runs, like linux/amd64", parse_platform
    )
    registry: str | None = option("where it pulls images from: HOST/PATH", repository_prefix)
    glibc: str | None = option("the oldest glibc an image may have", _version)
    cuda: str | None = option("the newest CUDA that its driver runs", _version)
    layers: int | None = option("the most layers of an image", whole)
    size: int | None = option("the largest image, compressed, like 10GB", byte_size)
    layer_size: int | None = option("the largest layer, compressed, like 8GB", byte_size)

    @property
    def limits(self) -> TargetLimits:
        return TargetLimits(
            platform=self.platform,
            glibc=self.glibc,
            cuda=self.cuda,
            layers=self.layers,
            size=self.size,
            layer_size=self.layer_size,
        )

    def checked(self: AnyOptions, target: str) -> AnyOptions:
        """These options, completed by what follows from them. Raises ``UsageError``, with the name of the
        target, where they don't go together."""
        return self


def options_of(kind: type[TargetOptions]) -> tuple[TargetOption, ...]:
    """The options that a kind declares itself, in that order."""
    declared = {known.name: known.metadata["option"] for known in fields(kind)}
    own = inspect.get_annotations(kind)
    return tuple(replace(declared[name], name=name.replace("_", "-")) for name in own)


COMMON = options_of(TargetOptions)


def parse_options(record: TargetRecord, kind: type[AnyOptions]) -> AnyOptions:
    """The options of ``record``. Raises ``UsageError`` with all that don't fit."""
    values = check_options(record, options_of(kind))
    return kind(**{name.replace("-", "_"): value for name, value in values.items()}).checked(record.name)


def check_options(record: TargetRecord, own: Sequence[TargetOption]) -> dict[str, Any]:
    """The values of those options of ``record`` that are given, each by itself. Raises ``UsageError`` with
    all that don't fit. ``own`` are those of its kind."""
    known = {option.name: option for option in (*COMMON, *own)}
    values: dict[str, Any] = {}
    problems = []
    for name, text in record.options:
        option = known.get(name)
        if option is None:
            problems.append(f"a {record.kind} target has no option {name!r}{did_you_mean(name, known)}")
        elif (wrong := _unfit(text)) is not None:
            # Without the value, which may be the secret.
            problems.append(f"{name}: {wrong}")
        else:
            try:
                values[name] = option.parse(text)
            except ValueError as error:
                problems.append(f"{name}={without_login(text) if name == 'registry' else text}: {error}")
    problems += [
        f"a {record.kind} target needs the option {option.name}: {option.help}"
        for option in known.values()
        if option.required and record.option(option.name) is None
    ]
    if problems:
        raise UsageError(
            "\n".join([f"target {record.name}:", *problems]),
            hint=f"options of {record.kind}: {', '.join(sorted(known))}",
        )
    return values


def _unfit(text: str) -> str | None:
    """What is wrong with a value whatever its option is: it is shown to all who may read the workspace, and
    written into scripts and manifests."""
    if _SECRET.search(text):
        return "looks like a secret; options only name where secrets are kept"
    if not text.strip() or len(text) > _LONGEST or not text.isprintable():
        return f"must be one line of 1 to {_LONGEST} characters"
    return None
