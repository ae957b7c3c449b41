"""What ``build --push`` and ``push`` attach to images of a real registry, as the command line does it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envbuild.oci.digest import digest_bytes
from tests.fakes.registry_server import RegistryServer, needs_registry, serve
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Ended, Machine, a_world, demo

PASSWORD = "pw-of-key-3e"
TYPES = ["application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.in-toto+json"]
pytestmark = [
    needs_registry(),
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed"),
]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A machine with a locked spec, and a registry."""

    machine: Machine
    server: RegistryServer

    def build(self, repository: str, *more: str, env: dict[str, str] | None = None) -> Ended:
        return self.machine.run(
            "build", "demo.yaml", "--frozen", "--push", f"{self.server.host}/{repository}", *more, env=env
        )

    def raw(self, repository: str, target: str) -> dict[str, Any]:
        """A manifest or index as skopeo gets it; its digest is checked where ``target`` is one."""
        at = "@" if target.startswith("sha256:") else ":"
        name = f"docker://{self.server.host}/{repository}{at}{target}"
        done = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", name], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if at == "@":
            assert digest_bytes(done.stdout) == target
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def attached(self, repository: str, digest: str) -> list[dict[str, Any]]:
        """The entries of the list under the fallback tag."""
        found = self.raw(repository, digest.replace(":", "-"))["manifests"]
        assert isinstance(found, list)
        return found

    def blob(self, digest: str) -> bytes:
        return self.server.blobs()[digest].read_bytes()

    def tags(self, repository: str) -> set[str]:
        return set(json.loads(self.server.get(f"/v2/{repository}/tags/list")[2])["tags"])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("attest")
    world = a_world(root, [Wheel(name="app")])
    world.machine.write("demo.yaml", demo("app==1.0"))
    assert world.machine.run("lock", "demo.yaml", "--no-bytecode").status == 0
    with serve(root / "registry") as server:
        yield Scene(machine=world.machine, server=server)


@pytest.fixture(scope="module")
def key(scene: Scene) -> tuple[Path, Path]:
    """Files of a private key, encrypted, and its public key."""
    private, public = scene.machine.root / "key.pem", scene.machine.root / "key.pub"
    make = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256"]
    subprocess.run(["openssl", *make, "-pass", f"pass:{PASSWORD}", "-out", str(private)], check=True)
    read = ["pkey", "-in", str(private), "-passin", f"pass:{PASSWORD}", "-pubout", "-out", str(public)]
    subprocess.run(["openssl", *read], check=True)
    return private, public


def test_a_push_attaches_bills_of_materials_and_provenance(scene: Scene) -> None:
    done = scene.build("team/attested")
    entries = scene.attached("team/attested", done.digest)
    assert [entry["artifactType"] for entry in entries] == TYPES
    subject = scene.raw("team/attested", done.digest)
    documents = []
    for entry in entries:
        manifest = scene.raw("team/attested", entry["digest"])
        assert manifest["artifactType"] == entry["artifactType"]
        assert manifest["subject"]["digest"] == done.digest
        assert manifest["subject"]["mediaType"] == subject["mediaType"]
        (layer,) = manifest["layers"]
        assert layer["mediaType"] == entry["artifactType"]
        documents.append(json.loads(scene.blob(layer["digest"])))
    cyclonedx, spdx, provenance = documents
    assert cyclonedx["bomFormat"] == "CycloneDX"
    assert spdx["spdxVersion"] == "SPDX-2.3"
    assert provenance["subject"] == [{"digest": {"sha256": done.digest.removeprefix("sha256:")}}]
    materials = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    named = {material["name"]: material["digest"]["sha256"] for material in materials}
    lock = json.loads((scene.machine.lock / "envbuild.lock").read_bytes())
    (wheel,) = lock["platforms"]["linux/amd64"]["pip"]
    assert named[wheel["file"]] == wheel["sha256"]
    assert named["lock"] == subject["annotations"]["dev.envbuild.lock"].removeprefix("sha256:")


def test_a_second_push_adds_nothing(scene: Scene) -> None:
    first = scene.build("team/twice")
    before = sorted(scene.server.blobs())
    assert scene.build("team/twice").digest == first.digest
    pushed = scene.machine.run("push", first.reference.partition("@")[0], f"{scene.server.host}/team/twice")
    assert pushed.digest == first.digest
    assert sorted(scene.server.blobs()) == before
    assert len(scene.attached("team/twice", first.digest)) == 3


def test_nothing_is_attached_where_it_is_not_wanted(scene: Scene) -> None:
    for option, env in (("--no-attest", {}), ("-q", {"ENVBUILD_ATTEST": "0"})):
        done = scene.build("team/plain", option, env=env)
        assert scene.tags("team/plain") == {done.reference.partition("@")[0].rpartition(":")[2]}


def test_what_is_attached_somewhere_else_is_the_same_but_for_the_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.machine, "own_interpreters", True)
    layers = []
    for repository in ("team/here", "team/there"):
        digest = scene.build(repository).digest
        entries = scene.attached(repository, digest)
        layers.append([scene.raw(repository, entry["digest"])["layers"] for entry in entries])
    assert layers[0] == layers[1]


