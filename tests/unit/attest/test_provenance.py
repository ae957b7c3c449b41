"""Provenance: a statement of the image's own facts, the same bytes anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from envbuild.attest.provenance import provenance
from envbuild.lock.files import dump_lock
from envbuild.lock.model import (
    Base,
    CondaPin,
    DebianBase,
    DebianPin,
    GitCommit,
    ImageBase,
    Lock,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonPin,
    Sdist,
)
from envbuild.oci.digest import canonical_json, digest_bytes
from envbuild.oci.image import Image
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer

DEBIAN = DebianBase(
    suite="trixie",
    glibc="2.41",
    packages=(
        DebianPin(
            name="libc6",
            version="2.41-12",
            architecture="amd64",
            archive="debian",
            file="pool/main/g/glibc/libc6_2.41-12_amd64.deb",
            size=1,
            sha256="1" * 64,
        ),
    ),
)
IMAGE_BASE = ImageBase(reference="docker.io/library/debian:trixie-slim", digest="sha256:" + "9" * 64)


def a_lock(base: Base) -> Lock:
    wheel = PipPin(
        name="app",
        version="1.0",
        file="app-1.0-py3-none-any.whl",
        size=1,
        sha256="2" * 64,
        sdist=Sdist(file="app-1.0.tar.gz", size=1, sha256="3" * 64),
        url="https://someone.example/app-1.0.tar.gz",
    )
    package = CondaPin(
        name="zlib",
        version="1.3",
        build="h1_0",
        subdir="linux-64",
        url="https://conda.example/main/linux-64/zlib-1.3-h1_0.conda",
        size=1,
        sha256="4" * 64,
        md5="4" * 32,
    )
    jar = MavenPin(
        group="org.example",
        artifact="thing",
        version="2",
        file="org/example/thing/2/thing-2.jar",
        size=1,
        sha256="5" * 64,
    )
    pins = PlatformLock(
        platform=LINUX_AMD64,
        base=base,
        python=PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13"),
        conda=(package,),
        pip=(wheel,),
        maven=(jar,),
    )
    return Lock(definition=digest_bytes(b"definition"), platforms=(pins,))


def an_image(store: Store, lock: Lock | None, *, prefix: str = "") -> Image:
    """With the lock's files in the last layer but one."""
    files = dump_lock(lock) if lock else {}
    described = [
        Item(name=f"{prefix}usr/share/envbuild/{name}", content=data) for name, data in files.items()
    ]
    layers = [[Item(name="etc/base")], described, [Item(name="opt/last")]]
    return put_image(store, [put_layer(store, items) for items in layers], platform=LINUX_AMD64)


def statement(image: Image, store: Store) -> dict[str, Any]:
    content = provenance(image, store).content
    document = json.loads(content)
    assert content == canonical_json(document)
    assert isinstance(document, dict)
    return document


def dependencies(image: Image, store: Store) -> list[dict[str, Any]]:
    found = statement(image, store)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert isinstance(found, list)
    return found


def test_it_is_an_in_toto_statement_about_the_image(store: Store) -> None:
    image = an_image(store, a_lock(DEBIAN))
    document = provenance(image, store)
    assert (document.name, document.media_type, document.artifact_type) == (
        "provenance.json",
        "application/vnd.in-toto+json",
        "application/vnd.in-toto+json",
    )
    found = statement(image, store)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [{"digest": {"sha256": image.digest.removeprefix("sha256:")}}]
    assert found["predicate"]["runDetails"] == {"builder": {"id": "https://envbuild.dev/builder/v1"}}
    assert found["predicate"]["buildDefinition"]["externalParameters"] == {
        "definition": digest_bytes(b"definition"),
        "lock": digest_bytes(b"lock"),
        "level": "L2",
        "platform": "linux/amd64",
        "compression": "gzip",
        "layers": 3,
        "created": "1970-01-01T00:00:00Z",
    }


