"""Pythons that no Debian release has, through the command line: locked, composed, run, built elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from envbuild.lock.debian.mirror import known_mirror
from envbuild.platforms import Platform, runs_linux
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.image import directory, program_items, put_image, put_layer
from tests.fakes.python_build import PythonIndex, installed_pythons, python_archive, serve_directory
from tests.fakes.registry import serve
from tests.fakes.sdist import source_dist
from tests.fakes.wheelhouse import Wheel, Wheelhouse
from tests.integration.driver import Machine, needs_user_namespaces

PUBLISHED = "https://github.com/astral-sh/python-build-standalone/releases/download"
PYTHONS = installed_pythons()
ASKED = ("3.8", "3.9", "3.10", "3.12", "3.13", "3.14")
LOOK = """\
import json, sys, tiny
print(sys.version.split()[0], sys.prefix, sys.base_prefix, tiny.ANSWER, json.__cached__)
"""
NOWHERE = "http://127.0.0.1:9/list.json"
MACHINE = Platform.host().machine

pytestmark = [
    needs_user_namespaces(),
    pytest.mark.skipif(not runs_linux(), reason="runs Linux programs"),
]
on_debian = [
    pytest.mark.network,
    pytest.mark.skipif(
        known_mirror(Settings(cache_dir=Path("/nonexistent"))) is None,
        reason="no Debian mirror is known here",
    ),
]


def series_of(version: str) -> str:
    return version.rpartition(".")[0]


@contextmanager
def pythons(
    root: Path, version: str, *, machines: tuple[str, ...] = (MACHINE,), small: bool = False
) -> Iterator[Machine]:
    """A machine that knows a list of standalone builds, a mirror that has them, and an index."""
    index = PythonIndex(root / "pythons")
    data = python_archive(PYTHONS[version], series_of(version), small=small)
    for name in machines:
        index.add(version, data, PUBLISHED, machine=name)
    wheels = Wheelhouse(root / "index")
    wheels.simple.mkdir(parents=True)
    files = {"tiny.py": b"ANSWER = 42\ndef main():\n    print(ANSWER)\n"}
    wheels.add(Wheel(name="tiny", files=files, entry_points="[console_scripts]\ntiny = tiny:main\n"))
    wheels.add_file("demo", "demo-1.0.tar.gz", source_dist("demo"))
    with serve_directory(index.root) as (url, _):
        yield Machine(
            root=root / "machine",
            env={
                "UV_DEFAULT_INDEX": wheels.url,
                "UV_PYTHON_DOWNLOADS_JSON_URL": f"{url}/list.json",
                "UV_PYTHON_INSTALL_MIRROR": url,
            },
        )


def spec(python: str, *requirements: str, platform: str = str(Platform.host()), more: str = "") -> str:
    names = json.dumps(requirements)
    return f'name: demo\nplatforms: [{platform}]\npython: "{python}"\nrequirements: {names}\n{more}'


def locked(machine: Machine) -> dict[str, Any]:
    lock: dict[str, Any] = json.loads((machine.lock / "envbuild.lock").read_text())
    return lock


def lock_build_run(machine: Machine, version: str) -> str:
    """The digest of the image of the spec, whose python has said where it stands."""
    made = machine.run("lock")
    assert made.status == 0, made.stderr
    (pins,) = locked(machine)["platforms"].values()
    assert (pins["python"]["version"], pins["python"]["provider"]) == (version, "standalone")
    assert pins["python"]["build"]["url"].startswith(f"{PUBLISHED}/20260101/cpython-{version}%2B20260101-")
    built = machine.run("build", "--locked")
    assert built.status == 0, built.stderr
    ran = machine.run("run", "--frozen", "--backend", "userns", "--", "python", "-c", LOOK)
    series = series_of(version)
    code = f"/opt/python/lib/python{series}/json/__pycache__/__init__.cpython-{series.replace('.', '')}.pyc"
    assert (ran.status, ran.stdout) == (0, f"{version} /opt/env /opt/python 42 {code}\n"), ran.stderr
    said = machine.run("run", "--frozen", "--backend", "userns", "--", "tiny")
    assert (said.status, said.stdout) == (0, "42\n"), said.stderr
    return built.digest


@contextmanager
def small_base(root: Path) -> Iterator[str]:
    """The reference of an image with this machine's C library, a few programs, and no python."""
    source = Store(root / "source")
    programs = put_layer(source, [*program_items("sh", "awk"), directory("tmp", 0o1777)])
    image = put_image(source, [programs], {"Env": ["PATH=/usr/bin"]}, platform=Platform.host())
    with serve() as registry:
        for digest in (image.config_digest, programs.digest):
            registry.put_blob(source.blob(digest).read_bytes())
        registry.put_manifest("base", "1", image.media_type, source.blob(image.digest).read_bytes())
        yield f"{registry.host}/base:1"


