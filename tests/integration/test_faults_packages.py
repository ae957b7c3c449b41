"""Packages that mean harm or clash, through the command line: refused by name, and nothing written anywhere.

All of them lie in one archive, one index and one channel; every test asks for one of them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.archive import Deb, device, link
from tests.fakes.channel import File, Package, make_channel
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Machine, a_world, conda, demo, entries

SETUID = tarfile.TarInfo("./usr/bin/become")
SETUID.mode = 0o4755

DEBS: dict[str, tarfile.TarInfo | tuple[str, bytes]] = {
    "above": ("./../../escaped", b"1"),
    "absolute": ("/escaped", b"1"),
    "device": device("./dev/null2"),
    "deletes": ("./etc/.wh.passwd", b""),
    "leads": link("./etc/out", "../../../../escaped"),
    "hard": link("./etc/out", "../../etc/shadow", hard=True),
}
WHEELS = {
    "above": "../../../escaped.py",
    "absolute": "/escaped.py",
    "through": "a/../../../escaped.py",
    "deletes": "deletes/.wh.data",
    "opaque": "opaque/.wh..wh..opq",
}
CONDA = {
    "above": File(path="../../escaped", content=b"1"),
    "absolute": File(path="/escaped", content=b"1"),
    "through": File(path="lib/../../escaped", content=b"1"),
    "deletes": File(path="lib/.wh.x", content=b"1"),
    "leads": File(path="lib/out", target="../../../escaped"),
    "elsewhere": File(path="lib/out", target="/escaped"),
    "runs": File(path="bin/.runs-post-link.sh", content=b"true\n", executable=True),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """A machine, and the address of a channel."""
    root = tmp_path_factory.mktemp("sources")
    debs = [Deb(name=f"deb-{name}", files=[entry]) for name, entry in DEBS.items()]
    debs += [Deb(name=f"deb-{who}", files=[("./usr/share/shared", who.encode())]) for who in ("one", "two")]
    debs += [Deb(name=f"deb-same-{who}", files=[("./usr/share/same", b"same")]) for who in ("one", "two")]
    debs.append(Deb(name="deb-setuid", files=[SETUID]))
    wheels = [Wheel(name=name, files={f"{name}.py": b"", path: b"1"}) for name, path in WHEELS.items()]
    wheels += [Wheel(name=who, files={"shared.py": who.encode()}) for who in ("one", "two")]
    wheels.append(Wheel(name="stray", unlisted={"stray2.py": b""}))
    packages = [
        Package(name=name, files=(entry,), extension=extension, old=old, version=version)
        for name, entry in CONDA.items()
        for extension, old, version in ((".conda", False, "1.0"), (".tar.bz2", True, "2.0"))
    ]
    packages += [
        Package(name=who, files=(File(path="lib/x", content=who.encode()),)) for who in ("one", "two")
    ]
    world = a_world(root, wheels, debs)
    return world.machine, make_channel(root / "channel", python=False, packages=packages)


@pytest.fixture
def machine(sources: tuple[Machine, str], tmp_path: Path) -> Iterator[Machine]:
    """The machine with a project of its own; nothing may have escaped when a test is over."""
    shared = sources[0]
    machine = Machine(root=tmp_path, env={**shared.env, "ENVBUILD_CACHE_DIR": str(shared.cache)})
    yield machine
    for directory in (tmp_path, shared.root, shared.cache, Path("/")):
        assert not list(directory.glob("escaped*")), directory
    assert machine.leftovers() == []


def build(machine: Machine, spec: str) -> tuple[str, ...]:
    """Locks without byte code, which the bases of these tests have no interpreter for; what build takes."""
    machine.write("envbuild.yaml", spec)
    locked = machine.run("lock", "--no-bytecode")
    assert locked.status == 0, locked.stderr
    return ("build", "-o", "oci:image")


def refused(machine: Machine, spec: str, *words: str) -> None:
    """Asserts that a build is refused, and that no image was written."""
    machine.run(*build(machine, spec)).failed(6, *words)
    assert not (machine.project / "image").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("above", "has a path that leaves the root: './../../escaped'"),
        ("absolute", "has an absolute path: '/escaped'"),
        ("device", "'dev/null2' is a device"),
        ("deletes", "a name that image layers use for deletions: './etc/.wh.passwd'"),
        ("leads", "'etc/out' is a link that leaves the root"),
        ("hard", "has a path that leaves the root: '../../etc/shadow'"),
    ],
)
def test_debian_packages_that_leave_the_root(machine: Machine, name: str, said: str) -> None:
    refused(machine, demo(packages=[f"deb-{name}"]), f"Debian package deb-{name} 1.0", said, "hint: ")


@pytest.mark.parametrize("name", sorted(WHEELS))
def test_wheels_that_leave_the_prefix(machine: Machine, name: str) -> None:
    refused(machine, demo(name), f"{name}-1.0-py3-none-any.whl", WHEELS[name], "hint: don't use this wheel")


def test_a_wheel_is_refused_again(machine: Machine) -> None:
    """uv leaves unsafe names out when it unpacks a wheel; what it keeps then must not pass for the wheel."""
    refused(machine, demo("above"), "above-1.0-py3-none-any.whl", "../../../escaped.py")
    refused(machine, demo("above"), "above-1.0-py3-none-any.whl", "../../../escaped.py")


def test_files_that_a_record_does_not_list_come_along(machine: Machine) -> None:
    """As pip has it: what was pinned is the wheel as a whole."""
    assert machine.run(*build(machine, demo("stray"))).status == 0
    assert "opt/env/lib/python3.13/site-packages/stray2.py" in entries(machine.project / "image")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("above", "the path '../../escaped' leaves the prefix"),
        ("absolute", "the path '/escaped' is absolute"),
        ("through", "the path 'lib/../../escaped' leaves the prefix"),
        ("deletes", "the path 'lib/.wh.x' would delete a file of an image"),
        ("leads", "the symlink lib/out to '../../../escaped' leaves the prefix"),
        ("elsewhere", "the symlink lib/out leads to '/escaped'"),
        ("runs", "it runs a post-link script"),
    ],
)
def test_conda_packages_that_leave_the_prefix_or_run_code(
    sources: tuple[Machine, str], machine: Machine, name: str, version: str, said: str
) -> None:
    spec = demo(more=conda(sources[1], f"{name}={version}"))
    refused(machine, spec, f"conda package {name} {version}", said, "hint: ")


def test_two_owners_of_one_path_are_both_named(sources: tuple[Machine, str], machine: Machine) -> None:
    refused(
        machine,
        demo(packages=["deb-one", "deb-two"], more=conda(sources[1], "one", "two") + "clashes: error\n"),
        "usr/share/shared is owned by both deb-one 1.0 and deb-two 1.0",
        "opt/env/lib/x is owned by both one 1.0 and two 1.0",
        "hint: leave one of the packages out",
    )
    refused(
        machine,
        demo(packages=["deb-one", "deb-two"]),
        "usr/share/shared is owned by both deb-one 1.0 and deb-two 1.0",
    )
    refused(
        machine,
        demo("one", "two", more="clashes: error\n"),
        "opt/env/lib/python3.13/site-packages/shared.py is owned by both one 1.0 and two 1.0",
    )


def test_two_owners_of_the_same_bytes_are_no_clash(machine: Machine) -> None:
    assert machine.run(*build(machine, demo(packages=["deb-same-one", "deb-same-two"]))).status == 0


def test_setuid_of_a_debian_package_stays(machine: Machine) -> None:
    """Such as su and mount have it; only Debian's own signature can bring it in."""
    assert machine.run(*build(machine, demo(packages=["deb-setuid"]))).status == 0
    assert entries(machine.project / "image")["usr/bin/become"].mode == 0o4755
