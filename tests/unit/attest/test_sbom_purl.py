"""Package URLs, read back by the reference implementation."""

from __future__ import annotations

import pytest
from packageurl import PackageURL

from envbuild.attest import purl


def test_every_kind_is_read_back_as_it_was_meant() -> None:
    release = {"ID": "debian", "VERSION_ID": "13"}
    made = [
        purl.pypi("ruamel-yaml", "1!0.18+local.1"),
        purl.debian("libstdc++6", "1:14.2.0-19~bpo1+b1", architecture="amd64", release=release),
        purl.conda("_x", "1", build="h1_0", channel="a/label/b", subdir="noarch", file="_x-1-h1_0.conda"),
        purl.maven("org.apache.spark", "spark-avro_2.13", "3.5.0"),
    ]
    assert made == [
        "pkg:pypi/ruamel-yaml@1%210.18%2Blocal.1",
        "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19~bpo1%2Bb1?arch=amd64&distro=debian-13",
        "pkg:conda/_x@1?build=h1_0&channel=a%2Flabel%2Fb&subdir=noarch&type=conda",
        "pkg:maven/org.apache.spark/spark-avro_2.13@3.5.0",
    ]
    read = [PackageURL.from_string(each) for each in made]
    assert [(each.name, each.version) for each in read] == [
        ("ruamel-yaml", "1!0.18+local.1"),
        ("libstdc++6", "1:14.2.0-19~bpo1+b1"),
        ("_x", "1"),
        ("spark-avro_2.13", "3.5.0"),
    ]
    assert read[2].qualifiers["channel"] == "a/label/b"


def test_what_is_not_known_is_left_out() -> None:
    assert purl.debian("a", "1", architecture="", release={}) == "pkg:deb/debian/a@1"
    assert purl.conda("a", "1", build="", channel="", subdir="", file="") == "pkg:conda/a@1"
    assert purl.debian("a", "1", architecture="", release={"ID": "ubuntu"}) == "pkg:deb/ubuntu/a@1"


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        ("https://conda.example.org/conda-forge/linux-64/x-1-0.conda", "conda-forge"),
        ("https://conda.example.org/t/to-ken-12/team/noarch/x-1-0.conda", "team"),
        ("https://conda.example.org/t/to-ken-12/linux-64/x-1-0.conda", ""),
        ("https://robot:secret@conda.example.org/a/label/dev/noarch/x-1-0.conda", "a/label/dev"),
        ("file:///home/me/channel/linux-64/x-1-0.tar.bz2", "channel"),
        ("https://conda.example.org/x-1-0.conda", ""),
        ("https://[", ""),
        ("", ""),
    ],
)
def test_a_channel_is_a_name_without_host_and_token(url: str, channel: str) -> None:
    assert purl.channel_of(url) == channel
