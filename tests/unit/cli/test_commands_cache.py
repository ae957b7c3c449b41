"""``envbuild cache`` over a real store."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from envbuild.cli.commands.cache import _age, _bytes
from envbuild.errors import UsageError
from envbuild.store.content import Store
from tests.unit.cli.conftest import CommandLine


def test_info_tells_each_area_and_the_total(envbuild: CommandLine) -> None:
    Store(envbuild.directory / "store").add_blob(b"x" * 10_000)
    value = json.loads(envbuild("cache", "info", "--cache-dir", "store", "--json").out)
    blobs = next(area for area in value["areas"] if area["area"] == "blobs")
    assert blobs["files"] == 1
    assert value["directory"] == str(envbuild.directory / "store")
    assert value["bytes"] == sum(area["bytes"] for area in value["areas"]) >= 10_000


def test_info_of_an_absent_store_makes_none(envbuild: CommandLine) -> None:
    shown = envbuild("cache", "info", "--cache-dir", "absent")
    assert (shown.status, shown.out.splitlines()[0]) == (0, str(envbuild.directory / "absent"))
    assert not (envbuild.directory / "absent").exists()


def test_prune_dry_run_removes_nothing_and_prune_what_no_image_needs(envbuild: CommandLine) -> None:
    store = Store(envbuild.directory / "store")
    digest = store.add_blob(b"x" * 10_000)
    dry = envbuild("cache", "prune", "--cache-dir", "store", "--dry-run")
    assert dry.out.startswith("would remove 0 images, 1 file, ")
    assert store.has_blob(digest)
    real = envbuild("cache", "prune", "--cache-dir", "store")
    assert real.out.startswith("removed 0 images, 1 file, ")
    assert not store.has_blob(digest)


def test_prune_tells_of_unpacked_trees(envbuild: CommandLine) -> None:
    store = Store(envbuild.directory / "store")
    for name in ("a", "b"):
        (store.directory(f"rootfs/{name}") / "file").write_bytes(b"x" * 10)
    dry = json.loads(envbuild("cache", "prune", "--cache-dir", "store", "--dry-run", "--json").out)
    assert dry == {
        "dry_run": True,
        "files": 2,
        "bytes": 20,
        "left": 0,
        "images": [],
        "removed": ["rootfs/a", "rootfs/b"],
    }
    said = "0 images, 2 unpacked root file systems, 2 files, 20 B; 0 B left\n"
    assert envbuild("cache", "prune", "--cache-dir", "store", "--dry-run").out == f"would remove {said}"
    assert envbuild("cache", "prune", "--cache-dir", "store").out == f"removed {said}"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20 * 10**9),
        ("20g", 20 * 10**9),
        ("1.5 MiB", 1_572_864),
        ("2KiB", 2048),
        ("700", 700),
        ("0", 0),
    ],
)
def test_sizes_are_read_in_every_spelling(text: str, size: int) -> None:
    assert _bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "1 ZB", "1iB", "٣GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-size must be a size"):
        _bytes(text)


def test_ages_have_a_unit() -> None:
    assert _age("30d") == timedelta(days=30)
    assert _age("2 W") == timedelta(weeks=2)
    with pytest.raises(UsageError, match="not '30'"):
        _age("30")
