"""The canonical form of wheels, and the pins of those that are built."""

from __future__ import annotations

import base64
import hashlib
import random
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from envbuild.errors import BuildError
from envbuild.lock.base import PipTarget
from envbuild.lock.files import dump_lock, parse_lock
from envbuild.lock.identity import ComposerSettings, lock_digest
from envbuild.lock.model import Lock, PipPin, PlatformLock, Sdist
from envbuild.lock.pip.requirements import LockedRequirement, dump_requirements, load_requirements
from envbuild.lock.pip.satisfied import unsatisfied_pip
from envbuild.lock.sdist import (
    CanonicalWheel,
    ImpureWheel,
    built_pin,
    canonical_wheel,
    dump_build_requires,
    load_build_requires,
    source_pin,
)
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.model import Origin, PipRequirement, PipSpec
from tests.fakes.wheelhouse import Wheel
from tests.unit.lock.sample import BASE, PYTHON

SOURCE = PipPin(name="demo", version="1.0", file="demo-1.0.tar.gz", size=7, sha256="a" * 64, via=("x",))
TOOL = PipPin(name="tool", version="2.0", file="tool-2.0-py3-none-any.whl", size=9, sha256="c" * 64)
BUILT = built_pin(
    SOURCE, CanonicalWheel(file="demo-1.0-py3-none-any.whl", size=8, sha256="b" * 64), (TOOL,), size=7
)
FILE = "demo-1.0-py3-none-any.whl"
WHEEL_TEXT = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
METADATA = b"Metadata-Version: 2.1\nName: Demo\nVersion: 1.0\n\nText\n"
MEMBERS = {
    "demo.py": b"value = 1\n",
    "demo-1.0.dist-info/WHEEL": WHEEL_TEXT,
    "demo-1.0.dist-info/METADATA": METADATA,
    "demo-1.0.dist-info/RECORD": b"nonsense",
    "a/__init__.py": b"",
    "a/__pycache__/__init__.cpython-313.pyc": b"code",
    "demo-1.0.data/scripts/say": b"#!python\n",
}


def wheel_bytes(
    members: Sequence[tuple[str, bytes]], *, date: int = 2020, compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name, (date, 2, 3, 4, 5, 6))
            entry.compress_type = compression
            mode = 0o120777 if name.endswith(".link") else 0o100775 if "scripts" in name else 0o100600
            entry.external_attr = mode << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def canonical(tmp_path: Path, data: bytes, file: str = FILE) -> CanonicalWheel:
    source = tmp_path / "source.whl"
    source.write_bytes(data)
    return canonical_wheel(source, file, tmp_path / "target.whl", name="demo", version="1.0")


def test_a_canonical_wheel_is_sorted_timeless_stored_and_has_a_true_record(tmp_path: Path) -> None:
    made = canonical(tmp_path, wheel_bytes(list(MEMBERS.items())))
    target = tmp_path / "target.whl"
    assert made == CanonicalWheel(
        file="demo-1.0-py3-none-any.whl",
        size=target.stat().st_size,
        sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
    )
    with zipfile.ZipFile(target) as archive:
        entries = archive.infolist()
        record = archive.read("demo-1.0.dist-info/RECORD").decode()
    assert [entry.filename for entry in entries] == [
        "a/__init__.py", "demo-1.0.data/scripts/say", "demo.py", "demo-1.0.dist-info/METADATA",
        "demo-1.0.dist-info/WHEEL", "demo-1.0.dist-info/RECORD",
    ]  # fmt: skip
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    modes = {entry.filename: stat.S_IMODE(entry.external_attr >> 16) for entry in entries}
    assert {name for name, mode in modes.items() if mode != 0o644} == {"demo-1.0.data/scripts/say"}
    assert modes["demo-1.0.data/scripts/say"] == 0o755
    listed = [name for name in (entry.filename for entry in entries) if name in MEMBERS][:-1]
    rows = [f"{name},sha256={hashed(MEMBERS[name])},{len(MEMBERS[name])}\n" for name in sorted(listed)]
    assert record == "".join([*rows, "demo-1.0.dist-info/RECORD,,\n"])
    assert len(rows) == 5


