"""The names and signatures of azureml-core 1.61, and whether ``envbuild.azure`` has them."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from envbuild.app.environments import Workspace as Records
from envbuild.azure.experiment import Experiment
from envbuild.azure.run import Run
from envbuild.azure.unsupported import AzureOnlyError
from envbuild.azure.workspace import Workspace

MODULES = {
    "CondaDependencies": "conda_dependencies",
    "DockerConfiguration": "runconfig",
    "Experiment": "experiment",
    "InferenceConfig": "model",
    "MpiConfiguration": "runconfig",
    "PyTorchConfiguration": "runconfig",
    "Run": "run",
    "RunConfiguration": "runconfig",
    "ScriptRunConfig": "script_run_config",
    "TensorflowConfiguration": "runconfig",
    "Workspace": "workspace",
}
"""Where a class is, if not in ``environment``; the SDK's modules are called so too."""

WHOLE = """
PythonSection.__init__()
PythonSection.conda_dependencies_file
DockerImagePlatform.__init__()
DockerBuildContext.__init__(location_type location dockerfile_path)
DockerBuildContext.from_local_directory(workspace path dockerfile_path)
DockerSection.__init__()
DockerSection.base_image
DockerSection.base_dockerfile
DockerSection.build_context
DockerSection.gpu_support
DockerSection.enabled
DockerSection.shared_volumes
DockerSection.arguments
DockerSection.shm_size
SparkPackage.__init__(group artifact version)
SparkSection.__init__()
Environment.__init__(name)
Environment.environment_variables
Environment.register(workspace)
Environment.label(workspace name version labels)
Environment.clone(new_name)
Environment.get(workspace name version label)
Environment.list(workspace)
Environment.from_dockerfile(name dockerfile conda_specification pip_requirements)
Environment.from_docker_image(name image container_registry conda_specification pip_requirements)
Environment.from_docker_build_context(name docker_build_context)
Environment.from_conda_specification(name file_path)
Environment.from_existing_conda_environment(name conda_environment_name)
Environment.from_pip_requirements(name file_path pip_version)
Environment.add_private_pip_wheel(workspace file_path exist_ok)
Environment.get_image_details(workspace)
Environment.build(workspace image_build_compute)
Environment.build_local(workspace platform)
Environment.save_to_directory(path overwrite)
Environment.load_from_directory(path)
EnvironmentReference.__init__(name version)
EnvironmentReference.get_environment(workspace)
CondaDependencies.__init__(conda_dependencies_file_path)
CondaDependencies.create(pip_indexurl pip_packages conda_packages python_version pin_sdk_version)
CondaDependencies.merge_requirements(requirements)
CondaDependencies.sdk_origin_url()
CondaDependencies.set_pip_index_url(index_url)
CondaDependencies.conda_channels
CondaDependencies.conda_packages
CondaDependencies.pip_packages
CondaDependencies.pip_options
CondaDependencies.get_default_number_of_packages()
CondaDependencies.get_python_version()
CondaDependencies.set_python_version(version)
CondaDependencies.add_channel(channel)
CondaDependencies.remove_channel(channel)
CondaDependencies.add_conda_package(conda_package)
CondaDependencies.remove_conda_package(conda_package)
CondaDependencies.add_pip_package(pip_package)
CondaDependencies.set_pip_option(pip_option)
CondaDependencies.remove_pip_option(pip_option)
CondaDependencies.remove_pip_package(pip_package)
CondaDependencies.set_pip_requirements(pip_requirements)
CondaDependencies.add_cntk_package(core_type)
CondaDependencies.add_tensorflow_pip_package(core_type version)
CondaDependencies.add_tensorflow_conda_package(core_type version)
CondaDependencies.save_to_file(base_directory conda_file_path)
CondaDependencies.save(path)
CondaDependencies.serialize_to_string()
CondaDependencies.as_dict()
TensorflowConfiguration.__init__(worker_count parameter_server_count)
MpiConfiguration.__init__(process_count_per_node node_count)
PyTorchConfiguration.__init__(communication_backend process_count node_count)
DockerConfiguration.__init__(use_docker shared_volumes arguments shm_size)
RunConfiguration.__init__(script arguments framework communicator conda_dependencies command)
RunConfiguration.auto_prepare_environment
RunConfiguration.environment_variables
RunConfiguration.target
RunConfiguration.save(path name separate_environment_yaml)
RunConfiguration.load(path name)
RunConfiguration.delete(path name)
ScriptRunConfig.__init__(source_directory script arguments run_config compute_target environment
    distributed_job_config resume_from max_run_duration_seconds command docker_runtime_config)
InferenceConfig.__init__(entry_script runtime conda_file extra_docker_file_steps source_directory
    enable_gpu description base_image base_image_registry cuda_version environment)
InferenceConfig.validate_configuration()
InferenceConfig.validation_script_content()
InferenceConfig.build_create_payload(workspace name model_ids)
InferenceConfig.build_profile_payload(profile_name input_data workspace models dataset_id
    container_resource_requirements description)
"""
"""Methods with their parameters, and properties: all there, and called the same way."""

