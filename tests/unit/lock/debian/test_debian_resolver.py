"""A base resolved from a signed archive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import BaseRequest, Upgrade
from envbuild.lock.debian.resolver import DebianResolver
from envbuild.lock.debian.selection import BASE, python_closure
from envbuild.lock.model import DebianBase
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import DebianBaseSpec, ImageBaseSpec
from envbuild.store.content import Store
from tests.fakes.archive import NOW, Archive, Deb, signing_key

TRIXIE = DebianBaseSpec(suite="trixie")


def asking(*packages: str) -> DebianBaseSpec:
    return DebianBaseSpec(suite="trixie", packages=packages)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / "archive", architectures=("amd64", "arm64"))
    made.add_base()
    return made


class Make:
    """Makes resolvers over one store."""

    def __init__(self, archive: Archive, root: Path) -> None:
        self.archive = archive
        self.store = Store(root / "store")
        self.waits: list[float] = []

    def __call__(
        self, *, offline: bool = False, snapshot: str | None = None, main: str | None = None
    ) -> DebianResolver:
        settings = Settings(
            cache_dir=self.store.root,
            debian_mirror=main or self.archive.mirrors.main,
            debian_security_mirror=self.archive.mirrors.security,
            debian_snapshot=snapshot,
        )
        fetcher = HttpFetcher(
            self.store,
            offline=offline,
            settings=settings,
            progress=Silent(),
            sleep=self.waits.append,
            environ={},
        )
        return DebianResolver(
            fetcher, self.store, settings, clock=lambda: NOW, keyrings=(self.archive.keyring,)
        )


@pytest.fixture
def make(archive: Archive, tmp_path: Path) -> Make:
    return Make(archive, tmp_path)


def names(base: object) -> list[str]:
    assert isinstance(base, DebianBase)
    return [pin.name for pin in base.packages]


def versions(base: object) -> dict[str, str]:
    assert isinstance(base, DebianBase)
    return {pin.name: pin.version for pin in base.packages}


def test_a_base_is_the_default_packages_and_what_they_need(archive: Archive, make: Make) -> None:
    archive.write()
    resolved = make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=False))
    base = resolved.base
    assert isinstance(base, DebianBase)
    assert names(base) == sorted([*BASE, "libc6"])
    assert base.suite == "trixie"
    assert resolved.python is None


def test_python_comes_with_its_closure_and_full_version(archive: Archive, make: Make) -> None:
    archive.write()
    resolved = make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_ARM64, with_python=True))
    base, python = resolved.base, resolved.python
    assert isinstance(base, DebianBase)
    assert python is not None
    assert names(base) == sorted([*BASE, "libc6", "python3", "python3.13", "python3.13-minimal"])
    assert (python.version, python.provider, python.executable) == ("3.13.5", "debian", "/usr/bin/python3.13")
    assert base.glibc == "2.41"
    assert {pin.architecture for pin in base.packages} == {"arm64"}
    assert [pin.name for pin in python_closure(base, python)] == [
        "base-files",
        "libc6",
        "libgcc-s1",
        "python3.13",
        "python3.13-minimal",
    ]


def test_packages_of_maintainer_scripts_stay_out_unless_asked_for(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="debconf", architecture="all"), Deb(name="dpkg"))
    archive.add(Deb(name="tool", fields={"Depends": "debconf (>= 0.5) | debconf-2.0, dpkg"}))
    archive.write()
    found = names(
        make().resolve(BaseRequest(spec=asking("tool"), platform=LINUX_AMD64, with_python=True)).base
    )
    assert "tool" in found
    assert not {"debconf", "dpkg"} & set(found)
    assert "debconf" in names(
        make()
        .resolve(BaseRequest(spec=asking("tool", "debconf"), platform=LINUX_AMD64, with_python=True))
        .base
    )


def test_the_newest_of_suite_updates_and_security_wins(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="tool", version="1.9-1"))
    archive.add(Deb(name="tool", version="1.10-1"), suffix="-security")
    archive.add(Deb(name="tool", version="1.10~rc1-1"), suffix="-updates")
    archive.write()
    base = make().resolve(BaseRequest(spec=asking("tool"), platform=LINUX_AMD64, with_python=True)).base
    assert isinstance(base, DebianBase)
    (pin,) = [pin for pin in base.packages if pin.name == "tool"]
    assert pin == archive.pin("tool", suffix="-security")
    assert (pin.archive, pin.version) == ("debian-security", "1.10-1")


def test_alternatives_go_to_what_is_there_then_to_the_first(archive: Archive, make: Make) -> None:
    archive.add(
        Deb(name="one", fields={"Depends": "missing | first | second"}),
        Deb(name="two", fields={"Depends": "gawk | awk"}),
        Deb(name="first"),
        Deb(name="second"),
        Deb(name="gawk", fields={"Provides": "awk"}),
    )
    archive.write()
    found = names(
        make().resolve(BaseRequest(spec=asking("one", "two"), platform=LINUX_AMD64, with_python=True)).base
    )
    assert "first" in found
    assert "second" not in found
    assert "gawk" not in found


def test_a_virtual_package_goes_to_the_provider_of_highest_priority(archive: Archive, make: Make) -> None:
    archive.add(
        Deb(name="aaa", fields={"Provides": "mta (= 2.0)"}),
        Deb(name="bbb", fields={"Provides": "mta (= 1.0)", "Priority": "important"}),
        Deb(name="plain", fields={"Depends": "mta"}),
        Deb(name="strict", fields={"Depends": "mta (>= 2.0)"}),
    )
    archive.write()
    assert "bbb" in names(
        make().resolve(BaseRequest(spec=asking("plain"), platform=LINUX_AMD64, with_python=True)).base
    )
    assert "aaa" in names(
        make().resolve(BaseRequest(spec=asking("strict"), platform=LINUX_AMD64, with_python=True)).base
    )


def test_the_order_of_packages_and_of_the_index_does_not_matter(archive: Archive, make: Make) -> None:
    debs = [Deb(name=f"p{n}", fields={"Depends": f"p{n + 1} | p{n + 2}"}) for n in range(6)]
    debs += [Deb(name="p6"), Deb(name="p7")]
    archive.add(*debs)
    archive.write()
    one = make().resolve(BaseRequest(spec=asking("p3", "p0"), platform=LINUX_AMD64, with_python=True))
    archive.clear()
    archive.add(*reversed(debs))
    archive.add_base()
    archive.write()
    assert make().resolve(BaseRequest(spec=asking("p0", "p3"), platform=LINUX_AMD64, with_python=True)) == one


def test_an_unknown_package_names_a_near_one(archive: Archive, make: Make) -> None:
    archive.write()
    with pytest.raises(ResolveError) as caught:
        make().resolve(
            BaseRequest(spec=asking("libgomp", "nothing-like-it"), platform=LINUX_AMD64, with_python=True)
        )
    assert caught.value.message == (
        "Debian trixie has no package libgomp; did you mean libgomp1?\n"
        "Debian trixie has no package nothing-like-it"
    )


def test_a_dependency_nothing_satisfies_names_the_chain(archive: Archive, make: Make) -> None:
    archive.add(
        Deb(name="app", fields={"Depends": "middle"}),
        Deb(name="middle", fields={"Depends": "low (>= 2), other"}),
        Deb(name="low", version="1.5"),
    )
    archive.write()
    with pytest.raises(ResolveError) as caught:
        make().resolve(BaseRequest(spec=asking("app"), platform=LINUX_AMD64, with_python=True))
    assert caught.value.message == (
        "app (asked for) → middle needs low (>= 2), but there is low 1.5\n"
        "app (asked for) → middle needs other, but nothing provides it"
    )


def test_packages_that_conflict_are_refused(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="one", fields={"Breaks": "two (<< 3)"}), Deb(name="two", version="2"))
    archive.write()
    with pytest.raises(
        ResolveError, match=re.escape("one (asked for) can't be installed beside two (asked for)")
    ):
        make().resolve(BaseRequest(spec=asking("one", "two"), platform=LINUX_AMD64, with_python=True))


def test_a_version_in_the_spec_is_exact(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="tool", version="1.0-1"))
    archive.add(Deb(name="tool", version="1.1-1"), suffix="-updates")
    archive.write()
    base = make().resolve(BaseRequest(spec=asking("tool=1.0-1"), platform=LINUX_AMD64, with_python=True)).base
    assert versions(base)["tool"] == "1.0-1"
    with pytest.raises(
        ResolveError, match=re.escape("tool=9 is not in Debian trixie, which has 1.0-1, 1.1-1")
    ):
        make().resolve(BaseRequest(spec=asking("tool=9"), platform=LINUX_AMD64, with_python=True))
    with pytest.raises(ResolveError, match="neither a Debian package's name nor name=version"):
        make().resolve(BaseRequest(spec=asking("Tool (>= 1)"), platform=LINUX_AMD64, with_python=True))


def test_pins_stay_though_the_index_moved_on(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="tool", version="1", fields={"Depends": "lib (= 1)", "Source": "s"}))
    archive.add(Deb(name="lib", version="1", fields={"Source": "s"}))
    archive.write()
    before = make().resolve(BaseRequest(spec=asking("tool"), platform=LINUX_AMD64, with_python=True)).base
    archive.clear()
    archive.add_base()
    archive.add(Deb(name="tool", version="2", fields={"Depends": "lib (= 2), new", "Source": "s"}))
    archive.add(Deb(name="lib", version="2", fields={"Source": "s"}), Deb(name="new"), Deb(name="extra"))
    archive.write()
    same = make().resolve(
        BaseRequest(spec=asking("tool"), platform=LINUX_AMD64, with_python=True, preferred=before)
    )
    assert same.base == before
    added = (
        make()
        .resolve(
            BaseRequest(
                spec=asking("tool", "extra"), platform=LINUX_AMD64, with_python=True, preferred=before
            )
        )
        .base
    )
    assert versions(added) == {**versions(before), "extra": "1.0"}
    assert versions(
        make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True, preferred=added)).base
    ) == {name: version for name, version in versions(before).items() if name not in ("tool", "lib")}


def test_an_upgrade_takes_the_packages_of_the_same_source_along(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="tool", version="1", fields={"Depends": "lib (= 1)", "Source": "s"}))
    archive.add(Deb(name="lib", version="1", fields={"Source": "s"}), Deb(name="other", version="1"))
    archive.write()
    before = (
        make().resolve(BaseRequest(spec=asking("tool", "other"), platform=LINUX_AMD64, with_python=True)).base
    )
    archive.clear()
    archive.add_base()
    archive.add(Deb(name="tool", version="2", fields={"Depends": "lib (= 2)", "Source": "s"}))
    archive.add(Deb(name="lib", version="2", fields={"Source": "s"}), Deb(name="other", version="2"))
    archive.write()

    def upgraded(upgrade: Upgrade) -> dict[str, str]:
        base = (
            make()
            .resolve(
                BaseRequest(
                    spec=asking("tool", "other"),
                    platform=LINUX_AMD64,
                    with_python=True,
                    preferred=before,
                    upgrade=upgrade,
                )
            )
            .base
        )
        return {name: versions(base)[name] for name in ("lib", "other", "tool")}

    assert upgraded(Upgrade(packages=frozenset({"lib"}))) == {"lib": "2", "other": "1", "tool": "2"}
    assert upgraded(Upgrade(everything=True)) == {"lib": "2", "other": "2", "tool": "2"}


def test_a_new_package_moves_only_the_pins_it_must(archive: Archive, make: Make) -> None:
    archive.add(Deb(name="lib", version="1"), Deb(name="other", version="1"))
    archive.write()
    before = (
        make().resolve(BaseRequest(spec=asking("lib", "other"), platform=LINUX_AMD64, with_python=True)).base
    )
    archive.add(Deb(name="lib", version="2"), Deb(name="other", version="2"), suffix="-updates")
    archive.add(Deb(name="new", fields={"Depends": "lib (>= 2)"}))
    archive.write()
    after = (
        make()
        .resolve(
            BaseRequest(
                spec=asking("lib", "other", "new"), platform=LINUX_AMD64, with_python=True, preferred=before
            )
        )
        .base
    )
    assert versions(after) == {**versions(before), "lib": "2", "new": "1.0"}


def _tamper(archive: Archive) -> None:
    path = archive.root / "debian/dists/trixie/InRelease"
    path.write_bytes(path.read_bytes().replace(b"Suite: stable", b"Suite: unstable"))


def _other_key(archive: Archive) -> None:
    signing_key("stranger")
    archive.key = "stranger"
    archive.write()


def _field(name: str, value: str) -> Callable[[Archive], None]:
    def change(archive: Archive) -> None:
        archive.release[name] = value
        archive.write()

    return change


def _index(archive: Archive) -> None:
    for path in (archive.root / "debian/dists/trixie/main/binary-amd64").rglob("*"):
        if path.is_file():
            path.write_bytes(b"x" * path.stat().st_size)


def _prefix(archive: Archive) -> None:
    path = archive.root / "debian/dists/trixie/InRelease"
    path.write_bytes(b"Suite: evil\n\n" + path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_tamper, "dists/trixie/InRelease is not validly signed by the archive key"),
        (_other_key, "InRelease is not validly signed by the archive key"),
        (_prefix, "dists/trixie/InRelease is not a signed document"),
        (_field("Valid-Until", "Fri, 20 Nov 2026 11:00:00 UTC"), "was valid until 2026-11-20 11:00 UTC only"),
        (
            _field("Date", "Fri, 27 Nov 2026 11:00:00 UTC"),
            "is dated 2026-11-27 11:00, which is in the future",
        ),
        (_field("Codename", "sid"), "is the release of sid, not of trixie"),
        (_field("Date", ""), "has no field Date"),
        (_field("Date", "yesterday"), "can't be understood"),
        (_index, "package index of trixie from any of:"),
    ],
)
def test_an_archive_that_is_not_what_it_should_be_is_refused(
    archive: Archive, make: Make, damage: Callable[[Archive], None], message: str
) -> None:
    archive.write()
    damage(archive)
    with pytest.raises(ResolveError, match=re.escape(message)) as caught:
        make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True))
    assert "Stack backtrace" not in caught.value.message


def test_an_unreachable_mirror_is_named_after_its_tries(archive: Archive, make: Make) -> None:
    archive.write()
    # Port 9 of this machine: nothing listens there.
    with pytest.raises(ResolveError) as caught:
        make(main="http://user:secret@127.0.0.1:9/debian").resolve(
            BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True)
        )
    assert "from http://127.0.0.1:9/debian/dists/trixie" in caught.value.message
    assert "(3 tries)" in caught.value.message
    assert "secret" not in str(caught.value)
    assert sorted(set(make.waits)) == [0.5, 1.0]


def test_offline_answers_from_what_was_read_before(archive: Archive, make: Make) -> None:
    archive.release["Valid-Until"] = "Fri, 20 Nov 2026 13:00:00 UTC"
    archive.write()
    with pytest.raises(ResolveError, match=re.escape("offline, and ")):
        make(offline=True).resolve(
            BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True, offline=True)
        )
    online = make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True))
    for path in archive.root.rglob("*"):
        if path.is_file():
            path.unlink()
    assert (
        make(offline=True).resolve(
            BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True, offline=True)
        )
        == online
    )


def test_a_damaged_kept_index_is_made_again(archive: Archive, make: Make) -> None:
    archive.write()
    first = make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True))
    for path in (make.store.root / "metadata/debian").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True)) == first


def test_as_of_needs_a_snapshot_archive_unless_the_lock_answers(
    archive: Archive, make: Make, tmp_path: Path
) -> None:
    archive.write()
    day = date(2026, 11, 1)
    with pytest.raises(
        ResolveError, match=re.escape("as_of 2026-11-01 can't be kept for the Debian base")
    ) as caught:
        make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True, as_of=day))
    assert "ENVBUILD_DEBIAN_SNAPSHOT" in str(caught.value.hint)
    kept = make().resolve(BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True))
    again = make().resolve(
        BaseRequest(spec=TRIXIE, platform=LINUX_AMD64, with_python=True, preferred=kept.base, as_of=day)
    )
    assert again == kept
    old = Archive(tmp_path / "old")
    old.release["Date"] = "Sat, 31 Oct 2026 08:00:00 UTC"
    old.release["Valid-Until"] = "Sun, 01 Nov 2026 08:00:00 UTC"
    old.add_base()
    old.add(Deb(name="tool", version="0.9"))
    old.write()
    for name in ("debian", "debian-security"):
        place = tmp_path / "snapshot/archive" / name
        place.mkdir(parents=True)
        (old.root / name).rename(place / "20261101T235959Z")
    resolver = make(snapshot=(tmp_path / "snapshot").as_uri())
    base = resolver.resolve(
        BaseRequest(spec=asking("tool"), platform=LINUX_AMD64, with_python=True, as_of=day)
    ).base
    assert versions(base)["tool"] == "0.9"


def test_only_debian_bases_of_known_suites_are_accepted(archive: Archive, make: Make) -> None:
    assert make().accepts(TRIXIE)
    assert not make().accepts(ImageBaseSpec(reference="docker.io/library/debian:trixie"))
    with pytest.raises(ResolveError, match="Debian 'sarge' is not known") as caught:
        make().resolve(
            BaseRequest(spec=replace(TRIXIE, suite="sarge"), platform=LINUX_AMD64, with_python=True)
        )
    assert caught.value.hint == "known suites: bookworm, trixie"
