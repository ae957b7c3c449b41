"""What may go from the store, and what never does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from envbuild.oci.image import Image
from envbuild.store.content import Store, blob_name
from envbuild.store.images import ImageIndex
from envbuild.store.layers import LayerCache, LayerFile
from envbuild.store.leases import Lease
from envbuild.store.prune import AreaUsage, prune, usage
from tests.unit.store.test_images import an_image

DAY = 86400.0
NOW = 100 * DAY


def put(store: Store, name: str, age: float) -> Image:
    """An image that was used ``age`` days ago, with a segment and an artifact of 1000 bytes each."""
    image = an_image(store, name)
    when = NOW - age * DAY
    for area, files in (("segments", (f"{name}.tar", f"{name}.json")), ("artifacts", (name,))):
        for file in files:
            path = store.directory(area) / file
            path.write_bytes(bytes(1000 if not file.endswith("json") else 10))
            os.utime(path, (when, when))
    ImageIndex(store, lambda: when).put(name, image, (f"segments/{name}", f"artifacts/{name}"))
    for digest in (image.digest, image.config_digest, image.layers[0].digest):
        os.utime(store.blob(digest), (when, when))
    return image


def images(store: Store) -> list[str]:
    return [stored.key for stored in ImageIndex(store, lambda: NOW).entries()]


def clock() -> float:
    return NOW


def test_usage_counts_files_and_bytes_by_area(store: Store) -> None:
    put(store, "one", 1)
    areas = {each.area: each for each in usage(store)}
    assert areas["segments"] == AreaUsage(area="segments", files=2, bytes=1010)
    assert areas["artifacts"] == AreaUsage(area="artifacts", files=1, bytes=1000)
    assert areas["blobs"].files == 3
    assert areas["rootfs"] == AreaUsage(area="rootfs", files=0, bytes=0)


def test_keep_last_keeps_the_images_used_last_with_all_they_need(store: Store) -> None:
    kept = put(store, "new", 1)
    gone = put(store, "old", 5)
    report = prune(store, clock=clock, keep_last=1)
    assert images(store) == ["new"]
    assert report.images == (gone.digest,)
    assert store.has_blob(kept.layers[0].digest)
    assert not store.has_blob(gone.layers[0].digest)
    assert sorted(path.name for path in (store.root / "segments").iterdir()) == ["new.json", "new.tar"]
    assert [path.name for path in (store.root / "artifacts").iterdir()] == ["new"]
    assert report.files == 1 + 3 + 2 + 1
    assert ImageIndex(store, clock).get("new") == kept


def test_max_age_lets_go_what_was_not_used_for_longer(store: Store) -> None:
    for name, age in (("a", 1), ("b", 29), ("c", 31)):
        put(store, name, age)
    prune(store, clock=clock, max_age=timedelta(days=30))
    assert images(store) == ["a", "b"]
    assert not (store.root / "artifacts" / "c").exists()
    assert (store.root / "artifacts" / "b").exists()


def test_max_bytes_lets_caches_go_before_images_and_the_oldest_first(store: Store) -> None:
    for name, age in (("a", 1), ("b", 2)):
        put(store, name, age)
    total = sum(each.bytes for each in usage(store) if each.area in ("blobs", "segments", "artifacts"))
    report = prune(store, clock=clock, max_bytes=total - 1)
    assert report.removed == ("artifacts/b",)
    assert report.left == total - 1000
    assert images(store) == ["a", "b"]
    prune(store, clock=clock, max_bytes=40)
    assert images(store) == ["a"]
    assert prune(store, clock=clock, max_bytes=0).left == 0
    assert images(store) == []


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store) -> None:
    put(store, "a", 1)
    put(store, "b", 2)
    before = sorted(str(path) for path in store.root.rglob("*") if "lease" not in path.name)
    planned = prune(store, clock=clock, keep_last=0, dry_run=True)
    assert sorted(str(path) for path in store.root.rglob("*") if "lease" not in path.name) == before
    assert prune(store, clock=clock, keep_last=0) == planned


def test_without_limits_only_blobs_no_image_needs_go(store: Store) -> None:
    kept = put(store, "a", 90)
    orphan = store.add_blob(b"orphan")
    os.utime(store.blob(orphan), (0, 0))
    assert prune(store, clock=clock).removed == (f"blobs/sha256/{orphan.removeprefix('sha256:')}",)
    assert ImageIndex(store, clock).get("a", thorough=True) == kept


def test_layers_shared_with_a_kept_image_stay(store: Store) -> None:
    put(store, "new", 1)
    shared = put(store, "old", 5)
    ImageIndex(store, lambda: NOW).put("third", shared)
    os.utime(ImageIndex(store, clock).path("third"), (NOW, NOW))
    prune(store, clock=clock, keep_last=1)
    assert images(store) == ["third"]
    assert ImageIndex(store, clock).get("third", thorough=True) == shared


def test_what_a_running_build_named_stays(store: Store) -> None:
    image = put(store, "used", 50)
    put(store, "other", 50)
    with Lease(store) as lease:
        lease.use("images/used", "segments/used", "artifacts/other")
        prune(store, clock=clock, keep_last=0)
        assert images(store) == ["used"]
        assert ImageIndex(store, clock).get("used", thorough=True) == image
        assert (store.root / "segments" / "used.tar").exists()
        assert (store.root / "artifacts" / "other").exists()
        assert not (store.root / "segments" / "other.tar").exists()


def test_what_was_written_since_a_running_build_began_stays(store: Store) -> None:
    with Lease(store):
        fresh = store.add_blob(b"just written, not yet named by any image")
        assert prune(store, clock=time.time, keep_last=0).removed == ()
        assert store.has_blob(fresh)
    assert len(prune(store, clock=time.time, keep_last=0).removed) == 1


def test_records_of_layers_that_went_go_too(store: Store) -> None:
    blob = store.add_blob(b"layer")
    cache = LayerCache(store)
    with store.scratch() as scratch:
        cache.put("0" * 64, LayerFile(digest=blob, diff_id=blob, size=5), scratch)
    assert cache.get("0" * 64) == LayerFile(digest=blob, diff_id=blob, size=5)
    prune(store, clock=clock)
    assert list((store.root / "layers").iterdir()) == []


def tree(store: Store, name: str) -> Path:
    """An unpacked tree of two files, 30 bytes."""
    path = store.directory("rootfs") / name
    (path / "usr").mkdir(parents=True)
    (path / "usr" / "one").write_bytes(bytes(10))
    (path / "two").write_bytes(bytes(20))
    return path


_HOLDER = """
import sys
from pathlib import Path
from envbuild.store.content import Store, blob_name
from envbuild.store.leases import Lease
with Lease(Store(Path(sys.argv[1]))) as lease:
    lease.hold(*sys.argv[2:])
    print("holds", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(store: Store, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``names``, as a run or a service does for weeks."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(store.root), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_run_of_weeks_holds_what_it_names_and_nothing_that_came_later(store: Store) -> None:
    running = put(store, "running", 50)
    tree(store, "running")
    names = [blob_name(digest) for digest in (running.digest, running.config_digest)]
    names.append(blob_name(running.layers[0].digest))
    with holder(store, "rootfs/running", *names) as process:
        # All of this is newer than the run.
        later = an_image(store, "later")
        ImageIndex(store, time.time).put("later", later, ("segments/later",))
        (store.root / "segments" / "later.tar").write_bytes(bytes(1000))
        tree(store, "later")
        dry = prune(store, keep_last=0, max_bytes=0, dry_run=True)
        assert prune(store, keep_last=0, max_bytes=0) == dry
        assert dry.trees == ("rootfs/later",)
        assert set(dry.images) == {running.digest, later.digest}
        left = [str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()]
        kept = {
            name for name in left if name.partition("/")[0] in ("blobs", "rootfs", "segments", "artifacts")
        }
        assert kept == {*names, "rootfs/running/usr/one", "rootfs/running/two"}
        assert prune(store, keep_last=0, max_bytes=0).removed == ()
        process.kill()
        process.wait()
        # However it ended: the kernel has let go.
        assert prune(store).removed == tuple(sorted(["rootfs/running", *names]))
    assert list((store.root / "rootfs").iterdir()) == []


def test_unpacked_trees_go_without_a_limit_and_also_while_a_build_works(store: Store) -> None:
    image = put(store, "a", 1)
    kept, gone = tree(store, "kept"), tree(store, "gone")
    with Lease(store) as lease:
        lease.use("rootfs/kept")
        report = prune(store)
        assert (report.removed, report.trees, report.files, report.bytes) == (
            ("rootfs/gone",),
            ("rootfs/gone",),
            2,
            30,
        )
        assert kept.is_dir()
        assert not gone.exists()
    assert prune(store).removed == ("rootfs/kept",)
    assert ImageIndex(store, clock).get("a", thorough=True) == image
    assert list((store.root / "scratch").iterdir()) == []


def test_a_prune_that_is_killed_leaves_no_half_of_a_tree(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(store, "big")

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("envbuild.store.prune.sweep", die)
        with pytest.raises(KeyboardInterrupt):
            prune(store)
    assert list((store.root / "rootfs").iterdir()) == []
    (left,) = (store.root / "scratch").iterdir()
    assert (left / "usr" / "one").is_file()
    # What is left is told like everything else, and goes with the next one.
    dry = prune(store, dry_run=True)
    assert (dry.removed, dry.files, dry.bytes) == ((f"scratch/{left.name}",), 2, 30)
    assert left.is_dir()
    assert prune(store) == dry
    assert list((store.root / "scratch").iterdir()) == []


def test_a_blob_that_a_build_found_stays_while_it_works(store: Store) -> None:
    old = store.add_blob(b"left by a killed build")
    os.utime(store.blob(old), (0, 0))
    with Lease(store):
        assert store.add_blob(b"left by a killed build") == old
        assert prune(store, keep_last=0).removed == ()
    os.utime(store.blob(old), (0, 0))
    with Lease(store):
        assert store.find_blob(old)
        assert prune(store, keep_last=0).removed == ()
    with holder(store):
        assert store.find_blob(old)
        assert prune(store).removed == (blob_name(old),)
    assert not store.find_blob(old)
