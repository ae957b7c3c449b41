"""The base, channels, names, serving, the user, the day, and what was left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from envbuild.lint.names import Claim, claims
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec
from tests.unit.lint.conftest import IMAGE, Looker, a_lock, look

SPEC = Spec(name="x", source=Path("/nowhere/envbuild.yaml"), python="3.13")
DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "codes"),
    [
        ("debian", ["EB201"]),
        ("host.example:5000/team/debian", ["EB201"]),
        ("debian:trixie", ["EB202"]),
        ("debian:latest", ["EB203"]),
        ("debian:latest" + DIGEST, []),
        ("debian" + DIGEST, []),
    ],
)
def test_how_a_base_image_is_named(found: Looker, image: str, codes: list[str]) -> None:
    assert found(f"name: x\nimage: {image}\n").codes == codes
    assert found(f"name: x\nimage: {image}\n", a_lock(base=IMAGE, python=None)).codes == [
        code for code in codes if code != "EB202"
    ]


def test_a_local_layout_needs_no_tag(found: Looker) -> None:
    assert found("image: oci:layout\n") == []
    assert found("image: docker-archive:a.tar:app:1\n") == []


def test_a_dockerfile_is_read_for_its_images(found: Looker) -> None:
    text = (
        "ARG BASE=x\n"
        "FROM --platform=linux/amd64 debian:trixie AS Build\n"
        "RUN echo 'FROM nothing'\n"
        "from build as second\n"
        f"FROM debian:trixie{DIGEST}\n"
        "FROM $BASE\n"
        "FROM scratch\n"
        "COPY --from=build / /\n"
    )
    result = found("build: {path: ctx}\n", **{"ctx/Dockerfile": text})
    # An argument counts with its default.
    assert [(finding.code, str(finding.where)) for finding in result] == [
        ("EB204", "ctx/Dockerfile:2"),
        ("EB204", "ctx/Dockerfile:6"),
    ]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("", [("EB401", 1)]),
        ("channels: []\n", [("EB401", 2)]),
        ("channels: [conda-forge]\n", []),
        ("channels:\n- conda-forge\n- defaults\n", [("EB402", 1)]),
        ("channels: [defaults]\n", [("EB402", 1)]),
        ("channels: ['https://repo.anaconda.com/pkgs/main']\n", [("EB402", 1)]),
        ("channels: ['https://conda.anaconda.org/conda-forge']\n", []),
    ],
)
def test_channels(found: Looker, channels: str, expected: list[tuple[str, int]]) -> None:
    result = found(channels + "dependencies: [python=3.13]\n", name="environment.yml")
    assert [(each.code, each.where.line) for each in result] == expected


def test_a_pip_list_without_pip_is_said_once(found: Looker) -> None:
    text = "channels: [c]\ndependencies:\n- python=3.13\n- pip:\n  - a==1\n  - b==1\n"
    assert found(text, name="environment.yml").of("EB403")[0][:2] == ("environment.yml", 5)
    assert found(text.replace("- pip:", "- pip\n- pip:"), name="environment.yml") == []


def test_what_a_name_could_say() -> None:
    assert claims("acpt-pytorch-2.2-cuda12.1") == [
        Claim("acpt", None),
        Claim("pytorch", None),
        Claim("acpt-pytorch", "2.2"),
        Claim("pytorch", "2.2"),
        Claim("cuda", "12.1", True),
    ]
    assert Claim("py", "310", True).readings == ("310", "3.10", "31.0")
    assert claims("scikit-learn-1.3")[-3:] == [
        Claim("learn", None),
        Claim("scikit-learn", "1.3"),
        Claim("learn", "1.3"),
    ]
    assert claims("train-3") == [Claim("train", None)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sklearn-1.3-py313", "the name says sklearn 1.3, and scikit-learn 1.6.1 is locked"),
        ("scikit-learn-1.3", "the name says scikit-learn 1.3, and scikit-learn 1.6.1 is locked"),
        ("torch2.2", "the name says torch 2.2, and torch 2.10.0+cu126 is locked"),
        ("py310", "the name says py 310, and Python 3.13.5 is locked"),
        ("t-cuda12.1", "the name says cuda 12.1, and nvidia-cuda-runtime-cu12 12.6.77 is locked"),
        ("lightgbm-train", "the name says lightgbm, and no package of that name is locked"),
    ],
)
def test_a_name_that_the_lock_contradicts(found: Looker, name: str, message: str) -> None:
    pins = ("scikit-learn==1.6.1", "torch==2.10.0+cu126", "nvidia-cuda-runtime-cu12==12.6.77")
    result = found(f"name: {name}\npython: '3.13'\n", a_lock(pip=pins))
    assert result.of("EB501") == [("envbuild.yaml", 1, message)]


@pytest.mark.parametrize(
    "name",
    [
        "sklearn-1.6",
        "sklearn-train-3",
        "torch2",
        "torch210",
        "torch-2.10",
        "py3",
        "python3.13",
        "cu126",
        "v2-x",
    ],
)
def test_a_name_that_the_lock_bears_out(found: Looker, name: str) -> None:
    pins = ("scikit-learn==1.6.1", "torch==2.10.0+cu126", "nvidia-cuda-runtime-cu12==12.6.77")
    assert found(f"name: {name}\npython: '3.13'\n", a_lock(pip=pins)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lightgbm-3.3", "the name says lightgbm 3.3, and lightgbm<5,>=4.6 is asked for"),
        ("env-py310", "the name says py 310, and Python 3.13 is asked for"),
        ("lightgbm-4", None),
        ("lightgbm-4.7", None),
        ("sklearn-1.3", None),
        ("xgboost", None),
    ],
)
def test_without_a_lock_only_what_is_asked_for_contradicts(
    found: Looker, name: str, message: str | None
) -> None:
    text = f"name: {name}\npython: '3.13'\nrequirements: ['lightgbm>=4.6,<5']\n"
    assert [each[2] for each in found(text).of("EB501")] == ([message] if message else [])


def test_an_image_may_bring_what_its_name_says(found: Looker) -> None:
    lock = a_lock(base=IMAGE)
    assert "EB501" not in found("name: lightgbm-cuda12\nimage: a:1\npython: '3.13'\n", lock).codes


SERVING = """python: '3.13'
base: {debian: trixie}
inference_config:
  liveness_route: {path: /, port: 5001}
  readiness_route: {path: /, port: 5001}
  scoring_route: {path: /score, port: 5001}
