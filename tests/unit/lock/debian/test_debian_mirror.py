"""Which archives a machine's configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.debian.mirror import Mirrors, known_mirror, mirror
from envbuild.settings import Settings

DEB822 = """\
Types: deb
# a comment between fields
URIs: http://mirror.example.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example.org/debian-security/
Suites: trixie-security
Components: main
"""


def apt_with(tmp_path: Path, **files: str) -> Path:
    apt = tmp_path / "apt"
    (apt / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        file = name.replace("__", ".")
        place = apt / file if file == "sources.list" else apt / "sources.list.d" / file
        place.write_text(text)
    return apt


def found(apt: Path, **settings: str) -> tuple[str, str] | None:
    mirrors = known_mirror(Settings(cache_dir=apt / "cache", **settings), apt=apt)  # type: ignore[arg-type]
    return None if mirrors is None else (mirrors.main, mirrors.security)


def test_deb822_sources_name_both_archives(tmp_path: Path) -> None:
    assert found(apt_with(tmp_path, debian__sources=DEB822)) == (
        "http://mirror.example.org/debian",
        "http://mirror.example.org/debian-security",
    )


def test_one_line_sources_name_both_archives(tmp_path: Path) -> None:
    text = (
        "# deb http://old.example.org/debian trixie main\n"
        "deb-src http://src.example.org/debian trixie main\n"
        "deb [arch=amd64 signed-by=/k.gpg] https://packages.example.org/linux/debian trixie main\n"
        "deb [ arch=amd64 ] https://a.example.org/debian/ trixie main contrib # here\n"
        "deb http://security.example.org/debian-security trixie-security main\n"
    )
    assert found(apt_with(tmp_path, sources__list=text)) == (
        "https://a.example.org/debian",
        "http://security.example.org/debian-security",
    )


@pytest.mark.parametrize(
    "text",
    [
        "Types: deb\nEnabled: no\nURIs: http://m.example.org/debian\nSuites: trixie\nComponents: main\n",
        "Types: deb-src\nURIs: http://m.example.org/debian\nSuites: trixie\nComponents: main\n",
        "Types: deb\nURIs: http://m.example.org/debian\nSuites: trixie\nComponents: stable\n",
        "Types: deb\nURIs: cdrom:[x]/debian\nSuites: trixie\nComponents: main\n",
        "Types: deb\nURIs: http://m.example.org/ubuntu\nSuites: noble\nComponents: main\n",
        "this is no configuration\n",
        "",
    ],
)
def test_sources_that_are_off_or_not_debian_count_for_nothing(tmp_path: Path, text: str) -> None:
    apt = apt_with(tmp_path, other__sources=text)
    assert found(apt) is None
    with pytest.raises(ResolveError, match="no Debian archive is known on this machine") as caught:
        mirror(Settings(cache_dir=tmp_path), apt=apt)
    assert "ENVBUILD_DEBIAN_MIRROR" in str(caught.value.hint)


def test_a_machine_without_apt_has_none(tmp_path: Path) -> None:
    assert found(tmp_path / "none") is None


def test_the_lists_of_cloud_images_are_followed(tmp_path: Path) -> None:
    for name in ("debian", "debian-security"):
        (tmp_path / name).write_text(f"# mirrors\nhttps://cloud.example.org/{name}\tpriority:1\n")
    text = DEB822.replace("http://mirror.example.org", f"mirror+file://{tmp_path}")
    assert found(apt_with(tmp_path, debian__sources=text)) == (
        "https://cloud.example.org/debian",
        "https://cloud.example.org/debian-security",
    )


def test_settings_go_before_apt_and_the_security_archive_is_looked_for_beside(tmp_path: Path) -> None:
    apt = apt_with(tmp_path, debian__sources=DEB822)
    assert found(apt, debian_mirror="https://s.example.org/pub/debian/") == (
        "https://s.example.org/pub/debian",
        "https://s.example.org/pub/debian-security",
    )
    assert found(apt, debian_security_mirror="https://s.example.org/sec") == (
        "http://mirror.example.org/debian",
        "https://s.example.org/sec",
    )


def test_credentials_of_a_mirror_are_not_shown() -> None:
    mirrors = Mirrors(main="https://u:secret@m/debian", security="https://u:secret@m/debian-security")
    assert "secret" not in repr(mirrors)
