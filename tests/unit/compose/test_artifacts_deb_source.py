"""Debian packages become entries of an image, and unsafe ones are refused."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from envbuild.compose.artifacts.deb.policy import keystore
from envbuild.compose.artifacts.deb.source import DebianSource
from envbuild.compose.base import Entry, EntryKind
from envbuild.errors import BuildError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.debian.mirror import Mirrors
from envbuild.lock.model import DebianBase, DebianPin
from envbuild.plan.model import Artifact
from envbuild.plan.system import home_directory, system_files
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.archive import (
    Archive,
    Deb,
    ar_bytes,
    compress,
    deb_bytes,
    device,
    directory,
    link,
    tar_bytes,
)

Files = Sequence[tarfile.TarInfo | tuple[str, bytes]]


def make_pin(data: bytes, name: str = "tool", version: str = "1.0", architecture: str = "amd64") -> DebianPin:
    return DebianPin(
        name=name,
        version=version,
        architecture=architecture,
        archive="debian",
        file=f"pool/main/t/{name}/{name}_{version}_{architecture}.deb",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


@contextmanager
def make_source(
    root: Path,
    *,
    snapshot: str | None = None,
    mirrors: Mirrors | None = None,
    base: DebianBase | None = None,
) -> Iterator[DebianSource]:
    store = Store(root / "store")
    settings = Settings(cache_dir=store.root, debian_snapshot=snapshot)
    fetcher = HttpFetcher(
        store, offline=False, settings=settings, progress=Silent(), sleep=lambda _: None, environ={}
    )
    mirrors = mirrors or Mirrors(main=(root / "debian").as_uri(), security=(root / "security").as_uri())
    with store.scratch() as scratch:
        yield DebianSource(fetcher, store, settings, scratch=scratch, mirrors=mirrors, base=base)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[DebianSource]:
    with make_source(tmp_path) as made:
        yield made


def place(root: Path, data: bytes, pin: DebianPin) -> Artifact:
    """Puts a package on the mirror."""
    path = root / "debian" / pin.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Artifact.of(pin)


def unpack(source: DebianSource, root: Path, data: bytes, name: str = "tool") -> dict[str, Entry]:
    made = place(root, data, make_pin(data, name))
    source.fetch([made])
    found = list(source.entries(made))
    assert [entry.path for entry in found] == sorted({entry.path for entry in found})
    return {entry.path: entry for entry in found if "status.d" not in entry.path}


def whole(entry: Entry) -> bytes:
    return entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes()


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst", ""])
def test_every_compression_gives_the_same_entries(source: DebianSource, tmp_path: Path, suffix: str) -> None:
    big = bytes(range(256)) * 1000
    program = tarfile.TarInfo("./usr/bin/tool")
    program.mode, program.uid, program.gid = 0o4755, 0, 42
    files: Files = [directory("./"), directory("./usr/"), program, ("./usr/share/tool/big", big)]
    found = unpack(source, tmp_path, deb_bytes("tool", files=files, suffix=suffix))
    assert list(found) == ["usr/bin/tool", "usr/share/tool/big"]
    assert (found["usr/bin/tool"].mode, found["usr/bin/tool"].gid) == (0o4755, 42)
    assert isinstance(found["usr/share/tool/big"].content, Path)
    assert whole(found["usr/share/tool/big"]) == big


def test_paths_move_into_the_merged_usr(source: DebianSource, tmp_path: Path) -> None:
    files: Files = [
        link("./lib64", "usr/lib64"),
        link("./bin/sh", "dash"),
        ("./bin/dash", b"shell"),
        ("./lib/x86_64-linux-gnu/libx.so", b"x"),
        ("./sbin/s", b"s"),
        ("./usr/bin/t", b"t"),
    ]
    found = unpack(source, tmp_path, deb_bytes("tool", files=files))
    assert list(found) == [
        "usr/bin/dash",
        "usr/bin/sh",
        "usr/bin/t",
        "usr/lib/x86_64-linux-gnu/libx.so",
        "usr/sbin/s",
    ]
    assert (found["usr/bin/sh"].kind, found["usr/bin/sh"].target) == (EntryKind.SYMLINK, "dash")


def test_hard_links_are_files_of_equal_content(source: DebianSource, tmp_path: Path) -> None:
    files: Files = [("./bin/a", b"same"), link("./usr/bin/b", "./bin/a", hard=True)]
    found = unpack(source, tmp_path, deb_bytes("tool", files=files))
    assert found["usr/bin/b"] == Entry(path="usr/bin/b", content=b"same")


def test_only_directories_that_say_something_are_given(source: DebianSource, tmp_path: Path) -> None:
    files: Files = [
        directory("./usr/"),
        ("./usr/share/x", b""),
        directory("./tmp/", 0o1777),
        directory("./var/empty/"),
        directory("./var/owned/", 0o755, 8, 8),
        ("./var/owned/file", b""),
    ]
    found = unpack(source, tmp_path, deb_bytes("tool", files=files))
    assert list(found) == ["tmp", "usr/share/x", "var/empty", "var/owned", "var/owned/file"]
    assert (found["tmp"].mode, found["var/owned"].uid) == (0o1777, 8)


def test_documentation_stays_out_but_for_copyrights(source: DebianSource, tmp_path: Path) -> None:
    files: Files = [
        directory("./usr/share/doc/tool/"),
        ("./usr/share/doc/tool/changelog.gz", b"c"),
        ("./usr/share/doc/tool/copyright", b"mine"),
        ("./usr/share/doc/tool/examples/copyright", b"e"),
        link("./usr/share/doc/other", "tool"),
        directory("./usr/share/man/man1/"),
        ("./usr/share/man/man1/tool.1.gz", b"m"),
        ("./usr/share/locale/de/LC_MESSAGES/tool.mo", b"l"),
        ("./usr/share/manual", b"kept"),
    ]
    found = unpack(source, tmp_path, deb_bytes("tool", files=files))
    assert list(found) == ["usr/share/doc/other", "usr/share/doc/tool/copyright", "usr/share/manual"]


def test_scanners_find_the_control_data(source: DebianSource, tmp_path: Path) -> None:
    sums = b"aaaa  bin/tool\nbbbb  usr/share/man/man1/tool.1.gz\n"
    data = deb_bytes(
        "tool", files=[("./bin/tool", b"x"), ("./usr/share/man/man1/tool.1.gz", b"")], md5sums=sums
    )
    made = place(tmp_path, data, make_pin(data))
    source.fetch([made])
    found = {entry.path: entry.content for entry in source.entries(made)}
    assert found["var/lib/dpkg/status.d/tool"] == (
        b"Package: tool\nVersion: 1.0\nArchitecture: amd64\nDescription: made by a test\n"
    )
    assert found["var/lib/dpkg/status.d/tool.md5sums"] == b"aaaa  usr/bin/tool\n"


def test_the_certificate_bundle_is_made_in_the_order_of_names(source: DebianSource, tmp_path: Path) -> None:
    def pem(text: bytes) -> bytes:
        return b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----"

    files: Files = [
        ("./usr/share/ca-certificates/mozilla/B.crt", pem(b"QQ==")),
        ("./usr/share/ca-certificates/mozilla/A_F\u0151.crt", b"a comment\n" + pem(b"Qg==") + b"\n"),
    ]
    found = unpack(source, tmp_path, deb_bytes("ca-certificates", files=files), "ca-certificates")
    assert found["etc/ssl/certs/ca-certificates.crt"].content == pem(b"Qg==") + b"\n" + pem(b"QQ==") + b"\n"
    assert found["etc/ca-certificates.conf"].content == "mozilla/A_F\u0151.crt\nmozilla/B.crt\n".encode()


def test_base_files_gives_the_files_its_script_copies(source: DebianSource, tmp_path: Path) -> None:
    files: Files = [
        ("./usr/share/base-files/profile", b"P"),
        directory("./var/run/"),
        directory("./var/lock/", 0o1777),
    ]
    found = unpack(source, tmp_path, deb_bytes("base-files", files=files), "base-files")
    assert {path: entry.content for path, entry in found.items()} == {
        "etc/profile": b"P",
        "usr/share/base-files/profile": b"P",
    }


_CONTROL = ("control.tar.gz", compress(tar_bytes([("./control", b"Package: tool\nVersion: 1.0\n")]), ".gz"))
_GOOD = deb_bytes("tool", files=[("./usr/bin/tool", b"x" * 5000)], suffix=".gz")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            deb_bytes("tool", files=[("./../etc/passwd", b"")]),
            "a path that leaves the root: './../etc/passwd'",
        ),
        (deb_bytes("tool", files=[("/etc/passwd", b"")]), "an absolute path: '/etc/passwd'"),
        (deb_bytes("tool", files=[link("./usr/lib/a", "../../../etc")]), "a link that leaves the root"),
        (
            deb_bytes("tool", files=[link("./usr/share/a", "/etc"), ("./usr/share/a/b", b"")]),
            "'usr/share/a/b' lies below 'usr/share/a', which is no directory",
        ),
        (deb_bytes("tool", files=[link("./usr/a", "../../x", hard=True)]), "a path that leaves the root"),
        (deb_bytes("tool", files=[link("./usr/a", "usr/b", hard=True)]), "which is no file before it"),
        (deb_bytes("tool", files=[device("./dev/null")]), "'dev/null' is a device"),
        (deb_bytes("tool", files=[("./usr/.wh.a", b"")]), "image layers use for deletions"),
        (deb_bytes("tool", files=[("./bin/a", b"1"), ("./usr/bin/a", b"2")]), "it has 'usr/bin/a' twice"),
        (deb_bytes("tool", files=[("./usr/a\nb", b"")]), "not printable UTF-8"),
        (deb_bytes("tool", files=[("./var/lib/dpkg/status.d/tool", b"")]), "which envbuild makes itself"),
        (deb_bytes("other"), "it is other 1.0, which isn't what the lock says"),
        (b"no archive at all", "it is no Debian package"),
        (_GOOD[:-100], "it is truncated"),
        (ar_bytes([("debian-binary", b"2.0\n"), _CONTROL]), "it has no data.tar"),
        (ar_bytes([("debian-binary", b"3.0\n")]), "it is not in Debian's package format 2"),
        (ar_bytes([("debian-binary", b"2.0\n"), _CONTROL, ("data.tar.lz4", b"")]), "'.lz4' is not known"),
        (
            ar_bytes([("debian-binary", b"2.0\n"), _CONTROL, ("data.tar.xz", b"junk")]),
            "data.tar can't be read",
        ),
        (
            ar_bytes(
                [
                    ("debian-binary", b"2.0\n"),
                    _CONTROL,
                    ("data.tar", tar_bytes([("./usr/big", b"x" * 9000)])[:4096]),
                ]
            ),
            "tool 1.0 can't be unpacked",
        ),
    ],
)
def test_an_unsafe_or_damaged_package_is_refused(
    source: DebianSource, tmp_path: Path, data: bytes, reason: str
) -> None:
    made = place(tmp_path, data, make_pin(data))
    source.fetch([made])
    with pytest.raises(BuildError, match=re.escape(reason)) as caught:
        list(source.entries(made))
    assert caught.value.message.startswith("the Debian package tool 1.0 can't be unpacked: ")
    assert not (tmp_path / "etc").exists()


def test_scratch_goes_with_the_source(tmp_path: Path) -> None:
    with make_source(tmp_path) as source:
        found = unpack(source, tmp_path, deb_bytes("tool", files=[("./usr/big", b"x" * 100_000)]))
        path = found["usr/big"].content
        assert isinstance(path, Path)
        assert path.is_file()
    assert not path.exists()
    assert list((tmp_path / "store/scratch").iterdir()) == []


def test_a_pin_that_left_the_mirror_names_the_way_out(source: DebianSource, tmp_path: Path) -> None:
    pin = make_pin(_GOOD)
    with pytest.raises(BuildError) as caught:
        source.fetch([Artifact.of(pin)])
    assert "can't get tool 1.0 from file:///" in caught.value.message
    assert caught.value.hint == (
        "pin what the mirror has now: envbuild lock --upgrade-package tool; "
        "or set ENVBUILD_DEBIAN_SNAPSHOT to the root of a snapshot archive"
    )


def test_the_store_answers_for_a_pin_that_left_the_mirror(source: DebianSource, tmp_path: Path) -> None:
    made = place(tmp_path, _GOOD, make_pin(_GOOD))
    source.fetch([made])
    (tmp_path / "debian" / make_pin(_GOOD).file).unlink()
    source.fetch([made])
    assert next(source.entries(made)).path == "usr/bin/tool"


def test_a_snapshot_archive_answers_by_its_interface_or_as_a_plain_tree(tmp_path: Path) -> None:
    pin = make_pin(_GOOD)
    plain = tmp_path / "plain/debian" / pin.file
    plain.parent.mkdir(parents=True)
    plain.write_bytes(_GOOD)
    with make_source(tmp_path / "a", snapshot=(tmp_path / "plain").as_uri()) as source:
        source.fetch([Artifact.of(pin)])
        assert len(list(source.entries(Artifact.of(pin)))) == 3
    with (
        make_source(tmp_path / "b", snapshot=(tmp_path / "nothing").as_uri()) as source,
        pytest.raises(BuildError, match="and the snapshot archive doesn't have it either") as caught,
    ):
        source.fetch([Artifact.of(pin)])
    assert caught.value.hint == "pin what the mirror has now: envbuild lock --upgrade-package tool"


def test_a_package_with_other_bytes_than_pinned_is_refused(source: DebianSource, tmp_path: Path) -> None:
    pin = make_pin(_GOOD)
    made = place(tmp_path, _GOOD[:-1] + b"!", pin)
    with pytest.raises(BuildError, match=f"but {pin.sha256} is pinned"):
        source.fetch([made])
    place(tmp_path, _GOOD[:-1], pin)
    with pytest.raises(BuildError, match=f"only {len(_GOOD) - 1} of {len(_GOOD)} bytes"):
        source.fetch([made])
    assert not (tmp_path / "store/artifacts").exists()


def base_of(*names: str, architecture: str = "amd64") -> DebianBase:
    pins = tuple(make_pin(name.encode(), name, architecture=architecture) for name in sorted(names))
    return DebianBase(suite="trixie", packages=pins, glibc="2.41")


def test_system_files_have_the_user_the_links_and_the_alternatives() -> None:
    files = {
        file.path: file
        for file in system_files(base_of("mawk", "libopenblas0-pthread", "libblas3"), "1000:1000")
    }
    assert list(files) == sorted(files)
    assert {
        path: files[path].target for path in ("bin", "lib", "lib64", "sbin", "var/run", "usr/bin/awk")
    } == {
        "bin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "sbin": "usr/sbin",
        "var/run": "/run",
        "usr/bin/awk": "mawk",
    }
    assert files["usr/lib/x86_64-linux-gnu/libblas.so.3"].target == "openblas-pthread/libblas.so.3"
    assert files["etc/passwd"].content.splitlines()[-1] == b"env:*:1000:1000:env:/home/env:/bin/bash"
    assert files["etc/group"].content.splitlines()[-1] == b"env:*:1000:"
    home = files["home/env"]
    assert (home.directory, home.uid, home.gid, home.mode) == (True, 1000, 0, 0o775)
    assert files["run/lock"].mode == 0o1777


def test_arm64_has_no_lib64_and_a_known_user_no_new_home() -> None:
    files = {file.path: file for file in system_files(base_of("bash", architecture="arm64"), "0:0")}
    assert "lib64" not in files
    assert "home/env" not in files
    assert b"\nenv:" not in files["etc/passwd"].content
    assert (home_directory("0:0"), home_directory("33:33"), home_directory("5:5000")) == (
        "/root",
        "/var/www",
        "/usr/games",
    )
    with pytest.raises(BuildError, match="the user 'me' is not uid:gid"):
        system_files(base_of("bash"), "me")


def test_a_whole_archive_goes_through(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    archive.add(Deb(name="one", version="1:2.0~rc1+x-1", files=[("./usr/one", b"1")]))
    archive.add(Deb(name="two", files=[("./usr/two", b"2")]), suffix="-security")
    archive.write()
    pins = [archive.pin("one"), archive.pin("two", suffix="-security")]
    with make_source(tmp_path, mirrors=archive.mirrors) as source:
        source.fetch([Artifact.of(pin) for pin in pins])
        assert [next(source.entries(Artifact.of(pin))).path for pin in pins] == ["usr/one", "usr/two"]


PEM = b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
AUTHORITIES = (
    ("./usr/share/ca-certificates/mozilla/Root_One.crt", PEM % b"b25l"),
    ("./usr/share/ca-certificates/mozilla/Another,(Root).crt", PEM % b"dHdv" + PEM % b"dHJvaXM="),
)


def java_store(root: Path, *authorities: tuple[str, bytes]) -> dict[str, Entry]:
    """The entries of ca-certificates-java beside a ca-certificates that nobody fetched."""
    data = deb_bytes("ca-certificates", files=authorities)
    other = make_pin(data, "ca-certificates", architecture="all")
    place(root, data, other)
    java = deb_bytes("ca-certificates-java", files=[directory("./etc/ssl/certs/java")])
    pin = make_pin(java, "ca-certificates-java", architecture="all")
    base = DebianBase(suite="trixie", packages=(other, pin), glibc="2.41")
    with make_source(root, base=base) as source:
        wanted = place(root, java, pin)
        source.fetch([wanted])
        return {entry.path: entry for entry in source.entries(wanted)}


def test_javas_truststore_is_made_of_the_certificates_of_another_package(tmp_path: Path) -> None:
    store = java_store(tmp_path, *AUTHORITIES)["etc/ssl/certs/java/cacerts"]
    assert store.mode == 0o644
    assert store.content == keystore(
        {
            "debian:another_=root=.pem": b"two",
            "debian:another_=root=.pem.1": b"trois",
            "debian:root_one.pem": b"one",
        }
    )


@pytest.mark.parametrize("damage", [b"nothing at all", PEM % b"b2%5l", PEM % b"b"])
def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(BuildError, match=r"'.*Root_One\.crt' holds no certificate"):
        java_store(tmp_path, (AUTHORITIES[0][0], damage))


def test_a_base_without_certificates_has_no_truststore(source: DebianSource, tmp_path: Path) -> None:
    data = deb_bytes("ca-certificates-java")
    wanted = place(tmp_path, data, make_pin(data, "ca-certificates-java"))
    source.fetch([wanted])
    assert "etc/ssl/certs/java/cacerts" not in {entry.path for entry in source.entries(wanted)}
