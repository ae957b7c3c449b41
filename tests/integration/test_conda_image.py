"""Conda environments from spec to running image, through the command line, on a real base.

The channel is made here: this machine's python and real wheels as conda packages, and packages of every
shape that conda links."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from envbuild.lock.debian.mirror import known_mirror
from envbuild.platforms import Platform, runs_linux
from envbuild.settings import Settings
from tests.fakes.channel import (
    foreign_python_package,
    make_channel,
    python_version,
    serve,
    wheel_package,
)
from tests.integration.driver import Ended, Machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not runs_linux(), reason="runs Linux programs"),
]

HOST = Platform.host()
OTHER = next(each for each in (Platform.parse("linux-64"), Platform.parse("linux-aarch64")) if each != HOST)
SHORT = ".".join(python_version().split(".")[:2])
SITE = f"/opt/env/lib/python{SHORT}/site-packages"
LIMIT = 400
"""Seconds: a first build fetches a base and compiles a standard library."""
PASSED_ON = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY")


@dataclass(frozen=True)
class Channel:
    url: str
    directory: Path
    numpy: str
    """Its version."""


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    if known_mirror(Settings(cache_dir=tmp_path_factory.mktemp("none"))) is None:
        pytest.skip("this machine knows no Debian archive")
    directory = tmp_path_factory.mktemp("conda")
    numpy = wheel_package("numpy", directory / "wheels", subdir=HOST.subdir)
    same = f"numpy=={numpy.version}"
    other = wheel_package(same, directory / "wheels", subdir=OTHER.subdir)
    packages = [numpy, other, foreign_python_package(OTHER.subdir)]
    url = make_channel(directory / "channel", packages=packages)
    return Channel(url, directory / "channel", numpy.version)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Its caches are shared by the tests of this module, so that the base is fetched once."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return Machine(root=tmp_path_factory.mktemp("machine"), env=kept)


def run(machine: Machine, *arguments: str, env: Mapping[str, str | None] | None = None) -> Ended:
    process = machine.start(*arguments, env=env)
    try:
        stdout, stderr = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return Ended(status=process.returncode, stdout=stdout, stderr=stderr, seconds=0)


def environment(url: str, *dependencies: str, pip: tuple[str, ...] = ()) -> str:
    lines = [
        f"channels: [{json.dumps(url)}]",
        "dependencies:",
        *(f"  - {dependency}" for dependency in dependencies),
    ]
    if pip:
        lines += ["  - pip:", *(f"      - {each}" for each in pip)]
    return "\n".join(lines) + "\n"


def write(machine: Machine, name: str, conda: str, *, platforms: tuple[Platform, ...] = (HOST,)) -> str:
    """The spec's path, in a directory of its own."""
    machine.write(f"{name}/environment.yml", conda)
    text = f"name: {name}\nconda_file: environment.yml\nbase: {{debian: trixie}}\n"
    text += f"platforms: {json.dumps([str(platform) for platform in platforms])}\n"
    return str(machine.write(f"{name}/envbuild.yaml", text))


