"""The images that the steps of a Dockerfile name, and the same Dockerfile with them by digest.

Those are images of ``FROM``, ``COPY --from`` and ``RUN --mount=…,from=`` that are no stages, and the frontend
of a ``# syntax=`` line. Names have the values of the ARG steps before the first FROM (Dockerfile reference,
"Understand how ARG and FROM interact"); no build of ours is given others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from envbuild.errors import UsageError
from envbuild.oci.reference import Reference
from envbuild.specs.importers.dockerfile import Step, dockerfile_steps, variables_of

_DIRECTIVE = re.compile(r"\ufeff?#\s*(\w+)\s*=\s*(\S+)\s*")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^${}]*))?\})")
_AUTOMATIC = re.compile(r"(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT)|TARGETSTAGE")
"""Variables that BuildKit sets for each platform by itself."""
_AS = re.compile(r"\S+\s+AS\s+(\S+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class DockerfileImage:
    """An image that a step names without a digest."""

    line: int
    """1-based, of the step."""
    text: str
    """As it is written."""
    name: str | None
    """With the values of variables; None where only a build knows it."""
    start: int
    """Where the text stands in the Dockerfile, in characters."""

    @property
    def reference(self) -> str | None:
        """The full name, as a lock has it: ``docker.io/library/python:3.11``."""
        return None if self.name is None else Reference.parse(self.name).tagged


def dockerfile_images(text: str) -> tuple[DockerfileImage, ...]:
    """The images without a digest, in the order they are named. Never raises."""
    return tuple(_images(text))


def with_digests(text: str, digests: Mapping[str, str]) -> str:
    """The Dockerfile with the digest of each image whose full name is in ``digests``. Nothing else changes,
    so that the lines of messages stay what they are."""
    pieces, end = [], 0
    for image in sorted(_images(text), key=lambda image: image.start):
        digest = digests.get(image.reference or "")
        if digest is not None:
            pieces += [text[end : image.start], f"{image.name}@{digest}"]
            end = image.start + len(image.text)
    return "".join([*pieces, text[end:]])


def _images(text: str) -> Iterator[DockerfileImage]:
    yield from _frontend(text)
    steps = dockerfile_steps(text)
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    names = {name for step in steps if (name := _stage(step)) is not None}
    values: dict[str, str | None] = {}
    earlier: set[str] = set()
    begun = False
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if step.instruction == "ARG" and not begun:
            known = {name: value for name, value in values.items() if value is not None}
            values |= dict(variables_of(step, known))
        begun = begun or step.instruction == "FROM"
        # Of COPY --from, the classic builder knows earlier stages only and BuildKit all of them.
        stages = earlier if step.instruction == "FROM" else names
        position, end = starts[step.line - 1], starts[following.line - 1] if following else len(text)
        for before, word in filter(all, _named(step)):
            name = _fill(word, values) if step.instruction == "FROM" else _fill(word, {})
            if name is not None and (name.lower() in stages or _needs_no_digest(name, step)):
                continue
            start = _position(text, before, word, position, end)
            position = position if start is None else start + len(word)
            yield DockerfileImage(
                line=step.line,
                text=word,
                name=name if start is not None and name is not None and _is_reference(name) else None,
                start=position if start is None else start,
            )
        if (stage := _stage(step)) is not None:
            earlier.add(stage)


def _frontend(text: str) -> Iterator[DockerfileImage]:
    """The image of the ``syntax`` directive, which only other directives may precede."""
    start = 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            return
        if match[1].lower() == "syntax":
            if "@" not in match[2]:
                name = match[2] if _is_reference(match[2]) else None
                yield DockerfileImage(line=number, text=match[2], name=name, start=start + match.start(2))
            return
        start += len(line)


def _named(step: Step) -> Iterator[tuple[str, str]]:
    """What stands right before each name of an image or a stage, and the name."""
    flags, rest = _flags(step.text.split())
    if step.instruction == "FROM" and rest:
        yield r"\s", rest[0]
    for flag in flags:
        key, _, value = flag.partition("=")
        if step.instruction == "COPY" and key == "--from":
            yield "--from=", value
        elif step.instruction == "RUN" and key == "--mount":
            yield from (
                ("[=,]from=", option[5:]) for option in value.split(",") if option.startswith("from=")
            )


def _flags(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The flags that lead the words of an instruction, and the other words."""
    count = next((number for number, word in enumerate(words) if not word.startswith("--")), len(words))
    return words[:count], words[count:]


def _stage(step: Step) -> str | None:
    """The name that a FROM step gives its stage."""
    if step.instruction != "FROM":
        return None
    match = _AS.fullmatch(" ".join(_flags(step.text.split())[1]))
    return match[1].lower() if match else None


def _needs_no_digest(name: str, step: Step) -> bool:
    """Whether a name has one or is none of an image: nothing, or a stage by its number."""
    if step.instruction == "FROM":
        return "@" in name or name == "scratch"
    return "@" in name or name.isdecimal()


def _position(text: str, before: str, word: str, start: int, end: int) -> int | None:
    """Where ``word`` stands in a step, behind ``before`` and in no comment; None for one that is written over
    several lines."""
    for match in re.compile(rf"{before}({re.escape(word)})(?=[\s,]|$)").finditer(text, start, end):
        line = text.rfind("\n", 0, match.start(1)) + 1
        if not text[line : match.start(1)].lstrip().startswith("#"):
            return match.start(1)
    return None


def _fill(word: str, values: Mapping[str, str | None]) -> str | None:
    """``word`` with the values of its variables; None where one has none, or it is quoted."""
    unknown = False

    def value(match: re.Match[str]) -> str:
        nonlocal unknown
        name, operator = match[1] or match[2], match[3]
        known = values.get(name)
        if operator is None or _AUTOMATIC.fullmatch(name) or (name in values and known is None):
            unknown = unknown or known is None or _AUTOMATIC.fullmatch(name) is not None
            return known or ""
        is_set = known is not None and not (known == "" and operator[0] == ":")
        if operator[-1] == "-":
            return known if known is not None and is_set else match[4]
        return match[4] if is_set else ""

    filled = _VARIABLE.sub(value, word)
    return None if unknown or re.search(r"[\"'`\\$]", filled) else filled


def _is_reference(name: str) -> bool:
    try:
        return Reference.parse(name).digest is None
    except UsageError:
        return False
