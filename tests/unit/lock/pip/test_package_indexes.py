"""An index like PyTorch's, beside a main one: what is locked is what pip and uv resolve themselves."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from envbuild.errors import ResolveError, SpecError
from envbuild.lock.base import PipRequest, PipTarget
from envbuild.lock.pip.command import find_uv
from envbuild.lock.pip.piptools import PipToolsResolver
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.specs.definition import definition_digest
from envbuild.specs.exporters.native import dump_native
from envbuild.specs.load import load_spec
from envbuild.specs.model import Origin, PackageIndex, PipRequirement, PipSpec
from tests.fakes.channel import serve
from tests.fakes.wheelhouse import Wheel, Wheelhouse

HOST = PipTarget(
    platform=Platform.host(),
    python=platform.python_version(),
    glibc=platform.libc_ver()[1] or "2.28",
)
NEEDED = ("sympy>=1.13.3", "filelock")
CPU = (
    Wheel(name="torch", version="2.8.0+cpu", requires=NEEDED),
    Wheel(name="torch", version="2.9.0+cpu", requires=NEEDED),
    Wheel(name="torchvision", version="0.24.0+cpu", requires=["torch==2.9.0"]),
    Wheel(name="sympy", version="1.13.3"),
)
MAIN = (
    Wheel(name="torch", version="2.9.0", requires=[*NEEDED, "nvidia-cublas-cu12"]),
    Wheel(name="torch", version="2.9.1", requires=[*NEEDED, "nvidia-cublas-cu12"]),
    Wheel(name="torchvision", version="0.24.0", requires=["torch==2.9.0"]),
    Wheel(name="torchvision", version="0.24.1", requires=["torch==2.9.1"]),
    Wheel(name="nvidia-cublas-cu12", version="12.8"),
    Wheel(name="sympy", version="1.14.0"),
    Wheel(name="filelock", version="3.20.0"),
)


@dataclass(frozen=True)
class Indexes:
    main: str
    cpu: str
    env: dict[str, str]


@pytest.fixture(params=[True, False], ids=["hashes", "no-hashes"])
def indexes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Indexes]:
    """A main index, and PyTorch's for processors, whose page says the hashes of its files or doesn't."""
    main, cpu = Wheelhouse(tmp_path / "main"), Wheelhouse(tmp_path / "cpu")
    main.add(*MAIN)
    cpu.add(*CPU)
    if not request.param:
        for page in cpu.simple.glob("*/index.html"):
            page.write_text(re.sub("#sha256=[0-9a-f]*", "", page.read_text()))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    with main.serve() as first, cpu.serve() as second:
        yield Indexes(
            main=first,
            cpu=second,
            env={
                **env,
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_CACHE_DIR": str(tmp_path / "pip-cache"),
                "UV_CACHE_DIR": str(tmp_path / "uv-cache"),
                "UV_NO_CONFIG": "1",
            },
        )


def lock(file: Path, env: dict[str, str], target: PipTarget = HOST) -> dict[str, tuple[str, str]]:
    pins = UvResolver(env=env).resolve(PipRequest(spec=load_spec(file).pip, target=target))
    return {pin.name: (pin.version, pin.sha256) for pin in pins}


def digests(*wheels: Wheel) -> dict[str, tuple[str, str]]:
    return {wheel.name: (wheel.version, wheel.pin().sha256) for wheel in wheels}


@pytest.mark.parametrize(
    "order",
    [
        "-i {main} --extra-index-url {cpu}",
        pytest.param("-i {cpu} --extra-index-url {main}", marks=pytest.mark.slow),
    ],
)
def test_a_torch_environment_locks_as_pip_resolves_it(indexes: Indexes, tmp_path: Path, order: str) -> None:
    file = tmp_path / "requirements.in"
    places = order.format(main=indexes.main, cpu=indexes.cpu)
    file.write_text(f"{places}\ntorch==2.9.0\ntorchvision\n")
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    subprocess.run([*pip, "--report", str(report), "-r", str(file)], env=indexes.env, check=True)
    by_pip = {
        item["metadata"]["name"]: (
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in json.loads(report.read_text())["install"]
    }
    assert lock(file, indexes.env) == by_pip == digests(CPU[1], CPU[2], MAIN[-2], MAIN[-1])


PROJECT = """\
[project]
name = "train"
version = "1"
dependencies = ["torch>=2", "torchvision; python_version > '3'", "sympy"]

[tool.uv.sources]
torch = [{{index = "cpu", marker = "platform_machine == '{machine}'"}}]
torchvision = {{index = "cpu"}}

