"""``inspect``, ``diff`` and ``verify`` as people run them, on images that a build made and others changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.store.content import Store
from tests.fakes.archive import Deb
from tests.fakes.image import Item, put_image, put_index, put_layer
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Ended, Machine, World, a_world, demo

Change = Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A machine that has built two images, ``one`` and ``two``, and brought each to a layout."""
    wheels = [
        Wheel(name="alpha", version="1.0", files={"alpha/__init__.py": b"value = 1\n"}),
        Wheel(name="alpha", version="2.0", files={"alpha/__init__.py": b"value = 2\n"}),
        Wheel(name="beta", files={"beta/data": random.Random(0).randbytes(2_000_000)}),
    ]
    found = a_world(
        tmp_path_factory.mktemp("world"), wheels, [Deb(name="tool", files=[("./usr/bin/tool", b"#!")])]
    )
    for name, version, variable in (("one", "1.0", "a"), ("two", "2.0", "b")):
        text = demo(f"alpha=={version}", "beta", packages=["tool"])
        text = text.replace("name: demo", f"name: {name}") + f"environment_variables: {{MODE: {variable}}}\n"
        found.machine.write(f"{name}.yaml", text)
        assert found.machine.run("lock", f"{name}.yaml", "--no-bytecode").status == 0
        done = found.machine.run("build", f"{name}.yaml", "-o", f"oci:{name}")
        assert done.status == 0, done.stderr
    return found


@dataclass(kw_only=True)
class Layout:
    """An OCI layout whose image can be changed, all digests made right again."""

    root: Path

    def read(self, digest: str) -> bytes:
        return (self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    def write(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs" / "sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    @property
    def top(self) -> dict[str, Any]:
        index = json.loads((self.root / "index.json").read_text())
        return dict(index["manifests"][0])

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.read(self.top["digest"])))

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.read(self.manifest["config"]["digest"])))

    def replace(self, manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["config"].update(self.write(json.dumps(config).encode()))
        top = {**self.top, **self.write(json.dumps(manifest).encode())}
        index = {"schemaVersion": 2, "manifests": [top]}
        (self.root / "index.json").write_text(json.dumps(index))

    def change_layer(self, name: str, change: Change) -> None:
        """Rewrites every layer that has the path ``name``; ``change`` of None leaves the entry out."""
        manifest, config = self.manifest, self.config
        for number, layer in enumerate(manifest["layers"]):
            data = gzip.decompress(self.read(layer["digest"]))
            rewritten = io.BytesIO()
            touched = False
            with (
                tarfile.open(fileobj=io.BytesIO(data)) as old,
                tarfile.open(fileobj=rewritten, mode="w", format=tarfile.PAX_FORMAT) as new,
            ):
                for member in old:
                    file = old.extractfile(member) if member.isreg() else None
                    pair: tuple[tarfile.TarInfo, bytes] | None = (member, file.read() if file else b"")
                    if member.name == name and pair is not None:
                        touched = True
                        pair = change(*pair)
                    if pair is not None:
                        pair[0].size = len(pair[1])
                        new.addfile(pair[0], io.BytesIO(pair[1]))
            if touched:
                layer.update(self.write(gzip.compress(rewritten.getvalue(), mtime=0)))
                diff_id = f"sha256:{hashlib.sha256(rewritten.getvalue()).hexdigest()}"
                config["rootfs"]["diff_ids"][number] = diff_id
        self.replace(manifest, config)


@pytest.fixture
def layout(world: World, tmp_path: Path) -> Layout:
    """A copy of the image ``one``."""
    shutil.copytree(world.machine.project / "one", tmp_path / "image")
    return Layout(root=tmp_path / "image")


def elsewhere(world: World, tmp_path: Path) -> Machine:
    """Another machine, with an empty store, that knows the same sources."""
    return Machine(root=tmp_path / "other", env=world.machine.env, own_interpreters=True)


def verified(machine: Machine, layout: Layout) -> dict[str, Any]:
    """What ``verify`` says of the one image that must not be reproduced."""
    done = machine.run("verify", f"oci:{layout.root}", "--json")
    assert done.status == 1, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert image["reproduced"] is False
    assert machine.leftovers() == []
    return dict(image)


def paths(image: dict[str, Any]) -> dict[str, list[str]]:
    return {each["path"]: each["reasons"] for layer in image["layers"] for each in layer["paths"]}


def test_an_image_is_reproduced_on_another_machine(world: World, layout: Layout, tmp_path: Path) -> None:
    done = elsewhere(world, tmp_path).run("verify", f"oci:{layout.root}")
    assert done.status == 0, done.stderr
    assert "reproduced (L3)" in done.stdout
    assert layout.top["digest"] in done.stdout


def test_an_image_of_the_store_is_reproduced_offline(world: World) -> None:
    done = world.machine.run("verify", "oci:one", "--offline", "--json")
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout)["reproduced"] is True


