"""Locks that end with their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.errors import BuildError
from envbuild.store.content import Store
from envbuild.store.leases import Lease, in_use
from envbuild.store.locks import leftovers, locked, mark_used, sweep


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


def held(store: Store) -> tuple[set[str], bool]:
    """The names in use, and whether a build works."""
    with in_use(store) as busy:
        return set(busy.names), busy.since is not None


def test_a_lease_that_holds_guards_what_it_names_and_nothing_else(store: Store) -> None:
    with Lease(store) as lease:
        lease.use("segments/a", "blobs/sha256/b")
        assert held(store) == ({"segments/a", "blobs/sha256/b"}, True)
        lease.hold("blobs/sha256/b", "rootfs/c")
        assert held(store) == ({"blobs/sha256/b", "rootfs/c"}, False)
        lease.use("segments/a", "rootfs/c")
        assert held(store) == ({"blobs/sha256/b", "rootfs/c", "segments/a"}, False)
        lease.hold("rootfs/c")
        assert held(store) == ({"rootfs/c"}, False)
        lease.hold()
        assert held(store) == (set(), False)
        with Lease(store):
            assert held(store) == (set(), True)
    assert held(store) == (set(), False)


def test_a_lease_that_cannot_be_written_holds_up_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envbuild.store.leases.os.write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(BuildError, match="No space left on device"), Lease(store):
        pass
    monkeypatch.undo()
    assert held(store) == (set(), False)
    assert list((store.root / "leases").iterdir()) == []


def test_what_is_marked_counts_as_written_now(store: Store) -> None:
    path = store.blob(store.add_blob(b"x"))
    os.utime(path, (0, 0))
    with Lease(store), in_use(store) as busy:
        assert busy.since is not None
        assert path.stat().st_mtime < busy.since
    with Lease(store):
        assert mark_used(store.root, path)
        with in_use(store) as busy:
            assert busy.since is not None
            assert path.stat().st_mtime >= busy.since
    path.unlink()
    assert not mark_used(store.root, path)


_LOCKED_AWAY = """
import ctypes, os, sys
from pathlib import Path
from envbuild.store.content import Store
if os.geteuid() == 0:
    # Root's files without root's right to pass over modes, as everybody else's.
    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
    data = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).syscall(126, ctypes.byref(Header(0x20080522, 0)), data) == 0
store = Store(Path(sys.argv[1]))
with store.scratch() as path:
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "f").write_bytes(b"")
    (path / "away").symlink_to(sys.argv[2])
    (path / "a" / "b").chmod(0)
    (path / "a").chmod(0o500)
print([each.name for each in (store.root / "scratch").iterdir()])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are this machine's")
def test_scratch_goes_with_directories_that_may_not_be_written_to(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    done = subprocess.run(
        [sys.executable, "-c", _LOCKED_AWAY, str(store.root), str(outside)], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert outside.stat().st_mode & 0o777 == 0o500, "links are not followed"


def test_what_is_left_is_what_a_sweep_removes(store: Store) -> None:
    subprocess.run([sys.executable, "-c", _DIE, str(store.root)], check=False)
    with store.scratch() as living:
        (store.root / "scratch" / "build-late").mkdir()
        subprocess.run([sys.executable, "-c", _DIE, str(store.root)], check=False)
        left = leftovers(store.root / "scratch")
        # The second of the dead had swept away the first, and what nobody held.
        assert len(left) == 1
        assert left[0] != living
        sweep(store.root / "scratch")
        assert leftovers(store.root / "scratch") == []
        assert [path for path in (store.root / "scratch").iterdir() if path.is_dir()] == [living]
