from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.base_image import BaseImages
from envbuild.errors import BuildError, ResolveError
from envbuild.images.sinks.choose import output_sink
from envbuild.lock.base import BaseRequest, Upgrade
from envbuild.lock.image.resolver import ImageResolver
from envbuild.lock.model import ImageBase, PythonPin
from envbuild.oci.digest import canonical_json
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER_GZIP,
)
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient, RegistryOptions
from envbuild.specs.model import ImageBaseSpec
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, put_image, put_index, put_layer, symlink
from tests.fakes.registry import Registry

STATUS = b"""Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u10

Package: python3.11-minimal
Status: install ok installed
Version: 3.11.2-6+deb12u5
"""


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[RegistryClient]:
    with RegistryClient(store, Silent(), RegistryCredentials({"HOME": str(tmp_path)})) as found:
        yield found


@pytest.fixture
def resolver(store: Store, client: RegistryClient, tmp_path: Path) -> ImageResolver:
    return ImageResolver(store, client, directory=tmp_path)


@pytest.fixture
def offline_resolver(store: Store, tmp_path: Path) -> ImageResolver:
    client = RegistryClient(
        store, Silent(), RegistryCredentials({"HOME": str(tmp_path)}), options=RegistryOptions(offline=True)
    )
    return ImageResolver(store, client, directory=tmp_path)


def _debian(source: Store, *extra: Item, config: dict[str, object] | None = None) -> Image:
    items = [
        directory("usr/bin"),
        Item(name="usr/bin/python3.11", content=b"elf", mode=0o755),
        symlink("bin", "usr/bin"),
        Item(name="var/lib/dpkg/status", content=STATUS),
        directory("tmp", 0o1777),
    ]
    layers = [put_layer(source, items), put_layer(source, [*extra, directory("srv")])]
    return put_image(source, layers, config or {"Env": ["PATH=/usr/bin"]}, platform=LINUX_AMD64)


def _push(registry: Registry, source: Store, image: Image, tag: str = "1") -> None:
    for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
        registry.put_blob(source.blob(digest).read_bytes())
    registry.put_manifest("app", tag, image.media_type, source.blob(image.digest).read_bytes())


def test_a_single_image_gives_digest_glibc_and_python(
    registry: Registry, tmp_path: Path, resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    image = _debian(source)
    _push(registry, source, image)
    found = resolver.resolve(
        BaseRequest(
            spec=ImageBaseSpec(reference=f"{registry.host}/app:1"), platform=LINUX_AMD64, with_python=True
        )
    )
    assert found.base == ImageBase(
        reference=f"{registry.host}/app:1",
        digest=image.digest,
        index_digest=None,
        glibc="2.36",
        layers=2,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
    )
    assert found.python == PythonPin(version="3.11.2", provider="image", executable="/usr/bin/python3.11")


def test_the_official_pythons_own_interpreter_wins(
    registry: Registry, tmp_path: Path, resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    program = Item(name="usr/local/bin/python3.12", content=b"elf", mode=0o755)
    _push(registry, source, _debian(source, program, config={"Env": ["PYTHON_VERSION=3.12.9"]}))
    found = resolver.resolve(
        BaseRequest(
            spec=ImageBaseSpec(reference=f"{registry.host}/app:1"), platform=LINUX_AMD64, with_python=True
        )
    )
    assert found.python == PythonPin(
        version="3.12.9", provider="image", executable="/usr/local/bin/python3.12"
    )


def test_what_an_upper_layer_removed_is_not_found(
    registry: Registry, tmp_path: Path, resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    _push(registry, source, _debian(source, Item(name="usr/bin/.wh.python3.11")))
    spec = ImageBaseSpec(reference=f"{registry.host}/app:1")
    with pytest.raises(ResolveError, match="no python was found"):
        resolver.resolve(BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True))
    assert resolver.resolve(BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=False)).python is None
    asked = BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True, python_optional=True)
    resolved = resolver.resolve(asked)
    assert resolved.python is None
    assert resolver.resolve(replace(asked, preferred=resolved.base)).python is None
    with pytest.raises(ResolveError, match="no python was found"):
        resolver.resolve(replace(asked, preferred=resolved.base, python_optional=False))


