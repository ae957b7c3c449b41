"""What the SDK's scripts submit, and what can't be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from envbuild.azure.environment import Environment
from envbuild.azure.experiment import Experiment
from envbuild.azure.model import InferenceConfig, Model
from envbuild.azure.runconfig import (
    DockerConfiguration,
    MpiConfiguration,
    PyTorchConfiguration,
    RunConfiguration,
)
from envbuild.azure.script_run_config import ScriptRunConfig
from envbuild.azure.unsupported import AzureOnlyError
from envbuild.azure.webservice import AciWebservice, LocalWebservice
from envbuild.azure.workspace import Workspace
from envbuild.errors import UsageError
from tests.unit.app.conftest import write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "src", "print(1)\n", "train.py").parent


def test_a_script_is_what_envbuild_runs(source: Path) -> None:
    env = Environment("train")
    run = ScriptRunConfig(
        source, "train.py", ["--depth", 3], compute_target="place", environment=env
    ).script_run()
    assert (run.command, run.target, run.source_directory) == (
        ("python", "train.py", "--depth", "3"),
        "place",
        source,
    )
    assert run.environment.definition_digest == env.own.definition_digest
    assert ScriptRunConfig(source, command="echo 'a b'").script_run().command == ("echo", "a b")
    assert ScriptRunConfig(source, command=["echo", "x"]).script_run().command == ("echo", "x")


def test_a_run_configuration_says_the_rest(source: Path) -> None:
    config = RunConfiguration(script="train.py", arguments=["x"])
    config.target = "place"
    config.environment = Environment.from_docker_image("image", "base:1")
    config.environment.python.interpreter_path = "/opt/python"
    config.docker = DockerConfiguration(use_docker=True)
    run = ScriptRunConfig(source, run_config=config).script_run()
    assert (run.command, run.target) == (("/opt/python", "train.py", "x"), "place")
    other = ScriptRunConfig(source, run_config=config, command="ls").script_run()
    assert other.command == ("ls",)


def test_an_environment_that_nobody_named_stays_unnamed(source: Path) -> None:
    assert ScriptRunConfig(source, "train.py").script_run().environment.spec.named is False
    assert (
        ScriptRunConfig(source, "train.py", environment=Environment("a")).script_run().environment.spec.named
    )


def test_a_runconfig_is_written_and_read(source: Path) -> None:
    config = RunConfiguration(script="train.py", arguments=["--depth", 3])
    config.environment = Environment("train")
    config.environment_variables = {"A": "1"}
    config.environment.inferencing_stack_version = "latest"
    config.save(source, "cpu")
    again = RunConfiguration.load(source, "cpu")
    assert (again.script, again.arguments, again.target) == ("train.py", ["--depth", "3"], "local")
    assert again.environment_variables == {"A": "1"}
    assert again.environment.own.definition_digest == config.environment.own.definition_digest
    RunConfiguration.delete(source, "cpu")
    with pytest.raises(UsageError, match="there is no runconfig cpu"):
        RunConfiguration.delete(source, "cpu")


def test_what_no_run_of_ones_own_can_be_told_says_what_to_use(source: Path, workspace: Workspace) -> None:
    assert ScriptRunConfig(source, "train.py", distributed_job_config=PyTorchConfiguration()).script_run()
    refused: list[Callable[[], object]] = [
        lambda: ScriptRunConfig(source, "train.py", distributed_job_config=MpiConfiguration(2)),
        lambda: ScriptRunConfig(source, "train.py", resume_from=object()),
        lambda: ScriptRunConfig(source, "train.py", max_run_duration_seconds=60),
        lambda: ScriptRunConfig(source, "train.py", [object()]).script_run(),
        lambda: RunConfiguration().data,
        lambda: setattr(RunConfiguration(), "data", {}),
        lambda: ScriptRunConfig(
            source, "train.py", docker_runtime_config=DockerConfiguration(True, arguments=["-v"])
        ).script_run(),
        lambda: ScriptRunConfig(source, "train.py", run_config=RunConfiguration(framework="R")).script_run(),
        lambda: Experiment(workspace, "e").submit(object()),  # type: ignore[arg-type]
        lambda: Experiment(workspace, "e").start_logging(),
        lambda: InferenceConfig("score.py", runtime="spark-py"),
        lambda: InferenceConfig("score.py", enable_gpu=True),
        lambda: Model(workspace, "registered"),
        lambda: Model.deploy(workspace, "s", ["a", "b"], InferenceConfig("score.py")),
        lambda: AciWebservice.deploy_configuration(cpu_cores=1),
        lambda: LocalWebservice(workspace, "s").get_keys(),
    ]
    for call in refused:
        with pytest.raises(AzureOnlyError) as raised:
            call()
        assert raised.value.hint
    with pytest.raises(UsageError, match="a script or a command"):
        ScriptRunConfig(source, "train.py", command="ls")
    with pytest.raises(UsageError, match=r"there is no script none\.py"):
        ScriptRunConfig(source, "none.py").script_run()


def test_a_service_that_is_not_there_is_told(workspace: Workspace) -> None:
    service = LocalWebservice(workspace, "s")
    assert service.state == "Deleted"
    with pytest.raises(UsageError, match="s isn't running"):
        service.run("{}")
    with pytest.raises(UsageError, match=r"there is no script score\.py"):
        Model.deploy(workspace, "s", [], InferenceConfig("score.py", environment=Environment("a")))
    with pytest.raises(UsageError, match="environment and conda_file exclude each other"):
        InferenceConfig("score.py", conda_file="c.yml", environment=Environment("a"))


def test_a_workspace_has_the_names_of_its_file(tmp_path: Path) -> None:
    Workspace("sub", "group", "team").write_config(tmp_path)
    found = Workspace.from_config()
    assert found.get_details() == {
        "subscription_id": "sub",
        "resource_group": "group",
        "workspace_name": "team",
    }
    assert Workspace.from_config(tmp_path / ".azureml" / "config.json").name == "team"
    assert list(found.compute_targets) == ["local"]
    config = RunConfiguration()
    config.target = found.compute_targets["local"]
    assert config.target == "local"
    with pytest.raises(UsageError, match=r"elsewhere: no config\.json is there"):
        Workspace.from_config("elsewhere")
