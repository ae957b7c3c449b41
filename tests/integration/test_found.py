"""Images that a registry was found to have: only called found, neither attested nor signed; and images that
others made of ours, which are never taken for the lock's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envbuild.images.sinks.registry import ManifestPush, push_manifest
from envbuild.oci.digest import canonical_json
from envbuild.oci.reference import Reference
from envbuild.store.content import Store
from tests.fakes.image import Item, put_layer
from tests.fakes.registry_server import RegistryServer, needs_registry, serve
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, demo
from tests.integration.registry import make_client

pytestmark = [needs_registry()]
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
SAID = "was only found by what its labels say, so it is neither attested nor signed"


@dataclass(kw_only=True)
class Scene:
    """A machine that has built ``demo``, a registry, and a key to sign with."""

    root: Path
    first: Machine
    digest: str
    tag: str
    server: RegistryServer
    count: int = 0

    def another(self) -> Machine:
        """A machine with the same project and nothing in its store."""
        self.count += 1
        made = Machine(root=self.root / f"machine-{self.count}", env=dict(self.first.env))
        shutil.copytree(self.first.project, made.project, dirs_exist_ok=True)
        return made

    @property
    def key(self) -> str:
        return str(self.root / "key.pem")

    def repository(self, name: str) -> str:
        return f"{self.server.host}/{name}"

    def attached(self, repository: str, digest: str) -> bool:
        """Whether anything refers to the image: documents or a signature."""
        tags = set(json.loads(self.server.get(f"/v2/{repository}/tags/list")[2])["tags"])
        name = digest.replace(":", "-")
        return bool(tags & {name, f"{name}.sig"})

    def plant(self, repository: str, tmp_path: Path) -> str:
        """Lets the lock's tag name an image with the labels of ours, and one other layer. Its digest."""
        store = Store(self.first.cache)
        evil = put_layer(store, [Item(name="usr/bin/evil", content=b"#!/bin/sh\n", mode=0o755)])
        manifest = document(store, self.digest)
        config = document(store, manifest["config"]["digest"])
        place = len(manifest["layers"]) - 2
        config["rootfs"]["diff_ids"][place] = evil.diff_id
        content = canonical_json(config)
        manifest["config"].update(digest=store.add_blob(content), size=len(content))
        manifest["layers"][place].update(digest=evil.digest, size=evil.size)
        digest = store.add_blob(canonical_json(manifest))
        self.push(digest, repository, store, tmp_path)
        return digest

    def push(self, digest: str, repository: str, store: Store, tmp_path: Path) -> None:
        reference = Reference.parse(self.repository(repository))
        with make_client(tmp_path, store) as client:
            push_manifest(ManifestPush(digest=digest, repository=reference, tags=(self.tag,)), client, store)


def document(store: Store, digest: str) -> dict[str, Any]:
    found = json.loads(store.blob(digest).read_bytes())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("found")
    machine = a_world(root, [Wheel(name="alpha")]).machine
    machine.write("envbuild.yaml", demo("alpha"))
    assert machine.run("lock", "--no-bytecode").status == 0
    built = machine.run("build", "-o", "oci:image")
    tag = built.reference.partition("@")[0].partition(":")[2]
    make = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", *make, "-out", str(root / "key.pem")], check=True, capture_output=True)
    with serve(root / "registry") as server:
        yield Scene(root=root, first=machine, digest=built.digest, tag=tag, server=server)


# --- by its labels alone ------------------------------------------------------------------------------


def test_a_planted_image_is_called_found_and_nobody_vouches_for_it(scene: Scene, tmp_path: Path) -> None:
    planted = scene.plant("planted", tmp_path)
    machine = scene.another()
    done = machine.run("build", "--push", scene.repository("planted"), "--sign-key", scene.key, "--json")
    said = json.loads(done.stdout)
    assert (said["digest"], said["level"]) == (planted, "found")
    assert f"the image for linux/amd64 {SAID}" in done.stderr
    assert "linux/amd64  found  " in done.stderr
    assert " L3 " not in done.stderr
    assert not scene.attached("planted", planted)


def test_a_planted_image_fails_where_it_is_verified(scene: Scene, tmp_path: Path) -> None:
    planted = scene.plant("verified", tmp_path)
    repository = scene.repository("verified")
    machine = scene.another()
    done = machine.run("build", "--push", repository, "--sign-key", scene.key, "--verify-found")
    done.failed(
        1,
        f"{repository}:{scene.tag} is {planted} for linux/amd64, and composing its lock gives {scene.digest}",
    )
    assert not scene.attached("verified", planted)
    # What was composed is here now, and takes its place where that is asked for.
    again = machine.run("build", "--push", repository)
    assert again.digest == scene.digest
    assert scene.attached("verified", scene.digest)


def test_a_found_image_stays_found_on_its_second_use(scene: Scene, tmp_path: Path) -> None:
    planted = scene.plant("team/demo", tmp_path)
    machine = scene.another()
    machine.env["ENVBUILD_REGISTRY"] = scene.repository("team")
    for _ in range(2):
        said = json.loads(machine.run("build", "--json").stdout)
        assert (said["digest"], said["level"], said["cached"]) == (planted, "found", True)
    shown = json.loads(machine.run("env", "show", planted, "--json").stdout)
    assert '"level": "found"' in json.dumps(shown)
    # Nor is it laundered by another push.
    for command in (["build", "--push"], ["push", f"demo:{scene.tag}"]):
        repository = f"again-{command[0]}"
        done = machine.run(*command, scene.repository(repository), "--sign-key", scene.key)
        assert done.digest == planted
        assert SAID in done.stderr
        assert not scene.attached(repository, planted)


