"""What is installed in an image, whatever its layers do to hide or to fake it."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

import pytest

from envbuild.errors import BuildError
from envbuild.lock.image.contents import check_serving
from envbuild.lock.image.inventory import InstalledPackage, Inventory, inventory, read_inventory
from envbuild.lock.image.layer_records import RecordLimits
from envbuild.lock.model import RuntimeSettings
from envbuild.oci.manifest import OCI_LAYER, OCI_LAYER_ZSTD
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, hardlink, put_image, put_layer, symlink

SITE = "usr/lib/python3/dist-packages"


def metadata(name: str, version: str, site: str = SITE, more: bytes = b"") -> Item:
    return Item(
        name=f"{site}/{name.replace('-', '_')}-{version}.dist-info/METADATA",
        content=f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: fake\n".encode() + more,
    )


def read(store: Store, *layers: Sequence[Item], limits: RecordLimits | None = None) -> Inventory:
    records = [put_layer(store, layer) for layer in layers]
    return read_inventory(
        [(store.blob(record.digest), record.media_type) for record in records], limits=limits
    )


def python(store: Store, *layers: Sequence[Item]) -> dict[str, str]:
    return versions(read(store, *layers))


def versions(found: Inventory) -> dict[str, str]:
    return {distribution.name: distribution.version for distribution in found.distributions}


def test_every_kind_of_package_is_found(store: Store) -> None:
    status = (
        b"Package: libc6\nStatus: install ok installed\nDescription: x\n Package: no\nVersion: 2.41-12\n\n"
        b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    found = read(
        store,
        [
            metadata("Some.Name", "1.0"),
            Item(
                name="opt/env/lib/python3.13/site-packages/old.egg-info/PKG-INFO",
                content=b"Name: Old\nVersion: 2\n",
            ),
            Item(name=f"{SITE}/flat-3-py3.13.egg-info", content=b"Name: flat\nVersion: 3\n"),
            Item(name="opt/env/conda-meta/ca-certificates-2026.1.1-hbd8a1cb_0.json", content=b"{}"),
            Item(name="opt/env/conda-meta/history"),
            Item(name="var/lib/dpkg/status", content=status),
            Item(name="var/lib/dpkg/status.d/tzdata", content=b"Package: tzdata\nVersion: 2026a\n"),
        ],
    )
    assert found == Inventory(
        distributions=(
            InstalledPackage(name="flat", version="3", path=f"{SITE}/flat-3-py3.13.egg-info"),
            InstalledPackage(
                name="old", version="2", path="opt/env/lib/python3.13/site-packages/old.egg-info/PKG-INFO"
            ),
            InstalledPackage(
                name="some-name", version="1.0", path=f"{SITE}/Some.Name-1.0.dist-info/METADATA"
            ),
        ),
        conda_packages=(
            InstalledPackage(
                name="ca-certificates",
                version="2026.1.1",
                path="opt/env/conda-meta/ca-certificates-2026.1.1-hbd8a1cb_0.json",
            ),
        ),
        debian_packages=(
            InstalledPackage(name="libc6", version="2.41-12", path="var/lib/dpkg/status"),
            InstalledPackage(name="tzdata", version="2026a", path="var/lib/dpkg/status.d/tzdata"),
        ),
    )


@pytest.mark.parametrize(
    "upper",
    [
        [Item(name=f"{SITE}/.wh.six-1.0.dist-info")],
        [Item(name=f"{SITE}/six-1.0.dist-info/.wh.METADATA")],
        [Item(name=f"{SITE}/six-1.0.dist-info/.wh..wh..opq")],
        [Item(name="usr/.wh.lib")],
        [Item(name="./usr/lib/.wh..wh..opq")],
        [Item(name="usr/lib", content=b"a file now")],
        [symlink("usr/lib/python3", "elsewhere")],
        [symlink(f"{SITE}/six-1.0.dist-info/METADATA", "/etc/passwd")],
        [Item(name=f"{SITE}/six-1.0.dist-info/METADATA", type=tarfile.CHRTYPE)],
    ],
)
def test_what_an_upper_layer_took_away_is_not_there(store: Store, upper: Sequence[Item]) -> None:
    assert python(store, [metadata("six", "1.0")]) == {"six": "1.0"}
    assert python(store, [metadata("six", "1.0")], upper) == {}
    assert python(store, [metadata("six", "1.0")], upper, [metadata("six", "1.0")]) == {"six": "1.0"}


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_leaves_what_its_own_layer_has(store: Store, first: bool) -> None:
    hide = [Item(name="usr/lib/.wh..wh..opq"), Item(name="usr/.wh.lib")]
    new = [metadata("six", "2.0")]
    upper = [*hide, *new] if first else [*new, *hide]
    assert python(store, [metadata("six", "1.0"), metadata("idna", "3")], upper) == {"six": "2.0"}


@pytest.mark.parametrize("name", [".wh.", "usr/.wh..", "usr/.wh...", ".wh..wh..plnk", "a/.wh.b/c"])
def test_a_whiteout_of_nothing_takes_nothing_away(store: Store, name: str) -> None:
    assert python(store, [metadata("six", "1.0")], [Item(name=name)]) == {"six": "1.0"}


def test_a_directory_entry_takes_nothing_away(store: Store) -> None:
    assert python(store, [metadata("six", "1.0")], [directory("usr"), directory(SITE)]) == {"six": "1.0"}


def test_only_what_can_be_imported_counts(store: Store) -> None:
    items = [
        metadata("vendored", "1", f"{SITE}/setuptools/_vendor"),
        metadata("cached", "1", "opt/conda/pkgs/cached-1-py_0/site-packages"),
        metadata("cached", "1", "opt/conda/pkgs/cached-1-0/lib/python3.13/site-packages"),
        metadata("source", "1", "src"),
        Item(name="site-packages.dist-info/METADATA", content=b"Name: x\nVersion: 1\n"),
    ]
    assert python(store, items) == {}


def test_a_file_that_an_installer_linked_to_its_cache_is_read(store: Store) -> None:
    cache = metadata("Linked-Name", "1.5", "root/.cache/uv/archive-v0/x")
    path = f"{SITE}/linked-1.dist-info/METADATA"
    assert python(store, [cache, hardlink(path, cache.name)]) == {"linked-name": "1.5"}
    assert python(store, [hardlink(path, "nowhere")]) == {"linked": "1"}


def test_a_record_without_fields_is_known_by_its_name(store: Store) -> None:
    assert python(store, [Item(name=f"{SITE}/a_b-1.5.dist-info/METADATA", content=b"\xff\xfe")]) == {
        "a-b": "1.5"
    }
    assert python(store, [Item(name=f"{SITE}/nameless.dist-info/METADATA")]) == {}


def test_of_a_long_description_nothing_is_kept(store: Store) -> None:
    many = [metadata(f"p{number}", "1", more=b"x" * 200_000) for number in range(5)]
    found = read(store, many, limits=RecordLimits(held=200))
    assert len(found.distributions) == 5


def test_a_name_in_two_places_is_there_twice(store: Store) -> None:
    found = read(store, [metadata("six", "1.0"), metadata("six", "2.0", "zz/site-packages")])
    assert [distribution.version for distribution in found.distributions] == ["1.0", "2.0"]
    assert versions(found) == {"six": "2.0"}


@pytest.mark.parametrize(
    ("items", "limits", "message"),
    [
        ([Item(name=f"../{SITE}/x-1.dist-info/METADATA")], RecordLimits(), "an entry of the image leaves it"),
        ([Item(name=f"a/../../{SITE}/.wh.x")], RecordLimits(), "an entry of the image leaves it"),
        ([Item(name="x" * 5000)], RecordLimits(), "a path of the image is longer than any system's"),
        ([Item(name="a"), Item(name="b")], RecordLimits(entries=1), "more than 1 entries"),
        ([Item(name="a", content=b"12345")], RecordLimits(size=4), "or 4 bytes"),
        ([metadata("a", "1"), metadata("b", "1")], RecordLimits(records=1), "more than 1 packages"),
        ([metadata("a", "1")], RecordLimits(held=9), "more than"),
        ([metadata("a", "1", "d/" * 300 + "site-packages")], RecordLimits(), "deeper than 200"),
    ],
)
def test_an_image_that_is_an_attack_is_refused(
    store: Store, items: Sequence[Item], limits: RecordLimits, message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        read(store, items, limits=limits)


def test_a_damaged_layer_is_named(store: Store) -> None:
    digest = store.add_blob(b"no gzip")
    record = put_layer(store, [Item(name="a")])
    with pytest.raises(BuildError, match=f"the layer {digest.removeprefix('sha256:')} can't be read"):
        read_inventory([(store.blob(digest), record.media_type)])


def test_every_compression_is_read(store: Store) -> None:
    records = [
        put_layer(store, [metadata("six", "1")], OCI_LAYER),
        put_layer(store, [metadata("idna", "2")], OCI_LAYER_ZSTD),
    ]
    found = read_inventory([(store.blob(record.digest), record.media_type) for record in records])
    assert versions(found) == {"idna": "2", "six": "1"}


def test_the_answer_is_kept_and_a_damaged_one_made_again(store: Store) -> None:
    layer = put_layer(store, [metadata("six", "1.0"), Item(name="var/lib/dpkg/status")])
    image = put_image(store, [layer])
    found = inventory(image, store)
    (kept,) = store.directory("metadata/images").iterdir()
    blob = store.blob(layer.digest)
    content = blob.read_bytes()
    blob.unlink()
    assert inventory(image, store) == found
    blob.write_bytes(content)
    for damage in ("", "[]", '{"format": 0}', '{"format": 1}'):
        kept.write_text(damage)
        assert inventory(image, store) == found


# --- the serving rule ---------------------------------------------------------------------------------

SERVING = RuntimeSettings(type="user-managed", ports=(5001,))


@pytest.mark.parametrize(
    "items", [[metadata("azureml-inference-server-http", "1.4")], [metadata("azureml-defaults", "1.60.0")]]
)
def test_an_image_with_the_server_can_serve(store: Store, items: Sequence[Item]) -> None:
    check_serving(put_image(store, [put_layer(store, items)]), store, SERVING)


@pytest.mark.parametrize(
    ("items", "having"),
    [
        ([metadata("azureml-core", "1.60")], "neither is inside"),
        ([metadata("azureml-defaults", "1.0.44")], "it has azureml-defaults 1.0.44, older than 1.0.45"),
        (
            [metadata("azureml-inference-server-http", "1", "opt/conda/pkgs/x/site-packages")],
            "neither is inside",
        ),
    ],
)
def test_an_image_without_the_server_cannot(store: Store, items: Sequence[Item], having: str) -> None:
    image = put_image(store, [put_layer(store, items)], platform=LINUX_AMD64)
    with pytest.raises(BuildError) as raised:
        check_serving(image, store, SERVING)
    assert str(raised.value) == (
        "the environment has an inference_config, but its image for linux/amd64 can't serve: it needs "
        f"azureml-defaults>=1.0.45 or azureml-inference-server-http, and {having}"
    )
    assert raised.value.hint == "install it in the image, or leave inference_config out"


@pytest.mark.parametrize("runtime", [RuntimeSettings(type="user-managed"), RuntimeSettings(ports=(5001,))])
def test_what_is_not_to_serve_or_is_locked_by_us_is_not_looked_into(
    store: Store, runtime: RuntimeSettings
) -> None:
    image = put_image(store, [put_layer(store, [])])
    store.blob(image.layers[0].digest).unlink()
    check_serving(image, store, runtime)
