"""Folder tests: ``tests/cases/spec/<case>/`` holds a spec and what reading it must give, exactly.

``expected.json`` is the spec with its definition digest; ``expected-error.txt`` is the message and the hint.
The spec is found as ``load_spec`` finds it in a directory; where a file ``SPEC`` is there, it holds what is
written behind the directory's path instead.
"""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import date
from enum import Enum
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.platforms import Platform
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec

CASES = Path(__file__).parents[2] / "cases" / "spec"
GOOD = sorted(path.parent.name for path in CASES.glob("*/expected.json"))
BAD = sorted(path.parent.name for path in CASES.glob("*/expected-error.txt"))


SELDOM = {
    "left_out",
    "unrelated",
    "explicit",
    "complete",
    "index_strategy",
    "indexes",
    "python_provider",
    "system_requirements",
}
"""Fields that are only shown where they say something."""
DEFAULTS = {
    "activation": "run",
    "add_pip": True,
    "build": {"constraints": [], "extra": []},
    "bytecode": "checked",
    "clashes": "warn",
}
"""Values that go without saying."""


def plain(value: object, case: Path) -> object:
    """A value as JSON; the folder's own path is cut off, so that it reads the same anywhere."""
    if isinstance(value, (Platform, date)):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return value.relative_to(case).as_posix() if value.is_absolute() else value.as_posix()
    if dataclasses.is_dataclass(value):
        found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        shown = {name: plain(item, case) for name, item in found.items() if item or name not in SELDOM}
        return {name: item for name, item in shown.items() if name not in DEFAULTS or item != DEFAULTS[name]}
    if isinstance(value, tuple):
        return [plain(item, case) for item in value]
    return value


def spec_of(case: Path) -> Path:
    written = case / "SPEC"
    return case / written.read_text(encoding="utf-8").strip() if written.is_file() else case


def as_json(spec: Spec, case: Path) -> str:
    found = plain(spec, case)
    assert isinstance(found, dict)
    # Who gave the name is told in test_load.py.
    del found["named"]
    return json.dumps({"definition": definition_digest(spec), **found}, indent=2, ensure_ascii=False) + "\n"


def as_text(error: SpecError, case: Path) -> str:
    text = f"{error}\nhint: {error.hint}\n"
    return text.replace(f"{case.as_posix()}/", "").replace(case.as_posix(), ".")


def test_every_case_says_what_to_expect() -> None:
    assert sorted(path.name for path in CASES.iterdir()) == sorted(GOOD + BAD)
    assert GOOD
    assert BAD


@pytest.mark.parametrize("name", GOOD)
def test_spec_is_read_as_expected(name: str) -> None:
    case = CASES / name
    assert as_json(load_spec(spec_of(case)), case) == (case / "expected.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BAD)
def test_spec_is_refused_with_every_problem(name: str) -> None:
    case = CASES / name
    with pytest.raises(SpecError) as raised:
        load_spec(spec_of(case))
    expected = (case / "expected-error.txt").read_text(encoding="utf-8")
    said = as_text(raised.value, case)
    # What a library says within our words is the library's, and the next version may say it differently.
    assert re.fullmatch(".+".join(map(re.escape, expected.split("<words>"))), said), said
    assert "hunter2" not in str(raised.value)
