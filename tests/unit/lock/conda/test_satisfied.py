"""Whether pins answer a spec, offline, and what they bring to pip."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import CondaTarget
from envbuild.lock.conda.satisfied import provided_distributions, unsatisfied_conda, virtual_packages
from envbuild.lock.model import CondaPin
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.specs.model import CondaSpec, SystemRequirement

TARGET = CondaTarget(platform=LINUX_AMD64, virtual_packages=virtual_packages("2.36", LINUX_AMD64, {}))


def pin(name: str, version: str, *depends: str) -> CondaPin:
    return CondaPin(
        name=name,
        version=version,
        build="h1_0",
        subdir="linux-64",
        url=f"https://conda.example.org/forge/linux-64/{name}-{version}-h1_0.conda",
        channel="https://conda.example.org/forge",
        size=1,
        sha256="0" * 64,
        md5="",
        depends=depends,
    )


PINS = (
    pin("python", "3.12.4", "__glibc >=2.17,<3.0.a0"),
    pin("numpy", "1.26.4", "python >=3.12,<3.13.0a0"),
    pin("pytorch", "2.3.0", "numpy", "python"),
    pin("zlib", "1.3"),
)


def problems(*dependencies: str, pins: tuple[CondaPin, ...] = PINS) -> list[str]:
    return unsatisfied_conda(CondaSpec(channels=("forge",), dependencies=dependencies), pins, TARGET)


def test_pins_that_answer_have_no_problem() -> None:
    assert problems("python=3.12", "forge::numpy=1.26.*", "pytorch >=2 h1_*") == []


def test_every_requirement_that_is_not_met_is_named() -> None:
    assert problems("python=3.8.*", "scipy", "defaults::numpy", "zlib=1.3=h2") == [
        "conda requirement python=3.8.*: the lock has 3.12.4 h1_0",
        "conda requirement scipy: is not in the lock",
        "conda requirement defaults::numpy: the lock has it from https://conda.example.org/forge",
        "conda requirement zlib=1.3=h2: the lock has 1.3 h1_0",
    ]


def test_what_a_pin_needs_must_be_there_too() -> None:
    assert problems("pytorch", pins=PINS[2:]) == [
        "conda package pytorch 2.3.0 needs numpy: is not in the lock",
        "conda package pytorch 2.3.0 needs python: is not in the lock",
    ]
    newer = replace(PINS[0], depends=("__glibc >=2.40",))
    assert problems(pins=(newer,)) == [
        "conda package python 3.12.4 needs __glibc >=2.40: this platform has __glibc 2.36"
    ]


def test_python_packages_are_distributions_by_pypi_s_name() -> None:
    assert provided_distributions(PINS) == {"numpy": "1.26.4", "torch": "2.3.0"}


def test_a_conda_package_of_another_name_is_the_distribution_it_brings() -> None:
    pins = [
        pin("graphviz", "9.0.0"),
        pin("python-graphviz", "0.20.3", "graphviz >=2", "python"),
        pin("msgpack-python", "1.1.0", "python >=3.12,<3.13.0a0"),
        pin("pytables", "3.10.1", "python"),
    ]
    assert provided_distributions(pins) == {"graphviz": "0.20.3", "msgpack": "1.1.0", "tables": "3.10.1"}


def test_virtual_packages_follow_the_base() -> None:
    assert virtual_packages("2.41", LINUX_ARM64, {"CONDA_OVERRIDE_CUDA": "12.4"}) == {
        "__archspec": "1=aarch64",
        "__cuda": "12.4",
        "__glibc": "2.41",
        "__linux": "5.10",
        "__unix": "0",
    }
    assert "__cuda" not in virtual_packages("2.41", LINUX_AMD64, {})


def test_what_the_spec_says_of_the_machines_goes_first() -> None:
    stated = (
        SystemRequirement(name="archspec", version="x86_64_v3", platform="linux/amd64"),
        SystemRequirement(name="cuda", version="12.9"),
        SystemRequirement(name="glibc", version="2.28"),
    )
    environ = {"CONDA_OVERRIDE_CUDA": "11.8"}
    packages = virtual_packages("2.41", LINUX_AMD64, environ, stated=stated)
    assert packages["__archspec"] == "1=x86_64_v3"
    assert (packages["__cuda"], packages["__glibc"]) == ("12.9", "2.28")
    assert virtual_packages("2.41", LINUX_ARM64, {}, stated=stated)["__archspec"] == "1=aarch64"
    with pytest.raises(
        ResolveError, match=r"glibc 2\.28 is asked for on linux/amd64, and the base has 2\.17"
    ):
        virtual_packages("2.17", LINUX_AMD64, {}, stated=stated)
