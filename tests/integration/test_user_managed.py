"""User-managed environments from spec to image: an image by its digest, as it is, from a registry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.app import build as builds
from envbuild.app import lock as locks
from envbuild.app import plan as plans
from envbuild.app import specs
from envbuild.app.requests import BuildRequest, BuildResult, LockRequest
from envbuild.app.session import Session
from envbuild.errors import BuildError, ResolveError, StaleLockError
from envbuild.lock.diff import PinChange
from envbuild.lock.make import context_base
from envbuild.lock.model import ContextBase, ImageBase, ImagePin
from envbuild.oci.digest import canonical_json
from envbuild.oci.image import Image
from envbuild.oci.manifest import DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_GZIP
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import BuildContextSpec
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, put_image, put_index, put_layer
from tests.fakes.registry import Registry

SETTINGS: dict[str, object] = {
    "Env": ["PATH=/app/bin:/usr/bin", "Z=1", "A=base", "ODD"],
    "Cmd": ["serve", "--all"],
    "Entrypoint": ["/entry"],
    "User": "app",
    "WorkingDir": "/app",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"theirs": "kept", "org.opencontainers.image.base.name": "below"},
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5000000000},
    "OnBuild": ["RUN x"],
    "Shell": ["/bin/bash", "-c"],
    "ArgsEscaped": True,
}
INFERENCE = """
inference_config:
  liveness_route: {path: /, port: 5001}
  readiness_route: {path: /, port: 5001}
  scoring_route: {path: /score, port: 8080}
