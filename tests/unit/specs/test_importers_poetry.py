"""Poetry's constraints mean what they mean to Poetry, and its tables what its lock was made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from envbuild.errors import SpecError
from envbuild.specs.importers.poetry.constraint import (
    platform_marker,
    python_marker,
    python_specifier,
    specifier,
)
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec
from envbuild.specs.problems import Refused

CASES = Path(__file__).parents[2] / "cases" / "spec"
VERSIONS = (
    *(
        "0.0.1",
        "0.0.3",
        "0.0.4",
        "0.1",
        "0.2",
        "0.2.5",
        "0.3",
        "1.0",
        "1.0.0",
        "1.2",
        "1.2.3",
        "1.2.9",
        "1.3",
    ),
    *("1.9", "2.0", "2.0.1", "2.1", "3.0", "4", "2021.5", "2022.0"),
)


def texts(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("^1.2.3", ">=1.2.3,<2.0.0"),
        ("^0.2", ">=0.2,<0.3"),
        ("^0", ">=0,<1"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("~1.2.3", ">=1.2.3,<1.3.0"),
        ("~1", ">=1,<2"),
        ("*", ""),
        ("1.2.*", "==1.2.*"),
        ("1.2.3", "==1.2.3"),
        ("=1.2", "==1.2"),
        (">= 1.0 , < 2", ">=1.0,<2"),
        (">1.0.*", ">1.0"),
        ("^1.2 || ^2.0", ">=1.2,<3.0"),
        ("1.2.*|1.3.*", ">=1.2,<1.4"),
        ("~=1.2", "~=1.2"),
    ],
)
def test_a_constraint_is_what_poetry_takes_it_for(written: str, meant: str) -> None:
    assert specifier(written) == meant
    # Poetry's own parser, as conda-lock brings it, says the same of every version.
    poetry = pytest.importorskip("conda_lock._vendor.poetry.core.constraints.version")
    constraint = poetry.parse_constraint(written)
    allowed = [version for version in VERSIONS if constraint.allows(poetry.Version.parse(version))]
    assert allowed == [version for version in VERSIONS if SpecifierSet(meant).contains(version)]


@pytest.mark.parametrize("written", ["", "^", "^*", "abc", "1.0 - 2.0", ",", "||", "^1 || ^3", "1 || 2"])
def test_what_is_no_constraint_or_no_range_is_refused(written: str) -> None:
    with pytest.raises(Refused):
        specifier(written)


def test_python_and_platform_become_markers() -> None:
    assert python_specifier("^3.9 || ~3.7") == ">=3.9,<4.0|>=3.7,<3.8"
    assert python_marker("<3.8 || >3.9") == '(python_full_version < "3.8") or (python_full_version > "3.9")'
    assert platform_marker("linux || !=win32") == '(sys_platform == "linux") or (sys_platform != "win32")'
    with pytest.raises(Refused):
        platform_marker("linux and win32")


def test_extras_and_groups_are_asked_for_by_name() -> None:
    file = CASES / "pyproject-poetry" / "pyproject.toml"
    plain = set(texts(load_spec(file)))
    assert set(texts(load_spec(file.with_name(f"{file.name}#plot")))) - plain == {"matplotlib<4.0,>=3.9"}
    dev = set(texts(load_spec(file.with_name(f"{file.name}#group:dev")))) - plain
    assert dev == {"ruff<0.9,>=0.8", "pytest<9,>=8"}


def test_poetry_1_s_own_group(tmp_path: Path) -> None:
    text = '[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\n'
    text += '[tool.poetry.dev-dependencies]\npytest = "1 || 3"\n'
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    spec = load_spec(tmp_path)
    assert (texts(spec), spec.left_out[-1]) == (
        [],
        "pyproject.toml: tool.poetry.group: dev: choose them with #group:dev",
    )
    with pytest.raises(
        SpecError, match=r"tool\.poetry\.dev-dependencies\.pytest: the alternatives of '1 \|\| 3'"
    ):
        load_spec(tmp_path / "pyproject.toml#group:dev")


@pytest.mark.parametrize(
    ("sources", "options"),
    [
        ('name = "a"\nurl = "https://a.example/s"', ("--index-url https://a.example/s",)),
        (
            'name = "a"\nurl = "https://a.example/s"\npriority = "supplemental"',
            ("--extra-index-url https://a.example/s",),
        ),
        (
            'name = "a"\nurl = "https://a.example/s"\nsecondary = true',
            ("--extra-index-url https://a.example/s",),
        ),
        ('name = "a"\nurl = "https://a.example/s"\ndefault = true', ("--index-url https://a.example/s",)),
        ('name = "a"\nurl = "https://a.example/s"\npriority = "explicit"', ()),
        ('name = {}\nurl = "https://a.example/s"\npriority = "explicit"', ()),
        (
            'name = "PyPI"\n[[tool.poetry.source]]\nname = "a"\nurl = "https://a.example/s"',
            ("--extra-index-url https://a.example/s",),
        ),
    ],
)
def test_sources_have_poetry_s_priorities(tmp_path: Path, sources: str, options: tuple[str, ...]) -> None:
    text = '[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\nsix = "*"\n'
    text += f"[[tool.poetry.source]]\n{sources}\n"
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    assert load_spec(tmp_path).pip.options == options


@pytest.mark.parametrize(
    ("case", "asked", "more"),
    [
        ("lock-poetry", "plot", {"matplotlib==3.9.2"}),
        ("lock-poetry", "group:dev", {"pytest==8.3.4", 'colorama==0.4.6; python_full_version >= "3.12"'}),
        ("lock-poetry-1", "group:dev", {"pytest==8.3.4"}),
    ],
)
def test_parts_of_a_lock_are_asked_for_by_name(case: str, asked: str, more: set[str]) -> None:
    plain = load_spec(CASES / case / "poetry.lock")
    chosen = load_spec(CASES / case / f"poetry.lock#{asked}")
    assert set(texts(chosen)) - set(texts(plain)) == more
    assert chosen.pip.complete
    with pytest.raises(SpecError, match="no group 'nothing'"):
        load_spec(CASES / case / "poetry.lock#group:nothing")


def test_a_lock_of_poetry_2_needs_no_project_beside_it(tmp_path: Path) -> None:
    text = (CASES / "lock-poetry" / "poetry.lock").read_text(encoding="utf-8")
    (tmp_path / "poetry.lock").write_text(text, encoding="utf-8")
    assert texts(load_spec(tmp_path)) == texts(load_spec(CASES / "lock-poetry"))
    with pytest.raises(SpecError, match="no package is of that group"):
        load_spec(tmp_path / "poetry.lock#group:nothing")


def test_a_lock_of_another_project_is_refused(tmp_path: Path) -> None:
    for name in ("poetry.lock", "pyproject.toml"):
        text = (CASES / "lock-poetry-1" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("requests = {", "missing = {"), encoding="utf-8")
    with pytest.raises(SpecError, match="0 packages answer its dependency 'missing'"):
        load_spec(tmp_path / "poetry.lock")