PARTLY = """
Experiment: submit start_logging archive reactivate tag set_tags remove_tags refresh from_directory list
    delete workspace workspace_object name id archived_time tags get_runs get_docs_url
Run: get_context get_submitted_run get_secret get_secrets add_type_provider list list_by_compute get
    submit_child id name display_name description type number parent status wait_for_completion clean
    get_all_logs get_details_with_logs get_status get_detailed_status get_environment get_details
    get_children get_metrics experiment start complete fail cancel flush child_run create_children tag
    set_tags tags get_tags remove_tags add_properties properties get_properties log log_list log_row
    log_table log_confusion_matrix log_accuracy_table log_residuals log_predictions log_image
    upload_file upload_folder upload_files get_file_names download_file download_files take_snapshot
    restore_snapshot get_snapshot_id register_model
Workspace: from_config create get list write_config name subscription_id resource_group location
    service_context sku tags discovery_url update_dependencies delete get_details
    get_mlflow_tracking_uri compute_targets get_default_compute_target datastores datasets
    get_default_datastore set_default_datastore get_default_keyvault add_private_endpoint
    delete_private_endpoint_connection list_keys diagnose_workspace set_connection list_connections
    get_connection delete_connection private_endpoints experiments environments images models
    webservices linked_services get_run update sync_keys setup
"""
"""Classes of which each name is there, or says what to use instead."""


def module_of(name: str) -> str:
    return MODULES.get(name, "environment")


def whole() -> dict[str, list[str] | None]:
    """``Class.name`` to its parameters; None for a property."""
    found: dict[str, list[str] | None] = {}
    for line in re.sub(r"\n {4}", " ", WHOLE).split("\n"):
        if line:
            name, bracket, parameters = line.partition("(")
            found[name] = parameters.rstrip(")").split() if bracket else None
    return found


def partly() -> dict[str, list[str]]:
    lines = re.sub(r"\n {4}", " ", PARTLY).strip().splitlines()
    return {name: names.split() for name, _, names in (line.partition(": ") for line in lines)}


@pytest.mark.parametrize("name", whole())
def test_name_is_there_and_called_the_same_way(name: str) -> None:
    kind, _, method = name.partition(".")
    found = inspect.getattr_static(getattr(import_module(f"envbuild.azure.{module_of(kind)}"), kind), method)
    parameters = whole()[name]
    if parameters is None:
        assert isinstance(found, property)
        return
    function = getattr(found, "__func__", found)
    ours = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not parameter.name.startswith("_")
    ]
    assert [parameter for parameter in ours if parameter != "self"] == parameters


@pytest.fixture
def partly_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setenv("ENVBUILD_WORKSPACE", str(tmp_path / "workspace.db"))
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.from_config()
    # A run of which only what can't be is asked.
    run = Run.__new__(Run)
    run.experiment, run.tags = None, {}
    yield SimpleNamespace(Workspace=workspace, Experiment=Experiment(workspace, "e"), Run=run)
    assert isinstance(workspace.records, Records)
    workspace.records.close()


@pytest.mark.parametrize("kind", partly())
def test_name_is_there_or_says_what_to_use_instead(kind: str, partly_there: SimpleNamespace) -> None:
    instance = getattr(partly_there, kind)
    missing = []
    for name in partly()[kind]:
        if inspect.getattr_static(instance, name, None) is not None:
            continue
        try:
            getattr(instance, name)
        except AzureOnlyError as error:
            missing += [name] if error.hint is None else []
        except AttributeError:
            missing.append(name)
    assert missing == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The SDK's wheel, from the index that this machine's pip asks."""
    directory = tmp_path_factory.mktemp("azureml")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", "3.10", "--timeout", "10", "--retries", "0", "azureml-core==1.61.*"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("the index doesn't answer")
    files = list(directory.glob("azureml_core-*.whl"))
    if done.returncode != 0 or not files:
        pytest.skip(f"azureml-core can't be had: {done.stderr.strip()[-200:]}")
    return zipfile.Path(files[0])


def public(wheel: zipfile.Path, kind: str) -> dict[str, list[str] | None]:
    """``Class.name`` to its parameters, without private ones; None for a property."""
    text = (wheel / "azureml" / "core" / f"{module_of(kind)}.py").read_text(encoding="utf-8")
    (node,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == kind)
    found: dict[str, list[str] | None] = {}
    for method in node.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        if method.name.startswith("_") and method.name != "__init__":
            continue
        marks = [mark.id for mark in method.decorator_list if isinstance(mark, ast.Name)]
        names = [argument.arg for argument in method.args.args]
        names = [name for name in names if name not in ("self", "cls") and not name.startswith("_")]
        found.setdefault(f"{kind}.{method.name}", None if "property" in marks else names)
    return found


@pytest.mark.slow
@pytest.mark.network
def test_the_tables_are_what_the_wheel_has(wheel: zipfile.Path) -> None:
    classes = dict.fromkeys(name.partition(".")[0] for name in whole())
    assert whole() == {name: value for kind in classes for name, value in public(wheel, kind).items()}
    for kind, names in partly().items():
        methods = [name.partition(".")[2] for name in public(wheel, kind)]
        assert [name for name in methods if name != "__init__"] == names
