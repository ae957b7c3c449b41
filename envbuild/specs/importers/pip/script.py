"""A Python script that says what it needs in its own comments (PEP 723).

The block is found as the specification's regular expression finds it: one that is never closed is none, and
two are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from envbuild.errors import SpecError
from envbuild.specs import fields
from envbuild.specs.importers.pip.pyproject import one_line, plain_requirement, uv_build_dependencies
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.importers.uv.tool import UvTool
from envbuild.specs.model import BuildDependencies, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.toml import TOML_LIMIT, describe_value, line_of, parse_toml

SCRIPT_LIMIT = 8 << 20
"""Bytes."""
_BEGIN = re.compile(r"# /// ([a-zA-Z0-9-]+)")
_END = "# ///"
_EXAMPLE = "begin it with '# /// script', then '# dependencies = [\"…\"]', then '# ///'"


class ScriptImporter:
    """Reads ``*.py``."""

    name = "script"
    markers: tuple[str, ...] = ()

    def recognises(self, file: SourceFile) -> bool:
        return file.path.suffix.lower() in (".py", ".pyw")

    def load(self, file: SourceFile) -> Spec:
        text = file.read(SCRIPT_LIMIT, coded=True)
        scripts = [(line, content) for line, kind, content in blocks(text) if kind == "script"]
        if len(scripts) > 1:
            raise SpecError(f"{file.shown}:{scripts[1][0]}: a second block '# /// script'; a script has one")
        if not scripts:
            unclosed = next(
                (n for n, line in enumerate(text.splitlines(), 1) if line == "# /// script"), None
            )
            if unclosed is not None:
                what = f"{file.shown}:{unclosed}: the block '# /// script' is never closed"
                raise SpecError(what, hint="end it with '# ///'; each line between begins with '#'")
            raise SpecError(f"{file.shown}: doesn't say what it needs", hint=_EXAMPLE)
        line, content = scripts[0]
        if len(content.encode()) > TOML_LIMIT:
            raise SpecError(f"{file.shown}:{line}: the block is larger than {TOML_LIMIT >> 20} MiB")
        # Empty lines in front, so that the parser counts the script's own lines.
        return _spec(file, "\n" * line + content)


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """The blocks of metadata in ``text``: the line each begins on, its kind, and what it holds."""
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        begin = _BEGIN.fullmatch(lines[at])
        if begin is None:
            at += 1
            continue
        end = at + 1
        while end < len(lines) and (lines[end] == "#" or lines[end].startswith("# ")):
            end += 1
        # The last closing line counts: content may hold others.
        last = next((n for n in range(end - 1, at + 1, -1) if lines[n] == _END), None)
        if last is None:
            # A block that begins later among these lines isn't closed either.
            at = end
            continue
        yield at + 1, begin[1], "\n".join(line[2:] for line in lines[at + 1 : last])
        at = last + 1


def _spec(file: SourceFile, text: str) -> Spec:
    data = parse_toml(text, file.shown)
    problems = Problems()
    left_out = [f"{file.path.name}: the script itself: only what it needs is installed"]
    lock = file.beside(f"{file.path.name}.lock")
    if lock.is_there():
        left_out.append(f"{lock.path.name}: the pins that uv runs the script with: give that file for them")
    tool = data.pop("tool", {})
    uv = _uv(tool, file, problems)
    reader = RequirementsReader(file.path.parent, problems)

    def note(key: str, refused: Refused, line: int | None = None) -> None:
        problems.add(Place(file=file.shown, line=line, key=key), refused.what, refused.remedy)

    dependencies = data.pop("dependencies", [])
    if not isinstance(dependencies, list):
        note("dependencies", Refused(f"must be a list of texts, is {describe_value(dependencies)}"))
        dependencies = []
    for index, item in enumerate(dependencies):
        key = f"dependencies[{index}]"
        line = line_of(text, item) if isinstance(item, str) else None
        try:
            if not isinstance(item, str):
                raise Refused(f"must be text, is {describe_value(item)}")
            requirement = plain_requirement(item)
            asked = uv.sourced(requirement, frozenset()) if uv else str(requirement)
            reader.read_text(asked, file, line=line or 1, key=key)
        except Refused as refused:
            note(key, refused, line)
    python = _python(data.pop("requires-python", None), note)
    strategy, build = None, BuildDependencies()
    if uv is not None:
        try:
            for option in uv.options():
                reader.read_text(one_line(option), file, line=1, key="tool.uv")
            for url, packages, name in uv.package_indexes():
                reader.read_index(url, packages, name)
            for constraint in uv.constraints():
                key, line = "tool.uv.constraint-dependencies", line_of(text, constraint)
                reader.read_text(
                    str(plain_requirement(constraint)), file, line=line or 1, key=key, constraint=True
                )
            strategy = uv.index_strategy()
            build = uv_build_dependencies(uv, text, file, problems)
        except Refused as refused:
            note("", refused)
        left_out += uv.left_out()
    for key in data:
        note(key, Refused("unknown key", "known keys: dependencies, requires-python, tool"))
    if isinstance(tool, dict):
        left_out += [f"{file.path.name}: tool.{name}" for name in tool if name not in ("uv", "envbuild")]
    problems.raise_if_any()
    return Spec(
        name=fields.default_name(file.path),
        source=file.path,
        python=python,
        pip=replace(reader.result(), index_strategy=strategy, build=build),
        as_of=uv.as_of() if uv is not None else None,
        left_out=tuple(left_out),
        unrelated=tuple(left_out[:1]),
    )


def _python(value: object, note: Any) -> str | None:
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise Refused(f"must be text, is {describe_value(value)}")
        return fields.python(value) if value.strip() else None
    except Refused as refused:
        note("requires-python", refused)
        return None


def _uv(tool: object, file: SourceFile, problems: Problems) -> UvTool | None:
    try:
        if not isinstance(tool, dict):
            raise Refused(f"must be a table, is {describe_value(tool)}")
        return UvTool(tool["uv"], file.path.name) if "uv" in tool else None
    except Refused as refused:
        problems.add(Place(file=file.shown, key="tool"), refused.what, refused.remedy)
        return None
