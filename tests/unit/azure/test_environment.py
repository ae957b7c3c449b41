"""The SDK's environments: what their sections say is what is registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from envbuild import Environment as Own
from envbuild.azure.conda_dependencies import CondaDependencies
from envbuild.azure.container_registry import ContainerRegistry, RegistryIdentity
from envbuild.azure.environment import DockerBuildContext, Environment, EnvironmentReference, SparkPackage
from envbuild.azure.runconfig import DEFAULT_CPU_IMAGE, DEFAULT_GPU_IMAGE, RunConfiguration
from envbuild.azure.unsupported import AzureOnlyError
from envbuild.azure.workspace import Workspace
from envbuild.errors import SpecError, UsageError, WorkspaceError
from envbuild.resources import curated_names
from envbuild.specs.model import BuildContextSpec, CondaSpec, DebianBaseSpec, ImageBaseSpec, MavenPackage
from tests.fakes.wheelhouse import Wheel
from tests.unit.app.conftest import write

CONDA = "channels: [conda-forge]\ndependencies: [python=3.8.*, numpy, {pip: [six]}]\n"


def train() -> Environment:
    env = Environment(name="train")
    dependencies = CondaDependencies()
    dependencies.add_conda_package("numpy==1.17.0")
    dependencies.add_pip_package("pillow")
    env.python.conda_dependencies = dependencies
    env.environment_variables = {"MESSAGE": "Hello"}
    return env


def test_sections_are_one_environment() -> None:
    spec = train().spec
    assert (spec.name, spec.base, spec.environment_variables) == ("train", None, (("MESSAGE", "Hello"),))
    assert spec.conda == CondaSpec(channels=("conda-forge",), dependencies=("python=3.8.13", "numpy==1.17.0"))
    assert [requirement.text for requirement in spec.pip.requirements] == ["pillow"]


def test_a_program_and_a_directory_that_say_the_same_are_one_environment(tmp_path: Path) -> None:
    env = train()
    env.save_to_directory(tmp_path / "saved")
    assert Own.load_from_directory(tmp_path / "saved").definition_digest == env.own.definition_digest
    with pytest.raises(UsageError, match="is there already"):
        env.save_to_directory(tmp_path / "saved")
    env.python.interpreter_path, env.inferencing_stack_version = "/usr/bin/python3", "latest"
    env.save_to_directory(tmp_path / "saved", overwrite=True)
    again = Environment.load_from_directory(tmp_path / "saved")
    assert (again.python.interpreter_path, again.inferencing_stack_version) == ("/usr/bin/python3", "latest")
    assert again.own.definition_digest == env.own.definition_digest
    assert Own.load_from_directory(tmp_path / "saved").definition_digest == env.own.definition_digest


def test_files_keep_their_python(tmp_path: Path) -> None:
    conda = Environment.from_conda_specification("c", write(tmp_path / "in", CONDA, "c.yml"))
    assert conda.spec.conda is not None
    assert conda.spec.conda.dependencies == ("python=3.8.*", "numpy")
    assert conda.spec.directory == tmp_path / "in"
    without = write(tmp_path, "channels: [conda-forge]\ndependencies: [numpy]\n", "d.yml")
    bare = Environment.from_conda_specification("d", without).spec.conda
    assert bare is not None
    assert bare.dependencies == ("numpy", "python=3.10.18")


def test_requirements_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "in", "idna  # why\n", "more.txt")
    path = write(tmp_path / "in", "# head\n--pre\n-r more.txt\nsix>=1\n", "r.txt")
    env = Environment.from_pip_requirements("r", path, pip_version="24.0")
    dependencies = env.python.conda_dependencies
    assert dependencies is not None
    assert list(dependencies.pip_packages) == ["idna", "six>=1"]
    assert env.spec.pip.options == ("--pre",)
    assert env.spec.conda is not None
    assert env.spec.conda.dependencies == ("python=3.8.13", "pip=24.0")
    constrained = write(tmp_path / "in", "-c more.txt\nsix\n", "c.txt")
    pip = Environment.from_pip_requirements("c", constrained).spec.pip
    assert [line.text for line in (*pip.requirements, *pip.constraints)] == ["six", "idna"]


def test_bases_take_each_others_place(tmp_path: Path) -> None:
    registry = ContainerRegistry()
    registry.address = "registry.example.org"
    env = Environment.from_docker_image("a", "team/base:1", registry)
    assert env.spec.type.value == "user-managed"
    assert env.spec.base == ImageBaseSpec(reference="registry.example.org/team/base:1")
    env.docker.base_dockerfile = "FROM scratch\nRUN true\n"
    assert (env.docker.base_image, env.docker.base_dockerfile) == (None, "FROM scratch\nRUN true\n")
    base = env.spec.base
    assert isinstance(base, BuildContextSpec)
    assert [path.name for path in (env.spec.directory / base.path).iterdir()] == ["BaseDockerfile"]
    write(tmp_path / "ctx", "FROM scratch\nCOPY x /\n", "Dockerfile")
    write(tmp_path / "ctx", "1", "x")
    from_file = Environment.from_dockerfile("a", tmp_path / "ctx" / "Dockerfile")
    context = DockerBuildContext.from_local_directory(None, tmp_path / "ctx")
    from_context = Environment.from_docker_build_context("a", context)
    assert from_file.own.definition_digest == from_context.own.definition_digest
    from_context.docker.base_image = "x:1"
    assert from_context.docker.build_context is None
    with pytest.raises(UsageError, match="exclude each other"):
        Environment.from_docker_image("a", "b", conda_specification="c", pip_requirements="d")


def test_packages_on_a_dockerfile_that_only_names_an_image(tmp_path: Path) -> None:
    conda = write(tmp_path, CONDA, "c.yml")
    env = Environment.from_dockerfile("a", "# head\nFROM python:3.13\n", conda_specification=conda)
    assert env.spec.base == ImageBaseSpec(reference="python:3.13")
    assert env.spec.conda is not None
    env.docker.base_dockerfile = "FROM python:3.13\nRUN true\n"
    with pytest.raises(
        SpecError, match="can't have packages installed on it; install them in the Dockerfile"
    ):
        env.spec  # noqa: B018


@pytest.mark.parametrize("steps", ["", "RUN true\n"])
@pytest.mark.parametrize("as_it_is", [False, True])
def test_a_directory_with_a_dockerfile_is_loaded_as_it_was_saved(
    as_it_is: bool, steps: str, tmp_path: Path
) -> None:
    env = train()
    env.docker.base_dockerfile = f"FROM python:3.13\n{steps}"
    env.python.user_managed_dependencies = as_it_is
    env.save_to_directory(tmp_path / "saved")
    again = Environment.load_from_directory(tmp_path / "saved")
    assert again.docker.base_dockerfile == env.docker.base_dockerfile
    assert again.python.user_managed_dependencies is as_it_is
    assert again.python.conda_dependencies is not None
    if steps and not as_it_is:
        with pytest.raises(SpecError, match="can't have packages installed on it"):
            again.spec  # noqa: B018
    elif steps:
        assert isinstance(again.spec.base, BuildContextSpec)
    else:
        assert again.spec.base == ImageBaseSpec(reference="python:3.13")


def test_platform_spark_and_server_are_carried() -> None:
    env = train()
    env.docker.platform.architecture = "arm64"
    env.spark.packages = [SparkPackage("org.example", "lib", "1.0")]
    env.inferencing_stack_version = "latest"
    spec = env.spec
    assert [str(platform) for platform in spec.platforms] == ["linux/arm64"]
    assert spec.spark is not None
    assert spec.spark.packages == (MavenPackage(group="org.example", artifact="lib", version="1.0"),)
    assert spec.inference_config is not None
    assert (spec.name, spec.pip.requirements[-1].text) == ("train", "azureml-inference-server-http>=1")


def test_versions_are_registered_found_and_changed(workspace: Workspace) -> None:
    env = train()
    assert (env.register(workspace=workspace).version, env.version) == ("1", None)
    restored = Environment.get(workspace=workspace, name="train", version="1")
    assert restored.own.definition_digest == env.own.definition_digest
    assert restored.register(workspace).version == "1"
    assert restored.python.conda_dependencies is not None
    restored.python.conda_dependencies.add_pip_package("six")
    second = restored.register(workspace)
    assert (second.version, second.asset_id) == ("2", "train:2")
    Environment.label(workspace, "train", "1", ["prod"])
    assert Environment.get(workspace, "train", label="prod").version == "1"
    assert EnvironmentReference("train").get_environment(workspace).version == "2"
    env.environment_variables["MESSAGE"], env.version = "another", "2"
    with pytest.raises(WorkspaceError, match="train:2"):
        env.register(workspace)
    clone = second.clone("other")
    assert (clone.name, clone.version, clone.asset_id) == ("other", None, None)
    assert clone.register(workspace).version == "1"
    listed = Environment.list(workspace)
    assert {name: env.version for name, env in listed.items() if name in ("other", "train")} == {
        "other": "1",
        "train": "2",
    }
    assert set(curated_names()) < set(listed)
    assert list(workspace.environments) == list(listed)
    with pytest.raises(KeyError):
        listed["none"]


def test_a_curated_one_is_cloned_and_keeps_what_sections_can_not_say(workspace: Workspace) -> None:
    curated = Environment.get(workspace, "sklearn-1.9-py3.13-train")
    before = curated.spec
    clone = curated.clone("mine")
    assert clone.python.conda_dependencies is not None
    clone.python.conda_dependencies.add_pip_package("six==1.17.0")
    spec = clone.spec
    assert (spec.python, spec.conda, spec.base) == (before.python, None, before.base)
    assert [line.text for line in spec.pip.requirements] == [
        *(line.text for line in before.pip.requirements),
        "six==1.17.0",
    ]
    clone.python.conda_dependencies.set_python_version("3.12")
    assert clone.spec.python == "3.12"


def test_debian_packages_stay_while_other_things_change(workspace: Workspace) -> None:
    own = Own("train")
    own.add_debian_package("git")
    own.add_conda_package("numpy")
    own.register(workspace.records)
    env = Environment.get(workspace, "train")
    env.python.conda_dependencies = CondaDependencies.create(conda_packages=["scipy"])
    assert env.spec.base == DebianBaseSpec(packages=("git",))
    assert env.spec.conda is not None
    assert env.spec.conda.dependencies == ("python=3.10.18", "scipy")


def test_a_private_wheel_is_found_by_its_version(workspace: Workspace, tmp_path: Path) -> None:
    wheel = Wheel(name="my-own", version="1.2")
    (tmp_path / wheel.file).write_bytes(wheel.data())
    address = Environment.add_private_pip_wheel(workspace, wheel.file)
    assert address == Environment.add_private_pip_wheel(workspace=workspace, file_path=wheel.file)
    env = Environment("train")
    assert env.python.conda_dependencies is not None
    env.python.conda_dependencies.add_pip_package("my_own==1.0")
    env.python.conda_dependencies.add_pip_package(address)
    pip = env.spec.pip
    assert [line.text for line in pip.requirements] == ["my-own==1.2"]
    assert pip.options == (f"--find-links {address.rpartition('/')[0]}",)
    assert env.register(workspace).version == "1"
    (tmp_path / "no.whl").write_bytes(b"x")
    with pytest.raises(SpecError, match=r"no\.whl is no wheel"):
        Environment.add_private_pip_wheel(workspace, "no.whl")


def test_an_image_that_was_not_built_is_none(workspace: Workspace) -> None:
    details = train().get_image_details(workspace)
    assert (details.image_exist, details.image, details.repository) == (False, None, None)
    assert details == {"imageExistsInRegistry": False}


def credential(env: Environment) -> None:
    env.docker.base_image_registry.password = "x"


def identity(env: Environment) -> None:
    env.docker.base_image_registry.registry_identity = RegistryIdentity()


def arguments(env: Environment) -> None:
    env.docker.arguments = ["--privileged"]


def shared_memory(env: Environment) -> None:
    env.docker.shm_size = "2g"


def statistics(env: Environment) -> None:
    env.r = object()


def stack(env: Environment) -> None:
    env.inferencing_stack_version = "1.0"
    env.spec  # noqa: B018


@pytest.mark.parametrize("change", [credential, identity, arguments, shared_memory, statistics, stack])
def test_what_means_nothing_here_says_what_to_use_instead(change: Callable[[Environment], None]) -> None:
    with pytest.raises(AzureOnlyError) as raised:
        change(train())
    assert raised.value.hint


def test_names_that_are_elsewhere_say_so() -> None:
    with pytest.raises(AzureOnlyError) as raised:
        from envbuild.azure import Dataset  # noqa: F401
    assert (
        raised.value.hint == "put the data beside the code, or mount it: 'envbuild run --mount SOURCE:TARGET'"
    )
    with pytest.raises(AzureOnlyError):
        from envbuild.azure.environment import RSection  # noqa: F401
    with pytest.raises(ImportError):
        from envbuild.azure import Datasets  # noqa: F401


def test_images_that_the_sdk_names_are_named() -> None:
    env = train()
    env.docker.base_image = DEFAULT_CPU_IMAGE
    assert env.spec.base == ImageBaseSpec(reference=DEFAULT_CPU_IMAGE)
    assert DEFAULT_GPU_IMAGE.startswith("mcr.microsoft.com/azureml/openmpi4.1.0-cuda")


def test_a_typing_error_is_told() -> None:
    env = train()
    with pytest.raises(AttributeError, match="conda_dependancies"):
        env.python.conda_dependancies = None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        env.docker.base_img = "x"  # type: ignore[attr-defined]
    # A misspelt variable would change nothing, without a word.
    with pytest.raises(AttributeError, match="enviroment_variables"):
        env.enviroment_variables = {"A": "1"}  # type: ignore[attr-defined]
    run_configuration = RunConfiguration()
    with pytest.raises(AttributeError, match="enviroment"):
        run_configuration.enviroment = env
    run_configuration.target = None
    assert run_configuration.target == "local"
    with pytest.raises(UsageError, match="'team' is no workspace"):
        Environment.list("team")  # type: ignore[arg-type]
