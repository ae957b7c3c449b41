"""Codes, their documentation, what is selected, and what good specs are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envbuild.errors import UsageError
from envbuild.lint.check import RULES, chosen_rules, lint_with_lock
from envbuild.specs.load import load_spec
from tests.unit.lint.conftest import TODAY, Looker

ROOT = Path(__file__).resolve().parents[3]


def test_every_code_has_one_rule_and_one_section() -> None:
    sections = re.findall(r"^### (EB[0-9]{3})\n\*(\w+)\* ", (ROOT / "docs/lint.md").read_text(), re.MULTILINE)
    assert sections == [(rule.code, rule.severity.value) for rule in RULES]
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert len({rule.check for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("name", ["sklearn", "spark"])
def test_an_example_with_a_lock_is_clean(name: str) -> None:
    spec = load_spec(ROOT / "examples" / name)
    directory = spec.directory / "lockfiles" / spec.name
    assert directory.is_dir()
    assert lint_with_lock(spec, directory, today=TODAY) == ()


def test_a_complete_spec_without_a_lock_is_clean(found: Looker) -> None:
    assert found("name: t\npython: '3.13'\nbase: {debian: trixie}\nrequirements: [numpy==2.3.5]\n") == []


def test_a_lock_that_is_no_lock_is_said(found: Looker, tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/envbuild.lock").write_text("{}")
    (tmp_path / "envbuild.yaml").write_text("python: '3.13'\n")
    spec = load_spec(tmp_path / "envbuild.yaml")
    (finding,) = lint_with_lock(spec, tmp_path / "locks", today=TODAY)
    assert finding.code == "EB802"
    assert "no format number" in finding.message


@pytest.mark.parametrize(
    ("select", "ignore", "codes"),
    [
        (["EB3"], [], ["EB301", "EB302", "EB303"]),
        (["EB3"], ["EB3"], ["EB301"]),
        (["EB3"], ["EB301", "EB303"], ["EB302"]),
        (["EB701", "EB112"], [], ["EB112", "EB701"]),
        (["EB3"], ["EB"], ["EB301"]),
    ],
)
def test_rules_are_chosen_by_codes(select: list[str], ignore: list[str], codes: list[str]) -> None:
    assert [rule.code for rule in chosen_rules(select, ignore)] == codes


def test_an_unknown_code_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'EB1001' is no code of a rule; did you mean EB101"):
        chosen_rules([], ["EB1001"])
    with pytest.raises(UsageError, match="'' is no code"):
        chosen_rules([""])
