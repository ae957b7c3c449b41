"""A bill of an image made by hand: what lies in its layers, whatever the lock inside says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from envbuild.attest.cyclonedx import cyclonedx
from envbuild.attest.sbom import bill_of, items_of
from envbuild.attest.spdx import spdx
from envbuild.lock.image.inventory import InstalledPackage, Inventory
from envbuild.lock.model import ContextBase, Lock, MavenPin, PipPin, PlatformLock
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer

SITE = "usr/local/lib/python3.12/site-packages"
HASH = "ab" * 32


def metadata(name: str, version: str, *more: str, site: str = SITE) -> Item:
    text = "\n".join([f"Name: {name}", f"Version: {version}", *more, "", "Body"])
    return Item(name=f"{site}/{name}-{version}.dist-info/METADATA", content=text.encode())


def test_an_image_of_others_has_a_bill_without_hashes(store: Store) -> None:
    status = (
        b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n"
        b"Depends: libgcc-s1\n\n"
        b"Package: libgcc-s1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12\n"
    )
    below = put_layer(
        store,
        [
            Item(name="etc/os-release", content=b'ID=debian\nVERSION_ID="12"\n'),
            Item(name="var/lib/dpkg/status", content=status),
            Item(
                name="usr/share/doc/gcc-12-base/copyright",
                content=b"Format: x\nLicense: GPL-3+\n text\n",
            ),
            Item(name="usr/share/doc/libgcc-s1", type=b"2", link="gcc-12-base"),
        ],
    )
    above = put_layer(
        store,
        [
            metadata("one", "1", "License: MIT", "Requires-Dist: two; python_full_version == '3.12.4'"),
            metadata("two", "2"),
        ],
    )
    image = put_image(store, [below, above], {"Env": ["PYTHON_VERSION=3.12.4"]}, LINUX_AMD64)
    bill = bill_of(image, store)
    assert [(item.kind, item.name, item.version, item.layer, item.sha256) for item in bill.items] == [
        ("debian", "libc6", "2.36-9", below.digest, ""),
        ("debian", "libgcc-s1", "12", below.digest, ""),
        ("python", "one", "1", above.digest, ""),
        ("python", "two", "2", above.digest, ""),
    ]
    libc, libgcc, one, two = bill.items
    assert libc.purl == "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12"
    assert libc.depends == (libgcc.reference,)
    assert libgcc.licence.expression == "GPL-3.0-or-later"
    assert one.licence.expression == "MIT"
    assert one.depends == (two.reference,)
    assert bill.created == 0
    assert (bill.digest, bill.platform) == (image.digest, "linux/amd64")


def lock(*, pip: tuple[PipPin, ...] = (), maven: tuple[MavenPin, ...] = ()) -> Lock:
    base = ContextBase(digest=f"sha256:{HASH}", dockerfile="Dockerfile")
    platform = PlatformLock(platform=LINUX_AMD64, base=base, python=None, pip=pip, maven=maven)
    return Lock(definition=f"sha256:{HASH}", platforms=(platform,))


def package(name: str, version: str, path: str, **details: str) -> InstalledPackage:
    return InstalledPackage(name=name, version=version, path=path, details=tuple(sorted(details.items())))


def test_a_pin_counts_for_the_package_of_its_version_alone() -> None:
    pin = PipPin(name="one", version="1", file="one-1-py3-none-any.whl", size=7, sha256=HASH)
    found = Inventory(
        distributions=(
            package("one", "1", f"{SITE}/one-1.dist-info/METADATA"),
            package("one", "2", "opt/lib/python3.9/site-packages/one-2.dist-info/METADATA"),
        )
    )
    items = items_of(found, lock(pip=(pin,)), LINUX_AMD64, layers=["sha256:a"])
    assert [(item.version, item.sha256, item.size, item.file) for item in items] == [
        ("1", HASH, 7, pin.file),
        ("2", "", 0, ""),
    ]


def test_a_jar_is_known_by_the_locks_coordinate_where_it_is_inside() -> None:
    pins = tuple(
        MavenPin(
            group="org.x", artifact=name, version="1.0", file=f"org/x/{name}-1.0.jar", size=3, sha256=HASH
        )
        for name in ("there", "gone")
    )
    found = Inventory(
        jars=(
            package("there-1.0.jar", "", "opt/spark/jars/there-1.0.jar"),
            package("strange.jar", "", "opt/spark/jars/strange.jar"),
        )
    )
    (item,) = items_of(found, lock(maven=pins), LINUX_AMD64, layers=["sha256:a"])
    assert (item.name, item.purl, item.sha256) == ("org.x:there", "pkg:maven/org.x/there@1.0", HASH)
    assert item.path == "opt/spark/jars/there-1.0.jar"


def test_a_package_that_is_there_twice_has_two_references() -> None:
    other = "opt/lib/python3.12/site-packages"
    found = Inventory(
        distributions=(
            package("one", "1", f"{SITE}/one-1.dist-info/METADATA"),
            package("one", "1", f"{other}/one-1.dist-info/METADATA"),
        )
    )
    items = items_of(found, None, LINUX_AMD64, layers=["sha256:a"])
    assert [item.purl for item in items] == ["pkg:pypi/one@1"] * 2
    assert [item.reference for item in items] == [
        "pkg:pypi/one@1",
        f"pkg:pypi/one@1#{SITE}/one-1.dist-info/METADATA",
    ]


def documents(store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    layer = put_layer(
        store,
        [
            metadata("one", "1", "License: Our own \u202ewords", "Requires-Dist: two"),
            metadata("two", "2", "License-Expression: LicenseRef-Two OR MIT"),
            Item(name=f"{SITE}/t\x1b\udc80hree-3.egg-info", content=b""),
        ],
    )
    bill = bill_of(put_image(store, [layer], platform=LINUX_AMD64), store)
    return json.loads(cyclonedx(bill).content), json.loads(spdx(bill).content)


def test_both_formats_are_whole(store: Store) -> None:
    one, two = documents(store)
    references = [each["bom-ref"] for each in one["components"]]
    assert len(references) == len(set(references)) == 3
    everything = {*references, one["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in one["dependencies"]} == everything
    assert {name for each in one["dependencies"] for name in each["dependsOn"]} <= everything
    names = [each["SPDXID"] for each in two["packages"]]
    assert len(names) == len(set(names)) == 4
    related = {each[key] for each in two["relationships"] for key in ("spdxElementId", "relatedSpdxElement")}
    assert related == {*names, "SPDXRef-DOCUMENT"}
    stated = {each["licenseId"]: each["extractedText"] for each in two["hasExtractedLicensingInfos"]}
    declared = {each["name"]: each["licenseDeclared"] for each in two["packages"]}
    assert stated[declared["one"]] == "Our own words"
    assert declared["two"] == "LicenseRef-Two OR MIT"
    assert "LicenseRef-Two" in stated


def test_documents_are_named_after_the_image_and_the_format(store: Store) -> None:
    one, two = documents(store)
    again, _ = documents(store)
    assert one["serialNumber"] == again["serialNumber"]
    assert one["serialNumber"].rpartition(":")[2] not in two["documentNamespace"]
    assert one["metadata"]["timestamp"] == two["creationInfo"]["created"] == "1970-01-01T00:00:00Z"


def test_a_lock_that_is_not_sound_gives_no_hashes(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    from dataclasses import replace

    layer = put_layer(
        store,
        [metadata("one", "1"), Item(name="usr/share/envbuild/envbuild.lock", content=b"{}")],
    )
    image = replace(put_image(store, [layer], platform=LINUX_AMD64), lock_digest=f"sha256:{HASH}")
    (item,) = bill_of(image, store).items
    assert (item.name, item.sha256) == ("one", "")
    assert "is made without its lock" in caplog.text