def hashed(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def test_equal_content_gives_equal_bytes_however_it_was_packed(tmp_path: Path) -> None:
    members = list(MEMBERS.items())
    first = canonical(tmp_path, wheel_bytes(members))
    random.Random(4).shuffle(members)
    again = canonical(tmp_path, wheel_bytes(members, date=1999, compression=zipfile.ZIP_STORED))
    # The very bytes are the promise: a python that writes other ones would break every lock.
    assert first == again
    assert first.sha256 == "c00cfa81883c15b8d1a19b891a6bf0b8e864376b323adfa4c961234c7983d82c"


def changed(**members: bytes | None) -> bytes:
    names = {"wheel": "demo-1.0.dist-info/WHEEL", "metadata": "demo-1.0.dist-info/METADATA"}
    new = {**MEMBERS, **{names.get(name, name): data for name, data in members.items()}}
    return wheel_bytes([(name, data) for name, data in new.items() if data is not None])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(**{"../x.py": b""}), "no path of a wheel"),
        (changed(**{"/x.py": b""}), "no path of a wheel"),
        (changed(**{"a//x.py": b""}), "no path of a wheel"),
        (changed(**{"a\\x.py": b""}), "no path of a wheel"),
        (changed(**{"a\nb.py": b""}), "no path of a wheel"),
        (changed(**{"x.link": b"/etc"}), "encrypted or a link"),
        (changed(**{"demo.py/x.py": b""}), "is a file and a directory"),
        (changed(**{"other-1.0.dist-info/WHEEL": b""}), r"no \.dist-info directory of demo 1\.0, or more"),
        (changed(wheel=None), "has no demo-1.0.dist-info/WHEEL"),
        (changed(metadata=METADATA.replace(b"1.0", b"2.0")), r"its METADATA is of Demo 2\.0, not demo 1\.0"),
        (wheel_bytes(list(MEMBERS.items()))[:-40], "not a whole wheel"),
        (b"", "not a whole wheel"),
    ],
)
def test_what_is_no_wheel_of_it_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        canonical(tmp_path, data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_path_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"it holds 'demo\.py' twice"):
        canonical(tmp_path, wheel_bytes([*MEMBERS.items(), ("demo.py", b"other")]))


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("demo-1.0-cp313-cp313-linux_x86_64.whl", changed()),
        ("demo-1.0-py3-none-any.whl", changed(wheel=WHEEL_TEXT.replace(b"none-any", b"none-linux_x86_64"))),
        ("demo-1.0-py3-none-any.whl", changed(wheel=WHEEL_TEXT.replace(b"true", b"false"))),
    ],
)
def test_what_is_not_pure_python_is_refused(tmp_path: Path, file: str, data: bytes) -> None:
    with pytest.raises(ImpureWheel, match="is not pure Python"):
        canonical(tmp_path, data, file)


@pytest.mark.parametrize("file", ["other-1.0-py3-none-any.whl", "demo-2.0-py3-none-any.whl", "demo.whl", "x"])
def test_another_wheels_name_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(BuildError, match=r"isn't the name of a wheel"):
        canonical(tmp_path, changed(), file)


def test_limits_are_those_of_what_is_really_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source.whl"
    source.write_bytes(changed(big=bytes(1 << 20)))
    assert source.stat().st_size < 10_000
    with pytest.raises(BuildError, match="unpacks to more"):
        canonical_wheel(
            source,
            "demo-1.0-py3-none-any.whl",
            tmp_path / "t",
            name="demo",
            version="1.0",
            size_limit=1 << 19,
        )
    with pytest.raises(BuildError, match="more than 3 entries"):
        canonical_wheel(source, FILE, tmp_path / "t", name="demo", version="1.0", entries_limit=3)


