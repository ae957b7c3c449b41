"""Locks of other tools as specs: what behind ``#`` is asked for, and markers that come to one."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.specs.definition import definition_digest
from envbuild.specs.importers.pip.marker_range import Case, Cases, reachable
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec
from envbuild.specs.problems import Refused
from envbuild.specs.text.yaml import parse_values

CASES = Path(__file__).parents[2] / "cases" / "spec"


def texts(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


def test_parts_of_a_uv_lock_are_asked_for_by_name() -> None:
    plain = load_spec(CASES / "lock-uv" / "uv.lock")
    more = load_spec(CASES / "lock-uv" / "uv.lock#cpu,group:dev")
    assert sorted(set(texts(more)) - set(texts(plain))) == ["pytest==8.3.4", "torch==2.5.1+cpu"]
    assert more.pip.options == ("--extra-index-url https://wheels.example/whl/cpu",)
    assert more.left_out == (
        "uv.lock: demo: optional-dependencies.gpu",
        "uv.lock: demo: the project itself",
        "uv.lock: member: a member of the workspace",
    )
    gpu = load_spec(CASES / "lock-uv" / "uv.lock#gpu")
    assert [text for text in texts(gpu) if text.startswith("torch")] == ["torch==2.5.1"]
    with pytest.raises(SpecError) as caught:
        load_spec(CASES / "lock-uv" / "uv.lock#plot,group:nothing")
    assert "the project has no extra 'plot'; it has: cpu, gpu" in caught.value.problems[0]
    assert "the project has no group 'nothing'; it has: dev" in caught.value.problems[1]


SCRIPT_LOCK = """version = 1
revision = 3
requires-python = ">=3.11"

[manifest]
requirements = [
    { name = "six", extras = ["more"], specifier = "<2" },
    { name = "gone", marker = "python_full_version < '3'" },
]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://wheels.example/simple" }
wheels = [{ url = "https://wheels.example/six-1.17.0-py3-none-any.whl", hash = "sha256:HASH" }]

[package.optional-dependencies]
more = [{ name = "idna" }]

