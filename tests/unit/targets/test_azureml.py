"""Azure ML: the files that ``az ml`` takes, exactly, and that our own importers read them back."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from envbuild.errors import UsageError
from envbuild.oci.image import Image
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.specs.load import load_spec
from envbuild.specs.model import ImageBaseSpec, InferenceConfig, Route
from envbuild.store.content import Store
from envbuild.targets.azureml import KIND, AzureTarget
from envbuild.targets.base import Job, PublishedEnvironment, Service, TargetFile, TargetRecord
from envbuild.targets.kinds import TargetContext
from envbuild.targets.preflight import limit_findings

DIGEST = "sha256:" + "a" * 64
REFERENCE = f"team.azurecr.io/demo:1f00@{DIGEST}"
PINNED = f"team.azurecr.io/demo@{DIGEST}"
SERVING = InferenceConfig(
    liveness_route=Route(path="/live", port=5001),
    readiness_route=Route(path="/ready", port=5001),
    scoring_route=Route(path="/score", port=5001),
)
IMAGE = Image(
    platform=LINUX_AMD64,
    digest=DIGEST,
    media_type="application/vnd.oci.image.manifest.v1+json",
    size=1,
    config_digest="sha256:" + "b" * 64,
    layers=(),
    lock_digest="sha256:" + "1" * 64,
    definition_digest="sha256:" + "2" * 64,
    level="L3",
)
JOB = Job(
    name="demo-0123abcd",
    reference=REFERENCE,
    image=IMAGE,
    command=("python", "train.py", "--note", "it's $HOME"),
    environment="demo:3",
)
SERVICE = Service(
    name="demo",
    reference=REFERENCE,
    image=IMAGE,
    port=5001,
    liveness="/live",
    readiness="/ready",
    scoring="/score",
    env=(("AZUREML_MODEL_DIR", "/models"),),
    replicas=2,
)
PUBLISHED = PublishedEnvironment(
    name="demo",
    version="3",
    description="It's: a demo",
    tags=(("n", "1e3"), ("team", "core")),
    reference=REFERENCE,
    image=IMAGE,
    inference_config=SERVING,
)


@pytest.fixture
def surroundings(tmp_path: Path) -> TargetContext:
    return TargetContext(store=Store(tmp_path / "store"), progress=Silent(), state=tmp_path, environ={})


def target(surroundings: TargetContext, **options: str) -> AzureTarget:
    pairs = tuple(sorted((name.replace("_", "-"), value) for name, value in options.items()))
    return KIND.open(TargetRecord(name="aml", kind="azureml", options=pairs), surroundings)


def only(files: tuple[TargetFile, ...]) -> TargetFile:
    (file,) = files
    return file


def test_environment(surroundings: TargetContext) -> None:
    file = only(target(surroundings).environment_files(PUBLISHED))
    assert file.name == "environment.yaml"
    assert (
        file.content
        == f"""\
# az ml environment create --file environment.yaml
$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json
name: demo
version: '3'
image: {PINNED}
os_type: linux
description: 'It''s: a demo'
tags:
  n: '1e3'
  team: core
inference_config:
  liveness_route:
    path: /live
    port: 5001
  readiness_route:
    path: /ready
    port: 5001
  scoring_route:
    path: /score
    port: 5001
"""
    )


def test_environment_is_read_back_as_it_was(surroundings: TargetContext, tmp_path: Path) -> None:
    file = only(target(surroundings).environment_files(PUBLISHED))
    (tmp_path / file.name).write_text(file.content)
    found = load_spec(tmp_path / file.name)
    assert (found.name, found.version, found.description) == ("demo", "3", "It's: a demo")
    assert found.tags == PUBLISHED.tags
    assert found.base == ImageBaseSpec(reference=PINNED)
    assert found.inference_config == SERVING
    assert found.platforms == (LINUX_AMD64,)
    assert found.left_out == ()


def test_environment_without_a_version_has_that_of_its_lock(surroundings: TargetContext) -> None:
    plain = replace(PUBLISHED, name="a.b", version=None, description=None, tags=(), inference_config=None)
    body = yaml.safe_load(only(target(surroundings).environment_files(plain)).content)
    assert sorted(body) == ["$schema", "image", "name", "os_type", "version"]
    # A name with a dot is none there.
    assert (body["name"], body["version"]) == ("a-b", "1" * 12)


def test_job(surroundings: TargetContext) -> None:
    place = {"workspace": "ml-ws", "resource_group": "rg(1)"}
    made = target(surroundings, compute="gpu-cluster", instance_count="2", **place)
    file = only(made.job_files(replace(JOB, env=(("EPOCHS", "3"),))))
    assert file.name == "job.yaml"
    assert (
        file.content
        == f"""\
# az ml job create --file job.yaml --workspace-name ml-ws --resource-group 'rg(1)'
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
type: command
display_name: demo-0123abcd
experiment_name: demo
command: python train.py --note 'it'"'"'s $HOME'
environment:
  image: {PINNED}
environment_variables:
  EPOCHS: '3'
compute: azureml:gpu-cluster
resources:
  instance_count: 2