[[tool.uv.index]]
name = "cpu"
url = "{cpu}"
explicit = true

[[tool.uv.index]]
url = "{main}"
default = true
"""


def project(indexes: Indexes, directory: Path) -> Path:
    file = directory / "pyproject.toml"
    file.write_text(
        PROJECT.format(cpu=indexes.cpu, main=indexes.main, machine=HOST.platform.machine), encoding="utf-8"
    )
    return file


def test_a_project_locks_as_uv_resolves_it(indexes: Indexes, tmp_path: Path) -> None:
    file = project(indexes, tmp_path)
    uv = [find_uv(), "pip", "compile", str(file), "--quiet", "--no-annotate", "--no-header"]
    env = {key: value for key, value in indexes.env.items() if key != "UV_NO_CONFIG"}
    answer = subprocess.run(uv, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    by_uv = dict(line.split("==") for line in answer.stdout.split())
    locked = lock(file, indexes.env)
    assert {name: version for name, (version, _) in locked.items()} == by_uv
    assert locked == digests(CPU[1], CPU[2], MAIN[-2], MAIN[-1])


def test_a_mirror_that_a_variable_names_takes_the_place_of_an_index_of_that_name(
    indexes: Indexes, tmp_path: Path
) -> None:
    mirror = Wheelhouse(tmp_path / "mirror")
    mirror.add(Wheel(name="torch", version="2.9.0+mirror"), replace(CPU[2], requires=()))
    file = project(indexes, tmp_path)
    uv = [find_uv(), "pip", "compile", str(file), "--quiet", "--no-annotate", "--no-header"]
    with mirror.serve() as url:
        env = {**indexes.env, "UV_INDEX": f"cpu={url}"}
        del env["UV_NO_CONFIG"]
        answer = subprocess.run(uv, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
        locked = lock(file, {**env, "UV_NO_CONFIG": "1"})
    assert {name: version for name, (version, _) in locked.items()} == dict(
        line.split("==") for line in answer.stdout.split()
    )
    assert locked["torch"][0] == "2.9.0+mirror"


def test_a_marker_chooses_the_targets_that_an_index_is_for(indexes: Indexes, tmp_path: Path) -> None:
    file = project(indexes, tmp_path)
    file.write_text(
        file.read_text().replace(HOST.platform.machine, "aarch64").replace("torchvision;", "filelock;")
    )
    arm = PipTarget(platform=LINUX_ARM64, python=HOST.python, glibc="2.41")
    assert lock(file, indexes.env, arm)["torch"][0] == "2.9.0+cpu"
    intel = PipTarget(platform=LINUX_AMD64, python=HOST.python, glibc="2.41")
    assert lock(file, indexes.env, intel)["torch"][0] == "2.9.1"


def test_a_script_and_a_spec_of_ones_own_say_the_same(indexes: Indexes, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        '# /// script\n# dependencies = ["torch"]\n# [tool.uv.sources]\n# torch = {index = "cpu"}\n'
        f'# [[tool.uv.index]]\n# name = "cpu"\n# url = "{indexes.cpu}"\n# explicit = true\n# ///\n'
    )
    own = tmp_path / "own" / "envbuild.yaml"
    own.parent.mkdir()
    own.write_text(
        f"requirements: [torch]\nindexes:\n- {{name: cpu, url: '{indexes.cpu}/', packages: [Torch]}}\n"
    )
    index = PackageIndex(url=indexes.cpu, packages=("torch",), name="cpu")
    assert load_spec(script).pip.indexes == load_spec(own).pip.indexes == (index,)
    copy = tmp_path / "copy" / "envbuild.yaml"
    copy.parent.mkdir()
    copy.write_text(dump_native(load_spec(own)))
    assert definition_digest(load_spec(copy)) == definition_digest(load_spec(own))
    env = {**indexes.env, "UV_DEFAULT_INDEX": indexes.main}
    assert lock(script, env) == lock(own, env) == digests(CPU[1], MAIN[-2], MAIN[-1])


def test_a_lock_of_uv_keeps_the_index_of_what_has_no_hash(indexes: Indexes, tmp_path: Path) -> None:
    file = project(indexes, tmp_path)
    env = {key: value for key, value in indexes.env.items() if key != "UV_NO_CONFIG"}
    subprocess.run([find_uv(), "lock", "--quiet"], env=env, cwd=tmp_path, check=True)
    torch = re.findall(r'torch-2.9.0.cpu-py3-none-any.whl"(.*) }', (tmp_path / "uv.lock").read_text())
    machine = HOST.platform.machine
    named = () if "hash" in torch[0] else (f'torch; platform_machine == "{machine}"', "torchvision")
    locked = load_spec(tmp_path / "uv.lock").pip
    assert [index.packages for index in locked.indexes] == [*filter(None, [named])]
    assert lock(tmp_path / "uv.lock", indexes.env) == lock(file, indexes.env)
    other = replace(HOST, platform=LINUX_ARM64 if machine == "x86_64" else LINUX_AMD64)
    assert lock(tmp_path / "uv.lock", indexes.env, other)["torch"] == digests(MAIN[0])["torch"]


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    own = tmp_path / "envbuild.yaml"
    place = "https://index.test/s"
    for indexes, message in [
        (
            f"[{{url: '{place}', packages: [numpy]}}]",
            "numpy is to come from an index of its own, and isn't required",
        ),
        (f"[{{url: '{place}', packages: ['torch>2']}}]", "'torch>2': only a name and a marker stand here"),
        ("[{url: 'https://me:hunter2@index.test/s', packages: [torch]}]", "a credential stands in"),
        (
            f"[{{url: '{place}', packages: [torch]}}, {{url: '{place}/2', packages: [torch]}}]",
            "torch is to come from",
        ),
        (f"[{{url: '{place}', name: 'a b'}}]", "'a b' is no name of an index"),
    ]:
        own.write_text(f"requirements: [torch]\nindexes: {indexes}\n")
        with pytest.raises(SpecError) as raised:
            load_spec(own)
        assert message in raised.value.message
        assert "hunter2" not in raised.value.message
    pip = PipSpec(
        requirements=(PipRequirement(text="torch", origin=Origin(file="r.in")),),
        indexes=(
            PackageIndex(url=place, packages=("torch",)),
            PackageIndex(url=f"{place}/2", packages=("torch",)),
        ),
    )
    with pytest.raises(ResolveError, match=r"torch is to come from https://index\.test/s/2 and from"):
        UvResolver(env={}).resolve(PipRequest(spec=pip, target=HOST))
    with pytest.raises(ResolveError, match="pip-tools asks every index for every package"):
        PipToolsResolver(env={}).resolve(PipRequest(spec=replace(pip, indexes=pip.indexes[:1]), target=HOST))


@pytest.mark.parametrize("form", ["project", "own", "explicit"])
def test_a_login_by_the_name_of_an_index_opens_it(tmp_path: Path, form: str) -> None:
    house = Wheelhouse(tmp_path / "house")
    house.add(Wheel(name="private"))
    login = f"Basic {base64.b64encode(b'me:s3cret').decode()}"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    env |= {
        "PIP_CONFIG_FILE": os.devnull,
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_NO_CONFIG": "1",
        "UV_DEFAULT_INDEX": Wheelhouse(tmp_path / "none").url,
        "UV_HTTP_RETRIES": "0",
    }
    (tmp_path / "none" / "simple").mkdir(parents=True)
    with serve(house.root, lambda path, headers: path if headers.get("Authorization") == login else None) as (
        url,
        _,
    ):
        index = f"{url}/simple"
        file = tmp_path / ("envbuild.yaml" if form == "own" else "pyproject.toml")
        if form == "own":
            file.write_text(f"requirements: [private]\nindexes: [{{name: my-corp, url: '{index}'}}]\n")
        else:
            explicit = 'explicit = true\n[tool.uv.sources]\nprivate = {index = "my-corp"}\n'
            file.write_text(
                '[project]\nname = "x"\nversion = "1"\ndependencies = ["private"]\n'
                f'[[tool.uv.index]]\nname = "my-corp"\nurl = "{index}"\n'
                + (explicit if form == "explicit" else "")
            )
        with pytest.raises(ResolveError, match="private"):
            lock(file, env)
        env |= {"UV_INDEX_MY_CORP_USERNAME": "me", "UV_INDEX_MY_CORP_PASSWORD": "s3cret"}
        assert lock(file, env) == digests(Wheel(name="private"))
    pip = load_spec(file).pip
    assert pip.options == (() if form == "explicit" else (f"--extra-index-url {index}",))
    copy = tmp_path / "copy" / "envbuild.yaml"
    copy.parent.mkdir()
    copy.write_text(dump_native(load_spec(file)))
    assert load_spec(copy).pip.named_options == pip.named_options
    assert definition_digest(load_spec(copy)) == definition_digest(load_spec(file))
