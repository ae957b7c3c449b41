"""Blocks of metadata in scripts, found where the specification's own expression finds them."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.errors import SpecError
from envbuild.specs.importers.pip.script import blocks
from envbuild.specs.load import load_spec

# PEP 723, "Specification".
REGEX = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"

LINES = st.lists(
    st.sampled_from(
        [
            "# /// script",
            "# /// other",
            "# ///",
            "#",
            "# a = 1",
            "#b",
            "",
            "x = 1",
            "# /// ",
            "#  c",
            " # ///",
        ]
    ),
    max_size=14,
)


def by_the_specification(text: str) -> list[tuple[int, str, str]]:
    return [
        (
            text.count("\n", 0, match.start()) + 1,
            match["type"],
            "".join(
                line[2:] if line.startswith("# ") else line[1:]
                for line in match["content"].splitlines(keepends=True)
            ).rstrip("\n"),
        )
        for match in re.finditer(REGEX, text)
    ]


@settings(max_examples=400, deadline=None)
@given(LINES)
def test_blocks_are_those_of_the_specification(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    found = [(line, kind, content.rstrip("\n")) for line, kind, content in blocks(text)]
    assert found == by_the_specification(text)


def test_a_script_with_other_line_ends_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_bytes(b'# /// script\r\n# dependencies = ["six"]\r\n# ///\r\n')
    assert [requirement.text for requirement in load_spec(path).pip.requirements] == ["six"]


def test_a_script_without_a_block_is_told_how_to_write_one(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text("import six\n")
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    assert raised.value.message == f"{path}: doesn't say what it needs"
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("begin it with '# /// script'")


def test_problems_have_the_lines_of_the_script(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text("#!/usr/bin/env python\n\n# /// script\n# dependencies = nonsense\n# ///\n")
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    assert raised.value.message.startswith(f"{path}:4: bad TOML: ")


def test_indexes_of_a_script_count(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text(
        '# /// script\n# dependencies = ["six"]\n# [[tool.uv.index]]\n# url = "https://i.example/s"\n'
        "# default = true\n# ///\n"
    )
    assert load_spec(path).pip.options == ("--index-url https://i.example/s",)


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2024-03-01T00:00:00Z", date(2024, 2, 29)),
        ("2024-03-01T02:00:00+02:00", date(2024, 2, 29)),
        ("2024-03-01", date(2024, 3, 1)),
        ("2024-03-01T12:00:00Z", None),
        ("2024-03-01T00:00:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("7 days", None),
    ],
)
def test_the_day_before_exclude_newer_is_as_of(written: str, day: date | None, tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(f'# /// script\n# [tool.uv]\n# exclude-newer = "{written}"\n# ///\n')
    spec = load_spec(file)
    assert spec.as_of == day
    said = "train.py: tool.uv.exclude-newer (as_of in a spec of envbuild's own)"
    assert (said in spec.left_out) is (day is None)


def test_files_and_versions_that_uv_takes_are_pip_s_options(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    keys = (
        'prerelease = "allow"',
        "no-build = true",
        'no-binary-package = ["six"]',
        'no-build-package = ["numpy"]',
        "no-binary = false",
        'resolution = "lowest"',
    )
    block = "\n# ".join(("/// script", "[tool.uv]", *keys, "///"))
    file.write_text(f"# {block}\n")
    spec = load_spec(file)
    assert sorted(spec.pip.options) == [
        "--no-binary six",
        "--only-binary :all:",
        "--only-binary numpy",
        "--pre",
    ]
    assert spec.left_out[1:] == ("train.py: tool.uv.resolution",)
    file.write_text(file.read_text().replace('"allow"', '"if-necessary"'))
    assert "train.py: tool.uv.prerelease" in load_spec(file).left_out
