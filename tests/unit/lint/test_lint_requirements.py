"""Unpinned, contradicting and double requirements, with the lines they stand on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from envbuild.specs.model import Origin, PipRequirement, PipSpec, Spec
from tests.unit.lint.conftest import Looker, a_lock, look

HEAD = "python: '3.13'\nbase: {debian: trixie}\n"


def test_a_requirement_without_a_version_has_its_line(found: Looker) -> None:
    result = found(HEAD + "requirements: in/r.txt\n", **{"in/r.txt": "# c\nnumpy\nscipy==1\n"})
    message = "numpy has no version: a build takes the newest of its day"
    assert result.of("EB101") == [("in/r.txt", 2, message)]


def test_what_is_fixed_elsewhere_has_a_version(found: Looker) -> None:
    text = (
        "numpy\nscipy\npolars @ https://files.example/polars-1.0-py3-none-any.whl\n"
        f"idna --hash=sha256:{'a' * 64}\n-c c.txt\n"
    )
    result = found(HEAD + "requirements: r.txt\n", **{"r.txt": text, "c.txt": "numpy<3\n"})
    assert [each[2].split()[0] for each in result.of("EB101")] == ["scipy"]


def test_what_the_lock_pins_is_not_unpinned(found: Looker) -> None:
    text = HEAD + "requirements: [NumPy, 'scipy>=1', pandas]\n"
    assert found(text).codes == ["EB101", "EB101", "EB103"]
    result = found(text, a_lock(pip=("numpy==2.3.5", "scipy==1.16")))
    assert [each.message.split()[0] for each in result] == ["pandas"]


def test_a_lock_without_one_of_the_platforms_pins_nothing(found: Looker) -> None:
    text = HEAD + "platforms: [linux/amd64, linux/arm64]\nrequirements: [numpy]\n"
    assert found(text, a_lock(pip=("numpy==2.3.5",))).codes == ["EB101"]


def test_conda_dependencies_have_lines_in_their_own_file(found: Looker) -> None:
    conda = "channels: [c]\ndependencies:\n- python=3.13\n- numpy\n- scipy >= 1\n- libblas=*=*mkl\n- pip\n"
    result = found("conda_file: c.yml\n", **{"c.yml": conda})
    assert [(each.code, str(each.where)) for each in result] == [("EB102", "c.yml:4"), ("EB106", "c.yml:5")]
    locked = a_lock(conda=("numpy==2.3.5", "scipy==1.16"))
    assert found("conda_file: c.yml\n", locked, **{"c.yml": conda}) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("numpy==1.26.4", "numpy==2.0"),
        ("numpy<2", "numpy>=2.0.0"),
        ("numpy~=1.26.1", "numpy>=1.27"),
        ("numpy==1.26.*", "numpy==1.27.0"),
        ("numpy==2.0", "numpy!=2"),
        ("numpy[x]<0", "numpy"),
    ],
)
def test_requirements_that_no_version_satisfies(found: Looker, first: str, second: str) -> None:
    result = found(HEAD + "requirements: r.txt\n", **{"r.txt": f"{first}\n{second}\n"})
    assert result.codes.count("EB104") == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("numpy>=1.26", "numpy<2"),
        ("numpy<=2", "numpy>=2.0"),
        ("numpy~=1.26", "numpy==1.27.1"),
        ("numpy==1.26.*", "numpy!=1.26.0"),
        ("numpy==2.0", "numpy==2.0.0"),
        ("numpy==2.0+local", "numpy==2.0"),
        ("numpy>=2.0rc1", "numpy<2.0"),
        ("numpy<2 ; python_version < '3.9'", "numpy>=2 ; python_version >= '3.9'"),
    ],
)
def test_requirements_that_may_meet(found: Looker, first: str, second: str) -> None:
    result = found(HEAD + "requirements: r.txt\n", **{"r.txt": f"{first}\n{second}\n"})
    assert "EB104" not in result.codes


def test_a_conflict_names_both_sides_once(found: Looker) -> None:
    conda = (
        "channels: [conda-forge]\ndependencies:\n- python=3.13\n- pytorch=2.1\n- pip\n"
        "- pip:\n  - torch>=2.2\n  - torch>=2.3\n"
    )
    result = found(conda, name="environment.yml")
    assert result.of("EB104") == [
        ("environment.yml", 7, "no version fits torch>=2.2 as well as pytorch 2.1 of conda")
    ]
    assert result.of("EB105")[0] == (
        "environment.yml",
        7,
        "torch is asked of pip, and conda brings it as pytorch",
    )


def test_a_constraint_can_contradict(found: Looker) -> None:
    files = {"r.txt": "numpy>=2\n-c c.txt\n", "c.txt": "scipy<1\nscipy>2\nnumpy<2\n"}
    result = found(HEAD + "requirements: r.txt\n", **files)
    assert result.of("EB104") == [("c.txt", 3, "no version fits numpy<2 as well as numpy>=2")]


def test_two_addresses_of_one_package(found: Looker) -> None:
    text = "".join(f"a @ https://f.example/{each}/a-1.0-py3-none-any.whl\n" for each in ("x", "y", "x"))
    result = found(HEAD + "requirements: r.txt\n", **{"r.txt": text})
    assert result.of("EB104") == [("r.txt", 2, "a is asked for from two addresses")]


def test_ten_thousand_requirements_take_less_than_a_second() -> None:
    lines = [f"p{number}" for number in range(5000)] + [f"same!=1.{number}" for number in range(5000)]
    origin = Origin(file="r.txt", where="1")
    pip = PipSpec(requirements=tuple(PipRequirement(text=line, origin=origin) for line in lines))
    begin = time.process_time()
    result = look(Spec(name="many-a1-b2", source=Path("/nowhere/envbuild.yaml"), python="3.13", pip=pip))
    assert time.process_time() - begin < 1
    assert result.codes.count("EB101") == 5000


def test_a_user_managed_environment_installs_nothing(found: Looker) -> None:
    result = found("image: debian:trixie\ntype: user-managed\nrequirements: [numpy]\n")
    assert result.codes == ["EB202"]