def test_a_standalone_python_is_locked_built_and_run_on_an_image_without_one(tmp_path: Path) -> None:
    version = next(iter(PYTHONS))
    with small_base(tmp_path) as base, pythons(tmp_path, version, small=True) as machine:
        machine.write("envbuild.yaml", spec(series_of(version), "tiny", more=f"image: {base}\n"))
        lock_build_run(machine, version)
        before = {path.name: path.read_bytes() for path in machine.lock.iterdir()}
        assert machine.run("lock", "--check").status == 0
        # What is locked stays, and nobody is asked for a list.
        assert machine.run("lock", env={"UV_PYTHON_DOWNLOADS_JSON_URL": NOWHERE}).status == 0
        assert {path.name: path.read_bytes() for path in machine.lock.iterdir()} == before
        assert machine.leftovers() == []


def test_a_python_that_nobody_has_is_named_with_the_remedy(tmp_path: Path) -> None:
    machine = Machine(root=tmp_path, env={"UV_PYTHON_DOWNLOADS_JSON_URL": NOWHERE})
    machine.write("envbuild.yaml", spec("3.10", "scikit-learn==1.2.0"))
    machine.run("lock").failed(
        4,
        "python 3.10 is asked for: Debian has 3.13 (trixie) and 3.11 (bookworm)",
        "list of standalone builds can't be read",
        "write python: '3.13' or '3.11'",
        "python_provider: conda",
    )
    (tmp_path / "list.json").write_text("{}")
    machine.run("lock", env={"UV_PYTHON_DOWNLOADS_JSON_URL": str(tmp_path / "list.json")}).failed(
        4, "there is no standalone build of it for", "write python: '3.13' or '3.11'"
    )
    machine.write("envbuild.yaml", spec("3.10", more="python_provider: base\n"))
    machine.run("lock").failed(4, "python 3.10 is to come with the base", "Debian trixie has 3.13")


@pytest.mark.slow
@pytest.mark.parametrize("series", ASKED)
def test_every_python_that_people_ask_for(series: str, tmp_path: Path) -> None:
    version = next((version for version in PYTHONS if series_of(version) == series), None)
    if version is None:
        pytest.skip(f"no python {series} on this machine to make an archive of")
    # Other than a real one, an archive of here needs the system's zlib to read and write wheels.
    more = "base: {debian: trixie, packages: [zlib1g]}\n"
    more += "python_provider: standalone\n" if series == "3.13" else ""
    with pythons(tmp_path, version) as machine:
        machine.write("envbuild.yaml", spec(series, "tiny", "demo", more=more))
        digest = lock_build_run(machine, version)
        ran = machine.run("run", "--frozen", "--backend", "userns", "--", "python", "-c", "import demo")
        assert ran.status == 0, ran.stderr
        again = {
            "ENVBUILD_CACHE_DIR": str(machine.root / "again"),
            "UV_PYTHON_DOWNLOADS_JSON_URL": NOWHERE,
        }
        assert machine.run("build", "--locked", env=again).digest == digest


@pytest.mark.slow
@pytest.mark.skipif(MACHINE != "x86_64", reason="is about another architecture than amd64's")
def test_byte_code_of_another_architecture_is_compiled_with_this_one_s_build(tmp_path: Path) -> None:
    version = next(iter(PYTHONS))
    with pythons(tmp_path, version, machines=("x86_64", "aarch64")) as machine:
        more = "python_provider: standalone\n"
        machine.write("envbuild.yaml", spec(series_of(version), "tiny", platform="linux/arm64", more=more))
        assert machine.run("lock").status == 0
        lock = locked(machine)
        builds = {
            platform: pins["python"]["build"]["url"].partition("20260101-")[2].partition("-")[0]
            for pins_of in (lock["platforms"], lock["toolchain"])
            for platform, pins in pins_of.items()
        }
        assert builds == {"linux/arm64": "aarch64", "linux/amd64": "x86_64"}
        built = machine.run("build", "--locked", "--output", f"oci:{tmp_path / 'layout'}")
        assert built.status == 0, built.stderr