def test_what_lies_in_the_prefix_is_named(
    registry: Registry, tmp_path: Path, resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    items = [directory("opt/env/bin"), *(Item(name=f"opt/env/bin/{name}", content=b"x") for name in "dcba")]
    _push(registry, source, _debian(source, *items))
    spec = ImageBaseSpec(reference=f"{registry.host}/app:1")
    for _ in range(2):
        found = resolver.resolve(BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True))
        assert found.prefix == ("opt/env/bin/a", "opt/env/bin/b", "opt/env/bin/c")
    again = resolver.resolve(
        BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True, preferred=found.base)
    )
    assert again == found


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_gives_the_platforms_manifest(
    registry: Registry, tmp_path: Path, media_type: str, resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    image = _debian(source)
    _push(registry, source, image, "other")
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": image.size}
    attestation = {
        **entry,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    manifests = [attestation, {**entry, "platform": {"os": "linux", "architecture": "amd64"}}]
    index = registry.put_manifest(
        "app", "1", media_type, json.dumps({"mediaType": media_type, "manifests": manifests}).encode()
    )
    spec = ImageBaseSpec(reference=f"{registry.host}/app:1")
    base = resolver.resolve(BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=False)).base
    assert isinstance(base, ImageBase)
    assert (base.digest, base.index_digest) == (image.digest, index)
    with pytest.raises(ResolveError, match="has no image for linux/arm64, only for linux/amd64"):
        resolver.resolve(BaseRequest(spec=spec, platform=LINUX_ARM64, with_python=False))


def test_a_single_image_of_another_platform_is_refused(
    registry: Registry, tmp_path: Path, resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    _push(registry, source, _debian(source))
    with pytest.raises(ResolveError, match="it is for linux/amd64, not linux/arm64"):
        resolver.resolve(
            BaseRequest(
                spec=ImageBaseSpec(reference=f"{registry.host}/app:1"),
                platform=LINUX_ARM64,
                with_python=False,
            )
        )


def test_a_moved_tag_changes_the_lock_only_on_upgrade(
    registry: Registry, tmp_path: Path, resolver: ImageResolver, offline_resolver: ImageResolver
) -> None:
    source = Store(tmp_path / "source")
    spec = ImageBaseSpec(reference=f"{registry.host}/app:1")
    _push(registry, source, _debian(source))
    first = resolver.resolve(BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True))
    moved = _debian(source, Item(name="new"))
    _push(registry, source, moved)
    kept = offline_resolver.resolve(
        BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True, preferred=first.base, offline=True)
    )
    assert kept == first
    for upgrade in (Upgrade(everything=True), Upgrade(packages=frozenset({"base"}))):
        found = resolver.resolve(
            BaseRequest(
                spec=spec, platform=LINUX_AMD64, with_python=True, preferred=first.base, upgrade=upgrade
            )
        )
        assert isinstance(found.base, ImageBase)
        assert found.base.digest == moved.digest


def test_offline_without_a_lock_says_what_to_do(offline_resolver: ImageResolver) -> None:
    with pytest.raises(ResolveError, match="offline run") as caught:
        offline_resolver.resolve(
            BaseRequest(
                spec=ImageBaseSpec(reference="debian:12"),
                platform=LINUX_AMD64,
                with_python=False,
                offline=True,
            )
        )
    assert caught.value.hint == "lock once without --offline"