"""
SERVER = Item(
    name="usr/lib/python3/dist-packages/azureml_inference_server_http-1.4.0.dist-info/METADATA",
    content=b"Name: azureml-inference-server-http\nVersion: 1.4.0\n",
)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    settings = Settings(cache_dir=tmp_path / "cache", engine="native")
    with Session(settings, Silent(), environ={"HOME": str(tmp_path)}) as found:
        yield found


def push(
    registry: Registry,
    tmp_path: Path,
    *items: Item,
    layers: int = 2,
    platform: Platform = LINUX_AMD64,
    settings: Mapping[str, object] = SETTINGS,
) -> Image:
    """``app:1`` of an OCI manifest, with ``items`` in the last layer."""
    source = Store(tmp_path / "source")
    below = [put_layer(source, [directory("d"), Item(name=f"f{n}", content=b"x")]) for n in range(layers - 1)]
    image = put_image(source, [*below, put_layer(source, items)], settings, platform)
    for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
        registry.put_blob(source.blob(digest).read_bytes())
    registry.put_manifest("app", "1", image.media_type, source.blob(image.digest).read_bytes())
    return image


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec/envbuild.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def build(session: Session, path: Path, request: BuildRequest | None = None) -> BuildResult:
    return builds.build(session, specs.find_spec(session, str(path)), request or BuildRequest())


def document(tmp_path: Path, digest: str) -> dict[str, Any]:
    found = json.loads(Store(tmp_path / "cache").blob(digest).read_bytes())
    assert isinstance(found, dict)
    return found


def env_of(config: Mapping[str, Any]) -> Sequence[str]:
    env = config["config"]["Env"]
    assert isinstance(env, list)
    return env


# --- an image as it is --------------------------------------------------------------------------------


def test_an_image_keeps_its_layers_and_all_of_its_config(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    theirs = push(registry, tmp_path, Item(name="a"))
    path = write(tmp_path, f"name: own\nimage: {registry.host}/app:1\n")
    result = build(session, path)
    (image,) = result.images
    assert image.layers == tuple(
        type(layer)(
            digest=layer.digest,
            diff_id=layer.diff_id,
            size=layer.size,
            media_type=layer.media_type,
            name="base",
        )
        for layer in theirs.layers
    )
    before = json.loads(Store(tmp_path / "source").blob(theirs.config_digest).read_bytes())
    labels = {
        "dev.envbuild.definition": image.definition_digest,
        "dev.envbuild.level": "L3",
        "dev.envbuild.lock": image.lock_digest,
        "org.opencontainers.image.base.digest": theirs.digest,
        "org.opencontainers.image.base.name": f"{registry.host}/app:1",
        "theirs": "kept",
    }
    assert document(tmp_path, image.config_digest) == {**before, "config": {**SETTINGS, "Labels": labels}}
    assert document(tmp_path, image.digest)["layers"] == [
        {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in theirs.layers
    ]
    assert image.level == "L3"
    assert result.reference == f"own:{image.lock_digest[7:19]}@{image.digest}"
    assert build(session, path).cached


def test_what_the_spec_says_stands_on_top(registry: Registry, tmp_path: Path, session: Session) -> None:
    push(registry, tmp_path, SERVER)
    text = (
        f'image: {registry.host}/app:1\nuser: "5:7"\nenvironment_variables: {{A: ours, N: "1", PATH: /x}}\n'
    )
    (image,) = build(session, write(tmp_path, text + INFERENCE)).images
    config = document(tmp_path, image.config_digest)
    assert env_of(config) == ["PATH=/x", "Z=1", "A=ours", "ODD", "N=1"]
    assert config["config"]["User"] == "5:7"
    assert config["config"]["ExposedPorts"] == {"80/tcp": {}, "5001/tcp": {}, "8080/tcp": {}}
    assert config["config"]["Cmd"] == SETTINGS["Cmd"]


def test_an_image_with_more_layers_than_we_could_add_to_is_taken(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    push(registry, tmp_path, layers=125)
    (image,) = build(session, write(tmp_path, f"image: {registry.host}/app:1\n")).images
    assert len(image.layers) == 125


def test_an_image_of_dockers_own_types_keeps_its_bytes(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    oci = push(registry, tmp_path, Item(name="a"))
    content = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": DOCKER_CONFIG,
                "digest": oci.config_digest,
                "size": len(registry.blobs[oci.config_digest]),
            },
            "layers": [
                {"mediaType": DOCKER_LAYER_GZIP, "digest": layer.digest, "size": layer.size}
                for layer in oci.layers
            ],
        }
    )
    registry.put_manifest("app", "1", DOCKER_MANIFEST, content)
    (image,) = build(session, write(tmp_path, f"image: {registry.host}/app:1\n")).images
    assert [(each.digest, each.media_type) for each in image.layers] == [
        (layer.digest, OCI_LAYER_GZIP) for layer in oci.layers
    ]


def test_the_image_is_a_function_of_the_lock(registry: Registry, tmp_path: Path, session: Session) -> None:
    push(registry, tmp_path)
    path = write(tmp_path, f"image: {registry.host}/app:1\n")
    first = build(session, path)
    push(registry, tmp_path, Item(name="moved"))
    settings = Settings(cache_dir=tmp_path / "other", engine="native")
    with Session(settings, Silent(), environ={"HOME": str(tmp_path)}) as other:
        assert build(other, path, BuildRequest(locked=True)).digest == first.digest


# --- its lock -----------------------------------------------------------------------------------------


def test_a_lock_holds_the_digest_of_each_platform_and_keeps_it(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    images = [push(registry, tmp_path, platform=each) for each in (LINUX_AMD64, LINUX_ARM64)]
    source = Store(tmp_path / "source")
    for image in images:
        registry.put_manifest("app", image.digest, image.media_type, source.blob(image.digest).read_bytes())
    index = put_index(source, images, ["app:1"])
    assert index.index_digest is not None
    registry.put_manifest("app", "1", OCI_INDEX, source.blob(index.index_digest).read_bytes())
    path = write(tmp_path, f"image: {registry.host}/app:1\nplatforms: [linux/amd64, linux/arm64]\n")
    spec = specs.find_spec(session, str(path))
    lock = locks.lock_spec(session, spec, LockRequest()).lock
    bases = [platform.base for platform in lock.platforms]
    assert [base.digest for base in bases if isinstance(base, ImageBase)] == [
        image.digest for image in images
    ]
    assert [platform.python for platform in lock.platforms] == [None, None]
    assert not lock.bytecode
    assert len(build(session, path).images) == 2
    moved = push(registry, tmp_path, Item(name="moved"))
    locks.check_lock(session, spec)
    assert locks.lock_spec(session, spec, LockRequest()).lock == lock
    amd64 = write(tmp_path, f"image: {registry.host}/app:1\n")
    narrowed = specs.find_spec(session, str(amd64))
    with pytest.raises(StaleLockError, match="linux/arm64: locked, but no longer asked for"):
        locks.check_lock(session, narrowed)
    again = locks.lock_spec(session, narrowed, LockRequest()).lock
    assert again.platforms[0].base == bases[0]
    upgraded = locks.lock_spec(session, narrowed, LockRequest(upgrade=True)).lock.platforms[0].base
    assert isinstance(upgraded, ImageBase)
    assert upgraded.digest == moved.digest


def test_what_a_spec_lists_of_its_image_is_not_asked_of_the_lock(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    push(registry, tmp_path, SERVER)
    listed = "conda_file: {channels: [x], dependencies: [numpy, {pip: [azureml-inference-server-http]}]}\n"
    path = write(tmp_path, f"type: user-managed\nimage: {registry.host}/app:1\n{listed}{INFERENCE}")
    build(session, path)
    locks.check_lock(session, specs.find_spec(session, str(path)))


# --- an own Dockerfile --------------------------------------------------------------------------------


def context(tmp_path: Path) -> Path:
    path = write(tmp_path, "build: {path: .}\n")
    (path.parent / "Dockerfile").write_text("FROM scratch\n")
    (path.parent / "app.py").write_text("x = 1\n")
    return path


def test_a_changed_context_makes_the_lock_stale(tmp_path: Path, session: Session) -> None:
    path = context(tmp_path)
    spec = specs.find_spec(session, str(path))
    made = locks.lock_spec(session, spec, LockRequest())
    base = made.lock.platforms[0].base
    assert isinstance(base, ContextBase)
    # The lock lies in the context now, and answers all the same.
    assert made.directory.is_relative_to(path.parent)
    locks.check_lock(session, specs.find_spec(session, str(path)))
    assert not locks.lock_spec(session, specs.find_spec(session, str(path)), LockRequest()).written
    (path.parent / "app.py").write_text("x = 2\n")
    with pytest.raises(StaleLockError, match=r"linux/amd64: the build context changed$"):
        locks.check_lock(session, specs.find_spec(session, str(path)))
    again = locks.lock_spec(session, specs.find_spec(session, str(path)), LockRequest())
    assert again.written
    (path.parent / "Other").write_text("FROM scratch\n")
    write(tmp_path, "build: {path: ., dockerfile_path: Other}\n")
    with pytest.raises(
        StaleLockError, match="the Dockerfile Other is asked for, the Dockerfile Dockerfile is locked"
    ):
        locks.check_lock(session, specs.find_spec(session, str(path)))


def test_a_dockerfile_is_planned_and_refused_by_the_native_engine(tmp_path: Path, session: Session) -> None:
    path = context(tmp_path)
    spec = specs.find_spec(session, str(path))
    plan = plans.plan_image(session, spec, locks.lock_spec(session, spec, LockRequest()).lock, LINUX_AMD64)
    assert (plan.level, plan.layers, plan.config.inherit, plan.type) == ("L0", (), True, "user-managed")
    assert dict(plan.config.labels) == {
        "dev.envbuild.definition": plan.definition_digest,
        "dev.envbuild.level": "L0",
        "dev.envbuild.lock": plan.lock_digest,
    }
    with pytest.raises(BuildError, match=r"a Dockerfile \(Dockerfile\) runs its own steps"):
        build(session, path)


def test_the_images_of_a_dockerfile_are_locked_and_given_by_digest(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    first = push(registry, tmp_path, Item(name="a"))
    path = write(tmp_path, "build: {path: .}\n")
    text = f"ARG TAG=1\nFROM {registry.host}/app:${{TAG}}\nCOPY --from={registry.host}/gone:1 / /\n"
    (path.parent / "real").write_text(text)
    (path.parent / "Dockerfile").symlink_to("real")
    spec = specs.find_spec(session, str(path))
    assert isinstance(spec.base, BuildContextSpec)
    lock = locks.lock_spec(session, spec, LockRequest()).lock
    pin = ImagePin(reference=f"{registry.host}/app:1", digest=first.digest)
    assert [pins.base for pins in lock.platforms] == [replace(context_base(spec.base), images=(pin,))]
    # What is on disk says so, to whoever checks it without a network.
    assert locks.check_lock(session, spec) == lock
    plan = plans.plan_image(session, spec, lock, LINUX_AMD64)
    files = {
        file.path: file
        for file in session.engines(specs.inputs_of(spec)).renderer().context(plan, offline=True).files
    }
    assert files["Dockerfile"].target == "real"
    assert files["real"].content == text.replace("app:${TAG}", f"app:1@{first.digest}").encode()
    # The tag moves: the lock stays until an upgrade, which says what changed.
    second = push(registry, tmp_path, Item(name="b"))
    assert not locks.lock_spec(session, spec, LockRequest()).written
    (path.parent / "new").write_text("x")
    changed = specs.find_spec(session, str(path))
    assert isinstance(changed.base, BuildContextSpec)
    moved = locks.lock_spec(session, changed, LockRequest(upgrade_packages=(f"{registry.host}/app",)))
    assert [change for change in moved.changes if change.kind == "image"] == [
        PinChange(
            platform="linux/amd64",
            kind="image",
            name=f"{registry.host}/app:1",
            before=first.digest,
            after=second.digest,
        )
    ]
    identity = plans.plan_image(session, changed, moved.lock, LINUX_AMD64).lock_digest
    unpinned = replace(
        moved.lock, platforms=(replace(moved.lock.platforms[0], base=context_base(changed.base)),)
    )
    assert identity != plans.plan_image(session, changed, unpinned, LINUX_AMD64).lock_digest


# --- serving ------------------------------------------------------------------------------------------


def test_an_image_that_cannot_serve_is_not_built_for_serving(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    push(registry, tmp_path, Item(name="a"))
    path = write(tmp_path, f"image: {registry.host}/app:1\n{INFERENCE}")
    out = tmp_path / "out"
    for _ in range(2):  # Also where the image is in the store by now.
        with pytest.raises(BuildError, match=r"can.t serve: it needs azureml-defaults>=1\.0\.45 or"):
            build(session, path, BuildRequest(outputs=(f"oci:{out}",)))
    assert not out.exists()
    push(registry, tmp_path, SERVER)
    build(session, path, BuildRequest(outputs=(f"oci:{out}",), lock=LockRequest(upgrade=True)))
    assert out.exists()


def test_a_server_that_an_upper_layer_removed_does_not_count(
    registry: Registry, tmp_path: Path, session: Session
) -> None:
    source = Store(tmp_path / "source")
    layers = [
        put_layer(source, [SERVER]),
        put_layer(source, [Item(name="usr/lib/python3/.wh.dist-packages")]),
    ]
    image = put_image(source, layers, SETTINGS, LINUX_AMD64)
    for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
        registry.put_blob(source.blob(digest).read_bytes())
    registry.put_manifest("app", "1", image.media_type, source.blob(image.digest).read_bytes())
    with pytest.raises(BuildError, match="neither is inside"):
        build(session, write(tmp_path, f"image: {registry.host}/app:1\n{INFERENCE}"))


@pytest.mark.parametrize(
    "settings", [{"Env": [1]}, {"Labels": ["x"]}, {"ExposedPorts": "80"}, {"Env": {"A": "1"}}]
)
def test_a_config_of_no_form_is_refused(
    registry: Registry, tmp_path: Path, session: Session, settings: dict[str, object]
) -> None:
    push(registry, tmp_path, settings=settings)
    path = write(tmp_path, f"image: {registry.host}/app:1\n")
    with pytest.raises(ResolveError, match="not the form of an image"):
        build(session, path)


# --- the example --------------------------------------------------------------------------------------


def test_the_examples_lock_answers_it(session: Session) -> None:
    example = Path(__file__).parents[2] / "examples/user-managed"
    locks.check_lock(session, specs.find_spec(session, str(example)))
