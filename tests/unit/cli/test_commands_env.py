"""``envbuild env`` and ``envbuild import`` over a real workspace: what they print where, and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.app.environments import Workspace
from envbuild.cli.call import Call
from envbuild.cli.main import main
from envbuild.lock.files import write_lock
from envbuild.lock.model import Lock
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.workspace.base import NewImage
from tests.fakes.image import Item, put_image, put_layer
from tests.unit.app.conftest import SPEC, write
from tests.unit.cli.conftest import Shown
from tests.unit.lock.sample import IDNA, LOCK


@dataclass
class Machine:
    directory: Path

    def __call__(self, *argv: str, status: int = 0) -> Shown:
        out, err = io.StringIO(), io.StringIO()
        environ = {"HOME": str(self.directory / "home"), "USER": "ann"}
        call = Call(environ=environ, cwd=self.directory, stdout=out, stderr=err)
        shown = Shown(main(argv, call=call), out.getvalue(), err.getvalue())
        assert shown.status == status, shown.err
        return shown

    def json(self, *argv: str) -> dict[str, Any]:
        found = json.loads(self(*argv, "--json").out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def envbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SPEC)
    return Machine(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path, envbuild: Machine) -> Iterator[Workspace]:
    """The workspace that the commands use."""
    home = tmp_path / "home"
    settings = Settings(
        cache_dir=home / ".cache" / "envbuild",
        workspace=home / ".local" / "share" / "envbuild" / "workspace.db",
    )
    with Workspace(settings, environ={"USER": "ann"}) as found:
        yield found


def test_register_prints_the_version_and_says_what_it_came_to(envbuild: Machine) -> None:
    shown = envbuild("env", "register", ".", "--label", "prod", "-q")
    assert (shown.out, shown.err) == ("train:1\n", "")
    again = envbuild("env", "register", "envbuild.yaml", "--progress", "none")
    assert again.out == "train:1\n"
    assert again.err.startswith("train:1 is registered already: ")
    assert envbuild("env", "register", "--name", "other", "--version", "v7").out == "other:v7\n"
    found = envbuild.json("env", "register", "--tag", "a=b", "--description", "d")
    assert (found["name"], found["version"], found["registered"]) == ("train", "1", False)
    assert (found["tags"], found["description"], found["labels"]) == ({"a": "b"}, "d", ["prod"])


def test_register_of_another_definition_under_a_taken_version_is_refused(envbuild: Machine) -> None:
    envbuild("env", "register", "--version", "1")
    write(envbuild.directory, SPEC.replace("six", "idna"))
    shown = envbuild("env", "register", "--version", "1", status=8)
    assert (shown.out, "error: train:1 " in shown.err) == ("", True)
    assert envbuild("env", "register").out == "train:2\n"


def test_the_version_that_a_file_gives_counts(envbuild: Machine) -> None:
    write(envbuild.directory, f"{SPEC}version: v7\n")
    assert envbuild("env", "register").out == "train:v7\n"
    assert envbuild("env", "register", "--name", "other", "--version", "3").out == "other:3\n"
    write(envbuild.directory, f"{SPEC.replace('six', 'idna')}version: v7\n")
    assert "hint: a version never changes" in envbuild("env", "register", status=8).err
    # What came from the workspace, and a project, have versions of their own.
    assert envbuild("env", "register", "train:v7", "--name", "copy").out == "copy:1\n"
    write(envbuild.directory / "p", '[project]\nname = "p"\nversion = "0.1"\n', "pyproject.toml")
    assert envbuild("env", "register", "p").out == "p:1\n"


@pytest.mark.parametrize("format", ["native", "azure-v1", "azure-v2", "conda"])
@pytest.mark.parametrize("output", ["out/", "out"])
def test_what_is_exported_is_read_back(format: str, output: str, envbuild: Machine) -> None:
    write(envbuild.directory, "name: train\nimage: registry.example/base:1\nrequirements: [six==1.17.0]\n")
    envbuild("env", "register")
    envbuild("env", "export", "train", "--format", format, "-o", output)
    read = envbuild("import", "out").out.splitlines()
    assert "  - six==1.17.0" in read
    assert "name: train" in read
    assert ("image: registry.example/base:1" in read) == (format != "conda")


@pytest.mark.parametrize("format", ["native", "azure-v1", "azure-v2"])
def test_a_build_context_goes_with_what_is_exported(format: str, envbuild: Machine) -> None:
    write(envbuild.directory, "name: train\nbuild: {path: docker}\n")
    write(envbuild.directory / "docker", "FROM base:1\nCOPY a /\n", "Dockerfile")
    write(envbuild.directory / "docker", "a", "a")
    definition = envbuild.json("env", "register")["definition_digest"]
    exported = envbuild("env", "export", "train", "--format", format, "-o", "out/")
    assert "build:" not in exported.err
    assert envbuild.json("env", "register", "out")["definition_digest"] == definition
    alone = envbuild("env", "export", "train", "--format", format, "-o", "alone.yaml")
    assert "left out: build: the context isn't beside it; -o DIR/ writes it too\n" in alone.err


def test_the_workspace_is_that_of_the_settings_beside_the_spec(envbuild: Machine) -> None:
    write(envbuild.directory / "team", SPEC.replace("train", "theirs"))
    write(envbuild.directory / "team", 'workspace = "team.db"\n', "envbuild.toml")
    envbuild("env", "register", "team")
    assert envbuild.json("env", "list") == {"environments": []}
    found = envbuild.json("env", "list", "--workspace", "team/team.db")["environments"]
    assert [each["name"] for each in found] == ["theirs"]


def test_list_shows_environments_and_versions(envbuild: Machine) -> None:
    shown = envbuild("env", "list")
    assert (shown.out, shown.err) == ("", "no environments are registered\n")
    envbuild("env", "register", "--label", "prod")
    write(envbuild.directory, SPEC.replace("six", "idna"))
    envbuild("env", "register")
    head, line = envbuild("env", "list").out.splitlines()
    assert head.split() == ["name", "latest", "versions", "labels", "updated", "description"]
    assert line.split()[:4] == ["train", "2", "2", "prod=1"]
    head, *lines = envbuild("env", "list", "train").out.splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1"]
    (summary,) = envbuild.json("env", "list", "--prefix", "tr")["environments"]
    assert (summary["latest"], summary["versions"], summary["labels"]) == ("2", 2, {"prod": "1"})
    assert envbuild.json("env", "list", "--prefix", "x") == {"environments": []}


def test_labels_move_and_go(envbuild: Machine) -> None:
    envbuild("env", "register")
    write(envbuild.directory, SPEC.replace("six", "idna"))
    envbuild("env", "register")
    assert envbuild.json("env", "label", "train:1", "prod", "old")["labels"] == ["old", "prod"]
    assert envbuild.json("env", "label", "train", "prod")["version"] == "2"
    assert envbuild.json("env", "unlabel", "train", "old") == {"name": "train", "labels": {"prod": "2"}}
    shown = envbuild("env", "show", "train@old", status=8)
    assert shown.err == "error: train has no label 'old'\nhint: known labels: latest, prod\n"


def test_update_changes_what_may_change(envbuild: Machine) -> None:
    envbuild("env", "register", "--tag", "a=1", "--tag", "b=2")
    found = envbuild.json("env", "update", "train", "--tag", "c=3", "--remove-tag", "a", "--description", "x")
    assert (found["tags"], found["description"]) == ({"b": "2", "c": "3"}, "x")
    assert envbuild.json("env", "update", "train", "--description", "y")["tags"] == {"b": "2", "c": "3"}
    assert "train:1 has no tag z" in envbuild("env", "update", "train", "--remove-tag", "z", status=2).err
    assert "nothing to update" in envbuild("env", "update", "train", status=2).err
    assert "'a' is not KEY=VALUE" in envbuild("env", "update", "train", "--tag", "a", status=2).err


def test_what_is_archived_is_hidden_until_it_is_restored(envbuild: Machine) -> None:
    envbuild("env", "register")
    envbuild("env", "archive", "train")
    assert envbuild.json("env", "list") == {"environments": []}
    assert "train is archived" in envbuild("env", "show", "train", status=8).err
    assert envbuild.json("env", "show", "train:1")["name"] == "train"
    assert envbuild.json("env", "restore", "train") == {"name": "train", "version": None, "archived": False}
    envbuild("env", "label", "train", "prod")
    assert envbuild("env", "archive", "train@prod").err == "train:1 is archived\n"
    assert "every version of train is archived" in envbuild("env", "show", "train", status=8).err


def test_clone_is_the_same_definition_under_another_name(envbuild: Machine) -> None:
    envbuild("env", "register", "--tag", "a=1")
    assert envbuild("env", "clone", "train", "mine").out == "mine:1\n"
    mine, train = envbuild.json("env", "show", "mine"), envbuild.json("env", "show", "train")
    assert mine["definition_digest"] == train["definition_digest"]
    assert (mine["tags"], mine["origin"], mine["versions"]) == ({"a": "1"}, "train:1", ["mine:1", "train:1"])


def test_export_writes_formats_and_says_what_they_cannot_carry(envbuild: Machine) -> None:
    envbuild("env", "register")
    native = envbuild("env", "export", "train")
    assert envbuild("env", "export", "train", "-o", "-").out == native.out
    assert native.out.splitlines()[:2] == ["name: train", 'version: "1"']
    assert native.err == ""
    envbuild("env", "export", "train", "-o", "out/")
    assert (envbuild.directory / "out" / "envbuild.yaml").read_text() == native.out
    shown = envbuild("env", "export", "train", "-o", "out", status=2)
    assert "has envbuild.yaml already" in shown.err
    requirements = envbuild("env", "export", "train", "--format", "requirements", "-o", "r.txt")
    assert (envbuild.directory / "r.txt").read_text().splitlines()[-1] == "six"
    assert "left out: " in requirements.err
    assert "unknown format 'x'" in envbuild("env", "export", "train", "--format", "x", status=2).err


def put_version(workspace: Workspace, envbuild: Machine, *layers: str, **change: object) -> NewImage:
    """Registers the spec as it is, with a lock and an image of these layers."""
    directory = envbuild.directory / "lock"
    definition = str(envbuild.json("env", "register")["definition_digest"])
    lock: Lock = replace(LOCK, definition=definition)
    if change:
        first, *rest = lock.platforms
        lock = replace(lock, platforms=(replace(first, **change), *rest))  # type: ignore[arg-type]
    write_lock(directory, lock)
    spec = workspace.spec(workspace.environments.by_definition(definition)[0])
    record = workspace.keep_lock(spec, directory)
    assert record is not None
    store = Store(workspace.settings.cache_dir)
    image = put_image(
        store, [put_layer(store, [Item(name=layer, content=layer.encode())]) for layer in layers]
    )
    new = NewImage(
        digest=image.digest,
        platform="linux/amd64",
        lock_digest=image.lock_digest,
        lock=record.digest,
        definition=definition,
        level="L3",
        references=("train:0123456789ab",),
        engine="native",
        size=sum(layer.size for layer in image.layers),
        envbuild="0.1.0",
    )
    workspace.environments.add_image(new)
    return new


def test_an_images_digest_leads_to_its_spec_and_lock(workspace: Workspace, envbuild: Machine) -> None:
    image = put_version(workspace, envbuild, "a")
    for text in (image.digest, f"train:0123456789ab@{image.digest}", image.definition, str(image.lock)):
        found = envbuild.json("env", "show", text)
        assert (found["name"], found["version"], found["content"]) == ("train", "1", _content())
        assert found["lock"]["digest"] == image.lock
        assert [each["digest"] for each in found["images"]] == [image.digest]
    shown = envbuild("env", "show", image.digest).out
    assert "environment  train:1\n" in shown
    assert f"image        {image.digest}\n" in shown
    assert shown.endswith(_content())


def test_diff_shows_lines_pins_and_bytes_to_pull(workspace: Workspace, envbuild: Machine) -> None:
    one = put_version(workspace, envbuild, "a", "b")
    write(envbuild.directory, SPEC.replace("six", "idna"))
    newer = replace(IDNA, version="3.11", file="idna-3.11-py3-none-any.whl", sha256="9" * 64)
    two = put_version(workspace, envbuild, "a", "much more than b", pip=(newer,))
    found = envbuild.json("env", "diff", "train:1", "train:2")
    assert found["definition"] == ["-   - six", "+   - idna"]
    changes = [each for each in found["changes"] if each["name"] == "idna"]
    assert changes == [
        {"platform": "linux/amd64", "kind": "pip", "name": "idna", "before": "3.10", "after": "3.11"}
    ]
    amd64, arm64 = found["sizes"]
    assert (amd64["before"], amd64["after"], amd64["by"]) == (one.size, two.size, "layers")
    assert 0 < amd64["pulled"] < two.size
    assert (arm64["pulled"], arm64["by"]) == (0, "pins")
    shown = envbuild("env", "diff", "train:1", "train:2").out
    assert "-   - six\n+   - idna\n" in shown
    assert " to pull\n" in shown
    assert envbuild.json("env", "diff", "train", "train")["same_definition"] is True


def test_history_of_a_package_across_versions(workspace: Workspace, envbuild: Machine) -> None:
    put_version(workspace, envbuild, "a")
    write(envbuild.directory, SPEC.replace("six", "idna"))
    envbuild("env", "register")
    found = envbuild.json("env", "history", "train", "--package", "IDNA")
    second, first = found["versions"]
    assert (second["version"], second["locked"], second["pins"]) == ("2", None, [])
    assert first["version"] == "1"
    assert {"platform": "linux/amd64", "kind": "pip", "version": "3.10"} in first["pins"]
    lines = envbuild("env", "history", "train", "--package", "idna").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["2", "-"], ["1", "3.10"]]
    assert "--package needs the name" in envbuild("env", "history", "--package", "x", status=2).err


def test_history_says_who_did_what(envbuild: Machine) -> None:
    envbuild("env", "register")
    envbuild("env", "label", "train", "prod")
    first, second = envbuild("env", "history", "train").out.splitlines()
    assert first.split()[2:] == ["ann", "label", "train:1", "labels", "prod"]
    assert second.split()[2:5] == ["ann", "register", "train:1"]
    events = envbuild.json("env", "history", "-n", "1")["events"]
    assert [event["action"] for event in events] == ["label"]


def test_import_writes_native_yaml_and_says_what_is_left_out(envbuild: Machine) -> None:
    docker = '"docker": {"baseImage": "a/b:1", "shmSize": "2g"}'
    write(envbuild.directory / "v1", f'{{"name": "theirs", {docker}}}\n', "azureml_environment.json")
    shown = envbuild("import", "v1", "--name", "mine")
    assert shown.out.splitlines()[0] == "name: mine"
    assert "image: a/b:1" in shown.out
    assert shown.err.splitlines()[-1:] == ["left out: azureml_environment.json:1: docker.shmSize"]
    assert shown.err.count("docker.shmSize") == 1
    envbuild("import", "v1", "-o", "mine.yaml")
    assert "is there already" in envbuild("import", "v1", "-o", "mine.yaml", status=2).err
    found = envbuild.json("import", "v1", "-o", "mine.yaml", "--overwrite")
    assert list(found["files"]) == ["envbuild.yaml"]
    assert found["left_out"] == ["azureml_environment.json:1: docker.shmSize"]


def test_import_into_another_format(envbuild: Machine) -> None:
    shown = envbuild("import", "envbuild.yaml", "--format", "conda")
    assert shown.out.startswith("name: train\nchannels:\n")
    assert "several files" in envbuild("import", ".", "--format", "azure-v1", status=2).err
    envbuild("import", ".", "--format", "azure-v1", "-o", "v1")
    assert (envbuild.directory / "v1" / "azureml_environment.json").is_file()


def test_import_of_a_registered_version_and_of_nothing(envbuild: Machine) -> None:
    envbuild("env", "register")
    assert envbuild("import", "train:1").out == envbuild("env", "export", "train").out
    assert "trian: no such file or directory" in envbuild("import", "trian", status=3).err
    assert "no virtual or conda environment is active" in envbuild("import", "venv", status=2).err


def test_import_of_an_image_lists_what_is_inside(envbuild: Machine, workspace: Workspace) -> None:
    store = Store(workspace.settings.cache_dir)
    site = "opt/env/lib/python3.13/site-packages/six-1.17.0.dist-info"
    image = put_image(
        store,
        [
            put_layer(
                store,
                [
                    Item(
                        name=f"{site}/METADATA",
                        content=b"Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n",
                    )
                ],
            )
        ],
    )
    layout(store, image.digest, envbuild.directory / "layout")
    shown = envbuild("import", "image:oci:layout", "--name", "found", "-p", "linux/amd64", "--offline")
    assert shown.out.startswith("name: found\n")
    assert "- six==1.17.0\n" in shown.out


def layout(store: Store, digest: str, directory: Path) -> None:
    """An OCI layout with one image of the store."""
    import shutil

    blobs = directory / "blobs" / "sha256"
    shutil.copytree(store.root / "blobs" / "sha256", blobs)
    manifest = store.blob(digest).read_bytes()
    entry = {
        "mediaType": json.loads(manifest)["mediaType"],
        "digest": digest,
        "size": len(manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _content() -> str:
    return (
        "name: train\ntype: system-managed\nplatforms:\n  - linux/amd64\n"
        'python: "3.13"\nrequirements:\n  - six\n'
    )
