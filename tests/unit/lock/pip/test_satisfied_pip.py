"""Whether pins answer requirements, decided offline and for the target."""

from __future__ import annotations

import pytest

from envbuild.lock.base import PipTarget
from envbuild.lock.model import PipPin
from envbuild.lock.pip.satisfied import unsatisfied_pip
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.model import Origin, PipRequirement, PipSpec

TARGET = PipTarget(platform=LINUX_AMD64, python="3.13.5", glibc="2.41")
PIN = PipPin(name="some-tool", version="2.1", file="t.whl", size=1, sha256="a" * 64)


def line(text: str, *hashes: str) -> PipRequirement:
    return PipRequirement(text=text, hashes=hashes, origin=Origin(file="r.in", where="3"))


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("Some_Tool>=2", []),
        ("some-tool[extra]~=2.0", []),
        ("some-tool>=3; python_version < '3.13'", []),
        ("absent; sys_platform == 'win32'", []),
        ("some-tool>=3; platform_machine == 'x86_64'", ["pinned is some-tool 2.1"]),
        ("absent", ["nothing is pinned for it"]),
        ("numpy<2", []),
        ("numpy>=2", ["conda installs numpy 1.26"]),
        ("some-tool @ https://x.test/t.whl", ["some-tool 2.1 is pinned from an index"]),
    ],
)
def test_each_requirement_is_met_or_has_a_reason(text: str, reasons: list[str]) -> None:
    spec = PipSpec(requirements=(line(text),))
    found = unsatisfied_pip(spec, [PIN], TARGET, {"NumPy": "1.26"})
    assert found == [f"{text} (r.in:3): {reason}" for reason in reasons]


def test_constraints_and_hashes_count_and_all_reasons_come_together() -> None:
    spec = PipSpec(
        requirements=(line("some-tool", "sha256:" + "b" * 64), line("gone")),
        constraints=(line("some-tool<2"), line("other<1")),
    )
    assert unsatisfied_pip(spec, [PIN], TARGET, {}) == [
        "some-tool (r.in:3): the pinned t.whl has none of its hashes",
        "gone (r.in:3): nothing is pinned for it",
        "some-tool<2 (r.in:3): pinned is some-tool 2.1",
    ]


def test_nothing_is_installed_twice() -> None:
    spec = PipSpec(requirements=(line("some-tool"),))
    assert unsatisfied_pip(spec, [PIN], TARGET, {"some-tool": "2.1"}) == [
        "some-tool is pinned for pip (2.1) though conda installs 2.1"
    ]