SITE = "opt/env/lib/python3.13/site-packages"


def with_mode(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member.mode = 0o4755
    return member, data


def with_owner(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member.uid = 1234
    return member, data


def with_time(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member.mtime = 86400
    return member, data


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (lambda member, data: (member, data + b"import evil\n"), ["content"]),
        (with_mode, ["mode"]),
        (with_owner, ["owner"]),
        (with_time, ["mtime"]),
        (lambda member, data: None, ["missing"]),
    ],
    ids=["content", "mode", "owner", "mtime", "missing"],
)
def test_a_changed_file_is_found_though_all_digests_are_right(
    world: World, layout: Layout, change: Change, reasons: list[str]
) -> None:
    """On the machine that built the image: nothing that it has composed may answer for the image."""
    path = f"{SITE}/alpha/__init__.py"
    layout.change_layer(path, change)
    image = verified(world.machine, layout)
    assert paths(image) == {path: reasons}
    (layer,) = image["layers"]
    assert "alpha 1.0" in layer["artifacts"]
    assert image["config"] == []


def test_a_store_whose_own_parts_were_changed_reproduces_nothing_wrong(world: World, layout: Layout) -> None:
    """The changed image under the label of the sound one, in the store first."""
    layout.change_layer(f"{SITE}/alpha/__init__.py", lambda member, data: (member, b"evil\n"))
    assert world.machine.run("pull", f"oci:{layout.root}").status == 0
    assert paths(verified(world.machine, layout)) == {f"{SITE}/alpha/__init__.py": ["content"]}
    assert world.machine.run("verify", "oci:one").status == 0


def test_what_was_changed_in_the_config_is_named(world: World, layout: Layout) -> None:
    config = layout.config
    config["config"]["User"] = "0:0"
    config["config"]["Env"].append("LD_PRELOAD=/tmp/evil.so")
    layout.replace(layout.manifest, config)
    image = verified(world.machine, layout)
    assert image["layers"] == []
    assert image["config"] == [
        {"key": "config.Env.LD_PRELOAD", "before": None, "after": "/tmp/evil.so"},
        {"key": "config.User", "before": "1000:1000", "after": "0:0"},
    ]


def test_a_layer_too_many_is_named(world: World, layout: Layout) -> None:
    manifest, config = layout.manifest, layout.config
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc/backdoor"))
    added = layout.write(gzip.compress(buffer.getvalue(), mtime=0))
    manifest["layers"].append({"mediaType": manifest["layers"][0]["mediaType"], **added})
    config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(buffer.getvalue()).hexdigest()}")
    layout.replace(manifest, config)
    assert paths(verified(world.machine, layout)) == {"etc/backdoor": ["extra"]}


def test_a_label_that_the_lock_does_not_give_is_named(world: World, layout: Layout) -> None:
    config = layout.config
    config["config"]["Labels"]["dev.envbuild.lock"] = f"sha256:{'0' * 64}"
    layout.replace(layout.manifest, config)
    assert "doesn't follow from the lock inside" in verified(world.machine, layout)["reason"]