[[package]]
name = "idna"
version = "3.10"
source = { registry = "https://wheels.example/simple" }
wheels = [{ url = "https://wheels.example/idna-3.10-py3-none-any.whl", hash = "sha256:HASH" }]
"""


def test_a_script_s_own_lock_is_what_its_requirements_were_locked_to(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text('# /// script\n# dependencies = ["six[more]<2"]\n# ///\n')
    (tmp_path / "train.py.lock").write_text(SCRIPT_LOCK.replace("HASH", "a" * 64))
    lock = load_spec(tmp_path / "train.py.lock")
    assert (lock.name, lock.python, texts(lock)) == ("train", ">=3.11", ["idna==3.10", "six==1.17.0"])
    # The script by itself is what it says; that uv would take the lock is said.
    script = load_spec(tmp_path / "train.py")
    assert texts(script) == ["six[more]<2"]
    assert "train.py.lock: the pins that uv runs the script with: give that file for them" in script.left_out


@pytest.mark.parametrize(
    ("options", "strategy"),
    [
        ("", None),
        ('extra-index-urls = ["https://wheels.example/simple"]', "first-index"),
        ('index-strategy = "unsafe-best-match"', "unsafe-best-match"),
    ],
)
def test_indexes_of_pixi_count_as_pixi_has_them(options: str, strategy: str | None, tmp_path: Path) -> None:
    workspace = '[workspace]\nchannels = ["conda-forge"]\nplatforms = ["linux-64"]\n'
    file = tmp_path / "pixi.toml"
    file.write_text(f'{workspace}[pypi-options]\n{options}\n[pypi-dependencies]\nsix = "*"\n')
    assert load_spec(file).pip.index_strategy == strategy
    file.write_text(f'{workspace}[pypi-options]\nindex-strategy = "unsafe-first-match"\n')
    with pytest.raises(SpecError, match="'unsafe-first-match' isn't supported"):
        load_spec(file)


def test_parts_of_a_pylock_are_asked_for_by_name() -> None:
    plain = load_spec(CASES / "lock-pylock" / "pylock.toml")
    more = load_spec(CASES / "lock-pylock" / "pylock.toml#plot,group:dev")
    assert set(texts(more)) - set(texts(plain)) == {"cycler==0.12.1", "pytest==8.3.4"}
    with pytest.raises(SpecError, match="the lock has no group 'nothing'; it has: dev, main"):
        load_spec(CASES / "lock-pylock" / "pylock.toml#group:nothing")


def test_a_lock_of_conda_lock_is_known_by_what_it_holds(tmp_path: Path) -> None:
    text = (CASES / "lock-conda-lock" / "conda-lock.yml").read_text(encoding="utf-8")
    expected = load_spec(CASES / "lock-conda-lock" / "conda-lock.yml")
    for name in ("conda-lock-py311.yml", "environment-lock.yaml", "dev.lock"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        spec = load_spec(tmp_path / name)
        assert (spec.conda, texts(spec)) == (expected.conda, texts(expected))
    dev = load_spec(tmp_path / "dev.lock#dev").conda
    assert dev is not None
    assert expected.conda is not None
    assert len(dev.explicit) == len(expected.conda.explicit) + 1
    (tmp_path / "other.yml").write_text("version: 1\npackage: []\nmetadata: {}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="unknown key"):
        load_spec(tmp_path / "other.yml")


def test_a_lock_of_conda_lock_may_be_larger_than_a_spec(tmp_path: Path) -> None:
    """More values than a YAML file of a spec may have, and 15,000 lines."""
    head = "version: 1\nmetadata:\n  content_hash: {}\n  platforms: [linux-64]\npackage:\n"
    packages = [
        f"- name: p{number}\n  version: 1.0\n  manager: conda\n  platform: linux-64\n  dependencies:\n"
        + "".join(f"    d{other}: '>=1,<2'\n" for other in range(20))
        + f"  url: https://channel.example/x/linux-64/p{number}-1.0-0.conda\n"
        + f"  hash:\n    sha256: {number:064x}\n"
        for number in range(700)
    ]
    (tmp_path / "large-lock.yml").write_text(head + "".join(packages), encoding="utf-8")
    conda = load_spec(tmp_path / "large-lock.yml").conda
    assert conda is not None
    assert len(conda.explicit) == 700


def test_another_environment_of_pixi_and_category_of_conda_lock() -> None:
    pixi = load_spec(CASES / "lock-pixi" / "pixi.lock#test")
    assert pixi.conda is not None
    assert [each.url.rsplit("/", 1)[1] for each in pixi.conda.explicit] == [
        "python-3.12.7-h1_0_cpython.conda"
    ]
    with pytest.raises(SpecError, match="has no environment 'nothing'") as caught:
        load_spec(CASES / "lock-pixi" / "pixi.lock#nothing")
    assert caught.value.hint == "its environments: default, test"
    plain = load_spec(CASES / "lock-conda-lock" / "conda-lock.yml")
    dev = load_spec(CASES / "lock-conda-lock" / "conda-lock.yml#dev")
    assert plain.conda is not None
    assert dev.conda is not None
    assert [each.url.rsplit("/", 1)[1] for each in set(dev.conda.explicit) - set(plain.conda.explicit)] == [
        "pytest-8.3.4-pyhd8ed1ab_1.conda"
    ]
    with pytest.raises(SpecError, match="no package is of the category 'nothing'"):
        load_spec(CASES / "lock-conda-lock" / "conda-lock.yml#nothing")


@pytest.mark.parametrize(
    ("line", "complete"),
    [
        ("click==8.1.8 --hash=sha256:" + "0" * 64, True),
        ("click @ https://wheels.example/click-1-py3-none-any.whl --hash=sha256:" + "0" * 64, True),
        ("click==8.1.8", False),
        ("click==8.1.* --hash=sha256:" + "0" * 64, False),
        ("click>=8,==8.1 --hash=sha256:" + "0" * 64, False),
    ],
)
def test_a_requirements_file_with_a_hash_for_every_pin_is_a_lock(
    tmp_path: Path, line: str, complete: bool
) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("idna==3.10 --hash=sha256:" + "1" * 64 + f"\n{line}\n")
    assert load_spec(path).pip.complete is complete
    written = path.rename(tmp_path / "requirements.in")
    assert load_spec(written).pip.complete is False, "what is compiled from"


def test_a_requirements_file_without_hashes_keeps_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("idna==3.10\n")
    assert definition_digest(load_spec(path)) == (
        "sha256:7a9bc07e6b2513729f22f83e2a44c1f57df5d795a4b687d75969ae3bf861b598"
    )


def test_a_marker_is_one_of_architecture_and_python() -> None:
    markers = ["python_version < '3.10' or python_full_version >= '3.11.4'", "platform_machine == 'aarch64'"]
    cases = Cases(">=3.9,<3.13", markers)

    def holding(marker: str) -> str:
        return cases.marker([each for each in cases.all if cases.holds(marker, each)])

    assert cases.platforms == (LINUX_AMD64, LINUX_ARM64)
    assert holding("sys_platform == 'linux' and os_name == 'posix' and extra != 'x'") == ""
    assert holding(markers[0]) == 'python_full_version < "3.10" or python_full_version >= "3.11.4"'
    assert holding(markers[1]) == 'platform_machine == "aarch64"'
    assert holding(f"({markers[0]}) and {markers[1]}") == (
        'platform_machine == "aarch64" and (python_full_version < "3.10" or python_full_version >= "3.11.4")'
    )
    assert cases.marker([]) == 'python_version < "0"'
    for marker in (*markers, " and ".join(f"({marker})" for marker in markers)):
        again = holding(marker)
        assert [cases.holds(again, each) for each in cases.all] == [
            cases.holds(marker, each) for each in cases.all
        ]


def test_conflicting_extras_hold_where_they_are_asked_for() -> None:
    marker = "extra == 'extra-4-demo-cpu' or (extra != \"extra-4-demo-gpu\" and python_version < '3.0')"
    for active, expected in (("extra-4-demo-cpu", True), ("extra-4-demo-gpu", False)):
        cases = Cases(">=3.12", [marker], active=[active])
        assert {cases.holds(marker, each) for each in cases.all} == {expected}


@pytest.mark.parametrize(
    ("requires", "markers", "supported", "reason"),
    [
        ("nonsense", [], [], "is no version specifier"),
        ("", ["nonsense"], [], "is no marker"),
        ("", ["nothing == 'x'"], [], "is no marker"),
        ("", [], ["sys_platform == 'win32'"], "no environment that an image can be"),
        (">=4", [], [], "no environment that an image can be"),
        ("", [f"python_full_version < '3.{each}.1'" for each in range(120)], [], "more than 100 versions"),
    ],
)
def test_what_is_no_lock_for_images_is_refused(
    requires: str, markers: list[str], supported: list[str], reason: str
) -> None:
    def decide() -> None:
        cases = Cases(requires, markers, supported=supported)
        for marker in markers:
            cases.holds(marker, Case(LINUX_AMD64, (3, 12, 0)))

    with pytest.raises(Refused, match=reason):
        decide()


def test_a_circle_of_dependencies_ends_and_markers_join() -> None:
    graph: dict[str, list[tuple[str, str | None]]] = {
        "a": [("b", "python_version < '3.12'"), ("c", None)],
        "b": [("a", None), ("d", None)],
        "c": [("d", "platform_machine == 'aarch64'")],
    }
    cases = Cases(">=3.11", ["python_version < '3.12'"])
    found = reachable(["a"], lambda node: graph.get(node, ()), cases)
    assert {name: cases.marker(each) for name, each in found.items()} == {
        "a": "",
        "b": 'python_full_version < "3.12"',
        "c": "",
        "d": 'platform_machine == "x86_64" and python_full_version < "3.12" or platform_machine == "aarch64"',
    }


def test_values_of_a_lock_stay_text() -> None:
    assert parse_values("a: 3.10\nb: [~, 'null', yes]\nc: &x {d: 1}\ne: *x\n", "f") == {
        "a": "3.10",
        "b": [None, "null", "yes"],
        "c": {"d": "1"},
        "e": {"d": "1"},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "f:1: nested deeper than 32 levels"),
        ("a: [b]\nc:\n  d: " + "[" * 5_000, "f:3: nested deeper than 32 levels"),
        ("{a: " * 5_000, "f:1: nested deeper than 32 levels"),
        ("a:\n" + "- " * 5_000, "f:2: nested deeper than 32 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(3_000)), "f:33: nested deeper than 32 levels"),
        ("[[a], " * 20 + "]" * 19 + "}", "f:1: bad YAML"),
        ("a: 1\na: 2\n", "f:2: the key 'a' is there twice"),
        ("a: &x [*x]\n", r"f:1: the alias \*x stands for nothing that came before"),
        ("a: 1\n---\nb: 1\n", "f:2: a second YAML document"),
        ("[a]: 1\n", "f:1: a key must be text"),
        ("a: [\n", "f:2: bad YAML"),
        ("a: \x01", "f: bad YAML"),
    ],
)
def test_a_lock_that_is_no_plain_yaml_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_values(text, "f")
