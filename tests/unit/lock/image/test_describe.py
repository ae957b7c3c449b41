"""An existing image as a spec: exact where its records are, and what they don't say is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import SpecError
from envbuild.lock.image.describe import describe_image
from envbuild.lock.image.inventory import Inventory, inventory, read_inventory
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.specs.model import DebianBaseSpec, ExplicitPackage, Spec
from envbuild.store.content import Store
from tests.fakes.image import Item, put_image, put_layer, symlink

SITE = "usr/local/lib/python3.11/site-packages"
HASH = "ab" * 32


def distribution(
    name: str, version: str, site: str = SITE, installer: str = "pip", direct: object = None
) -> list[Item]:
    place = f"{site}/{name}-{version}.dist-info"
    items = [
        Item(name=f"{place}/METADATA", content=f"Name: {name}\nVersion: {version}\n\n".encode()),
        Item(name=f"{place}/INSTALLER", content=f"{installer}\n".encode()),
    ]
    if direct is not None:
        items.append(Item(name=f"{place}/direct_url.json", content=json.dumps(direct).encode()))
    return items


def conda(name: str, version: str, prefix: str = "opt/conda", files: Sequence[str] = ()) -> Item:
    record = {
        "name": name,
        "version": version,
        "subdir": "linux-64",
        "url": f"https://user:hunter2@channel.example/t/hunter2/forge/linux-64/{name}-{version}-0.conda",
        "sha256": HASH,
        "md5": "cd" * 16,
        "files": list(files),
    }
    return Item(name=f"{prefix}/conda-meta/{name}-{version}-0.json", content=json.dumps(record).encode())


def paragraph(name: str, version: str, priority: str = "optional", more: str = "") -> str:
    state = "Status: install ok installed\n"
    return f"Package: {name}\n{more}{state}Priority: {priority}\nVersion: {version}\n"


def debian(*paragraphs: str, automatic: Sequence[str] = (), suite: str = "bookworm") -> list[Item]:
    release = f'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME={suite}\n'
    states = "\n".join(f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n" for name in automatic)
    return [
        symlink("etc/os-release", "../usr/lib/os-release"),
        Item(name="usr/lib/os-release", content=release.encode()),
        Item(name="var/lib/dpkg/status", content="\n".join(paragraphs).encode()),
        Item(name="var/lib/apt/extended_states", content=states.encode()),
    ]


def read(store: Store, *layers: Sequence[Item]) -> Inventory:
    records = [put_layer(store, layer) for layer in layers]
    return read_inventory([(store.blob(record.digest), record.media_type) for record in records])


def describe(store: Store, items: Sequence[Item], config: Mapping[str, Any] | None = None) -> Spec:
    return describe_image(
        read(store, items), config or {}, LINUX_AMD64, name="an/image:1", source=Path("/x/envbuild.yaml")
    )


def pins(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


def test_an_official_python_image(store: Store) -> None:
    base = debian(
        paragraph("libc6", "2.36-9", more="Essential: yes\n"),
        paragraph("bash", "5.2", "required"),
        paragraph("apt", "2.6", "important"),
        paragraph("ca-certificates", "2023", "standard"),
        paragraph("libgomp1", "12.2"),
        paragraph("libnghttp2-14", "1.52"),
        automatic=("libnghttp2-14",),
    )
    url = "https://files.example/own-2.0-py3-none-any.whl"
    software = [
        *distribution("numpy", "1.26.4"),
        *distribution("pip", "24.0"),
        *distribution("own", "2.0", direct={"url": url, "archive_info": {"hashes": {"sha256": HASH}}}),
        *distribution("checkout", "0.1", direct={"url": "file:///app", "dir_info": {"editable": True}}),
        *distribution("system", "1.0", site="usr/lib/python3/dist-packages"),
    ]
    config = {
        "Env": [
            "PATH=/usr/local/bin:/usr/bin",
            "LANG=C.UTF-8",
            "PYTHON_VERSION=3.11.9",
            "PYTHON_SHA256=00",
            "API_TOKEN=hunter2",
            "MALFORMED",
        ],
        "User": "1001",
        "Cmd": ["python3"],
        "WorkingDir": "/app",
        "Labels": {"a": "b"},
    }
    spec = describe(store, [*base, *software], config)
    assert spec.name == "an-image-1"
    assert (spec.python, spec.user, spec.platforms) == ("3.11.9", "1001:1001", (LINUX_AMD64,))
    assert spec.base == DebianBaseSpec(suite="bookworm", packages=("ca-certificates", "libgomp1"))
    assert spec.conda is None
    assert spec.pip.complete
    assert pins(spec) == ["numpy==1.26.4", f"own @ {url}"]
    assert spec.pip.requirements[1].hashes == (f"sha256:{HASH}",)
    assert spec.environment_variables == (("LANG", "C.UTF-8"),)
    assert spec.left_out == (
        "checkout 0.1: an editable install from a directory of this machine",
        "pip 24.0: only installs packages",
        "4 packages of Debian that every system has or that came with others",
        "the versions of 6 packages of Debian: a lock chooses those of its day",
        "environment variable 'API_TOKEN': may hold a credential: give it when a container is run",
        "environment variables of its own Python: PATH, PYTHON_SHA256, PYTHON_VERSION",
        "its Cmd",
        "its WorkingDir",
        "its Labels",
    )
    assert "hunter2" not in repr(spec)


def test_an_image_with_conda(store: Store) -> None:
    site = "lib/python3.12/site-packages"
    items = [
        conda("python", "3.12.4", files=["bin/python"]),
        conda("numpy", "1.26.4", files=[f"{site}/numpy-1.26.4.dist-info/METADATA"]),
        conda("xz", "5.4", prefix="opt/conda/envs/other"),
        *distribution("numpy", "1.26.4", site=f"opt/conda/{site}"),
        *distribution("mlflow", "2.16.2", site=f"opt/conda/{site}"),
        *distribution("marked", "1", site=f"opt/conda/{site}", installer="conda"),
        *distribution("six", "1.16", site="usr/local/lib/python3.10/dist-packages"),
        Item(name="etc/os-release", content=b"ID=ubuntu\nVERSION_ID='22.04'\nVERSION_CODENAME=jammy\n"),
        Item(name="var/lib/dpkg/status", content=paragraph("libc6", "2.35").encode()),
    ]
    spec = describe(store, items, {"Env": ["PATH=/opt/conda/bin:/usr/bin"], "User": "mambauser"})
    assert spec.conda is not None
    assert spec.conda.explicit == tuple(
        ExplicitPackage(
            platform=LINUX_AMD64,
            url=f"https://channel.example/forge/linux-64/{file}-0.conda",
            sha256=HASH,
            md5="cd" * 16,
        )
        for file in ("numpy-1.26.4", "python-3.12.4")
    )
    assert pins(spec) == ["mlflow==2.16.2"]
    assert (spec.python, spec.base, spec.user) == (None, None, "1000:1000")
    assert spec.left_out == (
        "1 Python distributions in /usr/local",
        "1 packages of conda in /opt/conda/envs/other",
        "1 packages of ubuntu 22.04: a base is composed of Debian's",
        "environment variables of its own Python: PATH",
        "its user 'mambauser', which is no number: 1000:1000 takes its place",
    )


def test_a_virtual_environment_over_the_systems_python(store: Store) -> None:
    items = [
        *debian(paragraph("python3.11-minimal", "3.11.2-6+deb12u5"), paragraph("python3.11", "3.11.2-6")),
        *distribution("flask", "3.0.3", site="opt/venv/lib/python3.11/site-packages"),
        *distribution("idna", "3.7"),
        *distribution("six", "1.16"),
    ]
    spec = describe(store, items, {"Env": ["PATH=/opt/venv/bin:/usr/bin"]})
    assert (spec.python, pins(spec), spec.user) == ("3.11.2", ["flask==3.0.3"], "0:0")
    assert "2 Python distributions in /usr/local" in spec.left_out


def test_without_a_path_the_prefix_with_most_packages_counts(store: Store) -> None:
    items = [
        *distribution("flask", "3.0.3", site="opt/venv/lib/python3.11/site-packages"),
        *distribution("idna", "3.7"),
        *distribution("six", "1.16"),
    ]
    assert pins(describe(store, items)) == ["idna==3.7", "six==1.16"]


def test_what_an_upper_layer_replaced_is_not_described(store: Store) -> None:
    place = f"{SITE}/numpy-1.26.4.dist-info"
    lower = distribution("numpy", "1.26.4", direct={"url": "file:///x", "dir_info": {}})
    upper = [Item(name=f"{place}/.wh.direct_url.json")]
    found = read(store, lower, upper)
    assert found.distributions[0].details == (("installer", "pip"),)


def test_details_are_kept_with_the_inventory(store: Store) -> None:
    items = [conda("xz", "5.4", files=["a.dist-info/METADATA"]), *debian(paragraph("libgomp1", "1"))]
    image = put_image(store, [put_layer(store, items)])
    first = inventory(image, store)
    assert inventory(image, store) == first == read(store, items)
    assert first.conda_packages[0].detail("owned") == "a.dist-info"
    assert dict(first.release)["VERSION_CODENAME"] == "bookworm"


def test_an_unreadable_record_of_conda_is_told(store: Store) -> None:
    broken = Item(name="opt/conda/conda-meta/xz-5.4-0.json", content=b"[" * 100_000)
    spec = describe(store, [broken])
    assert spec.conda is None
    assert spec.left_out[0] == "xz 5.4: no address is recorded"


def test_an_image_of_another_platform_keeps_its_platform(store: Store) -> None:
    found = read(store, distribution("six", "1.16"))
    spec = describe_image(found, {}, LINUX_ARM64, name="x", source=Path("/x"))
    assert spec.platforms == (LINUX_ARM64,)


def test_an_image_without_records_is_refused(store: Store) -> None:
    with pytest.raises(SpecError) as raised:
        describe(store, [Item(name="app", content=b"x")])
    assert raised.value.message == (
        "an/image:1: neither conda's, Python's nor Debian's packages are known in this image"
    )


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "PATH=/x", "User": 7, "Cmd": 3},
        {"Env": [1, None, {}, "A=\0"], "User": ["x"]},
        {"Env": None, "User": None},
    ],
)
def test_a_config_of_any_shape_is_read(store: Store, config: dict[str, Any]) -> None:
    assert pins(describe(store, distribution("six", "1.16"), config)) == ["six==1.16"]
