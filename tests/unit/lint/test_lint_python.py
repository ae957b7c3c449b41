"""What is said about Python: stated, alive, of one mind."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from envbuild.lint.python import END_OF_LIFE
from envbuild.lock.debian.selection import SUITES, suite_python
from envbuild.specs.model import Spec
from tests.unit.lint.conftest import IMAGE, Looker, a_lock, look

CONDA = "channels: [conda-forge]\ndependencies:\n- numpy=1\n"


def test_a_spec_that_leaves_python_open_is_told(found: Looker) -> None:
    assert found("requirements: [numpy==2]\n").of("EB110") == [
        ("envbuild.yaml", None, "no version of Python is asked for: a build takes the base's own")
    ]
    assert found(CONDA + "- python\n", name="environment.yml").of("EB110") == [
        ("environment.yml", 4, "no version of Python is asked for: a build takes the newest that fits")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "requirements: [numpy==2]\nbase: {debian: trixie}\n",
        "runtime: docker\nbase: {packages: [curl]}\n",
        "python: '3.13'\nrequirements: [numpy==2]\n",
        "image: python:3.13\nrequirements: [numpy==2]\n",
        "conda_file: {channels: [conda-forge], dependencies: [python>=3.12]}\n",
    ],
)
def test_something_decides_which_python(found: Looker, text: str) -> None:
    assert "EB110" not in found(text).codes


def test_a_lock_decides_which_python(found: Looker) -> None:
    assert found("requirements: [numpy==2]\n", a_lock()).codes == []


@pytest.mark.parametrize(
    ("python", "codes"),
    [
        ("3.9", ["EB111"]),
        ("3.8.*", ["EB111"]),
        ("==3.10.4", ["EB111"]),
        (">=3.6,<3.10", ["EB111"]),
        ("3.8|3.9", ["EB111"]),
        (">=3.8", []),
        ("3.8|3.13", []),
        ("3.11", []),
        ("3.99", []),
    ],
)
def test_the_newest_python_that_fits_counts(found: Looker, python: str, codes: list[str]) -> None:
    assert found(f"python: '{python}'\n").codes == codes


@pytest.mark.parametrize(
    ("day", "codes"),
    [
        (date(2027, 4, 30), []),
        (date(2027, 5, 1), ["EB112"]),
        (date(2027, 10, 31), ["EB112"]),
        (date(2027, 11, 1), ["EB111"]),
    ],
)
def test_an_end_is_said_six_months_ahead(day: date, codes: list[str]) -> None:
    assert look(Spec(name="x", source=Path("/nowhere/x.yaml"), python="3.11"), today=day).codes == codes


def test_the_locked_python_counts_more_than_what_would_fit(found: Looker) -> None:
    result = found("python: '>=3.9'\n", a_lock(python="3.9.2", base=IMAGE))
    assert result.of("EB111") == [
        ("envbuild.yaml", 1, "Python 3.9 has had no security fixes since 2025-10-31")
    ]


def test_a_release_of_debian_has_its_own_python(found: Looker) -> None:
    spec = found("base: {debian: bookworm}\nrequirements: [numpy==2]\n")
    assert spec.codes == []
    assert {suite: suite_python(suite) for suite in SUITES} == {"bookworm": "3.11", "trixie": "3.13"}


def test_pythons_that_exclude_each_other(found: Looker) -> None:
    text = "python: '3.12'\nconda_file:\n  channels: [conda-forge]\n  dependencies:\n  - python>=3.13\n"
    assert found(text).of("EB113") == [("envbuild.yaml", 5, "no Python is >=3.13 as well as 3.12")]
    assert "EB113" not in found(text.replace("3.12", ">=3.12")).codes


def test_the_table_has_every_python_in_order() -> None:
    threes = [int(each.split(".")[1]) for each in END_OF_LIFE if each.startswith("3.")]
    assert threes == list(range(4, threes[-1] + 1))
    assert END_OF_LIFE["3.9"] == date(2025, 10, 31)
