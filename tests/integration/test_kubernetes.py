"""Jobs on a Kubernetes cluster, as people start them: the API server is the tests' own, the registry real."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from envbuild.store.content import Store
from tests.fakes import kubernetes_api, registry, registry_server
from tests.fakes.image import Item, put_image, put_layer
from tests.fakes.kubernetes_api import TOKEN, KubernetesApi, Program
from tests.fakes.registry_server import RegistryServer, needs_registry
from tests.integration.driver import Ended, Machine, ended

pytestmark = [pytest.mark.slow, needs_registry()]

PASSWORD = "pw-of-the-job-83c1"


@dataclass(kw_only=True)
class Scene:
    """A user's machine with a spec, code and the target ``k8s``: an API server, and a registry."""

    machine: Machine
    api: KubernetesApi
    registry: RegistryServer
    said: list[str] = field(default_factory=list)
    """All that commands have printed."""

    def kept(self, done: Ended) -> Ended:
        self.said += [done.stdout, done.stderr]
        return done

    def target(self, **options: str) -> None:
        pairs = {"registry": f"{self.registry.host}/team", "patience": "2", "start-timeout": "2", **options}
        words = [f"{key}={value}" for key, value in pairs.items()]
        done = self.kept(self.machine.run("target", "add", "k8s", "kubernetes", *words, "--replace"))
        assert done.status == 0, done.stderr

    def arguments(self, *options: str) -> list[str]:
        return [
            "run",
            ".",
            "--target",
            "k8s",
            "--code",
            "code",
            *options,
            "--",
            "python",
            "train.py",
            "--depth=3",
        ]

    def run(self, *options: str) -> Ended:
        return self.kept(self.machine.run(*self.arguments(*options)))

    def records(self) -> list[dict[str, Any]]:
        done = self.kept(self.machine.run("runs", "list", "--json"))
        found: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
        return found

    def log(self, name: str) -> str:
        return self.kept(self.machine.run("runs", "logs", name)).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, RegistryServer]]:
    root = tmp_path_factory.mktemp("site")
    source = Store(root / "source")
    image = put_image(
        source, [put_layer(source, [Item(name="opt/x", content=b"x" * 1000)])], {"User": "1000:1001"}
    )
    with registry.serve() as base, registry_server.serve(root / "registry") as server:
        for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
            base.put_blob(source.blob(digest).read_bytes())
        base.put_manifest("base", "1", image.media_type, source.blob(image.digest).read_bytes())
        machine = Machine(root=root, env={"DOCKER_HOST": f"unix://{root}/none"})
        machine.write("envbuild.yaml", f"name: demo\nplatforms: [linux/amd64]\nimage: {base.host}/base:1\n")
        machine.write("code/train.py", "print('trained')\n")
        done = machine.run("build", "--no-record")
        assert done.status == 0, done.stderr
        yield machine, server


@pytest.fixture
def scene(site: tuple[Machine, RegistryServer], tmp_path: Path) -> Iterator[Scene]:
    """A workspace of its own, and a cluster; nothing anywhere holds the token when it ends."""
    machine, server = site
    env = {**machine.env, "ENVBUILD_WORKSPACE": str(tmp_path / "workspace" / "workspace.db")}
    with kubernetes_api.serve() as api:
        env["KUBECONFIG"] = str(api.kubeconfig(tmp_path / "kubeconfig"))
        found = Scene(machine=Machine(root=machine.root, env=env), api=api, registry=server)
        found.target()
        yield found
    assert TOKEN not in "".join(found.said)
    files = [*machine.root.rglob("*"), *(tmp_path / "workspace").rglob("*")]
    assert [file for file in files if file.is_file() and TOKEN.encode() in file.read_bytes()] == []
    assert found.machine.leftovers() == []


