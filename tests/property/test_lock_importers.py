"""Locks of other tools: whatever a damaged one says, nothing but our own errors is raised, and nothing of it
reaches an option or a requirement unseen."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.errors import EnvbuildError
from envbuild.specs.load import load_spec
from envbuild.specs.text.toml import parse_toml
from envbuild.specs.text.yaml import parse_values

CASES = Path(__file__).parents[1] / "cases" / "spec"
FILES = (
    "lock-conda-explicit/requirements.txt",
    "lock-conda-lock/conda-lock.yml",
    "lock-pixi/pixi.lock",
    "lock-pixi-5/pixi.lock",
    "lock-pixi-7/pixi.lock",
    "pixi-toml/pixi.toml",
    "pixi-pyproject/pyproject.toml",
    "lock-pylock/pylock.toml",
    "lock-uv/uv.lock",
    "lock-poetry/poetry.lock",
    "lock-pipfile/Pipfile.lock",
    "pyproject-poetry/pyproject.toml",
    "pipfile/Pipfile",
)
TEXTS = {each: (CASES / each).read_text(encoding="utf-8") for each in FILES}
PIECES = st.sampled_from(
    [
        "",
        "\n",
        "\0",
        "[",
        "]",
        "{}",
        "'",
        '"',
        "=",
        ": ",
        "- ",
        "../",
        "#",
        "\\n--index-url https://x",
        "https://",
        "null",
        "3",
        "[[package]]",
        "name",
        "~",
        "🙂",
        "${A}",
        "git+",
        "file:///",
        " ; ",
        "sha256:",
        "marker",
        "&a",
    ]
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES), min_size=1, max_size=4)


VALUES: list[Any] = [
    "",
    "x",
    "1.0",
    3,
    True,
    1.5,
    [],
    {},
    [[]],
    [{}],
    ["x"],
    {"a": []},
    "../..",
    "\0",
    "a\nb",
]
VALUES += [
    "==1",
    "https://",
    "http://[",
    "🙂",
    "extra == 'a'",
    "'",
    {"git": "x"},
    {"registry": 3},
    "x" * 3000,
]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["gone", "other"]), st.sampled_from(VALUES)),
    min_size=1,
    max_size=3,
)


def check(name: str, text: str) -> None:
    """Reads ``text`` as a file of this name; asserts what holds for anything that can be read."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "case" / Path(name).name
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        with contextlib.suppress(EnvbuildError):
            spec = load_spec(path)
            conda = spec.conda
            written = [*spec.pip.options, *(line.text for line in spec.pip.requirements)]
            written += [*conda.channels, *conda.dependencies] if conda else []
            written += [each.url for each in conda.explicit] if conda else []
            assert [each for each in written if not each.isprintable()] == []
            for option in set(spec.pip.options) - {"--pre"}:
                assert re.fullmatch(r"--(?:index-url|extra-index-url|find-links|trusted-host) \S+", option)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), EDITS)
def test_a_damaged_lock_raises_only_our_errors(name: str, edits: list[tuple[float, int, str]]) -> None:
    text = TEXTS[name]
    for place, gone, piece in edits:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + gone :]
    check(name, text)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(FILES[1:]), CHANGES)
def test_a_lock_of_wrong_values_raises_only_our_errors(
    name: str, changes: list[tuple[float, str, object]]
) -> None:
    toml = name.endswith((".toml", "uv.lock", "poetry.lock", "Pipfile"))
    value = copy.deepcopy(parse_toml(TEXTS[name], name) if toml else parse_values(TEXTS[name], name))
    for place, kind, other in changes:
        places = list(places_of(value))
        if places:
            holder, key = places[int(place * len(places))]
            if kind == "gone":
                del holder[key]
            else:
                holder[key] = copy.deepcopy(other)
    assert isinstance(value, dict)
    # JSON is YAML.
    check(
        name,
        "\n".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) if toml else json.dumps(value),
    )


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value, as what holds it and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places_of(item)


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