"""
    )


def test_job_is_read_back_as_its_environment(surroundings: TargetContext, tmp_path: Path) -> None:
    file = only(target(surroundings, compute="cpu").job_files(JOB))
    (tmp_path / file.name).write_text(file.content)
    assert load_spec(tmp_path / file.name).base == ImageBaseSpec(reference=PINNED)


def test_job_with_code_starts_beside_it_and_leaves_outputs_to_the_service(
    surroundings: TargetContext, tmp_path: Path
) -> None:
    command = ("sh", "-c", "pwd; echo made > outputs/model")
    job = replace(JOB, command=command, code_digest=DIGEST)
    line = yaml.safe_load(only(target(surroundings).job_files(job)).content)["command"]
    assert line.endswith("&& cd /workspace && exec sh -c 'pwd; echo made > outputs/model'")
    code, service = tmp_path / "code", tmp_path / "wd"
    code.mkdir()
    service.mkdir()
    here = line.replace("/workspace", str(code))
    for _ in range(2):  # A second time, as when a job is tried again.
        done = subprocess.run(["sh", "-c", here], cwd=service, capture_output=True, text=True, check=True)
        assert done.stdout == f"{code}\n"
    assert (service / "outputs" / "model").read_text() == "made\n"


def test_service(surroundings: TargetContext) -> None:
    made = target(surroundings, instance_type="Standard_F4s_v2")
    endpoint, deployment = made.service_files(SERVICE)
    assert (endpoint.name, deployment.name) == ("endpoint.yaml", "deployment.yaml")
    assert (
        endpoint.content
        == """\
# az ml online-endpoint create --file endpoint.yaml
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: demo
auth_mode: key
"""
    )
    assert (
        deployment.content
        == f"""\
# az ml online-deployment create --file deployment.yaml --all-traffic
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: main
endpoint_name: demo
environment:
  image: {PINNED}
  inference_config:
    liveness_route:
      path: /live
      port: 5001
    readiness_route:
      path: /ready
      port: 5001
    scoring_route:
      path: /score
      port: 5001
environment_variables:
  AZUREML_MODEL_DIR: /models
instance_type: Standard_F4s_v2
instance_count: 2
liveness_probe:
  initial_delay: 10
  period: 10
  timeout: 4
  success_threshold: 1
  failure_threshold: 30
readiness_probe:
  initial_delay: 10
  period: 10
  timeout: 4
  success_threshold: 1
  failure_threshold: 3
"""
    )


def test_deployment_is_read_back_as_its_environment(surroundings: TargetContext, tmp_path: Path) -> None:
    _, deployment = target(surroundings).service_files(SERVICE)
    (tmp_path / deployment.name).write_text(deployment.content)
    found = load_spec(tmp_path / deployment.name)
    assert (found.base, found.inference_config) == (ImageBaseSpec(reference=PINNED), SERVING)


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [("demo", "demo"), ("ab", "ab-service"), ("x" * 40, "x" * 32), (f"{'y' * 31}-z", "y" * 31)],
)
def test_endpoint_s_name_is_one_that_the_service_takes(
    surroundings: TargetContext, name: str, endpoint: str
) -> None:
    made = target(surroundings).service_files(replace(SERVICE, name=name))[0]
    assert yaml.safe_load(made.content)["name"] == endpoint


def test_nothing_is_submitted_and_the_way_is_told(surroundings: TargetContext) -> None:
    with pytest.raises(UsageError) as raised:
        target(surroundings, workspace="ml").submit(JOB)
    assert raised.value.hint is not None
    assert raised.value.hint.endswith("az ml job create --file job.yaml --workspace-name ml")


def test_image_must_be_in_a_registry(surroundings: TargetContext) -> None:
    with pytest.raises(UsageError, match="demo:1 names none"):
        target(surroundings).job_files(replace(JOB, reference=f"demo:1@{DIGEST}"))


def test_what_the_service_would_replace_is_refused(surroundings: TargetContext) -> None:
    with pytest.raises(UsageError, match="replaces by inputs"):
        target(surroundings).job_files(replace(JOB, command=("echo", "${{inputs.x}}")))


def test_only_its_own_platform_fits_unless_another_is_said(surroundings: TargetContext) -> None:
    arm = replace(IMAGE, platform=LINUX_ARM64)
    (finding,) = limit_findings(target(surroundings), arm, None)
    assert (finding.text, finding.error) == ("the image is for linux/arm64, aml runs linux/amd64", True)
    assert limit_findings(target(surroundings, platform="linux/arm64"), arm, None) == ()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workspace", "a b"),
        ("workspace", "-x"),
        ("resource_group", "rg."),
        ("resource_group", "$(id)"),
        ("subscription", "mine"),
        ("compute", "azureml:cpu"),
        ("endpoint", "Demo"),
        ("endpoint", "ab"),
        ("instance_type", "a;b"),
        ("instance_count", "0"),
        ("password", "x"),
    ],
)
def test_options_that_can_t_be_names_are_refused(
    surroundings: TargetContext, option: str, value: str
) -> None:
    with pytest.raises(UsageError):
        target(surroundings, **{option: value})