"""


@pytest.mark.parametrize(
    ("requirements", "codes"),
    [
        ("[numpy==2]", ["EB601"]),
        ("['azureml-defaults==1.0.10']", ["EB601"]),
        ("['azureml-defaults==1.60']", []),
        ("['azureml-inference-server-http==1']", []),
        ("[fastapi==1]", []),
    ],
)
def test_serving_needs_a_server(found: Looker, requirements: str, codes: list[str]) -> None:
    assert found(SERVING + f"requirements: {requirements}\n").codes == codes


def test_a_locked_server_serves(found: Looker) -> None:
    lock = a_lock(pip=("numpy==2", "uvicorn==0.30"))
    assert found(SERVING + "requirements: [numpy==2]\n", lock) == []


def test_ports_of_routes(found: Looker) -> None:
    text = SERVING.replace("/score, port: 5001", "/score, port: 80") + "requirements: [flask==3]\n"
    assert [(each.code, each.where.line) for each in found(text)] == [("EB602", 3), ("EB603", 3)]
    assert found(text + "user: root\n").codes == ["EB602", "EB701"]


def test_what_a_dockerfile_copies_must_be_in_its_context(tmp_path: Path) -> None:
    (tmp_path / "there.txt").touch()
    (tmp_path / "Dockerfile").write_text(f"FROM base@sha256:{64 * 'a'}\nCOPY there.txt gone.txt /\n")
    (finding,) = look(load_spec(tmp_path))
    assert (finding.code, finding.where.file) == ("EB205", "Dockerfile")
    assert finding.message == "the Dockerfile copies gone.txt, which the build context hasn't"


def test_root_and_a_day_to_come(found: Looker) -> None:
    result = found("python: '3.13'\nuser: '0:0'\nas_of: 2026-11-24\n")
    assert [(each.code, each.where.line) for each in result] == [("EB701", 2), ("EB702", 3)]
    assert found("python: '3.13'\nuser: '10:0'\nas_of: 2026-11-23\n") == []


def test_what_was_left_out_is_said_with_its_place() -> None:
    result = look(replace(SPEC, left_out=("pyproject.toml:4: tool.x", "a thing")))
    assert [(each.code, str(each.where), each.message) for each in result] == [
        ("EB801", "envbuild.yaml", "not carried over: a thing"),
        ("EB801", "pyproject.toml:4", "not carried over: tool.x"),
    ]


def test_what_is_no_part_of_an_environment_is_only_good_to_know() -> None:
    result = look(
        replace(SPEC, left_out=("job.yml:2: command", "a thing"), unrelated=("job.yml:2: command",))
    )
    assert [(each.code, each.severity.value, each.message) for each in result] == [
        ("EB801", "warning", "not carried over: a thing"),
        ("EB803", "info", "no part of an environment: command"),
    ]


def test_a_spec_whose_file_changed_since_has_no_lines(found: Looker, tmp_path: Path) -> None:
    (tmp_path / "envbuild.yaml").write_text("- [not a spec")
    spec = replace(SPEC, source=tmp_path / "envbuild.yaml", as_of=date(2030, 1, 1))
    assert [(each.code, str(each.where)) for each in look(spec)] == [("EB702", "envbuild.yaml")]


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ("requirements: ['--extra-index-url https://x.test/s', a==1]\n", ["EB404"]),
        ("requirements: [a==1]\n", []),
        ("requirements: ['--index-url https://x.test/s', a==1]\n", []),
        ("index_strategy: first-index\nrequirements: ['--extra-index-url https://x.test/s', a==1]\n", []),
        (f"requirements: ['--extra-index-url https://x.test/s', a==1 --hash=sha256:{'a' * 64}]\n", []),
        (
            "indexes: [{url: 'https://x.test/s', packages: [a]}]\n"
            "requirements: ['--extra-index-url https://x.test/s', a==1]\n",
            [],
        ),
    ],
)
def test_names_that_several_indexes_may_offer(found: Looker, more: str, codes: list[str]) -> None:
    assert found("python: '3.13'\n" + more).codes == codes
