"""What every pip resolver promises; and that they agree to the byte."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import PipRequest, PipResolver, PipTarget
from envbuild.lock.pip.piptools import PipToolsResolver
from envbuild.lock.pip.requirements import dump_requirements
from envbuild.lock.pip.satisfied import unsatisfied_pip
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform, runs_linux
from envbuild.specs.model import Origin, PipRequirement, PipSpec
from tests.fakes.wheelhouse import Wheel, Wheelhouse

PYTHON = platform.python_version()
HOST = PipTarget(platform=Platform.host(), python=PYTHON, glibc=platform.libc_ver()[1] or "2.28")
Make = Callable[[Mapping[str, str]], PipResolver]
pytestmark = pytest.mark.skipif(not runs_linux(), reason="pip-tools resolves for its own system")


def make_uv(env: Mapping[str, str]) -> PipResolver:
    return UvResolver(env=env)


def make_piptools(env: Mapping[str, str]) -> PipResolver:
    return PipToolsResolver(env=env)


def asked(*lines: str) -> tuple[PipRequirement, ...]:
    return tuple(PipRequirement(text=line, origin=Origin(file="r.in", where="1")) for line in lines)


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("contract")
    house = Wheelhouse(root)
    house.add(
        Wheel(name="app", requires=["lib[fast]>=1", "old; python_version < '3'"]),
        Wheel(name="lib", version="1.0"),
        Wheel(name="lib", version="2.0", extras=["fast"], requires=["quick; extra == 'fast'", "shared"]),
        Wheel(name="quick"),
        Wheel(name="shared", version="1.5"),
        Wheel(name="shared", version="2.5"),
    )
    decoy = Wheelhouse(root / "decoy")
    decoy.add(Wheel(name="lib", version="9.0"))
    config = root / "pip.conf"
    with house.serve() as url:
        # What only this machine has must not get into a lock; how it reaches its index must.
        config.write_text(
            f"[global]\nindex-url = {url}\nextra-index-url = {decoy.url}\nconstraint = {root}/none.txt\n"
        )
        yield {
            **clean_environment(),
            "PIP_CONFIG_FILE": str(config),
            "PIP_FIND_LINKS": str(decoy.simple / "lib"),
            "PIP_CACHE_DIR": str(root / "pip-cache"),
            "UV_DEFAULT_INDEX": url,
            "UV_CACHE_DIR": str(root / "uv-cache"),
        }


@pytest.mark.parametrize("make", [make_uv, make_piptools])
def test_pins_are_exact_sorted_and_answer_the_spec(make: Make, env: dict[str, str]) -> None:
    spec = PipSpec(requirements=asked("app"), constraints=asked("shared<2"))
    pins = make(env).resolve(PipRequest(spec=spec, target=HOST))
    assert [(pin.name, pin.version, pin.via) for pin in pins] == [
        ("app", "1.0", ("-r r.in",)),
        ("lib", "2.0", ("app",)),
        ("quick", "1.0", ("lib",)),
        ("shared", "1.5", ("lib",)),
    ]
    assert [pin.sha256 for pin in pins if pin.name == "shared"] == [
        Wheel(name="shared", version="1.5").pin().sha256
    ]
    assert unsatisfied_pip(spec, pins, HOST, {}) == []


@pytest.mark.parametrize("make", [make_uv, make_piptools])
def test_old_pins_are_kept_and_provided_ones_left_out(make: Make, env: dict[str, str]) -> None:
    old = Wheel(name="lib", version="1.0").pin()
    pins = make(env).resolve(
        PipRequest(
            spec=PipSpec(requirements=asked("lib", "shared")),
            target=HOST,
            preferred=[old],
            provided={"shared": "3"},
        )
    )
    assert [(pin.name, pin.version) for pin in pins] == [("lib", "1.0")]


@pytest.mark.parametrize("make", [make_uv, make_piptools])
def test_no_solution_is_a_resolve_error(make: Make, env: dict[str, str]) -> None:
    with pytest.raises(ResolveError, match="lib"):
        make(env).resolve(PipRequest(spec=PipSpec(requirements=asked("lib>=3")), target=HOST))


def test_both_engines_pin_the_same_files(env: dict[str, str]) -> None:
    spec = PipSpec(requirements=asked("app"))
    assert make_piptools(env).resolve(PipRequest(spec=spec, target=HOST)) == make_uv(env).resolve(
        PipRequest(spec=spec, target=HOST)
    )


def test_pip_tools_refuses_what_it_cannot_do(env: dict[str, str]) -> None:
    other = LINUX_ARM64 if Platform.host() == LINUX_AMD64 else LINUX_AMD64
    target = PipTarget(platform=other, python="3.99.0", glibc="2.41")
    with pytest.raises(ResolveError) as caught:
        make_piptools(env).resolve(
            PipRequest(
                spec=PipSpec(requirements=asked("app")), target=target, as_of=date(2026, 1, 1), offline=True
            )
        )
    assert len(caught.value.message.splitlines()) == 4
    assert caught.value.hint == "use --pip-engine uv"


def test_pip_installs_the_requirements_file_as_it_is(env: dict[str, str], tmp_path: Path) -> None:
    pins = make_uv(env).resolve(PipRequest(spec=PipSpec(requirements=asked("app")), target=HOST))
    file = tmp_path / "requirements.linux-64.txt"
    file.write_text(dump_requirements(pins))
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    argv += ["--disable-pip-version-check", "--root-user-action", "ignore", "--target", str(tmp_path / "t")]
    argv += ["--index-url", env["UV_DEFAULT_INDEX"], "-r", str(file)]
    isolated = {**clean_environment(), "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(argv, env=isolated, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "t").glob("*.py")) == [
        "app.py",
        "lib.py",
        "quick.py",
        "shared.py",
    ]


@pytest.mark.network
def test_both_engines_agree_on_real_packages() -> None:
    spec = PipSpec(requirements=asked("requests", "packaging"))
    env = clean_environment()
    assert make_piptools(env).resolve(PipRequest(spec=spec, target=HOST)) == make_uv(env).resolve(
        PipRequest(spec=spec, target=HOST)
    )