@pytest.mark.parametrize("suffix", ["", ":demo:1"])
def test_a_local_layout_is_a_base(
    store: Store, tmp_path: Path, suffix: str, offline_resolver: ImageResolver, client: RegistryClient
) -> None:
    source = Store(tmp_path / "source")
    image = _debian(source)
    publication = put_index(source, [image], ["demo:1"])
    output_sink(f"oci:{tmp_path}/layout", source, Silent()).publish(publication)
    found = offline_resolver.resolve(
        BaseRequest(
            spec=ImageBaseSpec(reference=f"oci:layout{suffix}"),
            platform=LINUX_AMD64,
            with_python=True,
            offline=True,
        )
    )
    assert isinstance(found.base, ImageBase)
    assert (found.base.reference, found.base.digest) == (f"oci:layout{suffix}", image.digest)
    contents = BaseImages(store=store, registry=lambda: client, directory=tmp_path).load(
        found.base, LINUX_AMD64
    )
    assert [layer.digest for layer in contents.layers] == [layer.digest for layer in image.layers]


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("suffix", ["", ":demo:1"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_local_archive_is_a_base(
    form: str,
    suffix: str,
    packed: bool,
    store: Store,
    tmp_path: Path,
    offline_resolver: ImageResolver,
    client: RegistryClient,
) -> None:
    source = Store(tmp_path / "source")
    image = _debian(source)
    image_set = ImageSet(images=(image,), names=("demo:1",))
    output_sink(f"{form}:{tmp_path}/base.tar", source, Silent()).publish(image_set)
    if packed:
        (tmp_path / "base.tar").write_bytes(gzip.compress((tmp_path / "base.tar").read_bytes()))
    reference = f"{form}:base.tar{suffix}"
    spec = ImageBaseSpec(reference=reference)
    base = offline_resolver.resolve(
        BaseRequest(spec=spec, platform=LINUX_AMD64, with_python=True, offline=True)
    ).base
    assert isinstance(base, ImageBase)
    assert (base.reference, base.digest) == (reference, image.digest)
    contents = BaseImages(store=store, registry=lambda: client, directory=tmp_path).load(base, LINUX_AMD64)
    assert [layer.digest for layer in contents.layers] == [layer.digest for layer in image.layers]


def _docker_image(registry: Registry, source: Store) -> ImageBase:
    """The same image as Docker itself pushes it."""
    image = _debian(source)
    config = source.blob(image.config_digest).read_bytes()
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "digest": image.config_digest, "size": len(config)},
            "layers": [
                {"mediaType": DOCKER_LAYER_GZIP, "digest": layer.digest, "size": layer.size}
                for layer in image.layers
            ],
        }
    )
    _push(registry, source, image)
    digest = registry.put_manifest("app", "1", DOCKER_MANIFEST, manifest)
    return ImageBase(
        reference=f"{registry.host}/app:1",
        digest=digest,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
    )


def test_a_docker_base_keeps_its_layers_under_ocis_types(
    registry: Registry, store: Store, tmp_path: Path, client: RegistryClient
) -> None:
    base = _docker_image(registry, Store(tmp_path / "source"))
    bases = BaseImages(store=store, registry=lambda: client)
    contents = bases.load(base, LINUX_AMD64)
    assert [layer.media_type for layer in contents.layers] == [OCI_LAYER_GZIP] * 2
    assert tuple(layer.diff_id for layer in contents.layers) == base.diff_ids
    assert all(store.has_blob(layer.digest) for layer in contents.layers)
    assert contents.config["config"] == {"Env": ["PATH=/usr/bin"]}
    assert contents.tree.directories == {
        "usr/bin": (0o755, 0, 0),
        "tmp": (0o1777, 0, 0),
        "srv": (0o755, 0, 0),
    }
    assert contents.tree.links == {"bin": "usr/bin"}
    registry.blobs.clear()
    assert bases.load(base, LINUX_AMD64) == contents


def test_a_base_unpacks_to_its_files(
    registry: Registry, store: Store, tmp_path: Path, client: RegistryClient
) -> None:
    base = _docker_image(registry, Store(tmp_path / "source"))
    (tmp_path / "root").mkdir()
    BaseImages(store=store, registry=lambda: client).unpack(base, tmp_path / "root")
    assert (tmp_path / "root/bin/python3.11").read_bytes() == b"elf"


def test_layers_that_are_not_the_locks_or_the_configs_are_refused(
    registry: Registry, store: Store, tmp_path: Path, client: RegistryClient
) -> None:
    source = Store(tmp_path / "source")
    base = _docker_image(registry, source)
    wrong = ImageBase(reference=base.reference, digest=base.digest, diff_ids=base.diff_ids[::-1])
    bases = BaseImages(store=store, registry=lambda: client)
    with pytest.raises(BuildError, match="its layers are not those in the lock"):
        bases.load(wrong, LINUX_AMD64)
    good = put_layer(source, [Item(name="a")])
    lying = put_image(
        source,
        [
            type(good)(
                digest=good.digest, diff_id="sha256:" + "0" * 64, size=good.size, media_type=good.media_type
            )
        ],
        platform=LINUX_AMD64,
    )
    _push(registry, source, lying)
    # The layer itself is sound, so it may stay; that its config lies is found each time.
    for _ in range(2):
        with pytest.raises(BuildError, match="but its config says sha256:0000"):
            bases.load(ImageBase(reference=base.reference, digest=lying.digest), LINUX_AMD64)