def test_an_image_that_verifies_is_attested_and_signed_as_a_composed_one(scene: Scene) -> None:
    repository = scene.repository("honest")
    assert scene.first.run("build", "--no-attest", "--push", repository).digest == scene.digest
    machine = scene.another()
    found = machine.run("build", "--push", repository, "--json")
    assert json.loads(found.stdout)["level"] == "found"
    assert not scene.attached("honest", scene.digest)
    done = machine.run("build", "--push", repository, "--verify-found", "--sign-key", scene.key, "--json")
    said = json.loads(done.stdout)
    assert (said["digest"], said["level"], said["cached"]) == (scene.digest, "L3", False)
    assert said["found"] == [f"{repository}:{scene.tag}@{scene.digest}"]
    assert said["pushed"][0]["sent"] == 0
    assert f"linux/amd64: the same as {repository}:{scene.tag}" in done.stderr
    assert SAID not in done.stderr
    assert scene.attached("honest", scene.digest)
    # And so the workspace knows it.
    shown = machine.run("env", "show", scene.digest, "--json").stdout
    assert '"level": "L3"' in shown
    assert '"level": "found"' not in shown


# --- made of ours by others ---------------------------------------------------------------------------


def umoci(*arguments: str) -> None:
    subprocess.run(["umoci", *arguments], check=True, capture_output=True)


@pytest.fixture(params=["layer", "settings"])
def derived(request: pytest.FixtureRequest, scene: Scene, tmp_path: Path) -> Path:
    """A layout with what umoci makes of our image: another layer on top, or another entry point."""
    layout = tmp_path / "derived"
    shutil.copytree(scene.first.project / "image", layout)
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = index["manifests"][:1]
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "one"}
    (layout / "index.json").write_text(json.dumps(index))
    if request.param == "layer":
        (tmp_path / "precious").write_text("theirs")
        umoci("insert", "--rootless", "--image", f"{layout}:one", str(tmp_path / "precious"), "/precious")
    else:
        umoci("config", "--image", f"{layout}:one", "--config.entrypoint", "/bin/theirs")
    return layout


@needs_umoci
def test_a_derived_image_is_shown_as_such_and_is_never_rebased(
    scene: Scene, derived: Path, request: pytest.FixtureRequest
) -> None:
    machine = scene.another()
    added = {"layer": "1 layer of others", "settings": "settings of others"}[
        request.node.callspec.params["derived"]
    ]
    done = machine.run("inspect", f"oci:{derived}:one", "--json")
    assert done.status == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    ours = json.loads(scene.first.run("inspect", "oci:image", "--json").stdout)["images"][0]
    assert (image["level"], image["derived"]) == (None, added)
    assert (ours["level"], ours["derived"]) == ("L3", None)
    assert image["lock_digest"] == ours["lock_digest"]
    text = machine.run("inspect", f"oci:{derived}:one").stdout
    assert f"made of an image of envbuild's, with {added}" in text
    machine.run("rebase", f"oci:{derived}:one", "--onto", "debian", "-o", "oci:new").failed(
        6, f"has {added}", "what was added would be lost", "rebase the image that it was made of"
    )
    assert not (machine.project / "new").exists()
    verified = machine.run("verify", f"oci:{derived}:one")
    assert (verified.status, added in verified.stdout + verified.stderr) == (1, True)


@needs_umoci
def test_a_derived_image_is_never_found_for_a_lock(scene: Scene, derived: Path, tmp_path: Path) -> None:
    repository = f"derived/{derived.parent.name}/demo".lower().replace("_", "-")
    store = Store(tmp_path / "store")
    blobs = store.directory("blobs/sha256")
    shutil.copytree(derived / "blobs" / "sha256", blobs, dirs_exist_ok=True)
    (top,) = json.loads((derived / "index.json").read_text())["manifests"]
    scene.push(top["digest"], repository, store, tmp_path)
    machine = scene.another()
    done = machine.run("build", env={"ENVBUILD_REGISTRY": scene.repository(repository.rpartition("/")[0])})
    assert done.digest == scene.digest
    assert f"{scene.repository(repository)}:{scene.tag} isn't used: " in done.stderr
    assert "L3" in done.stderr


def test_what_nobody_can_see_in_the_history_is_seen_in_the_documents(scene: Scene, tmp_path: Path) -> None:
    """A setting that a tool changed without a word in the history."""
    store = Store(scene.first.cache)
    manifest = document(store, scene.digest)
    config = document(store, manifest["config"]["digest"])
    config["config"]["Entrypoint"] = ["/bin/theirs"]
    content = canonical_json(config)
    manifest["config"].update(digest=store.add_blob(content), size=len(content))
    digest = store.add_blob(canonical_json(manifest))
    scene.push(digest, "mutated/demo", store, tmp_path)
    reference = f"{scene.repository('mutated/demo')}@{digest}"
    machine = scene.another()
    done = machine.run("build", env={"ENVBUILD_REGISTRY": scene.repository("mutated")})
    assert done.digest == scene.digest
    assert "isn't used: it isn't what its lock gives" in done.stderr
    (image,) = json.loads(machine.run("inspect", reference, "--json").stdout)["images"]
    assert (image["level"], image["derived"]) == (None, "other settings than its lock gives")
    machine.run("rebase", reference, "--onto", "debian").failed(6, "other settings than its lock gives")
