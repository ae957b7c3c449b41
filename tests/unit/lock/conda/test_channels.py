"""Channels as written and the addresses they stand for."""

from __future__ import annotations

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.conda.channels import ChannelNames, hide_credentials, without_credentials
from envbuild.specs.model import CondaSpec

NAMES = ChannelNames(alias="https://c.example/", defaults=("https://d.example/main", "https://d.example/r"))


def test_channels_become_addresses_in_order_once() -> None:
    spec = CondaSpec(
        channels=("forge", "defaults", "file:/srv/chan/", "https://x.example/y/", "nodefaults"),
        dependencies=("forge::a", "extra::b >=1", "c"),
    )
    assert NAMES.of(spec) == (
        "https://c.example/forge",
        "https://d.example/main",
        "https://d.example/r",
        "file:///srv/chan",
        "https://x.example/y",
        "https://c.example/extra",
    )
    assert NAMES.dependencies(spec) == ("https://c.example/forge::a", "https://c.example/extra::b >=1", "c")


def test_no_channel_means_defaults_unless_forbidden() -> None:
    empty = CondaSpec(channels=(), dependencies=("a",))
    assert NAMES.of(empty) == ("https://d.example/main", "https://d.example/r")
    with pytest.raises(ResolveError, match="no channel is left"):
        NAMES.of(CondaSpec(channels=("nodefaults",), dependencies=("a",)))


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ResolveError, match=r"channel '\./c' is a relative path"):
        NAMES.addresses("./c")


def test_credentials_are_cut_out() -> None:
    assert without_credentials("https://u:p@h.example:8080/t/tok/c?x=1") == "https://h.example:8080/c"
    assert hide_credentials("at https://u:p@h.example/t/tok/c: no") == "at https://h.example/c: no"