def test_a_signature_is_one_that_openssl_accepts(
    scene: Scene, key: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = key
    password = {"ENVBUILD_SIGN_PASSWORD": PASSWORD}
    done = scene.build("team/signed", "--sign-key", str(private), "--debug", env=password)
    assert "is not a setting" not in done.stderr
    manifest = scene.raw("team/signed", f"{done.digest.replace(':', '-')}.sig")
    (layer,) = manifest["layers"]
    payload, signature = tmp_path / "payload", tmp_path / "signature"
    payload.write_bytes(scene.blob(layer["digest"]))
    signature.write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    assert json.loads(payload.read_bytes())["critical"]["image"]["docker-manifest-digest"] == done.digest
    verify = ["dgst", "-sha256", "-verify", str(public), "-signature", str(signature), str(payload)]
    judged = subprocess.run(["openssl", *verify], capture_output=True, text=True, check=False)
    assert judged.stdout == "Verified OK\n"
    # Neither the password nor the key shows in anything that was said or written.
    lines = private.read_text().splitlines()
    secrets = [PASSWORD.encode(), *(line.encode() for line in lines[1:-1])]
    said = (done.stdout + done.stderr).encode()
    written = [said]
    for place in (scene.machine.cache, scene.server.root, scene.machine.project, scene.machine.home):
        written += [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert not [secret for secret in secrets for content in written if secret in content]


def test_a_signature_is_checked_and_goes_where_the_image_goes(
    scene: Scene, key: tuple[Path, Path], tmp_path: Path
) -> None:
    """By the name that build prints, which has a digest that this store has, and by tags, on a copy."""
    done = scene.build(
        "team/checked:dev", "--sign-key", str(key[0]), env={"ENVBUILD_SIGN_PASSWORD": PASSWORD}
    )
    other = tmp_path / "other.pub"
    make = ["genpkey", "-algorithm", "ed25519", "-out", str(tmp_path / "other.pem")]
    subprocess.run(["openssl", *make], check=True)
    read = ["pkey", "-in", str(tmp_path / "other.pem"), "-pubout", "-out", str(other)]
    subprocess.run(["openssl", *read], check=True)
    machine, host = scene.machine, scene.server.host

    right = machine.run("verify", done.reference, "--key", str(key[1]))
    assert (right.status, right.stdout.splitlines()[-1]) == (0, "signed by the key"), right.stderr
    wrong = machine.run("verify", f"{host}/team/checked:dev", "--key", str(other), "--json")
    (image,) = json.loads(wrong.stdout)["images"]
    assert (wrong.status, image["reproduced"], image["signed"]) == (1, True, False)
    machine.run("verify", done.digest, "--key", str(key[1])).failed(2, "names no registry")
    machine.run("verify", done.reference, "--key", str(key[0])).failed(2, "is no public key")

    copied = machine.run("copy", done.reference, f"{host}/copied/checked:1", "--json")
    assert json.loads(copied.stdout)["referrers"] == len([*TYPES, "signature"])
    there = machine.run("verify", f"{host}/copied/checked:1", "--key", str(key[1]))
    assert (there.status, there.stdout.splitlines()[-1]) == (0, "signed by the key"), there.stderr
    machine.run("copy", done.reference, f"{host}/bare/checked:1", "--no-referrers")
    bare = machine.run("verify", f"{host}/bare/checked:1", "--key", str(key[1]))
    assert (bare.status, bare.stdout.splitlines()[-1]) == (1, "not signed by the key"), bare.stderr


def test_inspect_lists_what_is_attached(scene: Scene) -> None:
    """By the name with a digest too, whose image is in this store."""
    done = scene.build("team/listed:dev")
    entries = scene.attached("team/listed", done.digest)
    for name in (done.reference, f"{scene.server.host}/team/listed:dev"):
        shown = json.loads(scene.machine.run("inspect", name, "--json").stdout)
        assert shown["attached"] == [
            {"digest": entry["digest"], "artifact_type": entry["artifactType"], "size": entry["size"]}
            for entry in entries
        ]
    assert json.loads(scene.machine.run("inspect", done.digest, "--json").stdout)["attached"] is None
    away = scene.machine.run("inspect", f"127.0.0.1:1/team/listed@{done.digest}", "--json")
    assert (away.status, json.loads(away.stdout)["attached"]) == (0, None)
    assert "what is attached isn't known" in away.stderr
    scene.machine.run("sbom", done.digest, "--attached").failed(2, "names no registry")


def test_a_key_that_is_no_use_is_said_before_anything_is_pushed(scene: Scene, key: tuple[Path, Path]) -> None:
    done = scene.build("team/never", "--sign-key", str(key[0]))
    done.failed(2, f"the key {key[0]} needs a password", "set ENVBUILD_SIGN_PASSWORD")
    done = scene.build("team/never", "--sign-key", str(key[0]), env={"COSIGN_PASSWORD": "not-the-word"})
    done.failed(2, "or the password is wrong")
    assert "not-the-word" not in done.stderr
    assert scene.server.get("/v2/team/never/tags/list")[0] == 404


def test_prune_takes_what_is_attached_with_the_image(scene: Scene, key: tuple[Path, Path]) -> None:
    password = {"ENVBUILD_SIGN_PASSWORD": PASSWORD}
    done = scene.build("team/gone", "--sign-key", str(key[0]), env=password)
    assert len(scene.tags("team/gone")) == 3
    entries = scene.attached("team/gone", done.digest)
    name = f"{scene.server.host}/team/gone"
    assert scene.machine.run("prune", name, "--keep", "0", "--yes").status == 0
    assert scene.server.manifest("team/gone", done.digest) is None
    for entry in entries:
        assert scene.server.manifest("team/gone", entry["digest"]) is None
    again = scene.build("team/gone", "--sign-key", str(key[0]), env=password)
    assert again.digest == done.digest
    assert scene.server.complete("team/gone", done.digest)
    assert [each["artifactType"] for each in scene.attached("team/gone", done.digest)] == TYPES
