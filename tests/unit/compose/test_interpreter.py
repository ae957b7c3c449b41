"""The unpacked interpreter, and the safety of unpacking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.compose.base import Entry
from envbuild.compose.filesystem import USRMERGE
from envbuild.compose.interpreter import interpreter_artifacts, interpreter_rootfs, materialise
from envbuild.errors import BuildError
from envbuild.lock.model import CondaPin, DebianBase, DebianPin, ImageBase, PlatformLock, PythonPin
from envbuild.plan.model import ArtifactKind, Interpreter
from envbuild.platforms import LINUX_AMD64
from envbuild.store.content import Store
from tests.fakes.source import PYTHON, FakeSource, directory, file, symlink


def deb(name: str) -> DebianPin:
    return DebianPin(
        name=name,
        version="1",
        architecture="amd64",
        archive="debian",
        file=f"pool/{name}.deb",
        size=1,
        sha256=name.encode().hex().ljust(64, "0"),
    )


def conda(name: str, *depends: str) -> CondaPin:
    return CondaPin(
        name=name,
        version="1",
        build="0",
        subdir="linux-64",
        url=f"https://example.test/{name}-1-0.conda",
        size=1,
        sha256=name.encode().hex().ljust(64, "0"),
        md5="0" * 32,
        depends=depends,
    )


DEBIAN = Interpreter(
    python=PYTHON,
    lock=PlatformLock(
        platform=LINUX_AMD64,
        base=DebianBase(suite="trixie", packages=(deb("libc6"), deb("python3.13")), glibc="2.41"),
        python=PYTHON,
    ),
)
CONTENTS: dict[str, Sequence[Entry]] = {
    "libc6": [file("lib64/ld.so", b"elf", 0o755), file("usr/lib/libc.so.6", b"c")],
    "python3.13": [file("usr/bin/python3.13", b"py", 0o4755), symlink("usr/bin/python3", "python3.13")],
}


def test_a_debian_interpreter_is_unpacked_once_with_its_links(tmp_path: Path) -> None:
    store, source = Store(tmp_path), FakeSource(CONTENTS)
    root = interpreter_rootfs(DEBIAN, store, {ArtifactKind.DEBIAN: lambda: source})
    assert root.parent == tmp_path / "rootfs"
    assert (root / "usr/lib64/ld.so").read_bytes() == b"elf"
    assert {link: str((root / link).readlink()) for link in ("bin", "lib", "lib64")} == {
        "bin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
    }
    assert (root / "bin/python3").read_bytes() == b"py"
    assert (root / "usr/bin/python3.13").stat().st_mode & 0o7777 == 0o755, "no set-id bit on this machine"
    assert interpreter_rootfs(DEBIAN, store, {ArtifactKind.DEBIAN: lambda: source}) == root
    assert source.fetched == ["libc6", "python3.13"]
    assert [path.name for path in (tmp_path / "rootfs").iterdir()] == [root.name]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_failed_unpacking_leaves_no_root_file_system(tmp_path: Path) -> None:
    source = FakeSource({**CONTENTS, "python3.13": [file("../evil")]})
    with pytest.raises(BuildError):
        interpreter_rootfs(DEBIAN, Store(tmp_path), {ArtifactKind.DEBIAN: lambda: source})
    assert list((tmp_path / "rootfs").iterdir()) == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_conda_interpreter_is_python_with_what_it_depends_on_and_the_c_library() -> None:
    pins = (
        conda("numpy", "python >=3.13"),
        conda("openssl", "libgcc"),
        conda("libgcc"),
        conda("python", "openssl >=3,<4.0a0", "Bzip2", "__glibc >=2.17"),
        conda("bzip2", "python"),
    )
    python = PythonPin(version="3.13.5", provider="conda", executable="/opt/env/bin/python")
    asked = Interpreter(python=python, lock=replace(DEBIAN.lock, python=python, conda=pins))
    assert [artifact.name for artifact in interpreter_artifacts(asked)] == [
        "bzip2", "libgcc", "openssl", "python", "libc6"
    ]  # fmt: skip


def test_an_image_base_is_unpacked_by_who_was_given(tmp_path: Path) -> None:
    base = ImageBase(reference="example.test/python:3", digest="sha256:" + "0" * 64)
    python = replace(PYTHON, provider="image")
    asked = Interpreter(python=python, lock=replace(DEBIAN.lock, base=base, python=python))
    unpacked: list[ImageBase] = []

    def unpack(image: ImageBase, root: Path) -> None:
        unpacked.append(image)
        (root / "bin").mkdir()

    root = interpreter_rootfs(asked, Store(tmp_path), {}, unpack_base=unpack)
    assert (root / "bin").is_dir()
    assert not (root / "bin").is_symlink()
    assert unpacked == [base]
    with pytest.raises(BuildError, match=r"nothing here unpacks the base example\.test/python:3"):
        interpreter_rootfs(asked, Store(tmp_path / "other"), {})


@pytest.mark.parametrize("target", ["/etc", "../../../../../../etc", "../outside"])
def test_no_link_leads_out_of_the_root(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    materialise([symlink("a", target), file("a/evil", b"x"), directory("a/dir")], root, {})
    inside = root / ("outside" if target.endswith("outside") else "etc")
    assert (inside / "evil").read_bytes() == b"x"
    assert (inside / "dir").is_dir()
    assert list((tmp_path / "outside").iterdir()) == []
    assert not Path("/etc/evil").exists()


def test_a_file_replaces_a_link_instead_of_writing_through_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    precious = tmp_path / "precious"
    precious.write_bytes(b"safe")
    materialise([symlink("a", str(precious))], root, {})
    materialise([file("a", b"new")], root, {})
    assert precious.read_bytes() == b"safe"
    assert (root / "a").read_bytes() == b"new"


def test_a_file_where_a_directory_is_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="a is a file of one package and a directory of another"):
        materialise([file("a"), file("a/b")], tmp_path, dict(USRMERGE))
    with pytest.raises(BuildError, match="c is a directory of one package and a file of another"):
        materialise([file("c/b"), file("c")], tmp_path, dict(USRMERGE))