def inside(machine: Machine, spec: str, *command: str) -> str:
    """What a command in the spec's image prints."""
    ended = run(machine, "run", "--backend", "userns", "--progress", "none", spec, "--", *command)
    assert (ended.status, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


def rootfs(machine: Machine, built: Ended) -> Path:
    """The unpacked image that ``run`` has left in the store."""
    return machine.cache / "rootfs" / built.digest.removeprefix("sha256:")


WHOLE = ("python", "numpy", "greeter", "tool")
PIP = ("six", "patsy")


@contextmanager
def address(channel: Channel, how: str) -> Iterator[str]:
    if how == "file":
        yield channel.url
        return
    with serve(channel.directory) as (url, _):
        yield url


@pytest.mark.parametrize("how", ["file", "http"])
def test_the_image_runs_what_conda_and_pip_installed(machine: Machine, channel: Channel, how: str) -> None:
    with address(channel, how) as url:
        spec = write(machine, f"whole-{how}", environment(url, *WHOLE, pip=PIP))
        locked = run(machine, "lock", spec)
        assert locked.status == 0, locked.stderr
        built = run(machine, "build", "--locked", spec)
        assert built.reference
    lock = Path(spec).parent / "lockfiles" / f"whole-{how}"
    pip = (lock / f"requirements.{HOST.subdir}.txt").read_text()
    assert "\npatsy==" in pip
    assert "\nsix==" in pip
    assert "numpy==" not in pip, "conda's numpy is the one"

    code = (
        "import sys, ssl, ctypes, sqlite3, lzma, bz2, zlib, hashlib, numpy, six, patsy, greeter.cli;"
        "print([sys.prefix, sys.version.split()[0], numpy.__version__, float(numpy.linalg.det(numpy.eye(3))),"
        "len(patsy.dmatrix('x', {'x': [1, 2]})), numpy.__file__])"
    )
    assert ast.literal_eval(inside(machine, spec, "python", "-c", code)) == [
        "/opt/env", python_version(), channel.numpy, 1.0, 2, f"{SITE}/numpy/__init__.py",
    ]  # fmt: skip
    assert inside(machine, spec, "greet") == "hello from /opt/env\n"
    assert inside(machine, spec, "greet-old") == "old\n"
    assert inside(machine, spec, "cat", "/opt/env/etc/greeter.conf") == "prefix=/opt/env\n"
    assert inside(machine, spec, "sh", "/opt/env/bin/tool-link") == "/opt/env\n"

    root = rootfs(machine, built)
    placeholder = b"placehold_placehold"
    holding = [
        str(path.relative_to(root))
        for path in sorted((root / "opt/env").rglob("*"))
        if path.is_file() and path.parent.name != "conda-meta" and placeholder in path.read_bytes()
    ]
    assert holding == []
    assert (
        (root / "opt/env/lib/libtool.so.1").read_bytes().startswith(b"\x7fELF\0/opt/env/lib:/opt/env/etc\0")
    )
    records_are_readable(root)
    byte_code_is_used(machine, spec)


def records_are_readable(root: Path) -> None:
    from rattler import PrefixRecord

    paths = sorted((root / "opt/env/conda-meta").glob("*.json"))
    records = [PrefixRecord.from_path(path) for path in paths]
    names = [record.name.normalized for record in records]
    assert names == ["greeter", "libtool", "numpy", "python", "tool"]
    missing = [
        str(file)
        for record in records
        for file in record.files
        if not os.path.lexists(root / "opt/env" / str(file))
    ]
    assert missing == []


def byte_code_is_used(machine: Machine, spec: str) -> None:
    """Every module that isn't compiled in comes from byte code of the image: python reads no source."""
    names = "greeter.cli, numpy, patsy, six, json, ssl"
    code = (
        f"import sys, {names}; print(sorted(name for name, module in sys.modules.items()"
        " if getattr(module, '__file__', None) and module.__file__.endswith('.py')"
        " and module.__spec__.origin != 'frozen' and name != '__main__'"
        " and not __import__('os').path.exists(module.__spec__.cached)))"
    )
    assert inside(machine, spec, "python", "-c", code) == "[]\n"
    process = ["python", "-v", "-c", f"import {names}"]
    ended = run(machine, "run", "--backend", "userns", "--progress", "none", spec, "--", *process)
    compiled = [line for line in ended.stderr.splitlines() if line.startswith("# code object from")]
    assert [line for line in compiled if ".pyc" not in line] == []
    assert (
        f"# code object from '{SITE}/greeter/__pycache__/cli.cpython-{SHORT.replace('.', '')}.pyc'"
        in compiled
    )


def test_the_digest_does_not_depend_on_the_machine(
    machine: Machine, channel: Channel, tmp_path: Path
) -> None:
    conda = environment(channel.url, *WHOLE, pip=PIP)
    spec = write(machine, "whole-file", conda)
    first = run(machine, "build", spec).digest
    elsewhere = Machine(
        root=tmp_path / "else where", env=machine.env, prefix=("sh", "-c", 'umask 077; exec "$@"', "-")
    )
    shuffled = environment(channel.url, *reversed(WHOLE), pip=PIP[::-1])
    other = write(elsewhere, "whole-file", shuffled)
    shutil.copytree(Path(spec).parent / "lockfiles", Path(other).parent / "lockfiles")
    env = {"TZ": "Pacific/Auckland", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    again = run(elsewhere, "build", "--locked", "--workers", "1", other, env=env)
    assert again.digest == first


def test_two_platforms_share_the_interpreter_that_compiles(machine: Machine, channel: Channel) -> None:
    spec = write(
        machine, "two", environment(channel.url, "python", "numpy", pip=("six",)), platforms=(HOST, OTHER)
    )
    layout = machine.project / "two" / "layout"
    built = run(machine, "build", "-o", f"oci:{layout}", "--json", spec)
    assert built.status == 0, built.stderr
    index = blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
    manifests = json.loads(index)["manifests"]
    assert sorted(manifest["platform"]["architecture"] for manifest in manifests) == ["amd64", "arm64"]
    (other,) = [
        manifest for manifest in manifests if manifest["platform"]["architecture"] == OTHER.architecture
    ]
    names = set()
    for layer in json.loads(blob(layout, other["digest"]))["layers"]:
        listed = subprocess.run(
            ["tar", "-tzf", str(blob_path(layout, layer["digest"]))],
            check=True,
            capture_output=True,
            text=True,
        )
        names |= set(listed.stdout.splitlines())
    tag = f"cpython-{SHORT.replace('.', '')}.pyc"
    assert f"{SITE[1:]}/numpy/__pycache__/__init__.{tag}" in names
    assert f"{SITE[1:]}/__pycache__/six.{tag}" in names
    assert f"opt/env/lib/python{SHORT}/json/__pycache__/decoder.{tag}" in names
    machine_names = [name for name in names if "_multiarray_umath" in name and name.endswith(".so")]
    assert [OTHER.machine in name for name in machine_names] == [True]


def blob_path(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


def blob(layout: Path, digest: str) -> bytes:
    return blob_path(layout, digest).read_bytes()