def test_another_layer_budget_is_found_out(world: World, tmp_path: Path) -> None:
    machine = world.machine
    done = machine.run(
        "build",
        "one.yaml",
        "-o",
        f"oci:{tmp_path}/few",
        env={"ENVBUILD_LAYER_BUDGET": "7", "SOURCE_DATE_EPOCH": "99"},
    )
    assert done.status == 0, done.stderr
    assert machine.run("verify", f"oci:{tmp_path}/few").status == 0


def test_zstd_layers_are_reproduced(world: World, tmp_path: Path) -> None:
    machine = world.machine
    assert machine.run("build", "one.yaml", "--compression", "zstd", "-o", f"oci:{tmp_path}/zstd").status == 0
    assert machine.run("verify", f"oci:{tmp_path}/zstd").status == 0


def test_bytes_that_are_not_their_digest_are_no_difference_but_an_error(
    world: World, layout: Layout, tmp_path: Path
) -> None:
    layer = layout.manifest["layers"][0]["digest"]
    (layout.root / "blobs" / "sha256" / layer.removeprefix("sha256:")).write_bytes(b"damaged")
    done = elsewhere(world, tmp_path).run("verify", f"oci:{layout.root}")
    done.failed(6, layer.removeprefix("sha256:")[:12])


def test_a_package_that_is_gone_is_named_and_is_no_difference(
    world: World, layout: Layout, tmp_path: Path
) -> None:
    machine = elsewhere(world, tmp_path)
    machine.env = {**machine.env, "UV_DEFAULT_INDEX": (tmp_path / "empty").as_uri()}
    (tmp_path / "empty").mkdir()
    done = machine.run("verify", f"oci:{layout.root}", env={"UV_CACHE_DIR": str(tmp_path / "uv")})
    done.failed(6, "beta-1.0-py3-none-any.whl", "left the index")


def test_an_image_of_others_is_not_reproduced(world: World, layout: Layout) -> None:
    config = layout.config
    del config["config"]["Labels"]
    layout.replace(layout.manifest, config)
    assert "isn't an image of envbuild's" in verified(world.machine, layout)["reason"]


def test_an_image_that_an_engine_built_is_not_reproduced(world: World, layout: Layout) -> None:
    config = layout.config
    config["config"]["Labels"]["dev.envbuild.level"] = "L2"
    layout.replace(layout.manifest, config)
    assert "its level is L2" in verified(world.machine, layout)["reason"]


@pytest.mark.parametrize("base", ["plain", "one"])
def test_an_image_that_is_another_as_it_is_is_reproduced(world: World, tmp_path: Path, base: str) -> None:
    """Also where that one has a lock inside, which is not the lock of this one."""
    machine = world.machine
    if base == "plain":
        store = Store(machine.cache)
        plain = put_image(store, [put_layer(store, [Item(name="file", content=b"1")])], {"Env": ["A=b"]})
        assert machine.run("pull", plain.digest, "-o", "oci:plain").status == 0
    machine.write("taken.yaml", f"name: taken\nimage: oci:{base}\nenvironment_variables: {{MODE: c}}\n")
    done = machine.run("build", "taken.yaml", "-o", f"oci:{tmp_path}/taken")
    assert done.status == 0, done.stderr
    done = machine.run("verify", f"oci:{tmp_path}/taken")
    assert done.status == 0, done.stdout + done.stderr
    layout = Layout(root=tmp_path / "taken")
    config = layout.config
    config["config"]["Env"].append("EVIL=1")
    layout.replace(layout.manifest, config)
    assert "doesn't follow" in verified(machine, layout)["reason"]


def differing(world: World, *arguments: str) -> Ended:
    return world.machine.run("diff", *arguments)


def test_diff_of_an_image_and_itself(world: World) -> None:
    done = differing(world, "oci:one", "oci:one")
    assert done.status == 0, done.stderr
    assert "the same image" in done.stdout


