"""``.python-version`` beside a project, a lock or requirements: the Python that uv and pyenv take there."""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from envbuild.errors import SpecError
from envbuild.specs import fields
from envbuild.specs.problems import Refused
from envbuild.specs.text.source import SourceFile

FILE = ".python-version"
_LIMIT = 64 << 10
"""Bytes."""
_REQUEST = re.compile(r"(?:(?:cpython|python|py)[-@]?)?(?P<version>3(?:\.[0-9]+){0,2})(?:-(?:linux|any)-.+)?")


def python_beside(file: SourceFile, requires: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The Python asked for by a ``.python-version`` beside ``file``, else ``requires``; and a line for a
    ``.python-version`` that can't count: it names no Python of ours, or one that ``requires`` excludes.

    As in uv, its first line that isn't a comment counts."""
    beside = file.beside(FILE)
    if not beside.is_there():
        return requires, ()
    try:
        text = beside.read(_LIMIT)
    except SpecError as error:
        return requires, (str(error),)
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    written = next(filter(None, lines), "")
    match = _REQUEST.fullmatch(written.lower())
    try:
        version = match["version"] if match else fields.python(written.replace(" ", ""))
    except Refused:
        return requires, (f"{FILE}: {written[:80]!r} is no version of CPython",) if written else ()
    if not requires:
        return version, ()
    if not match:
        return f"{version},{requires}", ()
    return _within(version, requires)


def _within(version: str, requires: str) -> tuple[str | None, tuple[str, ...]]:
    """``version``, bounded by ``requires`` where that takes only some of its patch versions."""
    try:
        allowed = SpecifierSet(requires)
    except InvalidSpecifier:
        return version, ()
    missing = 2 - version.count(".")
    if missing == 0:
        fits = [allowed.contains(version)]
    else:
        minors = [version] if missing == 1 else [f"{version}.{minor}" for minor in range(30)]
        fits = [allowed.contains(f"{minor}.{patch}") for minor in minors for patch in range(40)]
    if all(fits):
        return version, ()
    if any(fits):
        return f"~={version}.0,{requires}", ()
    return requires, (f"{FILE}: {version} is excluded by requires-python {requires!r}",)
