"""Builds and registries: what is pushed, and what a registry has already and so nobody builds again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envbuild.api import Environment
from envbuild.app.environments import Workspace
from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_MANIFEST
from envbuild.oci.reference import Reference
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes import fault_proxy, registry_server
from tests.fakes.archive import Deb
from tests.fakes.fault_proxy import Fault, FaultProxy
from tests.fakes.registry_server import RegistryServer, needs_registry
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo, entries
from tests.integration.registry import make_client

pytestmark = [needs_registry()]

BOTH = "platforms: [linux/amd64, linux/arm64]"


@dataclass(kw_only=True)
class Scene:
    """A machine with an image of ``demo`` in its store, and a registry behind a proxy that counts."""

    root: Path
    first: Machine
    digest: str
    tag: str
    server: RegistryServer
    proxy: FaultProxy
    count: int = 0

    def repository(self, name: str) -> str:
        """A repository that no other test uses, addressed through the proxy."""
        return f"{self.proxy.host}/{name}"

    def another(self) -> Machine:
        """A machine with the same project and nothing in its store. The proxy counts from now."""
        self.count += 1
        made = Machine(root=self.root / f"machine-{self.count}", env=dict(self.first.env))
        shutil.copytree(self.first.project, made.root / "project")
        self.proxy.break_next()
        return made

    def layers_read(self) -> list[str]:
        """The requests that read a layer."""
        layers = {each["digest"] for each in self.document["layers"]}
        return [
            request.path
            for request in self.proxy.requests
            if request.method == "GET" and request.path.rpartition("/")[2] in layers
        ]

    @property
    def document(self) -> dict[str, Any]:
        """The manifest."""
        document: dict[str, Any] = json.loads(Store(self.first.cache).blob(self.digest).read_bytes())
        return document


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("push")
    data = random.Random(0).randbytes(50_000)
    world = a_world(
        root,
        [Wheel(name="alpha", files={"alpha/data": data})],
        [
            Deb(name="tool", architecture=each, files=[("./usr/share/tool", each.encode() * 10_000)])
            for each in ("amd64", "arm64")
        ],
        architectures=("amd64", "arm64"),
    )
    machine = world.machine
    # Nothing is attached here: what is counted is the image's own.
    machine.env["ENVBUILD_ATTEST"] = "0"
    machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    # Without byte code, as the archive's python is none.
    assert machine.run("lock", "--no-bytecode").status == 0
    built = machine.run("build")
    tag = built.reference.partition("@")[0].partition(":")[2]
    with registry_server.serve(root / "registry") as server, fault_proxy.proxy(server.host) as proxy:
        yield Scene(root=root, first=machine, digest=built.digest, tag=tag, server=server, proxy=proxy)


def test_push_prints_the_pinned_reference_and_is_byte_for_byte(scene: Scene) -> None:
    repository = scene.repository("plain")
    done = scene.first.run("build", "--push", f"{repository}:prod")
    assert done.reference == f"{repository}:{scene.tag}@{scene.digest}"
    assert f"pushed to {repository}:{scene.tag}, prod: " in done.stderr
    content = Store(scene.first.cache).blob(scene.digest).read_bytes()
    assert scene.server.manifest("plain", scene.tag) == content
    assert scene.server.manifest("plain", "prod") == content
    assert scene.server.complete("plain", "prod")


def test_json_says_what_was_pushed_and_how_much_was_sent(scene: Scene) -> None:
    first, second = scene.repository("json/a"), scene.repository("json/b")
    done = scene.first.run("build", "--json", "--push", first, "--push", f"{second}:x")
    said = json.loads(done.stdout)
    assert said["reference"] == f"{first}:{scene.tag}@{scene.digest}"
    one, two = said["pushed"]
    assert one["references"] == [f"{first}:{scene.tag}@{scene.digest}"]
    assert two["references"] == [f"{second}:{name}@{scene.digest}" for name in (scene.tag, "x")]
    blobs = [*scene.document["layers"], scene.document["config"]]
    total = sum(blob["size"] for blob in blobs)
    assert [one["sent"] + one["mounted"] + one["present"], one["digest"]] == [total, scene.digest]
    # What the first has got is taken over by the second.
    assert [two["sent"], two["mounted"], two["present"]] == [0, total, 0]


def test_a_second_push_asks_for_the_tag_alone(scene: Scene) -> None:
    repository = scene.repository("again")
    assert scene.first.run("build", "--push", repository).status == 0
    scene.proxy.break_next()
    done = scene.first.run("build", "--push", repository)
    assert done.digest == scene.digest
    asked = [(request.method, request.path) for request in scene.proxy.requests]
    assert asked == [("GET", f"/v2/again/manifests/{scene.tag}")]


def test_what_is_there_is_neither_built_nor_downloaded_to_be_pushed(scene: Scene) -> None:
    repository = scene.repository("hit")
    assert scene.first.run("build", "--push", repository).status == 0
    second = scene.another()
    done = second.run("build", "--push", repository, "--json")
    said = json.loads(done.stdout)
    assert said["reference"] == f"{repository}:{scene.tag}@{scene.digest}"
    assert (said["cached"], said["pushed"][0]["sent"]) == (True, 0)
    assert said["found"] == [f"{repository}:{scene.tag}@{scene.digest}"]
    assert scene.layers_read() == []
    assert not (second.cache / "segments").exists()


def test_what_is_there_is_pushed_elsewhere_without_being_built(scene: Scene) -> None:
    there, target = scene.repository("from"), scene.repository("to")
    assert scene.first.run("build", "--push", there).status == 0
    second = scene.another()
    done = second.run("build", "--push", there, "--push", target)
    assert done.digest == scene.digest
    assert scene.server.complete("to", scene.tag)
    assert not (second.cache / "segments").exists()


def test_the_registry_of_the_settings_saves_a_build(scene: Scene) -> None:
    assert scene.first.run("build", "--push", scene.repository("team/demo")).status == 0
    second = scene.another()
    second.env["ENVBUILD_REGISTRY"] = f"{scene.proxy.host}/team"
    done = second.run("build")
    assert done.reference == f"demo:{scene.tag}@{scene.digest}"
    assert f"linux/amd64: found as {scene.proxy.host}/team/demo:{scene.tag}" in done.stderr
    assert len(scene.layers_read()) == len(scene.document["layers"])
    # From now on it is here, and nobody is asked; it says as much of itself as one that was built.
    scene.proxy.break_next()
    again = json.loads(second.run("build", "--json").stdout)
    built = json.loads(scene.first.run("build", "--json").stdout)
    assert (again["layers"], again["cached"]) == (built["layers"], True)
    assert scene.proxy.requests == []
    assert not (second.cache / "segments").exists()


def test_a_name_without_a_host_is_below_the_setting(scene: Scene) -> None:
    machine = scene.another()
    machine.env["ENVBUILD_REGISTRY"] = f"{scene.proxy.host}/below"
    done = machine.run("build", "--push", "demo:1")
    assert done.reference == f"{scene.proxy.host}/below/demo:{scene.tag}@{scene.digest}"
    assert scene.server.complete("below/demo", "1")
    del machine.env["ENVBUILD_REGISTRY"]
    machine.run("build", "--push", "demo:1").failed(
        2, "'demo:1' names no registry to push to", "docker.io/demo:1"
    )


@pytest.mark.parametrize("option", ["--no-cache", "--offline"])
def test_no_cache_and_offline_ask_nobody(scene: Scene, option: str) -> None:
    assert scene.first.run("build", "--push", scene.repository("unasked/demo")).status == 0
    scene.proxy.break_next()
    done = scene.first.run("build", option, env={"ENVBUILD_REGISTRY": f"{scene.proxy.host}/unasked"})
    assert done.digest == scene.digest
    assert scene.proxy.requests == []


def test_an_offline_run_can_not_push(scene: Scene) -> None:
    scene.first.run("build", "--offline", "--push", scene.repository("x")).failed(
        2, "an offline run can't push"
    )


def test_an_image_that_is_not_what_its_tag_says_is_a_warning_and_a_build(
    scene: Scene, tmp_path: Path
) -> None:
    repository = scene.repository("wrong/demo")
    assert scene.first.run("build", "--push", repository).status == 0
    second = scene.another()
    text = demo("alpha", packages=["tool"], more="environment_variables: {A: b}\n")
    second.write("envbuild.yaml", text)
    assert second.run("lock", "--no-bytecode").status == 0
    other = second.run("build", "-o", "oci:other")
    tag = other.reference.partition("@")[0].partition(":")[2]
    assert other.digest != scene.digest
    # Somebody lets the tag of this lock name another's image.
    with make_client(tmp_path, Store(tmp_path / "store")) as client:
        content = Store(scene.first.cache).blob(scene.digest).read_bytes()
        client.push_manifest(Reference.parse(repository), content, OCI_MANIFEST, tag)
    third = scene.another()
    shutil.copytree(second.project, third.project, dirs_exist_ok=True)
    done = third.run("build", "-o", "oci:mine", env={"ENVBUILD_REGISTRY": f"{scene.proxy.host}/wrong"})
    assert done.digest == other.digest
    assert f"{repository}:{tag} isn't used: its lock is sha256:" in done.stderr
    assert "; its definition is sha256:" in done.stderr
    assert entries(third.project / "mine").keys() == entries(second.project / "other").keys()


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_damage_on_the_way_is_never_an_image(scene: Scene, what: str) -> None:
    repository = scene.repository(f"damage/{what}/demo")
    assert scene.first.run("build", "--push", repository).status == 0
    layer = scene.document["layers"][-1]["digest"]
    config = scene.document["config"]["digest"]
    path = {"manifest": f"manifests/{scene.tag}", "config": config, "layer": layer}[what]
    second = scene.another()
    scene.proxy.break_next(Fault(kind="corrupt answer", method="GET", path=path, times=None))
    done = second.run("build", env={"ENVBUILD_REGISTRY": f"{scene.proxy.host}/damage/{what}"})
    assert done.digest == scene.digest
    assert "found as" not in done.stderr
    assert (second.cache / "segments").is_dir()


def test_a_registry_that_is_away_costs_a_note(scene: Scene) -> None:
    second = scene.another()
    done = second.run("build", env={"ENVBUILD_REGISTRY": "127.0.0.1:9/team"})
    assert done.digest == scene.digest
    assert done.stderr.count("no image is looked for in 127.0.0.1:9: ") == 1


def test_a_registry_that_refuses_costs_a_note(scene: Scene) -> None:
    second = scene.another()
    scene.proxy.break_next(Fault(kind="status", status=403, times=None))
    done = second.run("build", env={"ENVBUILD_REGISTRY": f"{scene.proxy.host}/refused"})
    assert done.digest == scene.digest
    assert f"no image is looked for in {scene.proxy.host}: " in done.stderr
    assert len(scene.proxy.requests) == 1


def test_a_registry_that_is_pushed_to_is_reached_before_the_build(scene: Scene) -> None:
    second = scene.another()
    second.run("build", "--push", "127.0.0.1:9/x").failed(7, "127.0.0.1:9 can't be reached")
    assert not (second.cache / "segments").exists()


def test_several_platforms_are_one_index_and_one_of_them_leaves_it_alone(scene: Scene) -> None:
    machine = scene.another()
    text = demo("alpha", packages=["tool"]).replace("platforms: [linux/amd64]", BOTH)
    machine.write("envbuild.yaml", text)
    assert machine.run("lock", "--no-bytecode").status == 0
    repository = scene.repository("multi/demo")
    done = machine.run("build", "--push", f"{repository}:prod")
    tag = done.reference.partition("@")[0].rpartition(":")[2]
    content = scene.server.manifest("multi/demo", tag)
    assert content is not None
    assert digest_bytes(content) == done.digest
    platforms = [load["platform"]["architecture"] for load in json.loads(content)["manifests"]]
    assert platforms == ["amd64", "arm64"]
    assert scene.server.complete("multi/demo", tag)
    # One platform alone has a tag of its own.
    alone = machine.run("build", "-p", "linux/amd64", "--push", repository)
    assert alone.digest == json.loads(content)["manifests"][0]["digest"]
    assert alone.reference != done.reference
    assert scene.server.manifest("multi/demo", tag) == content
    assert scene.server.manifest("multi/demo", "prod") == content
    # Another machine finds each of them in the index.
    second = scene.another()
    shutil.copytree(machine.project, second.project, dirs_exist_ok=True)
    second.env["ENVBUILD_REGISTRY"] = f"{scene.proxy.host}/multi"
    arm = second.run("build", "-p", "linux/arm64", "-o", "oci:arm")
    assert arm.digest == json.loads(content)["manifests"][1]["digest"]
    assert f"linux/arm64: found as {repository}:{tag}" in arm.stderr
    assert "usr/share/tool" in entries(second.project / "arm")
    both = second.run("build", "--push", repository)
    assert both.digest == done.digest
    assert not (second.cache / "segments").exists()
    # And a third one gets all of them again from packages, or the one that it asks for.
    third = scene.another()
    whole = third.run("verify", f"{repository}:prod", "--json")
    assert whole.status == 0, whole.stderr
    assert [(load["platform"], load["reproduced"]) for load in json.loads(whole.stdout)["images"]] == [
        ("linux/amd64", True),
        ("linux/arm64", True),
    ]
    assert third.run("verify", f"{repository}:prod", "-p", "linux/arm64").stdout.startswith("linux/arm64 ")
    # What differs between names of a registry: nothing, and a whole platform.
    assert third.run("diff", f"{repository}:prod", done.reference, "--files").status == 0
    differing = third.run("diff", alone.reference, f"{repository}:prod", "--json")
    assert (differing.status, json.loads(differing.stdout)["differs"]) == (1, True)


def test_versions_move_their_tags_and_only_the_newest_moves_latest(scene: Scene) -> None:
    machine = scene.another()
    repository = scene.repository("versions")
    assert machine.run("env", "register", ".").status == 0
    old = machine.run("build", "demo:1", "--push", repository)
    assert scene.server.manifest("versions", "v1") == scene.server.manifest("versions", "latest")
    machine.write("envbuild.yaml", demo("alpha", packages=["tool"], more="environment_variables: {A: b}\n"))
    assert machine.run("lock", "--no-bytecode").status == 0
    assert machine.run("env", "register", ".").status == 0
    new = machine.run("build", "demo:2", "--push", repository)
    machine.run("build", "demo:1", "--push", repository)
    # A spec that nobody registered moves neither.
    machine.run("build", ".", "--push", repository)
    named = {name: scene.server.manifest("versions", name) or b"" for name in ("v1", "v2", "latest")}
    assert {name: digest_bytes(content) for name, content in named.items()} == {
        "v1": old.digest,
        "v2": new.digest,
        "latest": new.digest,
    }
    shown = json.loads(machine.run("env", "show", "demo:2", "--json").stdout)
    references = shown["images"][0]["references"]
    assert {f"{repository}:v2", f"{repository}:latest"} <= set(references)


def test_a_program_pushes_and_the_workspace_keeps_the_reference(scene: Scene, tmp_path: Path) -> None:
    settings = Settings(cache_dir=scene.first.cache, workspace=tmp_path / "workspace.db", attest=False)
    repository = scene.repository("program")
    with Workspace(settings, environ={}) as workspace:
        env = Environment.from_file(scene.first.project / "envbuild.yaml")
        result = env.build(workspace, push=f"{repository}:prod")
        names = (f"{repository}:{scene.tag}", f"{repository}:prod")
        assert result.reference == f"{names[0]}@{scene.digest}"
        assert [each.references for each in result.pushed] == [tuple(f"{n}@{scene.digest}" for n in names)]
        (image,) = env.get_image_details(workspace)
        assert {*names, f"demo:{scene.tag}"} == set(image.references)
    assert scene.server.complete("program", "prod")