def test_job_runs_and_its_record_leads_back_to_all_of_it(scene: Scene) -> None:
    scene.api.objects = {("secrets", "pull"), ("secrets", "keys")}
    scene.target(**{"image-pull-secret": "pull", "secret-env": "keys", "memory": "1Gi"})
    scene.api.program = Program(lines=[b"epoch 1\n", b"\xff $(x)\n", b"done"], log_breaks=[40])
    done = scene.run("-e", f"PASSWORD={PASSWORD}", "-vv", "--debug")
    assert (done.status, done.stdout) == (0, "epoch 1\n\ufffd $(x)\ndone"), done.stderr
    (record,) = scene.records()
    (job,) = scene.api.created
    name = record["name"]
    assert job["metadata"]["name"] == name
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == record["command"] == ["python", "train.py", "--depth=3"]
    assert container["image"] == record["reference"]
    assert container["env"] == [{"name": "PASSWORD", "value": PASSWORD}]
    notes = job["metadata"]["annotations"]
    assert notes["dev.envbuild/code"] == record["code"]
    assert notes["dev.envbuild/environment"] == f"demo:{record['version']}"
    assert job["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 1000
    assert [record[key] for key in ("status", "exit_status", "target", "kind", "identity", "variables")] == [
        "succeeded", 0, "k8s", "kubernetes", f"job/{name} in train", ["PASSWORD"],
    ]  # fmt: skip
    # The value is in the manifest, where it must be, and nowhere else.
    assert PASSWORD not in "".join(scene.said)
    repository, _, digest = container["image"].partition("@")
    assert digest == record["image"]
    assert scene.registry.complete(repository.partition("/")[2].rpartition(":")[0], digest)
    assert scene.log(name) == done.stdout
    assert scene.api.jobs == {}


def test_dry_run_prints_what_would_be_submitted(scene: Scene) -> None:
    scene.target(namespace="train", gpus="1")
    done = scene.run("--dry-run", "-e", "A=1")
    assert done.status == 0, done.stderr
    (document,) = yaml.safe_load_all(done.stdout)
    # Takes two seconds to import, which every run of other tests would pay.
    validator = import_module("kubernetes_validate")
    versions = validator.utils.all_versions()
    for version in (versions[0], versions[-1]):
        assert version.startswith(validator.validate(document, version, strict=True))
    assert (scene.api.created, scene.records()) == ([], [])
    # What is submitted is that, with another name, and the version that submitting has registered.
    assert scene.run("-e", "A=1").status == 0
    (created,) = scene.api.created
    names = (created["metadata"]["name"], document["metadata"]["name"])
    anonymous = document["metadata"]["labels"]["app.kubernetes.io/version"]
    written = json.dumps(document).replace(f"demo:{anonymous}", "demo:1").replace(f'"{anonymous}"', '"1"')
    assert json.dumps(created, sort_keys=True).replace(*names) == json.dumps(
        json.loads(written), sort_keys=True
    )


@pytest.mark.parametrize(
    ("program", "status", "told"),
    [
        (Program(lines=[b"Traceback\n"], status=3), 3, None),
        (
            Program(lines=[b"loading\n"], status=137, reason="OOMKilled"),
            137,
            "OOMKilled: it used more memory",
        ),
    ],
    ids=["fails", "killed"],
)
def test_job_that_fails(scene: Scene, program: Program, status: int, told: str | None) -> None:
    scene.api.program = program
    done = scene.run()
    assert (done.status, done.stdout) == (status, program.lines[0].decode())
    assert told is None or told in done.stderr
    (record,) = scene.records()
    assert (record["status"], record["exit_status"]) == ("failed", status)
    assert scene.api.jobs == {}


def test_api_that_goes_away_for_good_loses_the_run(scene: Scene) -> None:
    scene.api.program = Program(lines=[b"epoch 1\n"], held=True)
    process = scene.machine.start(*scene.arguments())
    assert scene.api.followed.wait(60)
    scene.api.away = True
    done = scene.kept(ended(process))
    assert (done.status, done.stdout) == (9, "epoch 1\n")
    (record,) = scene.records()
    assert record["status"] == "lost"
    assert f"{record['name']} may go on without being watched" in done.stderr
    assert f"kubectl -n train logs -f job/{record['name']}" in done.stderr
    assert scene.log(record["name"]) == "epoch 1\n"
    assert list(scene.api.jobs) == [record["name"]]


def test_api_that_goes_away_for_a_moment_loses_nothing(scene: Scene) -> None:
    scene.target(patience="30")
    scene.api.program = Program(lines=[b"epoch 1\n"], held=True, later=[b"epoch 2\n"])
    process = scene.machine.start(*scene.arguments())
    assert scene.api.followed.wait(60)
    asked = len(scene.api.requests)
    scene.api.away = True
    _until(lambda: len(scene.api.requests) > asked)
    scene.api.away = False
    scene.api.finish()
    done = scene.kept(ended(process))
    assert (done.status, done.stdout) == (0, "epoch 1\nepoch 2\n"), done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_job_is_stopped_and_recorded(scene: Scene, number: int, status: int) -> None:
    scene.api.program = Program(lines=[b"epoch 1\n"], held=True, later=[b"last words\n"])
    process = scene.machine.start(*scene.arguments())
    assert scene.api.followed.wait(60)
    _until(lambda: scene.records()[0]["status"] == "running")
    process.send_signal(number)
    done = scene.kept(ended(process))
    assert (done.status, done.stdout) == (status, "epoch 1\nlast words\n"), done.stderr
    (record,) = scene.records()
    assert (record["status"], record["exit_status"]) == ("stopped", None)
    assert (scene.api.jobs, scene.api.deleted) == ({}, [(record["name"], "Foreground")])


def test_interrupted_before_its_start_leaves_no_job(scene: Scene) -> None:
    scene.target(**{"start-timeout": "600"})
    scene.api.program = Program(unschedulable="0/1 nodes are available: insufficient nvidia.com/gpu")
    process = scene.machine.start(*scene.arguments())
    _until(lambda: any(path.endswith("/pods") for _, path, _ in scene.api.requests))
    process.send_signal(signal.SIGINT)
    done = scene.kept(ended(process))
    assert done.status == 130, done.stderr
    (record,) = scene.records()
    assert record["status"] == "stopped"
    assert (scene.api.jobs, scene.api.deleted) == ({}, [(record["name"], "Background")])


def test_image_that_can_t_be_pulled(scene: Scene) -> None:
    scene.api.program = Program(waiting=[("ImagePullBackOff", "401 Unauthorized")], stuck=True)
    done = scene.run()
    done.failed(9, "ImagePullBackOff: 401 Unauthorized", "waits for its start", "image-pull-secret")
    (record,) = scene.records()
    assert (record["status"], record["exit_status"]) == ("failed", None)
    assert scene.api.jobs == {}


@pytest.mark.parametrize(
    ("options", "denied", "words"),
    [
        ({"namespace": "tain"}, set(), ["has no namespace tain", "kubectl create namespace tain"]),
        ({}, {("create", "jobs")}, ["you may not create jobs in the namespace train", "ask for a role"]),
        ({"context": "other"}, set(), ["127.0.0.1:9 can't be reached: the connection is refused"]),
        ({"platform": "linux/arm64"}, set(), ["linux/arm64"]),
    ],
    ids=["namespace", "permission", "away", "platform"],
)
def test_what_can_t_run_is_found_before_anything_is_brought(
    scene: Scene, options: dict[str, str], denied: set[tuple[str, str]], words: list[str]
) -> None:
    scene.api.denied = denied
    scene.target(**options)
    before = scene.registry.blobs()
    scene.machine.write("code/other.py", f"{options} {denied}")
    try:
        done = scene.run()
    finally:
        (scene.machine.project / "code" / "other.py").unlink()
    assert done.status != 0
    missing = [word for word in words if word not in done.stderr]
    assert missing == [], done.stderr
    assert (scene.api.created, scene.records(), scene.registry.blobs()) == ([], [], before)


def _until(holds: Any, limit: float = 60) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < limit, "it never came"