# --- pins ---------------------------------------------------------------------------------------------


def test_a_built_pin_says_what_it_was_built_from_and_leads_back_to_it() -> None:
    assert BUILT.sdist == Sdist(
        file="demo-1.0.tar.gz",
        size=7,
        sha256="a" * 64,
        requires=(f"tool==2.0 --hash=sha256:{'c' * 64}",),
    )
    assert source_pin(BUILT) == SOURCE
    assert source_pin(SOURCE) is SOURCE


def test_build_requirements_survive_being_written() -> None:
    (read,) = load_build_requires(dump_build_requires([TOOL]))
    assert (read.name, read.version, read.sha256) == ("tool", "2.0", "c" * 64)


@pytest.mark.parametrize(
    "text",
    [
        "tool==2.0",
        f"tool @ https://example.test/x.whl --hash=sha256:{'c' * 64}",
        f"tool==2.0 --hash=sha256:{'c' * 64}\n-r other.txt",
        f"--index-url=x==2.0 --hash=sha256:{'c' * 64}",
        f"tool==${{HOME}} --hash=sha256:{'c' * 64}",
    ],
)
def test_a_lock_cannot_bring_other_lines_into_what_is_installed(text: str) -> None:
    with pytest.raises(BuildError, match="isn't a pinned build requirement"):
        load_build_requires([text])


def test_a_requirements_file_has_the_hashes_of_both_files() -> None:
    text = dump_requirements([BUILT], header=["x"])
    assert text == (
        f"#\n# x\n#\ndemo==1.0 \\\n    --hash=sha256:{'b' * 64} \\\n"
        f"    --hash=sha256:{'a' * 64}\n    # via x\n"
    )
    assert load_requirements(text) == (
        LockedRequirement(name="demo", version="1.0", sha256s=("b" * 64, "a" * 64)),
    )


def test_a_hash_of_the_spec_is_the_sdists() -> None:
    def asked(sha256: str) -> list[str]:
        line = PipRequirement(text="demo==1.0", hashes=(f"sha256:{sha256}",), origin=Origin(file="r.txt"))
        target = PipTarget(platform=LINUX_AMD64, python="3.13.5", glibc="2.41")
        return unsatisfied_pip(PipSpec(requirements=(line,)), [BUILT], target)

    assert asked("a" * 64) == []
    assert asked("b" * 64) == [
        "demo==1.0 (r.txt): the pinned demo-1.0-py3-none-any.whl has none of its hashes"
    ]


def lock_of(pin: PipPin) -> Lock:
    pins = PlatformLock(platform=LINUX_AMD64, base=BASE, python=PYTHON, pip=(pin,))
    return Lock(definition="sha256:" + "0" * 64, platforms=(pins,))


def test_a_lock_keeps_what_a_wheel_was_built_from_and_its_identity_covers_it() -> None:
    lock = lock_of(BUILT)
    read, _ = parse_lock(dump_lock(lock)["envbuild.lock"])
    assert read == lock

    def digest(pin: PipPin) -> str:
        found = lock_of(pin)
        return lock_digest(found, found.platforms[0], ComposerSettings(composer="x"))

    assert BUILT.sdist is not None
    other = replace(BUILT, sdist=replace(BUILT.sdist, requires=()))
    assert len({digest(BUILT), digest(other), digest(replace(BUILT, sdist=None))}) == 3


def test_a_real_wheel_of_the_wheelhouse_stays_installable(tmp_path: Path) -> None:
    made = canonical(tmp_path, Wheel(name="demo").data())
    with zipfile.ZipFile(tmp_path / "target.whl") as archive:
        assert archive.testzip() is None
        assert archive.read("demo.py") == b"value = 1\n"
    assert made.file == "demo-1.0-py3-none-any.whl"
