"""The rules that every Dockerfile of ours keeps (docs/dockerfiles.md), read from its text alone.

Numbers in brackets are those of hadolint's rules of the same aim.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    name: str
    arguments: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, continued lines joined, comments left out."""
    joined = re.sub(
        r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    )
    found = []
    for line in joined.splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name:
            found.append(Instruction(name=name, arguments=re.sub(r"\s+", " ", arguments).strip()))
    return found


def broken_rules(text: str, *, taken_as_is: bool = False) -> list[str]:
    """Every rule that a Dockerfile breaks. ``taken_as_is``: its image's own user and command stay."""
    return [*_lines(text), *_stages(text), *_steps(text), *([] if taken_as_is else _start(text))]


def _lines(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > 120 and not line.startswith("FROM "):
            yield f"line {number}: more than 120 characters"
        if line != line.rstrip():
            yield f"line {number}: blanks at its end"
    if not text.startswith("# ") or "=" in text.splitlines()[0]:
        yield "the first line is no comment that says what this is"
    if "\n\n\n" in text or not text.endswith("\n") or text.endswith("\n\n"):
        yield "more blank lines than one"


def _stages(text: str) -> Iterator[str]:
    """Stages come from a digest, scratch or a stage (DL3006, DL3007); COPY --from names one (DL3022)."""
    stages: set[str] = set()
    used: set[str] = set()
    every = instructions(text)
    last = max((n for n, each in enumerate(every) if each.name == "FROM"), default=-1)
    for number, each in enumerate(every):
        if each.name == "FROM":
            source, _, name = each.arguments.partition(" AS ")
            if source in stages:
                used.add(source)
            elif source != "scratch" and not re.search(r"@sha256:[0-9a-f]{64}$", source):
                yield f"FROM {source}: neither a digest nor a stage"
            if not name and number != last:
                yield f"FROM {source}: a stage without a name"
            stages.add(name)
        for source in re.findall(r"--from=(\S+)", each.arguments):
            used.add(source)
            if source not in stages:
                yield f"--from={source}: no earlier stage"
    for name in sorted(stages - used - {""}):
        yield f"the stage {name} is of no use"


def _steps(text: str) -> Iterator[str]:
    """What single steps may and may not do."""
    every = instructions(text)
    for each in every:
        if each.name not in {
            "ENTRYPOINT",
            "FROM",
            "ADD",
            "COPY",
            "RUN",
            "ENV",
            "LABEL",
            "EXPOSE",
            "WORKDIR",
            "USER",
            "CMD",
        }:
            yield f"{each.name}: an instruction of no use here (ARG and ENV hold no secret)"
        if each.name == "ADD" and not re.fullmatch(r"\S+\.tar\.gz /(opt/)?", each.arguments):
            yield f"ADD {each.arguments}: COPY is for files (DL3020)"
        if each.name == "WORKDIR" and not each.arguments.startswith("/"):
            yield f"WORKDIR {each.arguments}: not absolute (DL3000)"
        if each.name == "EXPOSE" and not re.fullmatch(r"\d{1,5}/tcp( \d{1,5}/tcp)*", each.arguments):
            yield f"EXPOSE {each.arguments}: not a port (DL3011)"
        if each.name == "RUN":
            yield from _run(each.arguments)
    for name in ("CMD", "ENTRYPOINT"):
        if sum(each.name == name for each in every) > 1:
            yield f"{name}: twice (DL4003, DL4004)"
    final = every[max(n for n, each in enumerate(every) if each.name == "FROM") :]
    order = {name: n for n, name in enumerate(("FROM", "USER", "RUN", "ADD", "COPY", "ENV", "LABEL"))}
    places = [order[each.name] for each in final if each.name in order and each.name not in ("USER", "RUN")]
    if places != sorted(places):
        yield "what changes often stands before what doesn't"


def _run(command: str) -> Iterator[str]:
    if re.search(r"\b(sudo|curl|wget|ssh)\b|apt(-get)? |chmod 777", command):
        yield f"RUN {command}: not here (DL3004, DL3008)"
    if "/pip" in command and " install " in command:
        for option in ("--require-hashes", "--no-deps", "--only-binary=:all:"):
            if option not in command:
                yield f"pip without {option} (DL3013)"
        if "--no-cache-dir" not in command and "--mount=type=cache,target=/root/.cache/pip" not in command:
            yield "pip leaves its cache in a layer (DL3042)"


def _start(text: str) -> Iterator[str]:
    """The user is not root (DL3002); the command is in exec form (DL3025)."""
    every = instructions(text)
    users = [each.arguments for each in every if each.name == "USER"]
    if not users or users[-1].startswith("0"):
        yield "the last USER is root"
    commands = [each.arguments for each in every if each.name == "CMD"]
    if len(commands) != 1 or not isinstance(json.loads(commands[0]), list):
        yield "CMD isn't in exec form"
