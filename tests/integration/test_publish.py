"""``envbuild publish``: an image in a registry, and files that name it by digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from envbuild.api import Environment
from envbuild.app.environments import Workspace
from envbuild.errors import UsageError
from envbuild.settings import Settings
from tests.fakes import registry_server
from tests.fakes.registry_server import RegistryServer, needs_registry
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo

pytestmark = [needs_registry()]

SERVING = """\
inference_config:
  liveness_route: {path: /, port: 5001}
  readiness_route: {path: /, port: 5001}
  scoring_route: {path: /score, port: 5001}
"""
COMMAND = ("--", "python", "train.py")


@dataclass(kw_only=True)
class Scene:
    machine: Machine
    server: RegistryServer
    reference: str
    """``:tag@digest`` of the image."""

    @property
    def tag(self) -> str:
        return self.reference.partition("@")[0].removeprefix(":")

    @property
    def digest(self) -> str:
        return self.reference.partition("@")[2]

    def repository(self, name: str) -> str:
        return f"{self.server.host}/{name}"

    def layers(self, name: str, digest: str) -> list[str]:
        manifest = self.server.manifest(name, digest)
        assert manifest is not None
        return [load["digest"] for load in json.loads(manifest)["layers"]]

    def has(self, name: str) -> bool:
        """Whether the registry has anything called so."""
        return (self.server.storage / "docker" / "registry" / "v2" / "repositories" / name).exists()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("publish")
    wheels = [
        Wheel(name="alpha", files={"alpha/data": b"1"}),
        Wheel(name="azureml-inference-server-http", version="1.4.0"),
    ]
    machine = a_world(root, wheels).machine
    machine.write("envbuild.yaml", demo("alpha"))
    machine.write("code/train.py", "print(1)\n")
    assert machine.run("lock", "--no-bytecode").status == 0
    built = machine.run("build")
    reference = built.reference.removeprefix("demo")
    with registry_server.serve(root / "registry") as server:
        yield Scene(machine=machine, server=server, reference=reference)


def test_a_single_file_goes_to_stdout_and_the_image_to_the_registry(scene: Scene) -> None:
    repository = scene.repository("team/plain")
    done = scene.machine.run("publish", "--to", "compose", "--push", repository, *COMMAND)
    assert done.status == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    reference = f"{repository}{scene.reference}"
    assert first.startswith("# environment demo:")
    assert first.endswith(f", image {reference}")
    body = yaml.safe_load("\n".join(rest))
    assert body["services"]["main"]["image"] == reference
    assert body["services"]["main"]["command"] == ["python", "train.py"]
    assert scene.server.complete("team/plain", scene.tag)
    assert scene.has("team/plain")
    # What a push attaches is there too.
    assert scene.server.manifest("team/plain", f"sha256-{scene.digest[7:]}")
    again = scene.machine.run("publish", "--to", "compose", "--push", repository, *COMMAND)
    assert again.stdout == done.stdout


@pytest.mark.parametrize("kind", ["kubernetes", "ray", "sbatch"])
def test_a_kind_of_target_needs_no_target_to_write_for(scene: Scene, kind: str) -> None:
    repository = scene.repository(f"team/{kind}")
    arguments = ("publish", "--to", kind, "--push", repository, "--", "python", "train.py")
    done = scene.machine.run(*arguments)
    assert done.status == 0, done.stderr
    marks = [line for line in done.stdout.splitlines()[:2] if line.startswith("# environment demo:")]
    assert [line.partition(", image ")[2] for line in marks] == [f"{repository}{scene.reference}"]
    # Slurm's runtimes take a name without a tag.
    body = done.stdout.replace(marks[0], "")
    assert f"{repository}{scene.reference}" in body or f"{repository}@{scene.digest}" in body
    assert scene.machine.run(*arguments).stdout == done.stdout


def test_several_targets_have_a_directory_each_and_code_is_on_top(scene: Scene) -> None:
    machine, repository = scene.machine, scene.repository("team/several")
    arguments = ("--to", "azureml", "--to", "compose", "--push", repository, "--code", "code", "-o", "out")
    done = machine.run("publish", *arguments, "-e", "DEPTH=3", *COMMAND)
    assert done.status == 0, done.stderr
    names = ["out/azureml/environment.yaml", "out/azureml/job.yaml", "out/compose/compose.yaml"]
    assert done.stdout.splitlines() == names
    alone, job, compose = (yaml.safe_load((machine.project / name).read_text()) for name in names)
    # The environment is the image without the code, which others may use.
    assert alone["image"] == f"{repository}@{scene.digest}"
    reference = compose["services"]["main"]["image"]
    coded = reference.partition("@")[2]
    assert coded != scene.digest
    assert reference == f"{repository}:{scene.tag}-{coded[7:19]}@{coded}"
    assert job["environment"] == {"image": f"{repository}@{coded}"}
    assert job["environment_variables"] == {"DEPTH": "3"}
    assert scene.layers("team/several", coded)[:-1] == scene.layers("team/several", scene.digest)
    assert scene.server.complete("team/several", f"{scene.tag}-{coded[7:19]}")
    assert "next: az ml job create --file job.yaml" in done.stderr
    assert machine.leftovers() == []


def test_files_are_the_same_each_time_and_only_ours_are_replaced(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.machine, "own_interpreters", True)
    machine, repository = scene.machine, scene.repository("team/again")
    arguments = ("publish", "--to", "compose", "--push", repository, "-o", "kept", "--", "python")
    assert machine.run(*arguments, "a.py").status == 0
    file = machine.project / "kept" / "compose.yaml"
    note = machine.write("kept/note.txt", "mine")
    first = file.read_text()
    assert machine.run(*arguments, "a.py").status == 0
    assert file.read_text() == first
    assert machine.run(*arguments, "b.py").status == 0
    assert file.read_text() != first
    file.unlink()
    file.symlink_to("nowhere")
    machine.run(*arguments, "c.py").failed(2, "kept/compose.yaml is there")
    file.unlink()
    file.mkdir()
    machine.run(*arguments, "c.py").failed(2, "kept/compose.yaml is there")
    file.rmdir()
    os.mkfifo(file)
    machine.run(*arguments, "c.py").failed(2, "kept/compose.yaml is there")
    file.unlink()
    file.write_text("services: {}\n")
    machine.run(*arguments, "c.py").failed(2, "kept/compose.yaml is there, and envbuild didn't write it")
    assert file.read_text() == "services: {}\n"
    assert (note.read_text(), sorted(path.name for path in file.parent.iterdir())) == (
        "mine",
        ["compose.yaml", "note.txt"],
    )


def test_a_file_in_the_way_is_found_before_the_push(scene: Scene) -> None:
    scene.machine.write("way/compose.yaml", "services: {}\n")
    repository = scene.repository("team/way")
    done = scene.machine.run("publish", "--to", "compose", "--push", repository, "-o", "way", *COMMAND)
    done.failed(2, "envbuild didn't write it")
    machine = scene.machine
    done = machine.run(
        "publish", "--to", "compose", "--push", repository, "-o", "way/compose.yaml/x", *COMMAND
    )
    done.failed(2, "way/compose.yaml is no directory to write in")
    assert not scene.has("team/way")


def test_an_entry_script_and_a_model_are_served_by_the_same_environment(scene: Scene) -> None:
    machine, repository = scene.machine, scene.repository("team/serve")
    machine.write("serve/envbuild.yaml", demo("alpha", "azureml-inference-server-http", more=SERVING))
    machine.write("serve/model/weights", "1")
    script = machine.write("serve/src/score.py", "def init(): ...\n\n\ndef run(data): ...\n")
    assert machine.run("lock", "serve", "--no-bytecode").status == 0
    base = machine.run("build", "serve").digest
    arguments = ("serve", "--to", "azureml", "--to", "compose", "--push", repository, "--json")
    done = machine.run("publish", *arguments, "--serve", "serve/src/score.py", "--model", "serve/model")
    assert done.status == 0, done.stderr
    azure, compose = json.loads(done.stdout)["targets"]
    files = {each["name"]: yaml.safe_load(each["content"]) for each in azure["files"]}
    assert list(files) == ["environment.yaml", "endpoint.yaml", "deployment.yaml"]
    # The environment is the one that trains; what serves has script and model on top.
    assert files["environment.yaml"]["image"] == f"{repository}@{base}"
    deployment = files["deployment.yaml"]
    serving = azure["reference"].partition("@")[2]
    assert deployment["environment"]["image"] == f"{repository}@{serving}"
    assert len(scene.layers("team/serve", serving)) == len(scene.layers("team/serve", base)) + 2
    assert deployment["environment_variables"] == {"ENVBUILD_IMAGE": serving}
    routes = deployment["environment"]["inference_config"]
    assert routes == files["environment.yaml"]["inference_config"]
    assert routes["scoring_route"] == {"path": "/score", "port": 5001}
    main = yaml.safe_load(compose["files"][0]["content"])["services"]["main"]
    assert (main["image"], main["ports"]) == (azure["reference"], ["5001:5001"])
    # The environment that was written is read back as one that serves at the same routes.
    path = machine.write("read/environment.yaml", azure["files"][0]["content"])
    read, original = Environment.from_file(path).spec, Environment.from_file(machine.project / "serve").spec
    assert (read.name, read.inference_config) == ("demo", original.inference_config)
    refused = ("serve", "--to", "github", "--push", repository, "--serve", "serve/src/score.py")
    machine.run("publish", *refused).failed(2, "serves nothing")
    script.write_text("def init(): ...\n")
    done = machine.run("publish", *arguments, "--serve", "serve/src/score.py")
    done.failed(3, "run")


def test_an_environment_alone_is_for_those_who_keep_environments(scene: Scene) -> None:
    repository = scene.repository("team/alone")
    done = scene.machine.run("publish", "--to", "azureml", "--push", repository)
    assert done.status == 0, done.stderr
    assert yaml.safe_load(done.stdout)["image"] == f"{repository}@{scene.digest}"
    done = scene.machine.run("publish", "--to", "github", "--push", repository)
    assert yaml.safe_load(done.stdout)["container"]["image"] == f"{repository}{scene.reference}"


def test_what_doesn_t_fit_a_target_is_neither_pushed_nor_written(scene: Scene) -> None:
    machine, prefix = scene.machine, scene.repository("small")
    machine.run("target", "add", "tiny", "azureml", "layers=1", f"registry={prefix}", "--replace")
    done = machine.run(
        "publish", "--to", "compose", "--to", "tiny", "--push", f"{prefix}/demo", "-o", "tiny", *COMMAND
    )
    done.failed(9, "this can't run on tiny", "tiny takes at most 1")
    assert not (machine.project / "tiny").exists()
    assert not scene.has("small/demo")


def test_a_target_has_its_own_registry(scene: Scene) -> None:
    machine = scene.machine
    machine.run(
        "target",
        "add",
        "cloud",
        "azureml",
        f"registry={scene.repository('cloud')}",
        "compute=cpu",
        "--replace",
    )
    done = machine.run("publish", "--to", "cloud", "-o", "cloud", *COMMAND)
    assert done.status == 0, done.stderr
    job = yaml.safe_load((machine.project / "cloud" / "job.yaml").read_text())
    assert job["environment"]["image"] == f"{scene.repository('cloud/demo')}@{scene.digest}"
    assert job["compute"] == "azureml:cpu"
    assert scene.server.complete("cloud/demo", scene.tag)
    # It only writes: to run there is refused, with the way to do it, before anything is pushed.
    run = machine.run("run", "--target", "cloud", "--code", "code", *COMMAND)
    run.failed(2, "written, not submitted", "az ml job create --file job.yaml")
    runs = json.loads(machine.run("runs", "list", "--json").stdout)
    assert runs == {"runs": []}


def test_the_references_are_recorded(scene: Scene) -> None:
    machine, repository = scene.machine, scene.repository("team/recorded")
    assert machine.run("publish", "--to", "compose", "--push", f"{repository}:prod", *COMMAND).status == 0
    file = machine.home / ".local" / "share" / "envbuild" / "workspace.db"
    assert file.is_file()
    with Workspace(Settings(cache_dir=machine.cache, workspace=file)) as workspace:
        (image,) = [
            image for image in workspace.environments.images(name="demo") if image.digest == scene.digest
        ]
    assert {f"{repository}:{scene.tag}", f"{repository}:prod"} <= set(image.references)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "compse", *COMMAND), ("'compse' is neither", "did you mean compose?")),
        (("--to", "../x", *COMMAND), ("'../x' is neither",)),
        (("--to", "compose", *COMMAND), ("compose has no registry to publish to",)),
        (("--to", "compose", "--push", "demo", *COMMAND), ("'demo' names no registry",)),
        (("--to", "compose", "--push", "{}/x@sha256:0", *COMMAND), ("not to a digest",)),
        (("--to", "compose", "--push", "{}/none"), ("says what to run",)),
        (("--to", "compose", "--push", "{}/none", "--code", "code"), ("belong to a command",)),
        (("--to", "compose", "--push", "{}/none", "--model", "code"), ("belongs to a service",)),
        (("--to", "github", "--push", "{}/none", "--serve", "code/train.py", *COMMAND), ("not both",)),
        (("--to", "azureml", "--push", "{}/none", *COMMAND), ("several files", "--output DIR")),
        (("--to", "azureml", "--push", "{}/none", "-p", "linux/arm64", *COMMAND), ("runs linux/amd64",)),
        (("--to", "compose", "--push", "{}/none", "--offline", *COMMAND), ("an offline run can't push",)),
        ((), ("--to",)),
    ],
)
def test_what_can_t_be_is_said_before_anything_is_pushed(
    scene: Scene, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    done = scene.machine.run("publish", *(argument.format(scene.server.host) for argument in arguments))
    done.failed(2, *said)
    assert not scene.has("none")


def test_from_python(scene: Scene, tmp_path: Path) -> None:
    machine, repository = scene.machine, scene.repository("team/python")
    environment = Environment.from_file(machine.project)
    with Workspace(Settings(cache_dir=machine.cache, workspace=tmp_path / "ws.db")) as workspace:
        published = environment.publish(
            workspace,
            ["compose", "github"],
            directory=tmp_path / "out",
            command=["python", "train.py"],
            code=machine.project / "code",
            push=repository,
            locked=True,
        )
        assert [each.target for each in published.targets] == ["compose", "github"]
        paths = [path for target in published.targets for path in target.paths]
        assert paths == [tmp_path / "out/compose/compose.yaml", tmp_path / "out/github/job.yaml"]
        assert all(path.read_text().startswith(f"# environment {published.environment}, ") for path in paths)
        assert workspace.environments.get("demo", published.environment.partition(":")[2]).anonymous
        with pytest.raises(UsageError, match="nothing says for what"):
            environment.publish(workspace, [])
        with pytest.raises(UsageError, match="no such option"):
            environment.publish(workspace, ["compose"], pushed="x")


KIND = """
from envbuild.targets.base import TargetFile, TargetOption
from envbuild.targets.files.base import FilesOnly

