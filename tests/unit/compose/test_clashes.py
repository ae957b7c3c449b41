"""Whose file is kept where two packages have one path, and when that is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.compose.clashes import Overwritten, install_order, is_worth_a_word, owners_of, warnings
from envbuild.compose.filesystem import PathClash
from envbuild.lock.model import CondaPin
from envbuild.plan.model import Artifact, ArtifactKind
from tests.fakes.source import artifact


def conda(name: str, *depends: str) -> Artifact:
    pin = CondaPin(
        name=name, version="1", build="0", subdir="noarch", url="", size=1, sha256="", md5="", depends=depends
    )
    return replace(artifact(name), kind=ArtifactKind.CONDA, pin=pin, sha256=name)


def test_conda_goes_by_dependencies_and_pip_from_the_last_name_to_the_first() -> None:
    packages = [
        replace(artifact("b"), sha256="pip-b"),
        replace(artifact("c"), sha256="pip-c"),
        conda("app", "zlib >=1", "conda-forge::lib"),
        conda("lib", "app"),
        conda("zlib", "__glibc >=2.17"),
        artifact("libc6", kind=ArtifactKind.DEBIAN),
    ]
    expected = ["zlib", "app", "lib", "pip-c", "pip-b"]
    assert sorted(install_order(packages), key=install_order(packages).__getitem__) == expected
    assert install_order(packages[::-1]) == install_order(packages)


def test_byte_code_goes_with_its_source() -> None:
    clashes = [
        PathClash(path=path, first=0, second=second)
        for path in ("a/x.py", "a/__pycache__/x.cpython-313.pyc", "a/__pycache__/y.cpython-313.pyc")
        for second in (1, 2)
    ]
    assert owners_of(clashes) == {"a/x.py": [0, 1, 2], "a/__pycache__/y.cpython-313.pyc": [0, 1, 2]}


PKGUTIL = b"__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
RESOURCES = b"__import__('pkg_resources').declare_namespace(__name__)\n"


@pytest.mark.parametrize(
    ("path", "contents", "said"),
    [
        ("s/backports/__init__.py", (PKGUTIL, RESOURCES), False),
        ("s/backports/__init__.py", (PKGUTIL, b"import os\n"), True),
        ("s/LICENSE", (b"1", b"2"), False),
        ("s/LICENSE.txt", (b"1", b"2"), False),
        ("s/README.md", (b"1", b"2"), False),
        ("s/tests/__init__.py", (b"1", b"2"), False),
        ("share/doc/x", (b"1", b"2"), True),
        ("s/licensed.py", (b"1", b"2"), True),
        ("s/ninja/main.py", (b"1", b"2"), True),
        ("bin/tests", (b"1", b"2"), True),
    ],
)
def test_what_matters_to_nobody_makes_no_noise(path: str, contents: tuple[bytes, ...], said: bool) -> None:
    assert is_worth_a_word(path, contents) is said


def test_one_line_names_both_packages() -> None:
    paths = [Overwritten(path=name, winner="a 1", loser="b 2") for name in ("4", "3", "2", "1")]
    assert warnings(paths) == [
        "warning: a 1 overwrites 1, 2, 3 and 1 more of b 2 (clashes: error refuses that)"
    ]
