"""Sdists are built once, in isolation, into wheels that every machine builds alike."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from envbuild.compose.artifacts.sdist.builds import LockedSdists, SdistBuilds, SdistWheels
from envbuild.compose.artifacts.sdist.files import SdistFiles
from envbuild.compose.artifacts.wheel.index import PackageIndexes
from envbuild.compose.interpreter import interpreter_rootfs, rootfs_key
from envbuild.errors import BuildError, ResolveError
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import PipTarget, SdistRequest
from envbuild.lock.model import PipPin, glibc_of
from envbuild.lock.pip.uv import UvResolver
from envbuild.plan.model import Interpreter
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.store.leases import in_use
from tests.fakes.git import project
from tests.fakes.sdist import INTERPRETER, PYTHON, namespaces, python_rootfs, source_dist
from tests.fakes.wheelhouse import Wheel, Wheelhouse

pytestmark = pytest.mark.skipif(not namespaces(), reason="user namespaces are forbidden on this machine")

TARGET = PipTarget(platform=INTERPRETER.platform, python=PYTHON.version, glibc=glibc_of(INTERPRETER.base))


def asked(source: PipPin) -> SdistRequest:
    return SdistRequest(pin=source, target=TARGET, interpreter=INTERPRETER)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_rootfs(tmp_path_factory.mktemp("rootfs"))


@dataclass(kw_only=True)
class Workshop:
    """A machine with an index, a store, and an interpreter in it."""

    root: Path
    rootfs: Path
    index: Wheelhouse
    name: str = "store"
    patience: float = 60

    def __post_init__(self) -> None:
        self.store = Store(self.root / self.name)
        self.env = {
            **{key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ},
            "UV_DEFAULT_INDEX": self.index.url,
            "UV_CACHE_DIR": str(self.root / "uv"),
            "SECRET": "hunter2",
        }
        settings = Settings(cache_dir=self.store.root)
        self.fetcher = HttpFetcher(
            self.store, offline=False, settings=settings, progress=Silent(), environ=self.env
        )
        key = rootfs_key(Interpreter(python=PYTHON, lock=INTERPRETER), whole=True)
        (self.store.directory("rootfs") / key).symlink_to(self.rootfs)

    def other(self, name: str) -> Workshop:
        """Another machine with the same index."""
        return replace(self, name=name)

    def builds(self, *, offline: bool = False) -> SdistBuilds:
        return SdistBuilds(
            store=self.store,
            files=SdistFiles(
                store=self.store,
                fetcher=lambda: self.fetcher,
                indexes=PackageIndexes(env=self.env, offline=offline),
            ),
            sources={},
            patience=self.patience,
        )

    def locked(self) -> LockedSdists:
        return LockedSdists(self.builds(), lambda: UvResolver(env=self.env))

    def wheels(self, *, offline: bool = False) -> SdistWheels:
        interpreter = Interpreter(python=PYTHON, lock=INTERPRETER)
        return SdistWheels(self.builds(offline=offline), interpreter)

    def add(self, data: bytes, name: str = "demo") -> PipPin:
        """The sdist at the index, and its pin."""
        file = f"{name}-1.0.tar.gz"
        self.index.add_file(name, file, data)
        return PipPin(name=name, version="1.0", file=file, size=len(data), sha256=sha256(data).hexdigest())

    def lock(self, data: bytes) -> PipPin:
        return self.locked().wheel(asked(self.add(data)))

    def refuse(self, data: bytes) -> str:
        with pytest.raises(ResolveError) as caught:
            self.lock(data)
        assert list((self.store.root / "scratch").iterdir()) == []
        return caught.value.message


@pytest.fixture
def shop(tmp_path: Path, rootfs: Path) -> Iterator[Workshop]:
    index = Wheelhouse(tmp_path / "index")
    index.simple.mkdir(parents=True)
    made = Workshop(root=tmp_path, rootfs=rootfs, index=index)
    yield made
    made.fetcher.close()


def test_an_sdist_is_locked_as_the_wheel_it_builds(shop: Workshop) -> None:
    source = shop.add(source_dist("demo"))
    pin = shop.locked().wheel(asked(replace(source, via=("x",))))
    assert pin.sdist is not None
    assert (pin.file, pin.via, pin.url) == ("demo-1.0-py3-none-any.whl", ("x",), None)
    assert (pin.sdist.file, pin.sdist.size, pin.sdist.sha256) == (source.file, source.size, source.sha256)
    assert pin.sdist.requires == ()
    path = shop.wheels().fetch(pin)
    assert path == shop.store.artifact(pin.sha256)
    assert path.stat().st_size == pin.size
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            "b/__init__.py", "demo-1.0.data/scripts/say", "demo.py", "demo-1.0.dist-info/METADATA",
            "demo-1.0.dist-info/WHEEL", "demo-1.0.dist-info/RECORD",
        ]  # fmt: skip


def test_the_interpreters_tree_is_in_use_before_anybody_looks_for_it(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree,) = (shop.store.root / "rootfs").iterdir()
    names: list[frozenset[str]] = []

    def look(*arguments: Any, **options: Any) -> Path:
        with in_use(shop.store) as busy:
            names.append(busy.names)
        return interpreter_rootfs(*arguments, **options)

    monkeypatch.setattr("envbuild.compose.artifacts.sdist.builds.interpreter_rootfs", look)
    shop.lock(source_dist("demo"))
    (found,) = names
    assert f"rootfs/{tree.name}" in found


def test_of_an_archive_with_several_projects_the_named_one_is_built(shop: Workshop) -> None:
    inner = {f"lib/{name}": text for name, text in project("demo").items()}
    source = shop.add(source_dist("demo", pyproject="[project]\nname = 'other'\n", files=inner))
    url = (shop.index.simple / "demo" / source.file).as_uri()
    pin = shop.locked().wheel(asked(replace(source, url=f"{url}#subdirectory=lib")))
    assert (pin.file, pin.url) == ("demo-1.0-py3-none-any.whl", f"{url}#subdirectory=lib")
    with pytest.raises(ResolveError, match="it has no directory gone"):
        shop.locked().wheel(replace(asked(replace(source, url=f"{url}#subdirectory=gone")), preferred=pin))


def test_another_machine_builds_the_same_bytes_from_the_lock_alone(shop: Workshop) -> None:
    pin = shop.lock(source_dist("demo"))
    other = shop.other("elsewhere")
    assert other.wheels().fetch(pin).read_bytes() == shop.wheels().fetch(pin).read_bytes()
    # What is there needs neither index nor interpreter.
    assert SdistWheels(other.builds(offline=True), None).fetch(pin).is_file()


def test_what_a_build_requires_is_pinned_and_installed_by_its_hash(shop: Workshop) -> None:
    base = Wheel(name="helper-base", version="3.0", files={"helper_base.py": b"value = 'base'\n"})
    helper = Wheel(name="helper", version="2.0", requires=["helper-base"], files={"helper.py": b"x = 1\n"})
    extra = Wheel(name="extra", version="5.0", files={"extra.py": b"y = 2\n"})
    newer = Wheel(name="extra", version="6.0", files={"extra.py": b"y = 3\n"})
    shop.index.add(base, helper, extra)
    code = "import extra, helper, helper_base; tag = f'py{extra.y + helper.x}-none-any'"
    pin = shop.lock(source_dist("demo", requires=["helper"], more=["extra>=1"], code=code))
    assert pin.file == "demo-1.0-py3-none-any.whl"
    assert pin.sdist is not None
    assert pin.sdist.requires == tuple(
        f"{each.name}=={each.version} --hash=sha256:{each.pin().sha256}" for each in (extra, base, helper)
    )
    shop.index.add(newer)
    other = shop.other("elsewhere")
    assert other.wheels().fetch(pin).is_file()


def test_the_pin_of_the_present_lock_stays_and_nothing_is_built(shop: Workshop) -> None:
    source = shop.add(source_dist("demo"))
    present = shop.locked().wheel(asked(source))
    (shop.index.simple / "demo" / source.file).unlink()
    other = shop.other("elsewhere")
    kept = other.locked().wheel(
        replace(asked(replace(source, via=("new",))), preferred=present, offline=True)
    )
    assert kept == replace(present, via=("new",))
    assert not (other.store.root / "artifacts").exists()


def test_two_platforms_of_a_lock_share_one_build(shop: Workshop) -> None:
    source = shop.add(source_dist("demo"))
    locked = shop.locked()
    first = locked.wheel(asked(source))
    shop.store.artifact(first.sha256).unlink()
    assert locked.wheel(asked(replace(source, via=("y",)))) == replace(first, via=("y",))
    assert not shop.store.artifact(first.sha256).exists()


def test_a_build_that_gives_other_bytes_than_the_lock_says_so(shop: Workshop) -> None:
    pin = shop.lock(source_dist("demo", code="name += ''"))
    wrong = replace(pin, sha256="e" * 64)
    with pytest.raises(BuildError) as caught:
        shop.wheels().fetch(wrong)
    assert caught.value.message == (
        f"demo-1.0.tar.gz builds another wheel here than the one that is locked: {pin.file}, "
        f"{pin.size} bytes, SHA-256 {pin.sha256}; locked is {pin.file}, {pin.size} bytes, {'e' * 64}"
    )


def test_an_sdist_that_left_the_index_is_named(shop: Workshop) -> None:
    pin = shop.lock(source_dist("demo"))
    shop.add(source_dist("demo", files={"new.txt": "x"}))
    with pytest.raises(BuildError, match=r"demo-1\.0\.tar\.gz: no index has this file any more"):
        shop.other("elsewhere").wheels().fetch(pin)
    with pytest.raises(BuildError, match="isn't in the store, and this is offline"):
        shop.other("elsewhere2").wheels(offline=True).fetch(pin)


def test_a_lock_without_a_python_for_this_machine_is_an_honest_error(shop: Workshop) -> None:
    foreign = LINUX_ARM64 if INTERPRETER.platform == LINUX_AMD64 else LINUX_AMD64
    with pytest.raises(ResolveError, match="needs a python of the lock that runs on this machine"):
        shop.locked().wheel(
            replace(asked(shop.add(source_dist("demo"))), interpreter=replace(INTERPRETER, platform=foreign))
        )
    pin = shop.lock(source_dist("demo"))
    with pytest.raises(BuildError, match="the lock has no python that runs on this machine"):
        SdistWheels(shop.other("elsewhere").builds(), None).fetch(pin)


# --- isolation ----------------------------------------------------------------------------------------


def test_a_build_has_no_network(shop: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = shop.refuse(
            source_dist("demo", code=f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
        )
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "its build ended with status 1" in said
    assert "Network is unreachable" in said


def test_a_build_sees_nothing_of_this_machine(shop: Workshop, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    code = (
        f"import json; raise SystemExit('SEEN ' + json.dumps([os.path.exists({str(secret)!r}), os.getuid(), "
        "sorted(os.listdir('/tmp')), sorted(os.listdir('/dev')), sorted(os.environ), "
        "max(int(p) for p in os.listdir('/proc') if p.isdigit()) < 9, len(os.listdir('/proc/self/fd'))]))"
    )
    said = shop.refuse(source_dist("demo", code=code))
    seen = json.loads(said[said.index("SEEN ") + 5 :])
    assert seen == [
        False,
        1000,
        ["home", "out", "requires", "source"],
        ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"],
        ["HOME", "LANG", "LC_ALL", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONNOUSERSITE",
         "PYTHONPATH", "SOURCE_DATE_EPOCH", "TMPDIR", "TZ"],
        True,
        4,
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["/usr/evil", "/evil", "/tmp/requires/evil", "/proc/sys/kernel/hostname"])
def test_a_build_writes_nothing_but_its_tree_and_its_answer(shop: Workshop, place: str) -> None:
    before = sorted(path.name for path in shop.rootfs.iterdir())
    said = shop.refuse(source_dist("demo", code=f"open({place!r}, 'w').write('x')"))
    assert re.search(r"OSError: \[Errno 30\]|(FileNotFound|Permission)Error: ", said)
    assert sorted(path.name for path in shop.rootfs.iterdir()) == before


@pytest.mark.parametrize("place", ["/dev/null", "/usr", "/proc/sys/kernel/core_pattern"])
def test_a_build_changes_no_mode_of_what_this_user_owns(shop: Workshop, place: str) -> None:
    mode = Path("/dev/null").stat().st_mode
    said = shop.refuse(source_dist("demo", code=f"os.chmod({place!r}, 0o777)"))
    assert re.search(r"OSError: \[Errno 30\]|(FileNotFound|Permission)Error: ", said)
    assert Path("/dev/null").stat().st_mode == mode


_C = "import ctypes; c = ctypes.CDLL(None); print(open('/dev/null', 'w').write('x'), flush=True); "


@pytest.mark.parametrize(
    "call",
    [
        "c.mount(b'none', b'/', None, 32 | 4096, None)",
        "c.umount2(b'/proc', 2)",
        "c.unshare(0x20000)",
        "c.unshare(0x10000000)",
        "c.setuid(0)",
        "c.sethostname(b'x', 1)",
    ],
)
def test_a_build_cannot_get_privileges_back(shop: Workshop, call: str) -> None:
    said = shop.refuse(source_dist("demo", code=f"{_C}raise SystemExit('NO' if {call} else 'YES')"))
    assert said.endswith(":\n1\nNO")


def test_a_build_that_never_ends_is_stopped_with_all_it_started(shop: Workshop) -> None:
    shop.patience = 3.0
    code = (
        "import subprocess, sys; print('working', flush=True); subprocess.Popen([sys.executable, '-c', "
        "'import os, time\\nos.setsid()\\nwhile 1: time.sleep(60)']); exec('while True: pass')"
    )
    said = shop.refuse(source_dist("demo", code=code))
    assert said == "demo-1.0.tar.gz: its build did not end within 3 seconds:\nworking"
    assert threading.active_count() < 20


def test_endless_output_is_not_kept(shop: Workshop) -> None:
    code = "exec('for n in range(200000): print(n, chr(27) + \"[2J\")'); raise SystemExit(3)"
    said = shop.refuse(source_dist("demo", code=code))
    assert "its build ended with status 3:\n… " in said
    assert "199999" in said
    assert "\x1b" not in said
    assert len(said) < 4000


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return '../../x.whl'", "names no wheel"),
        ("return 'none.whl'", "made no wheel"),
        ("return 7", "names no wheel"),
        ("os.symlink('/etc/passwd', directory + '/x.whl'); return 'x.whl'", "made no wheel"),
        ("os.mkfifo(directory + '/x.whl'); return 'x.whl'", "made no wheel"),
        ("open(directory + '/x.whl', 'w'); return 'x.whl'", "isn't the name of a wheel"),
        ("os.symlink('/etc/passwd', directory + '/answer.json'); return 'x'", "status 1"),
        ("os.mkdir(directory + '/answer.json'); os._exit(0)", "answer can't be read"),
        ("os._exit(0)", "names no wheel"),
        ("os.kill(os.getpid(), 9)", "status 137"),
        ("name = 'other'", r"isn't the name of a wheel of demo 1\.0"),
    ],
)
def test_a_backend_that_misbehaves_is_refused(shop: Workshop, code: str, said: str) -> None:
    assert re.search(said, shop.refuse(source_dist("demo", code=code)))


def test_an_extension_module_is_refused_with_a_way_out(shop: Workshop) -> None:
    with pytest.raises(ResolveError) as caught:
        shop.lock(source_dist("demo", tag="cp313-cp313-linux_x86_64"))
    assert caught.value.message == (
        "demo-1.0.tar.gz: no wheel of demo 1.0 fits, and the one that is built from this isn't taken: "
        "demo-1.0-cp313-cp313-linux_x86_64.whl is not pure Python"
    )
    assert caught.value.hint is not None
    assert "pin a version of demo that has a wheel" in caught.value.hint


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        (["nowhere"], "what its build requires: "),
        (["a @ file:///etc/passwd"], "only names with versions can"),
    ],
)
def test_build_requirements_that_cannot_be_pinned_are_told(
    shop: Workshop, requires: Sequence[str], said: str
) -> None:
    assert said in shop.refuse(source_dist("demo", requires=requires))


def test_what_builds_is_never_built_itself(shop: Workshop) -> None:
    shop.index.add_file("tool", "tool-1.0.tar.gz", source_dist("tool"))
    assert "what its build requires: " in shop.refuse(source_dist("demo", requires=["tool"]))


def test_where_no_namespace_can_be_made_the_error_says_what_to_allow(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envbuild.compose.sandbox.run.runs_linux", lambda: False)
    with pytest.raises(ResolveError, match=r"demo-1\.0\.tar\.gz can't be built here: ") as caught:
        shop.lock(source_dist("demo"))
    assert caught.value.hint is not None
    assert "user namespaces" in caught.value.hint