class Nomad(FilesOnly):
    def job_files(self, job):
        if job.command == ("escape",):
            return (TargetFile(name="../job.nomad", content=""),)
        return (TargetFile(name="job.nomad", content=f"{job.reference} {' '.join(job.command)}\\n"),)

    def service_files(self, service):
        raise AssertionError("no service was asked for")

class Kind:
    name = "nomad"
    options = (TargetOption(name="region", help="where"),)

    def open(self, record, surroundings):
        return Nomad(record.name)

KIND = Kind()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Packages as an installer puts them: one that brings a kind, and one that can't be imported."""
    wheels = [
        Wheel(
            name="nomad-kind",
            files={"nomad_kind.py": KIND.encode()},
            entry_points="[envbuild.targets]\nnomad = nomad_kind:KIND\n",
        ),
        Wheel(
            name="broken-kind",
            files={"broken_kind.py": b"import nothing_of_that_name\n"},
            entry_points="[envbuild.targets]\nbroken = broken_kind:KIND\n",
        ),
    ]
    files = []
    for wheel in wheels:
        files.append(tmp_path / wheel.file)
        files[-1].write_bytes(wheel.data())
    uv = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-cache", "--quiet"]
    place = tmp_path / "site"
    subprocess.run([*uv, "--target", str(place), *map(str, files)], check=True, timeout=60)
    return place


