"""Export of what the spec cases hold, and what each format says it can't carry."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import SpecError, UsageError
from envbuild.specs.definition import canonical_definition, definition_digest
from envbuild.specs.exporters.azure import IMAGE
from envbuild.specs.exporters.formats import dump_native, export, portable_problems
from envbuild.specs.load import load_spec
from envbuild.specs.model import BuildContextSpec, CondaSpec, Spec
from envbuild.specs.plugins import Exported
from tests.unit.specs.test_spec_cases import spec_of

CASES = Path(__file__).parents[2] / "cases" / "spec"
GOOD = sorted(path.parent.name for path in CASES.glob("*/expected.json"))


@pytest.mark.parametrize("case", GOOD)
def test_every_case_loads_again_from_its_native_yaml(case: str, tmp_path: Path) -> None:
    spec = load_spec(spec_of(CASES / case))
    shutil.copytree(CASES / case, tmp_path / "copy")
    place = tmp_path / "copy" / spec.source.relative_to(CASES / case).parent
    written = spec
    if isinstance(spec.base, BuildContextSpec):
        # Not into the context itself: what is added there is another context.
        base = replace(spec.base, path=place.relative_to(tmp_path) / spec.base.path)
        place, written = tmp_path, replace(spec, base=base)
    path = place / "exported.yaml"
    path.write_text(dump_native(written), encoding="utf-8")
    assert definition_digest(load_spec(path)) == definition_digest(spec)
    if not portable_problems(spec):
        alone = tmp_path / "envbuild.yaml"
        path.rename(alone)
        assert definition_digest(load_spec(alone)) == definition_digest(spec)


def test_an_unknown_format_names_the_known_ones() -> None:
    spec = load_spec(CASES / "native-minimal")
    with pytest.raises(UsageError) as raised:
        export(spec, "docker")
    assert raised.value.message == "unknown format 'docker'"
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("known: native")


V1 = [each for each in GOOD if each.startswith(("azure-v1", "azure-runconfig"))]
# A requirements file alone is no environment there: a conda file with a python is made of it.
V2 = [
    each
    for each in GOOD
    if each.startswith(("azure-v2", "azureml-assets")) and each != "azureml-assets-requirements"
]


def again(case: str, form: str, place: Path) -> tuple[Spec, Spec, Exported]:
    """A case, and what its export in ``form`` is read as, in a directory with the case's other files."""
    spec = load_spec(spec_of(CASES / case))
    found = export(spec, form)
    directory = place / "copy" / spec.source.relative_to(CASES / case).parent
    shutil.copytree(CASES / case, place / "copy")
    for name in ("SPEC", "expected.json", spec.source.name, "BaseDockerfile", "conda_dependencies.yml"):
        (directory / name).unlink(missing_ok=True)
    for name, data in found.files:
        (directory / name).write_bytes(data)
    return spec, load_spec(directory / found.files[0][0]), found


@pytest.mark.parametrize(
    ("case", "form"), [(each, "azure-v1") for each in V1] + [(each, "azure-v2") for each in V2]
)
def test_azure_formats_lose_nothing_of_their_own(case: str, form: str, tmp_path: Path) -> None:
    spec, read, found = again(case, form, tmp_path)
    assert canonical_definition(read) == canonical_definition(spec)
    assert (read.name, read.version, read.tags) == (spec.name, spec.version, spec.tags)
    assert read.description == spec.description
    assert read.left_out == ()
    assert export(read, form).files == found.files


def test_a_v1_directory_is_written_as_the_service_has_it() -> None:
    found = export(load_spec(CASES / "azure-v1-directory"), "azure-v1")
    assert found.left_out == ()
    files = dict(found.files)
    assert list(files) == ["azureml_environment.json", "conda_dependencies.yml"]
    content = json.loads(files["azureml_environment.json"])
    assert list(content)[:3] == ["name", "version", "environmentVariables"]
    assert content["environmentVariables"] == {"GREETING": "café 😀", "OMP_NUM_THREADS": "4"}
    assert content["docker"]["baseImage"] == "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20240304.v1"
    assert content["docker"]["platform"] == {"os": "Linux", "architecture": "amd64"}
    assert content["python"]["userManagedDependencies"] is False
    assert content["inferencingStackVersion"] == "latest"
    assert (
        files["conda_dependencies.yml"].decode()
        == """\
name: sklearn-train
channels:
  - anaconda
  - conda-forge
dependencies:
  - python=3.8.*
  - scikit-learn>=1.2
  - pip:
      - --extra-index-url https://index.example/simple
      - azureml-defaults~=1.55
      - mltable
"""
    )


