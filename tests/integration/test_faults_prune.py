"""A prune beside what goes on: builds end with the right image, runs keep what they run in, and nothing else
is kept for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envbuild.store.content import Store, blob_name
from tests.integration.driver import Machine, ended, group, kill_group, needs_user_namespaces, shell_machine

pytestmark = [pytest.mark.slow, needs_user_namespaces()]

LIMITS = ("--keep-last", "0", "--max-size", "0")
UNTIL_GO = "echo ready; while ! [ -e go ]; do sleep 0.05; done; cat /etc/image; exit 5"
"""Says that it runs, and once the file ``go`` is there starts another program and ends."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Machine]:
    with shell_machine(tmp_path) as machine:
        yield machine


def pruned(machine: Machine, *options: str) -> dict[str, Any]:
    """What a prune says; a dry run before it has said the same."""
    dry = machine.run("cache", "prune", "--json", "--dry-run", *options)
    done = machine.run("cache", "prune", "--json", *options)
    assert (dry.status, done.status) == (0, 0), dry.stderr + done.stderr
    said, value = json.loads(dry.stdout), json.loads(done.stdout)
    assert {**said, "dry_run": False} == value
    assert isinstance(value, dict)
    return value


def started(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    """The command, whose job has said ``ready``."""
    process = machine.start(*arguments)
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        kill_group(process)
        raise AssertionError(f"{line}{process.communicate()}")
    return process


def needed(machine: Machine) -> set[str]:
    """The image of the only record of the store: its blobs and its tree, as leases name them."""
    (record,) = (machine.cache / "images").iterdir()
    image = json.loads(record.read_bytes().partition(b"\n")[2])["image"]
    digests = [image["digest"], image["config_digest"], *(layer[0] for layer in image["layers"])]
    return {*map(blob_name, digests), f"rootfs/{image['digest'].removeprefix('sha256:')}"}


def left(machine: Machine) -> set[str]:
    found = {f"blobs/sha256/{path.name}" for path in (machine.cache / "blobs" / "sha256").iterdir()}
    return found | {f"rootfs/{path.name}" for path in (machine.cache / "rootfs").iterdir()}


@pytest.mark.parametrize("target", [(), ("--target", "local")])
def test_a_run_keeps_its_tree_and_its_image_and_nothing_that_came_after_it(
    site: Machine, target: tuple[str, ...]
) -> None:
    place = "cd /workspace/outputs; " if target else ""
    process = started(site, "run", ".", *target, "--", "sh", "-c", place + UNTIL_GO)
    try:
        kept = needed(site)
        # All of this is younger than the run.
        store = Store(site.cache)
        orphan = store.add_blob(b"of a build that was killed")
        (store.directory("rootfs") / "other").mkdir()
        value = pruned(site)
        assert {blob_name(orphan), "rootfs/other"} <= set(value["removed"])
        assert not kept & set(value["removed"])
        assert len(pruned(site, *LIMITS)["images"]) == 1
        assert left(site) == kept
        directory = site.project
        if target:
            (directory,) = (site.home / ".local/share/envbuild/runs").glob("*.outputs")
        (directory / "go").touch()
        done = ended(process)
    finally:
        kill_group(process)
    assert (done.status, done.stdout) == (5, "made by a test\n"), done.stderr
    assert set(pruned(site)["removed"]) == kept
    assert left(site) == set()


@pytest.mark.parametrize("target", [(), ("--target", "local")])
def test_a_run_whose_process_was_killed_keeps_nothing(site: Machine, target: tuple[str, ...]) -> None:
    process = started(site, "run", ".", *target, "--", "sh", "-c", UNTIL_GO)
    kept = needed(site)
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    launchers = [int(pid) for path in children for pid in path.read_text().split()]
    process.kill()
    process.wait()
    # The kernel ends what it had started as well.
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in launchers) and time.monotonic() < deadline:
        os.sched_yield()
    assert [pid for pid in launchers if Path(f"/proc/{pid}").exists()] == []
    assert launchers
    process.communicate()
    removed = set(pruned(site)["removed"])
    # Its image is recorded as every other, and stays.
    assert removed & kept == {name for name in kept if name.startswith("rootfs/")}
    assert [name for name in removed if name.startswith("scratch/")] != []
    assert list((site.cache / "scratch").iterdir()) == []
    assert group(process.pid) == []


def test_runs_start_and_end_while_everything_is_pruned_again_and_again(site: Machine) -> None:
    pruner = subprocess.Popen(
        [sys.executable, "-c", _PRUNER, str(site.cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        for _ in range(3):
            pair = [site.start("run", ".", "--", "sh", "-c", "cat /etc/image; ls /usr/bin") for _ in range(2)]
            for done in map(ended, pair):
                assert done.status == 0, done.stderr
                assert done.stdout.startswith("made by a test\n")
                assert "cat\n" in done.stdout
        assert pruner.poll() is None
        out, _ = pruner.communicate(timeout=60)
    finally:
        pruner.kill()
        pruner.wait()
    assert pruner.returncode == 0
    assert int(out) > 10
    assert pruned(site, *LIMITS)["left"] == 0


_PRUNER = """
import select, sys
from pathlib import Path
from envbuild.store.content import Store
from envbuild.store.prune import prune
store, rounds = Store(Path(sys.argv[1])), 0
while not select.select([sys.stdin], [], [], 0)[0]:
    prune(store, keep_last=0, max_bytes=0)
    rounds += 1
print(rounds)
"""