def test_a_kind_of_another_package_is_as_good_as_ours(scene: Scene, site: Path, tmp_path: Path) -> None:
    machine = Machine(root=tmp_path / "m", env={**scene.machine.env, "PYTHONPATH": str(site)})
    machine.env["ENVBUILD_CACHE_DIR"] = str(scene.machine.cache)
    shutil.copytree(scene.machine.project, machine.root / "project")
    kinds = machine.run("target", "kinds").stdout.splitlines()
    assert kinds[-2:] == ["broken", "nomad"]
    assert "region" in machine.run("target", "kinds", "nomad").stdout
    assert machine.run("target", "add", "fleet", "nomad", "region=eu").status == 0
    repository = scene.repository("team/nomad")
    arguments = ("--to", "fleet", "--to", "nomad", "--push", repository, "-o", "jobs")
    done = machine.run("publish", *arguments, *COMMAND)
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines() == ["jobs/fleet/job.nomad", "jobs/nomad/job.nomad"]
    text = (machine.project / "jobs" / "fleet" / "job.nomad").read_text()
    assert text == f"{repository}{scene.reference} python train.py\n"
    done = machine.run("publish", *arguments, "--", "escape")
    done.failed(7, "names a file '../job.nomad', which is no file name")
    # The other one is said where it is asked for, and nowhere else.
    machine.run("target", "add", "b", "broken").failed(2, "'broken' can't be loaded", "nothing_of_that_name")
    machine.run("publish", "--to", "broken", "--push", repository, *COMMAND).failed(2, "can't be loaded")
