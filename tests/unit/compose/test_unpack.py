from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from envbuild.compose.unpack import UnpackLimits, unpack_layers
from envbuild.errors import BuildError
from envbuild.oci.manifest import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from tests.fakes.image import Item, compress, directory, hardlink, symlink, tar


def _unpack(tmp_path: Path, *layers: list[Item], limits: UnpackLimits | None = None) -> Path:
    blobs = []
    for number, items in enumerate(layers):
        blob = tmp_path / f"layer-{number}"
        blob.write_bytes(tar(items))
        blobs.append((blob, OCI_LAYER))
    root = tmp_path / "root"
    root.mkdir()
    unpack_layers(blobs, root, limits=limits)
    return root


def _tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
def test_every_compression_unpacks_to_the_same_files(tmp_path: Path, media_type: str) -> None:
    data = tar([directory("d"), Item(name="d/f", content=b"x" * 100_000, mode=0o755), hardlink("d/g", "d/f")])
    (tmp_path / "blob").write_bytes(compress(data, media_type))
    (tmp_path / "root").mkdir()
    unpack_layers([(tmp_path / "blob", media_type)], tmp_path / "root")
    assert _tree(tmp_path / "root") == ["d", "d/f", "d/g"]
    assert (tmp_path / "root/d/g").read_bytes() == b"x" * 100_000
    assert (tmp_path / "root/d/f").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "root/d/f").stat().st_nlink == 2


def test_whiteouts_remove_what_lower_layers_put_there_only(tmp_path: Path) -> None:
    root = _unpack(
        tmp_path,
        [
            directory("a"),
            Item(name="a/old"),
            Item(name="a/keep"),
            directory("b"),
            Item(name="b/1"),
            Item(name="c/1"),
        ],
        [
            Item(name="a/.wh.old"),
            Item(name="b/2"),
            Item(name="b/.wh..wh..opq"),
            Item(name=".wh.c"),
            Item(name="c/2"),
        ],
    )
    assert _tree(root) == ["a", "a/keep", "b", "b/2", "c", "c/2"]


def test_a_whiteout_does_not_touch_what_its_own_layer_put_there(tmp_path: Path) -> None:
    root = _unpack(tmp_path, [directory("d"), Item(name="d/low")], [Item(name="d/high"), Item(name=".wh.d")])
    assert _tree(root) == ["d", "d/high"]


def test_a_whiteout_of_nothing_is_nothing(tmp_path: Path) -> None:
    assert _tree(_unpack(tmp_path, [Item(name="no/such/.wh.file"), Item(name="a")])) == ["a"]


def test_links_are_followed_within_the_root_as_a_chroot_would(tmp_path: Path) -> None:
    root = _unpack(
        tmp_path,
        [directory("usr/lib"), symlink("lib", "/usr/lib"), symlink("up", "../../../../../usr")],
        [Item(name="lib/one", content=b"1"), Item(name="up/two", content=b"2")],
    )
    assert (root / "usr/lib/one").read_bytes() == b"1"
    assert (root / "usr/two").read_bytes() == b"2"
    assert (root / "lib").is_symlink()


@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../../../../../..{outside}"])
def test_nothing_is_written_through_a_link_that_leaves_the_root(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    name = target.format(outside=outside)
    root = _unpack(
        tmp_path,
        [symlink("way", name), Item(name="way/file", content=b"theirs"), Item(name="way/new", content=b"x")],
        [Item(name="way/.wh.file"), Item(name="way/.wh..wh..opq")],
    )
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert (root / "way").is_symlink()


def test_a_file_over_a_link_replaces_the_link_itself(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    root = _unpack(tmp_path, [symlink("f", str(outside)), Item(name="f", content=b"new")])
    assert outside.read_text() == "mine"
    assert not (root / "f").is_symlink()
    assert (root / "f").read_bytes() == b"new"


def test_a_hard_link_reaches_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    with pytest.raises(BuildError, match="which isn't there"):
        _unpack(tmp_path, [symlink("way", str(outside)), hardlink("mine", "way/secret")])


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", ".."])
def test_a_name_that_leaves_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildError, match="leaves it"):
        _unpack(tmp_path, [Item(name=name, content=b"x")])
    assert not (tmp_path / "x").exists()


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="too many symbolic links"):
        _unpack(tmp_path, [symlink("a", "b"), symlink("b", "a"), Item(name="a/f")])


def test_directories_may_replace_files_and_files_directories(tmp_path: Path) -> None:
    root = _unpack(
        tmp_path,
        [Item(name="a"), directory("b"), Item(name="b/x"), symlink("c", "b")],
        [directory("a"), Item(name="a/y"), Item(name="b"), directory("c"), Item(name="c/z")],
    )
    assert _tree(root) == ["a", "a/y", "b", "c", "c/z"]
    assert (root / "b").is_file()


def test_modes_come_from_the_archive_without_the_bits_that_change_users(tmp_path: Path) -> None:
    root = _unpack(
        tmp_path,
        [
            directory("tmp", 0o1777),
            directory("closed", 0o500),
            Item(name="closed/f", mode=0o4755),
            Item(name="shadow", mode=0),
        ],
    )
    modes = {name: (root / name).stat().st_mode & 0o7777 for name in _tree(root)}
    assert modes == {"tmp": 0o1777, "closed": 0o700, "closed/f": 0o755, "shadow": 0o400}


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    items = [Item(name="p", type=tarfile.FIFOTYPE), Item(name="c", type=tarfile.CHRTYPE), Item(name="f")]
    assert _tree(_unpack(tmp_path, items)) == ["f"]


def test_limits_hold(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="more than 2 entries"):
        _unpack(tmp_path, [Item(name=str(number)) for number in range(3)], limits=UnpackLimits(entries=2))


def test_the_size_limit_holds(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="more than 9 bytes"):
        _unpack(tmp_path, [Item(name="f", content=b"x" * 10)], limits=UnpackLimits(size=9))


@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_a_truncated_layer_is_an_error_that_names_it(tmp_path: Path, media_type: str, keep: float) -> None:
    data = compress(tar([Item(name=str(n), content=os.urandom(2000)) for n in range(20)]), media_type)
    (tmp_path / "blob").write_bytes(data[: int(len(data) * keep)])
    (tmp_path / "root").mkdir()
    with pytest.raises(BuildError):
        unpack_layers([(tmp_path / "blob", media_type)], tmp_path / "root")


def test_noise_is_an_error(tmp_path: Path) -> None:
    for media_type in (OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, "text/plain"):
        (tmp_path / "blob").write_bytes(b"\x00noise" * 300)
        with pytest.raises(BuildError):
            unpack_layers([(tmp_path / "blob", media_type)], tmp_path)


def test_a_pax_name_with_odd_characters_survives(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("ä/" + "long" * 60))
    (tmp_path / "blob").write_bytes(buffer.getvalue())
    (tmp_path / "root").mkdir()
    unpack_layers([(tmp_path / "blob", OCI_LAYER)], tmp_path / "root")
    assert (tmp_path / "root/ä" / ("long" * 60)).is_file()