def test_what_lies_beside_a_base_dockerfile_is_not_in_its_context(tmp_path: Path) -> None:
    shutil.copytree(CASES / "azure-v1-dockerfile", tmp_path / "copy")
    before = definition_digest(load_spec(tmp_path / "copy"))
    (tmp_path / "copy" / "notes.txt").write_text("other")
    assert definition_digest(load_spec(tmp_path / "copy")) == before
    (tmp_path / "copy" / "BaseDockerfile").write_text("FROM a\nRUN c\n")
    assert definition_digest(load_spec(tmp_path / "copy")) != before


@pytest.mark.parametrize("form", ["conda", "requirements", "azure-v2", "azure-v1"])
def test_every_format_says_what_it_can_t_carry(form: str) -> None:
    """Of a spec that has everything, each field is either in the files or named."""
    left = export(load_spec(CASES / "native-everything"), form).left_out
    expected = {
        "conda": [
            "version",
            "runtime: spark",
            "platforms: linux/amd64, linux/arm64",
            "base: Debian with trixie, ca-certificates, libgomp1",
            "spark",
            "user: 0:0",
            "as_of: 2026-11-01",
        ],
        "requirements": [
            "conda_file: numpy",
            "conda_file: libblas",
            "version",
            "runtime: spark",
            "platforms: linux/amd64, linux/arm64",
            "python: 3.10",
            "base: Debian with trixie, ca-certificates, libgomp1",
            "environment_variables: DEBUG, EMPTY, LEVEL, ONLY_CONDA, RATE",
            "spark",
            "user: 0:0",
            "as_of: 2026-11-01",
        ],
        "azure-v2": [
            "runtime: spark",
            "platforms: linux/amd64, linux/arm64",
            "base: Debian with trixie, ca-certificates, libgomp1",
            "spark",
            "user: 0:0",
            "as_of: 2026-11-01",
        ],
        "azure-v1": [
            f"base: Azure ML needs an image, so {IMAGE} is named in its place",
            "platforms: linux/amd64, linux/arm64",
            "user: 0:0",
            "as_of: 2026-11-01",
        ],
    }
    assert list(left) == expected[form]


def test_a_conda_file_holds_the_pip_side_too(tmp_path: Path) -> None:
    found = export(load_spec(CASES / "native-explicit"), "conda")
    assert found.left_out == (
        "conda_file.explicit: packages of platforms other than linux/amd64",
        "platforms: linux/amd64, linux/arm64",
        "conda_file.explicit: the hashes and platforms of exact packages",
        "requirements_complete: more may be installed than is listed",
    )
    for name, data in found.files:
        (tmp_path / name).write_bytes(data)
    read = load_spec(tmp_path)
    assert read.conda == CondaSpec(
        channels=("conda-forge",),
        dependencies=("python=3.12.8=h9e4cc4f_1_cpython", "six=1.17.0=pyhd8ed1ab_0"),
    )
    assert [requirement.text for requirement in read.pip.requirements] == ["idna==3.10"]
    assert [constraint.text for constraint in read.pip.constraints] == ["idna<4"]


def test_requirements_are_read_again_as_they_were(tmp_path: Path) -> None:
    spec = load_spec(CASES / "native-everything")
    for name, data in export(spec, "requirements").files:
        (tmp_path / name).write_bytes(data)
    read = load_spec(tmp_path)
    assert canonical_definition(read)["pip"] == canonical_definition(spec)["pip"]


def test_a_format_that_would_hold_nothing_is_refused() -> None:
    with pytest.raises(SpecError) as raised:
        export(load_spec(CASES / "native-minimal"), "requirements")
    assert raised.value.message.endswith(": has no pip requirements")
