"""Azure ML's files that name others: where their paths lead, and what is said where they lead nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.load import load_spec
from envbuild.specs.model import BuildContextSpec, ImageBaseSpec, Spec

INLINE = "environment:\n  python: {condaDependenciesFile: conf/conda.yml}\n"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def conda(path: Path, version: str) -> Path:
    return written(path, f"channels: [conda-forge]\ndependencies: [python={version}]\n")


def python_of(spec: Spec) -> str:
    assert spec.conda is not None
    return spec.conda.dependencies[0]


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        (".azureml/train.runconfig", "conf/conda.yml", ".azureml/conf/conda.yml"),
        ("aml_config/train.runconfig", "conf/conda.yml", "aml_config/conf/conda.yml"),
        (".azureml/gpu/train.runconfig", "conf/conda.yml", ".azureml/gpu/conf/conda.yml"),
        (".azureml/train.runconfig", ".azureml/conf/conda.yml", "other/conda.yml"),
        ("train.runconfig", "conf/conda.yml", ".azureml/conf/conda.yml"),
        ("jobs/train.runconfig", "jobs/conf/conda.yml", "conf/conda.yml"),
        ("jobs/train.runconfig", "conf/conda.yml", "jobs/other/conda.yml"),
    ],
)
def test_paths_of_a_runconfig_are_those_of_its_project(
    file: str, right: str, wrong: str, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    conda(tmp_path / wrong, "3.11")
    conda(tmp_path / right, "3.12")
    assert python_of(load_spec(written(tmp_path / file, INLINE))) == "python=3.12"


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("inferenceconfig.json", "src/conda.yml", "conda.yml"),
        ("inferenceconfig.json", "conda.yml", "other/conda.yml"),
        ("deploy/inferenceconfig.json", "deploy/src/conda.yml", "src/conda.yml"),
        ("deploy/inferenceconfig.json", "src/conda.yml", "conda.yml"),
    ],
)
def test_the_conda_file_of_an_inferenceconfig_is_in_its_source_directory(
    file: str, right: str, wrong: str, tmp_path: Path
) -> None:
    (tmp_path / ".azureml").mkdir()
    conda(tmp_path / wrong, "3.11")
    conda(tmp_path / right, "3.12")
    config = {"entryScript": "score.py", "sourceDirectory": "src", "condaFile": "conda.yml"}
    assert python_of(load_spec(written(tmp_path / file, json.dumps(config)))) == "python=3.12"


def test_a_base_dockerfile_may_be_a_path(tmp_path: Path) -> None:
    written(tmp_path / "docker/Dockerfile", "FROM registry.example/base:1\nRUN true\n")
    written(tmp_path / "docker/only", "FROM registry.example/base:1\n")
    docker = "environment:\n  python: {userManagedDependencies: true}\n  docker: {baseDockerfile: "
    file = written(tmp_path / ".azureml/train.runconfig", f"{docker}./docker/Dockerfile}}\n")
    base = load_spec(file).base
    assert isinstance(base, BuildContextSpec)
    assert (base.path.as_posix(), base.dockerfile_path) == ("../docker", "Dockerfile")
    assert load_spec(written(file, f"{docker}docker/only}}\n")).base == ImageBaseSpec(
        reference="registry.example/base:1"
    )
    with pytest.raises(
        SpecError, match=r"train.runconfig:3: environment.docker.baseDockerfile: .*gone: no such file"
    ):
        load_spec(written(file, f"{docker}gone}}\n"))
    with pytest.raises(SpecError, match="a Dockerfile's text can't be carried inside a spec"):
        load_spec(written(file, f'{docker}"FROM base:1\\nRUN true"}}\n'))


def test_steps_that_an_inferenceconfig_adds_to_its_image_are_said(tmp_path: Path) -> None:
    config = {"entryScript": "score.py", "extraDockerfileSteps": "steps.txt"}
    spec = load_spec(written(tmp_path / "inferenceconfig.json", json.dumps(config)))
    (line,) = (line for line in spec.left_out if line not in spec.unrelated)
    assert "extraDockerfileSteps: build the image with them" in line


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("endpoint_name: e\ninstance_type: x\n", "a deployment without an environment of its own"),
        (
            "name: e\nauth_mode: key\n",
            "an endpoint, which has no environment: give the job or deployment that uses it",
        ),
        ("command: x\ncompute: azureml:cpu\n", "a job without an environment of its own"),
        ("type: command\ncommand: x\n", "a job without an environment of its own"),
        ("type: pipeline\njobs: {a: {command: x}}\n", "a pipeline without an environment of its own"),
        (
            "endpoint_name: e\nmodel: {path: m, type: triton_model}\n",
            "a deployment without an environment of its own, and a triton_model brings none",
        ),
        (
            "$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json\ncommand: x\n",
            "a component without an environment of its own",
        ),
        (
            "$schema: https://azuremlschemas.azureedge.net/latest/model.schema.json\npath: m\n",
            "Azure ML's model, which has no environment: give the job or deployment that uses it",
        ),
        (
            "type: pipeline\njobs: {a: {component: 'azureml:a@latest'}, b: {component: azureml:b:1}}\n",
            "a pipeline without an environment of its own: that of azureml:a@latest is known to the service "
            "only; that of azureml:b:1 is known to the service only",
        ),
    ],
)
def test_a_file_without_an_environment_says_so_in_one_line(text: str, kind: str, tmp_path: Path) -> None:
    file = written(tmp_path / "job.yml", text)
    with pytest.raises(SpecError) as raised:
        load_spec(file)
    assert raised.value.problems == (f"{file.as_posix()}: {kind}",)


def test_a_schedule_leads_to_its_job(tmp_path: Path) -> None:
    written(tmp_path / "jobs/job.yml", "command: x\nenvironment: {image: registry.example/base:1}\n")
    for create in ("./jobs/job.yml", "{type: pipeline, job: ./jobs/job.yml}"):
        file = written(tmp_path / "schedule.yml", f"trigger: {{type: cron}}\ncreate_job: {create}\n")
        assert load_spec(file).base == ImageBaseSpec(reference="registry.example/base:1")


def test_a_mistake_in_an_environment_s_own_file_is_still_one(tmp_path: Path) -> None:
    schema = "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\n"
    with pytest.raises(SpecError, match=r"compute: unknown key"):
        load_spec(written(tmp_path / "environment.yml", f"{schema}image: base\ncompute: x\n"))
    with pytest.raises(SpecError, match=r"model: unknown key"):
        load_spec(written(tmp_path / "environment.yml", "image: base\nmodel: x\n"))


SDK2 = "$schema: http://azureml/sdk-2-0/CommandComponent.json\ntype: CommandComponent\ncommand: x\n"


@pytest.mark.parametrize(
    ("conda_section", "dependencies", "requirements"),
    [
        (
            "{conda_dependencies: {channels: [conda-forge], dependencies: [python=3.9, {pip: [six]}]}}",
            ("python=3.9",),
            ["six"],
        ),
        ("{conda_dependencies_file: conda.yml}", ("python=3.12",), []),
        ("{pip_requirements_file: requirements.txt}", ("python=3.8.5",), ["idna"]),
        (
            "{conda_dependencies_file: conda.yml, pip_requirements_file: requirements.txt}",
            ("python=3.12",),
            [],
        ),
    ],
)
@pytest.mark.parametrize("schema", [SDK2, "name: c\ncommand: x\n"])
def test_a_component_of_sdk_2_0_installs_what_its_conda_section_names(
    schema: str, conda_section: str, dependencies: tuple[str, ...], requirements: list[str], tmp_path: Path
) -> None:
    conda(tmp_path / "conda.yml", "3.12")
    written(tmp_path / "requirements.txt", "idna\n")
    environment = (
        f"environment:\n  docker: {{image: registry.example/base:1}}\n  conda: {conda_section}\n  os: Linux\n"
    )
    spec = load_spec(written(tmp_path / "component.yml", schema + environment))
    assert spec.base == ImageBaseSpec(reference="registry.example/base:1")
    assert spec.conda is not None
    assert spec.conda.dependencies == dependencies
    assert [requirement.text for requirement in spec.pip.requirements] == requirements
    assert spec.left_out == spec.unrelated


def test_a_component_of_sdk_2_0_with_a_dockerfile_is_refused(tmp_path: Path) -> None:
    environment = "environment:\n  docker: {build: {dockerfile: 'file:Dockerfile'}}\n"
    with pytest.raises(
        SpecError, match=r"component\.yml:5: environment\.docker\.build: a Dockerfile can't be"
    ):
        load_spec(written(tmp_path / "component.yml", SDK2 + environment))


def test_an_environment_that_is_only_named_is_the_service_s(tmp_path: Path) -> None:
    text = "command: x\nenvironment: {name: AzureML-Designer, version: 3}\n"
    with pytest.raises(
        SpecError, match="names no software: only the service knows it; 'az ml environment show"
    ):
        load_spec(written(tmp_path / "component.yml", text))
    schema = "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\n"
    with pytest.raises(SpecError, match="an environment without image, build and conda_file"):
        load_spec(written(tmp_path / "environment.yml", f"{schema}name: train\nversion: 3\n"))


def test_an_inferenceconfig_is_known_under_any_name(tmp_path: Path) -> None:
    conda(tmp_path / "conda.yml", "3.12")
    config = {"entryScript": "score.py", "runtime": "python", "condaFile": "conda.yml"}
    assert python_of(load_spec(written(tmp_path / "ic.json", json.dumps(config)))) == "python=3.12"