def test_every_pin_and_every_file_of_the_lock_is_a_dependency(store: Store) -> None:
    lock = a_lock(DEBIAN)
    files = dump_lock(lock)
    found = dependencies(an_image(store, lock), store)

    def hex_of(name: str) -> dict[str, str]:
        return {"sha256": digest_bytes(files[name]).removeprefix("sha256:")}

    assert found == [
        {"name": "lock", "digest": {"sha256": digest_bytes(b"lock").removeprefix("sha256:")}},
        {"name": "conda-lock.yml", "digest": hex_of("conda-lock.yml")},
        {"name": "envbuild.lock", "digest": hex_of("envbuild.lock")},
        {"name": "requirements.linux-64.txt", "digest": hex_of("requirements.linux-64.txt")},
        {
            "name": "zlib-1.3-h1_0.conda",
            "uri": "pkg:conda/zlib@1.3?build=h1_0&channel=main&subdir=linux-64&type=conda",
            "digest": {"sha256": "4" * 64},
        },
        {
            "name": "libc6_2.41-12_amd64.deb",
            "uri": "pkg:deb/debian/libc6@2.41-12?arch=amd64",
            "digest": {"sha256": "1" * 64},
        },
        {
            "name": "thing-2.jar",
            "uri": "pkg:maven/org.example/thing@2",
            "digest": {"sha256": "5" * 64},
        },
        {
            "name": "app-1.0-py3-none-any.whl",
            "uri": "pkg:pypi/app@1.0",
            "digest": {"sha256": "2" * 64},
        },
        {"name": "app-1.0.tar.gz", "uri": "pkg:pypi/app@1.0", "digest": {"sha256": "3" * 64}},
    ]


def test_what_is_built_from_a_repository_is_named_by_its_commit_without_a_login(store: Store) -> None:
    lock = a_lock(DEBIAN)
    (pins,) = lock.platforms
    pin = replace(
        pins.pip[0],
        url="git+https://${TOKEN}@git.example/team/app.git@main#subdirectory=lib",
        git=GitCommit(commit="c" * 40, tree="7" * 40),
    )
    lock = replace(lock, platforms=(replace(pins, pip=(pin,)),))
    uris = {
        entry["uri"] for entry in dependencies(an_image(store, lock), store) if "app" in entry.get("name", "")
    }
    assert uris == {
        "pkg:pypi/app@1.0?vcs_url=git%2Bhttps:%2F%2Fgit.example%2Fteam%2Fapp.git%40"
        + "c" * 40
        + "%23subdirectory%3Dlib"
    }


def test_no_address_of_an_index_or_a_channel_is_in_it(store: Store) -> None:
    content = provenance(an_image(store, a_lock(DEBIAN)), store).content
    assert b"someone.example" not in content
    assert b"conda.example" not in content


def test_a_base_is_named_by_its_digest(store: Store) -> None:
    found = dependencies(an_image(store, a_lock(IMAGE_BASE)), store)
    hexadecimal = "9" * 64
    assert {
        "uri": f"pkg:oci/debian@sha256%3A{hexadecimal}?repository_url=docker.io%2Flibrary%2Fdebian",
        "digest": {"sha256": hexadecimal},
    } in found


def test_a_base_in_a_directory_is_named_without_the_directory(store: Store) -> None:
    base = replace(IMAGE_BASE, reference="oci:/home/someone/base")
    image = an_image(store, a_lock(base))
    assert {"name": "base", "digest": {"sha256": "9" * 64}} in dependencies(image, store)
    assert b"someone" not in provenance(image, store).content


def test_an_image_without_a_lock_inside_names_what_its_labels_say(store: Store) -> None:
    labels = {
        "org.opencontainers.image.base.name": "docker.io/library/debian:trixie-slim",
        "org.opencontainers.image.base.digest": "sha256:" + "9" * 64,
    }
    layer = put_layer(store, [Item(name="etc/base")])
    image = put_image(store, [layer], {"Labels": labels}, platform=LINUX_AMD64)
    assert [dependency["digest"]["sha256"] for dependency in dependencies(image, store)] == [
        digest_bytes(b"lock").removeprefix("sha256:"),
        "9" * 64,
    ]


def test_a_lock_of_a_newer_envbuild_is_named_by_its_file(store: Store) -> None:
    content = b'{"format": 1000}'
    layer = put_layer(store, [Item(name="./usr/share/envbuild/envbuild.lock", content=content)])
    image = put_image(store, [layer], platform=LINUX_AMD64)
    assert [dependency["name"] for dependency in dependencies(image, store)] == ["lock", "envbuild.lock"]


def test_two_stores_give_the_same_bytes(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    first = provenance(an_image(store, a_lock(DEBIAN)), store)
    assert first == provenance(an_image(other, a_lock(DEBIAN)), other)
