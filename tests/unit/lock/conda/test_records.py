"""The order in which conda links packages, which says whose file stays where several have one path."""

from __future__ import annotations

import random

import pytest

from envbuild.lock.conda.records import link_order
from tests.unit.lock.conda.test_satisfied import pin

# Packages of real environments that have paths together, and whose files conda leaves there: of `libblas`,
# because it depends on what it shares them with; else of the last in its round.
REAL = {
    "blas": (
        {"libopenblas": "", "openblas": "", "libblas": "libopenblas", "libcblas": "libblas"},
        ["openblas", "libopenblas", "libblas", "libcblas"],
    ),
    "lapack": (
        {"lapack": "", "libopenblas": "", "openblas-devel": "libopenblas"},
        ["lapack", "libopenblas", "openblas-devel"],
    ),
    "openmp": ({"intel-openmp": "", "llvm-openmp": ""}, ["intel-openmp", "llvm-openmp"]),
    "openmp-used": (
        {"intel-openmp": "", "llvm-openmp": "", "mkl": "intel-openmp"},
        ["llvm-openmp", "intel-openmp", "mkl"],
    ),
    "circle": ({"a": "b", "b": "a", "c": "a"}, ["a", "b", "c"]),
    "python": ({"python": "pip", "pip": "python wheel", "wheel": ""}, ["python", "wheel", "pip"]),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_the_order_is_conda_s(name: str) -> None:
    depends, expected = REAL[name]
    pins = [
        pin(package, "1.0", *(f"{other} >=1" for other in needs.split()))
        for package, needs in depends.items()
    ]
    for seed in range(5):
        random.Random(seed).shuffle(pins)
        assert [each.name for each in link_order(pins)] == expected


def test_a_dependency_may_name_a_channel_or_nothing_that_is_there() -> None:
    pins = [pin("b", "1.0"), pin("a", "1.0", "conda-forge::b 1.*", "__glibc >=2.17", "gone")]
    assert [each.name for each in link_order(pins)] == ["b", "a"]
