"""The names inside what ``build -o`` writes: those that were asked for, as skopeo reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.integration.driver import Machine, a_world, demo

pytestmark = [pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = a_world(tmp_path_factory.mktemp("names"), architectures=("amd64", "arm64")).machine
    machine.write("demo.yaml", demo())
    machine.write("other.yaml", demo(more="environment_variables: {LEVEL: high}\n"))
    machine.write("two.yaml", demo().replace("[linux/amd64]", "[linux/amd64, linux/arm64]"))
    return machine


def inspected(where: str) -> str:
    """The digest that skopeo finds at ``where``."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "--override-arch", "amd64", "inspect", "--no-tags", where],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["Digest"])


def named(index: bytes) -> list[tuple[str, str]]:
    """Each name in an index.json, with the digest behind it."""
    entries = json.loads(index)["manifests"]
    return [(entry["annotations"]["org.opencontainers.image.ref.name"], entry["digest"]) for entry in entries]


def member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_an_image_with_a_tag_has_that_name_alone(machine: Machine, tmp_path: Path) -> None:
    archive, layout, docker = tmp_path / "a.tar", tmp_path / "layout", tmp_path / "docker.tar"
    outputs = ("-o", f"oci-archive:{archive}", "-o", f"oci:{layout}", "-o", f"docker-archive:{docker}")
    done = machine.run("build", "demo.yaml", "-t", "team/demo:1", *outputs)
    assert done.reference == f"team/demo:1@{done.digest}"
    assert named(member(archive, "index.json")) == [("team/demo:1", done.digest)]
    assert named((layout / "index.json").read_bytes()) == [("team/demo:1", done.digest)]
    assert json.loads(member(docker, "manifest.json"))[0]["RepoTags"] == ["team/demo:1"]
    for where in (f"oci-archive:{archive}", f"oci:{layout}", f"oci:{layout}:team/demo:1"):
        assert inspected(where) == done.digest
        assert json.loads(machine.run("inspect", where, "--json").stdout)["digest"] == done.digest
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{archive}", f"dir:{tmp_path / 'dir'}"],
        check=True,
    )
    # The store still knows it by its own tag too, which is where a lookup begins.
    own = machine.run("build", "demo.yaml").reference.partition("@")[0]
    assert json.loads(machine.run("inspect", own, "--json").stdout)["digest"] == done.digest


def test_an_image_without_a_tag_has_its_own_name(machine: Machine, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    done = machine.run("build", "demo.yaml", "-o", f"oci-archive:{archive}")
    (entry,) = named(member(archive, "index.json"))
    assert entry == (done.reference.partition("@")[0], done.digest)
    assert inspected(f"oci-archive:{archive}") == done.digest


def test_every_tag_that_is_asked_for_is_there_once(machine: Machine, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    tags = ("-t", "demo", "-t", "team/demo:2", "-t", "demo:latest", "-t", "team/demo:2")
    done = machine.run("build", "demo.yaml", *tags, "-o", f"oci-archive:{archive}")
    assert named(member(archive, "index.json")) == [("demo", done.digest), ("team/demo:2", done.digest)]
    assert (
        f"oci-archive:{archive} has 2 names; podman and skopeo take one: oci-archive:{archive}:demo"
        in done.stderr.splitlines()
    )
    assert inspected(f"oci-archive:{archive}:team/demo:2") == done.digest


def test_a_name_of_a_layout_moves_and_the_others_stay(machine: Machine, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    first = machine.run("build", "demo.yaml", "-t", "demo:1", "-o", f"oci:{layout}").digest
    machine.run("build", "demo.yaml", "-t", "demo:kept", "-o", f"oci:{layout}").reference  # noqa: B018
    second = machine.run("build", "other.yaml", "-t", "demo:1", "-o", f"oci:{layout}").digest
    assert first != second
    assert named((layout / "index.json").read_bytes()) == [("demo:kept", first), ("demo:1", second)]
    assert inspected(f"oci:{layout}:demo:1") == second


def test_several_platforms_have_one_name(machine: Machine, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    done = machine.run("build", "two.yaml", "-t", "demo:all", "-o", f"oci-archive:{archive}")
    assert named(member(archive, "index.json")) == [("demo:all", done.digest)]
    assert inspected(f"oci-archive:{archive}").startswith("sha256:")


def test_a_pulled_image_keeps_its_one_name(machine: Machine, tmp_path: Path) -> None:
    layout, archive = tmp_path / "layout", tmp_path / "a.tar"
    digest = machine.run("build", "demo.yaml", "-t", "demo:1", "-o", f"oci:{layout}").digest
    assert machine.run("pull", f"oci:{layout}:demo:1", "-o", f"oci-archive:{archive}").digest == digest
    assert [text for text, _ in named(member(archive, "index.json"))] == ["demo:1"]
    assert inspected(f"oci-archive:{archive}") == digest
