"""Source distributions are unpacked without a risk, and say only what can be believed."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from envbuild.compose.artifacts.sdist.source import BuildSystem, load_build_system, unpack_sdist
from envbuild.compose.sandbox.run import read_regular
from envbuild.errors import BuildError
from tests.fakes.sdist import entry, source_dist


def unpacked(tmp_path: Path, data: bytes, file: str = "demo-1.0.tar.gz", **limits: int) -> Path:
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    directory = tmp_path / "out" / "tree"
    directory.mkdir(parents=True)
    return unpack_sdist(archive, file, directory, **limits)


def test_a_tree_has_plain_modes_and_no_time_of_its_own(tmp_path: Path) -> None:
    script = entry("demo-1.0/run.sh")
    script.mode = 0o7775
    tree = unpacked(
        tmp_path,
        source_dist(
            "demo",
            entries=[
                script,
                entry("demo-1.0/empty", tarfile.DIRTYPE),
                entry("demo-1.0/a/link", tarfile.SYMTYPE, "../run.sh"),
                entry("demo-1.0/hard", tarfile.LNKTYPE, "demo-1.0/PKG-INFO"),
            ],
        ),
    )
    assert tree.name == "demo-1.0"
    assert (tree / "PKG-INFO").read_text() == "Metadata-Version: 2.2\nName: demo\nVersion: 1.0\n"
    assert (tree / "hard").read_bytes() == (tree / "PKG-INFO").read_bytes()
    assert (tree / "hard").stat().st_nlink == 1
    assert (tree / "a" / "link").readlink() == Path("../run.sh")
    assert stat.S_IMODE((tree / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "PKG-INFO").stat().st_mode) == 0o644
    assert {path.lstat().st_mtime for path in tree.rglob("*") if not path.is_dir()} == {315_532_800.0}
    assert (tree / "empty").is_dir()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("../evil.py")], "leads out of it"),
        ([entry("demo-1.0/../../evil.py")], "leads out of it"),
        ([entry("/evil.py")], "leads out of it"),
        ([entry("other-1.0/evil.py")], "outside its directory demo-1.0"),
        ([entry("demo-1.0/l", tarfile.SYMTYPE, "/etc/passwd")], "leads out of it"),
        ([entry("demo-1.0/l", tarfile.SYMTYPE, "../../etc")], "leads out of it"),
        ([entry("demo-1.0/l", tarfile.LNKTYPE, "../evil")], "leads out of it"),
        ([entry("demo-1.0/l", tarfile.LNKTYPE, "demo-1.0/none")], "leads to nothing"),
        ([entry("demo-1.0/l", tarfile.SYMTYPE, "a"), entry("demo-1.0/l/x")], "it holds 'demo-1.0/l' twice"),
        (
            [
                entry("demo-1.0/deep/l", tarfile.SYMTYPE, "../PKG-INFO"),
                entry("demo-1.0/h", tarfile.LNKTYPE, "demo-1.0/deep/l"),
            ],
            "leads to nothing",
        ),
        (
            [
                entry("demo-1.0/s", tarfile.SYMTYPE, "."),
                entry("demo-1.0/s/t", tarfile.SYMTYPE, "PKG-INFO"),
                entry("demo-1.0/t/u", tarfile.SYMTYPE, ".."),
            ],
            "a file and a directory",
        ),
        ([entry("demo-1.0/f", tarfile.FIFOTYPE)], "no file, directory or link"),
        ([entry("demo-1.0/d", tarfile.CHRTYPE)], "no file, directory or link"),
        ([entry("demo-1.0/PKG-INFO/x")], "a file and a directory"),
        ([entry("demo-1.0/x/y"), entry("demo-1.0/x")], "a file and a directory"),
    ],
)
def test_what_is_no_plain_tree_is_refused_and_nothing_is_written_outside(
    tmp_path: Path, entries: list[tarfile.TarInfo], said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        unpacked(tmp_path, source_dist("demo", entries=entries))
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "out"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tree"]
    assert {path.name for path in (tmp_path / "out" / "tree").iterdir()} <= {"demo-1.0"}


def test_limits(tmp_path: Path) -> None:
    data = source_dist("demo", files={"big.txt": "x" * 100_000})
    assert len(data) < 3000
    with pytest.raises(BuildError, match="unpacks to more than"):
        unpacked(tmp_path / "a", _made(tmp_path / "a", data), size_limit=50_000)
    with pytest.raises(BuildError, match="more than 3 entries"):
        unpacked(tmp_path / "b", _made(tmp_path / "b", data), entries_limit=3)
    many = [entry(f"demo-1.0/{number}", tarfile.LNKTYPE, "demo-1.0/big.txt") for number in range(9)]
    data = source_dist("demo", files={"big.txt": "x" * 100_000}, entries=many)
    with pytest.raises(BuildError, match="unpacks to more than"):
        unpacked(tmp_path / "c", _made(tmp_path / "c", data), size_limit=500_000)


def _made(path: Path, data: bytes) -> bytes:
    path.mkdir()
    return data


@pytest.mark.parametrize("data", [b"", b"x" * 50, source_dist("demo")[:-200], source_dist("demo")[:40]])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BuildError, match=r"demo-1\.0\.tar\.gz: "):
        unpacked(tmp_path, data)


def test_a_zip_is_a_source_distribution_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "made", "w") as archive:
        archive.writestr("demo-1.0/setup.py", "x")
    tree = unpacked(tmp_path, (tmp_path / "made").read_bytes(), "demo-1.0.zip")
    assert (tree / "setup.py").read_text() == "x"
    assert load_build_system(tree, "demo-1.0.zip") == BuildSystem()


def test_a_zip_with_links_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "made", "w") as archive:
        link = zipfile.ZipInfo("demo-1.0/l")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BuildError, match="no file or directory"):
        unpacked(tmp_path, (tmp_path / "made").read_bytes(), "demo-1.0.zip")


# --- build systems ------------------------------------------------------------------------------------


def system(tmp_path: Path, text: str) -> BuildSystem:
    (tmp_path / "pyproject.toml").write_text(text)
    return load_build_system(tmp_path, "demo-1.0.tar.gz")


def test_a_build_system_is_read_with_its_requirements_in_order(tmp_path: Path) -> None:
    text = """
    [build-system]
    requires = ["Setuptools >= 61", "a; python_version < '4'"]
    build-backend = "pkg.backend:make.it"
    backend-path = ["in/tree"]
    """
    assert system(tmp_path, text) == BuildSystem(
        requires=("Setuptools>=61", 'a; python_version < "4"'),
        backend="pkg.backend:make.it",
        path=("in/tree",),
    )


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n"])
def test_a_tree_that_says_nothing_is_setuptools(tmp_path: Path, text: str) -> None:
    assert system(tmp_path, text) == BuildSystem(
        requires=("setuptools>=40.8.0",), backend="setuptools.build_meta:__legacy__", path=()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[build-system", "can't be read"),
        ("[build-system]\n", "without requires"),
        ("build-system = 3\n", "without requires"),
        ("[build-system]\nrequires = [3]\n", "isn't a build requirement"),
        ("[build-system]\nrequires = ['-r /etc/passwd']\n", "isn't a build requirement"),
        ("[build-system]\nrequires = ['a @ https://example.test/a.whl']\n", "only names with versions can"),
        ("[build-system]\nrequires = ['a===${HOME}']\n", "only names with versions can"),
        ("[build-system]\nrequires = ['a===1--index-url=x']\n", "only names with versions can"),
        ("[build-system]\nrequires = []\nbuild-backend = 'os;x'\n", "isn't the name of a build backend"),
        ("[build-system]\nrequires = []\nbackend-path = ['../x']\n", "leads out"),
        ("[build-system]\nrequires = []\nbackend-path = ['/x']\n", "leads out"),
    ],
)
def test_a_bad_build_system_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        system(tmp_path, text)


def test_no_link_of_a_stranger_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("[build-system]\nrequires = []\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "pyproject.toml").symlink_to(tmp_path / "secret")
    with pytest.raises(BuildError, match="can't be read"):
        load_build_system(tmp_path / "tree", "demo-1.0.tar.gz")
    with pytest.raises(ValueError, match="not a regular file"):
        read_regular(tmp_path / "tree", 10)
    with pytest.raises(ValueError, match="too large"):
        read_regular(tmp_path / "secret", 10)
    assert read_regular(tmp_path / "none", 10) is None
