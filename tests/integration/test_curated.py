"""The curated environments: their names tell the truth, their locks answer, and each is complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.app.curated import CuratedEnvironment, curated_environments
from envbuild.lock.check import lock_problems
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.specs.load import load_spec
from envbuild.specs.model import EnvironmentType

CURATED = {environment.name: environment for environment in curated_environments()}
ALIASES = {"sklearn": "scikit-learn", "xgboost": "xgboost-cpu", "spark": "pyspark"}
"""Packages that a name calls by another name."""
CLAIM = re.compile(r"([a-z]+)-(\d+(?:\.\d+)*)(?=-|$)")
PURPOSES = {"train": ("scikit-learn", "jax"), "inference": ("azureml-inference-server-http",)}


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "envbuild", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "ENVBUILD_CACHE_DIR": str(home / "cache")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_catalogue_covers_what_it_should() -> None:
    families = ("minimal-py3.11", "minimal-py3.13", "sklearn", "lightgbm", "jax", "mlflow", "spark")
    assert all(any(name.startswith(family) for name in CURATED) for family in families)


@pytest.mark.parametrize("found", CURATED.values(), ids=CURATED)
def test_the_lock_answers_the_spec_on_both_platforms(found: CuratedEnvironment) -> None:
    spec = load_spec(found.spec)
    assert (spec.name, spec.type) == (found.spec.parent.name, EnvironmentType.CURATED)
    assert lock_problems(spec, found.lock) == []
    assert set(found.platforms) == {LINUX_AMD64, LINUX_ARM64}


@pytest.mark.parametrize("found", CURATED.values(), ids=CURATED)
def test_the_name_claims_what_is_inside(found: CuratedEnvironment) -> None:
    claims = CLAIM.findall(found.name.replace("-py3", "-python-3"))
    assert claims, "a name says at least its python"
    for pins in found.lock.platforms:
        versions = {pin.name: pin.version for pin in pins.pip}
        assert pins.python is not None
        versions["python"] = pins.python.version
        for package, version in claims:
            have = versions[ALIASES.get(package, package)].split(".")
            wanted = version.split(".")
            assert have[: len(wanted)] == wanted, f"{package} {version} is claimed, {'.'.join(have)} is there"
        purpose = found.name.rsplit("-", 1)[1]
        assert any(each in versions for each in PURPOSES.get(purpose, versions))


def test_no_lock_says_where_it_was_made() -> None:
    for found in CURATED.values():
        for path in found.spec.parent.iterdir():
            assert "://" not in path.read_text(), path.name


def test_they_are_listed_and_shown(tmp_path: Path) -> None:
    listed = run("curated", "list", "--json", home=tmp_path)
    assert [load["name"] for load in json.loads(listed.stdout)["environments"]] == sorted(CURATED)
    shown = run("curated", "show", "minimal-py3.13-inference", home=tmp_path)
    assert "azureml-inference-server-http" in shown.stdout
    unknown = run("curated", "show", "sklearn", home=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (8, "")
    assert "sklearn-1.9-py3.13-train" in unknown.stderr


def test_one_is_planned_by_its_name_and_never_written(tmp_path: Path) -> None:
    planned = run("plan", "spark-4-py3.13", "--frozen", "--json", home=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert {plan["platform"] for plan in json.loads(planned.stdout)["plans"]} == {
        "linux/amd64",
        "linux/arm64",
    }
    checked = run(
        "lock", "--all", str(next(iter(CURATED.values())).spec.parent.parent), "--check", home=tmp_path
    )
    assert checked.returncode == 0, checked.stderr
    refused = run("lock", "minimal-py3.13-inference", "--no-bytecode", "--offline", home=tmp_path)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
