"""Locks that end with their process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.errors import BuildError
from envbuild.store.content import Store
from envbuild.store.leases import Lease, in_use, locked


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_scratch_goes_with_all_it_holds(store: Store) -> None:
    with store.scratch() as path:
        (path / "a").mkdir()
        (path / "a" / "b").write_bytes(b"x")
    assert list((store.root / "scratch").iterdir()) == []


def test_scratch_of_living_processes_and_threads_stays(store: Store) -> None:
    with store.scratch() as first, store.scratch() as second:
        assert first != second
        assert first.is_dir()
        code = "import sys; from pathlib import Path; from envbuild.store.content import Store\n"
        code += "with Store(Path(sys.argv[1])).scratch(): pass"
        subprocess.run([sys.executable, "-c", code, str(store.root)], check=True)
        assert first.is_dir()
        assert second.is_dir()


_DIE = """
import os, sys
from pathlib import Path
from envbuild.store.content import Store
from envbuild.store.leases import Lease
store = Store(Path(sys.argv[1]))
lease = Lease(store)
lease.__enter__()
lease.use("segments/dead")
with store.scratch() as path:
    (path / "part").write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_held_is_let_go(store: Store) -> None:
    done = subprocess.run([sys.executable, "-c", _DIE, str(store.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((store.root / "scratch").iterdir())) == 2
    with store.scratch():
        assert len(list((store.root / "scratch").iterdir())) == 2, "only the new one and its lock"
    with in_use(store) as busy:
        assert (busy.names, busy.since) == (frozenset(), None)
    assert list((store.root / "leases").iterdir()) == []


def test_what_live_builds_named_is_in_use(store: Store) -> None:
    with Lease(store) as one, Lease(store) as two:
        one.use("segments/a", "segments/b")
        one.use("segments/a")
        two.use("artifacts/c")
        with in_use(store) as busy:
            assert busy.names == {"segments/a", "segments/b", "artifacts/c"}
            assert busy.since is not None
    with in_use(store) as busy:
        assert busy.names == frozenset()


def test_a_lock_is_waited_for(store: Store) -> None:
    store.directory("locks")
    path = store.root / "locks" / "x"
    code = "import sys; from pathlib import Path; from envbuild.store.leases import locked\n"
    code += "with locked(Path(sys.argv[1])): print('in', flush=True)"
    with locked(path):
        child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.5)
    out, _ = child.communicate(timeout=20)
    assert out == b"in\n"


def test_a_store_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError, match="can't write") as caught, locked(tmp_path / "file" / "lock"):
        pass
    assert caught.value.hint is not None
    assert "ENVBUILD_CACHE_DIR" in caught.value.hint


def test_a_scratch_directory_that_came_back_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.scratch() as living:
        with store.scratch() as dead:
            pass
        (dead / "late").mkdir(parents=True)
        with store.scratch() as next_one:
            assert not dead.exists()
            assert living.is_dir()
            assert next_one.is_dir()