def test_diff_names_packages_settings_paths_and_bytes(world: World) -> None:
    done = differing(world, "oci:one", "oci:two", "--files", "--json")
    assert done.status == 1, done.stderr
    (found,) = json.loads(done.stdout)["images"]
    assert [(each["name"], each["before"], each["after"]) for each in found["packages"]] == [
        ("alpha", "1.0", "2.0")
    ]
    assert {"key": "config.Env.MODE", "before": "a", "after": "b"} in found["config"]
    reasons = {each["path"]: each["reasons"] for each in found["paths"]}
    assert reasons[f"{SITE}/alpha/__init__.py"] == ["content"]
    assert reasons[f"{SITE}/alpha-1.0.dist-info/METADATA"] == ["removed"]
    assert reasons[f"{SITE}/alpha-2.0.dist-info/METADATA"] == ["added"]
    assert not any("beta" in path for path in reasons)
    assert 0 < found["pulled"] < 100_000
    assert found["size"] > found["pulled"]


def test_diff_of_an_index_and_one_of_its_images(world: World, tmp_path: Path) -> None:
    """The platform that only one of them has is a difference."""
    machine, store = world.machine, Store(world.machine.cache)
    layer = put_layer(store, [Item(name="file", content=b"2")])
    images = [put_image(store, [layer], platform=each) for each in (LINUX_AMD64, LINUX_ARM64)]
    index = put_index(store, images, ()).index_digest
    assert index is not None
    done = machine.run("diff", images[0].digest, index, "--json")
    assert done.status == 1, done.stderr
    found = json.loads(done.stdout)["images"]
    assert [(each["platform"], each["same"]) for each in found] == [
        ("linux/amd64", True),
        ("linux/arm64", False),
    ]
    assert machine.run("diff", images[0].digest, index, "-p", "linux/amd64").status == 0


def test_diff_without_files_brings_only_the_layers_with_the_locks(world: World, tmp_path: Path) -> None:
    machine = elsewhere(world, tmp_path)
    one, two = (world.machine.project / name for name in ("one", "two"))
    assert machine.run("diff", f"oci:{one}", f"oci:{two}").status == 1
    last = {Layout(root=root).manifest["layers"][-1]["digest"] for root in (one, two)}
    others = {each["digest"] for root in (one, two) for each in Layout(root=root).manifest["layers"]} - last
    here = {f"sha256:{path.name}" for path in (machine.cache / "blobs" / "sha256").iterdir()}
    assert last <= here
    assert not others & here


def test_inspect_says_what_is_in_each_layer(world: World, tmp_path: Path) -> None:
    machine = elsewhere(world, tmp_path)
    root = world.machine.project / "one"
    done = machine.run("inspect", f"oci:{root}", "--json")
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    (image,) = found["images"]
    layout = Layout(root=root)
    assert found["digest"] == image["digest"] == layout.top["digest"]
    assert [each["digest"] for each in image["layers"]] == [
        each["digest"] for each in layout.manifest["layers"]
    ]
    assert image["level"] == "L3"
    assert image["base"] == "Debian trixie"
    assert image["user"] == "1000:1000"
    assert image["env"]["MODE"] == "a"
    layers = {layer["name"]: [each["name"] for each in layer["packages"]] for layer in image["layers"]}
    assert layers["beta"] == ["beta"]
    assert "tool" in layers["base"]
    assert image["size"] == sum(each["size"] for each in layout.manifest["layers"])
    assert found["attached"] is None
    here = list((machine.cache / "blobs" / "sha256").iterdir())
    assert len(here) == 3  # Manifest, config, and the layer with the lock.


def test_inspect_neutralises_what_strangers_wrote(world: World, layout: Layout) -> None:
    config = layout.config
    config["config"]["Labels"]["evil"] = "\x1b]0;title\x07"
    config["config"]["Env"].append("X=\u202etxt")
    layout.replace(layout.manifest, config)
    done = world.machine.run("inspect", f"oci:{layout.root}")
    assert done.status == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "evil=\\x1b]0;title\\x07" in done.stdout
