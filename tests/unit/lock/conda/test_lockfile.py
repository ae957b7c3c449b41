"""``conda-lock.yml``: conda-lock reads what is written, the same pins give the same bytes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import LockError
from envbuild.lock.conda.lockfile import carried, dump_conda_lock, load_conda_lock
from envbuild.lock.conda.records import normal_depends
from envbuild.lock.model import CondaPin
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64

CHANNEL = "https://conda.example.org/main"


def pin(name: str, *depends: str, version: str = "1.10", subdir: str = "linux-64") -> CondaPin:
    return CondaPin(
        name=name,
        version=version,
        build="h0_3",
        build_number=3,
        subdir=subdir,
        url=f"{CHANNEL}/{subdir}/{name}-{version}-h0_3.conda",
        channel=CHANNEL,
        size=12,
        sha256="ab" * 32,
        md5="cd" * 16,
        depends=depends,
        constrains=("other <2",),
        timestamp=1,
    )


PINS = {
    LINUX_AMD64: (pin("aa", "bb >=1,<2 *_x"), pin("bb"), pin("nn", "aa", subdir="noarch")),
    LINUX_ARM64: (pin("aa", subdir="linux-aarch64"),),
}


def test_load_gives_back_what_the_format_carries() -> None:
    loaded = load_conda_lock(dump_conda_lock((CHANNEL,), PINS))
    assert loaded == {platform: tuple(map(carried, pins)) for platform, pins in PINS.items()}
    assert loaded[LINUX_AMD64][0].version == "1.10"
    assert carried(PINS[LINUX_AMD64][0]) == replace(
        PINS[LINUX_AMD64][0], size=0, build_number=0, timestamp=None, constrains=()
    )


def test_shuffled_pins_give_the_same_bytes() -> None:
    shuffled = {platform: tuple(reversed(pins)) for platform, pins in reversed(PINS.items())}
    assert dump_conda_lock((CHANNEL,), shuffled) == dump_conda_lock((CHANNEL,), PINS)


def test_no_credential_is_written() -> None:
    text = dump_conda_lock(("https://me:pw@conda.example.org/t/tok3n/main",), PINS)
    assert text == dump_conda_lock((CHANNEL,), PINS)


def test_conda_lock_renders_it(tmp_path: Path) -> None:
    (tmp_path / "conda-lock.yml").write_text(dump_conda_lock((CHANNEL,), PINS))
    subprocess.run(
        [sys.executable, "-m", "conda_lock", "render", "-k", "explicit", "-p", "linux-64"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    lines = (tmp_path / "conda-linux-64.lock").read_text().splitlines()
    assert lines[lines.index("@EXPLICIT") + 1 :] == [
        f"{CHANNEL}/linux-64/bb-1.10-h0_3.conda#{'cd' * 16}",
        f"{CHANNEL}/linux-64/aa-1.10-h0_3.conda#{'cd' * 16}",
        f"{CHANNEL}/noarch/nn-1.10-h0_3.conda#{'cd' * 16}",
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("version: 1\n", "version: 9\n", "format version 9"),
        ("ab" * 32, "x", "no SHA-256"),
        ("manager: conda", "manager: snake", "unknown manager 'snake'"),
        ("https://conda", "https://me:pw@conda", "the URL holds a credential"),
        ("/linux-aarch64/aa", "/win-64/aa", "a package of 'win-64' for linux-aarch64"),
        ("name: bb", "name: cc", "name or version does not fit the file bb-1.10-h0_3.conda"),
        ("package:", "package: {", "is not YAML"),
    ],
)
def test_a_lock_edited_by_hand_is_refused(old: str, new: str, reason: str) -> None:
    text = dump_conda_lock((CHANNEL,), PINS)
    assert old in text
    with pytest.raises(LockError) as caught:
        load_conda_lock(text.replace(old, new))
    assert reason in caught.value.message
    assert caught.value.hint


def test_several_conditions_on_one_name_become_one() -> None:
    assert normal_depends(["b >=1", "a", "b <2 *_x", "a *"]) == ("a", "b >=1,<2 *_x")
