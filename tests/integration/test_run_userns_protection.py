"""What a command in a user namespace may not do to the machine, and what it still can do.

Where root runs these, the command is the machine's root to the files of ``/proc``, ``/sys`` and ``/dev``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from envbuild.progress import Silent
from envbuild.run.command import Command, Mount
from envbuild.run.userns import UsernsRunner
from envbuild.store.content import Store
from tests.fakes.image import shell_image
from tests.integration.driver import needs_user_namespaces

pytestmark = [
    pytest.mark.slow,
    needs_user_namespaces(),
    pytest.mark.parametrize("user", ["0:0", "1000:1000"]),
]

PYTHON = Path(sys.executable).resolve()
HELPERS = """
import ctypes, errno, os, sys

libc = ctypes.CDLL(None, use_errno=True)
REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EINVAL)

def refused(what, action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        if error.errno in REFUSALS:
            return
        raise
    sys.exit(f"{what} wasn't refused")

def mount(*arguments):
    if libc.mount(*arguments) != 0:
        raise OSError(ctypes.get_errno(), "mount")

def umount(path):
    if libc.umount2(path, 2) != 0:
        raise OSError(ctypes.get_errno(), "umount")

def write(path):
    os.close(os.open(path, os.O_WRONLY))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def _run(store: Store, user: str, program: str, *, network: bool = True) -> int:
    """The status of ``program`` in this machine's python over the image, as ``user`` of the image."""
    prefix = Path(sys.base_prefix).resolve()
    places = [Path("/usr")] if prefix.is_relative_to("/usr") else [Path("/usr"), prefix]
    command = Command(
        image=shell_image(store, {"User": user}),
        arguments=(str(PYTHON), "-I", "-c", HELPERS + program),
        mounts=tuple(Mount(source=place, target=PurePosixPath(place), read_only=True) for place in places),
        network=network,
    )
    return UsernsRunner(store, Silent()).run(command)


def test_settings_cannot_be_written(store: Store, user: str) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    program = """
found = ["/proc/sys/kernel/core_pattern"]
for root in ("/proc", "/sys"):
    for top, directories, files in os.walk(root):
        # Processes may write of themselves; masked files are the null device.
        directories[:] = [each for each in directories if not each.isdigit() or root != "/proc"]
        found += [os.path.join(top, each) for each in files]
tried = 0
for path in found:
    if os.path.exists(path) and not os.path.islink(path) and os.stat(path).st_rdev == 0:
        refused(path, write, path)
        refused(path, os.chmod, path, 0o444)
        tried += 1
assert tried > 500, tried
"""
    assert _run(store, user, program) == 0
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_what_tells_of_the_machines_memory_is_masked(store: Store, user: str) -> None:
    program = """
for name in ("kcore", "keys", "timer_list", "kmsg", "kpagecount"):
    if os.path.exists(f"/proc/{name}"):
        with open(f"/proc/{name}") as file:
            assert file.read() == "", name
if os.path.isdir("/sys/firmware"):
    assert os.listdir("/sys/firmware") == []
"""
    assert _run(store, user, program) == 0


def test_devices_keep_their_mode_and_owner(store: Store, user: str) -> None:
    names = ("null", "zero", "full", "random", "urandom", "tty")
    before = {name: Path(f"/dev/{name}").stat() for name in names if Path(f"/dev/{name}").exists()}
    program = f"""
for name in {sorted(before)!r}:
    path = f"/dev/{{name}}"
    refused(path, os.chmod, path, 0o600)
    refused(path, os.chown, path, os.getuid(), os.getgid())
"""
    assert _run(store, user, program) == 0
    for name, stated in before.items():
        now = Path(f"/dev/{name}").stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (stated.st_mode, stated.st_uid, stated.st_gid)


def test_the_machines_name_resolution_cannot_be_changed(store: Store, user: str) -> None:
    program = """
for path in ("/etc/resolv.conf", "/etc/hosts"):
    if os.path.exists(path):
        refused(path, write, path)
        refused(path, os.chmod, path, 0o644)
"""
    assert _run(store, user, program) == 0


def test_devices_serve(store: Store, user: str) -> None:
    program = """
assert len(os.urandom(4)) == 4
with open("/dev/null", "w") as file:
    file.write("x")
with open("/dev/zero", "rb") as file:
    assert file.read(3) == bytes(3)
for name in ("random", "urandom"):
    with open(f"/dev/{name}", "rb", buffering=0) as file:
        assert len(file.read(8)) == 8
try:
    with open("/dev/full", "w") as file:
        file.write("x")
except OSError as error:
    assert error.errno == errno.ENOSPC
else:
    sys.exit("/dev/full isn't full")
"""
    assert _run(store, user, program) == 0


def test_a_standard_stream_is_no_way_to_a_device(store: Store, user: str) -> None:
    """The caller's own null device, opened where its mode could be changed, isn't handed on."""
    stated = Path("/dev/null").stat()
    kept = os.dup(0)
    given = os.open("/dev/null", os.O_RDONLY)
    try:
        os.dup2(given, 0)
        assert _run(store, user, "refused('stdin', os.fchmod, 0, 0o600)\nassert os.read(0, 1) == b''") == 0
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(given)
    assert Path("/dev/null").stat().st_mode == stated.st_mode


def test_programs_find_what_they_need(store: Store, user: str) -> None:
    program = """
import multiprocessing, multiprocessing.shared_memory, pty, socket

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
shared = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
shared.buf[0] = 7
shared.close()
shared.unlink()

child, terminal = pty.fork()
if child == 0:
    os.write(1, b"on a terminal" if os.isatty(0) and open("/dev/tty") else b"no terminal")
    os._exit(0)
assert os.read(terminal, 100) == b"on a terminal"
os.waitpid(child, 0)

for path in ("meminfo", "cpuinfo", "stat", "self/status", "self/maps", "self/cgroup", "self/mountinfo",
             "sys/vm/overcommit_memory", "sys/kernel/random/uuid", "sys/net/core/somaxconn"):
    with open(f"/proc/{path}") as file:
        assert file.read(), path
assert "online" in os.listdir("/sys/devices/system/cpu")
if not os.statvfs("/proc").f_flag & os.ST_RDONLY:  # It is within a container that masks its own.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
assert set(each for each in os.listdir("/proc") if each.isdigit()) >= {"1", str(os.getpid())}
"""
    assert _run(store, user, program) == 0


@pytest.mark.parametrize("network", [True, False])
def test_nothing_undoes_the_protection(store: Store, user: str, network: bool) -> None:
    """Neither mounts, nor namespaces in which mounts are allowed, nor the launcher."""
    program = """
def attempts():
    for path in (b"/proc/sys", b"/sys", b"/dev/null"):
        refused(f"remounting {path}", mount, b"none", path, None, 32 | 4096, None)
        refused(f"unmounting {path}", umount, path)
    refused("another /proc", mount, b"proc", b"/tmp", b"proc", 0, None)
    refused("another /sys", mount, b"sysfs", b"/tmp", b"sysfs", 0, None)
    refused("core_pattern", write, "/proc/sys/kernel/core_pattern")
    refused("mode", os.chmod, "/dev/null", 0o600)

attempts()
refused("the launcher's environment", lambda: open("/proc/1/environ", "rb").read())
refused("the launcher's memory", lambda: open("/proc/1/mem", "rb+"))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert status["NoNewPrivs"].strip() == "1"
# Those over mounts (sys_admin), networks, modules, raw devices, and device nodes.
assert int(status["CapBnd"], 16) & (1 << 21 | 1 << 12 | 1 << 16 | 1 << 17 | 1 << 27) == 0
if os.getuid() != 0:
    assert int(status["CapEff"], 16) == 0

# In user, mount, process and network namespaces of its own.
if libc.unshare(0x10000000 | 0x20000 | 0x20000000 | 0x40000000) == 0:
    child = os.fork()
    if child == 0:
        attempts()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    assert _run(store, user, program, network=network) == 0


def test_without_a_network_programs_reach_themselves(store: Store, user: str) -> None:
    program = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname(), timeout=10) as client:
        server.accept()[0].close()
assert [name for _, name in socket.if_nameindex()] == ["lo"]
"""
    assert _run(store, user, program, network=False) == 0


def test_what_is_mounted_below_a_read_only_mount_is_read_only(store: Store, user: str) -> None:
    mount = Mount(source=Path("/dev"), target=PurePosixPath("/given"), read_only=True)
    image = shell_image(store, {"User": user})
    name = f"envbuild-test-{os.getpid()}"
    script = f"! touch /given/shm/{name} 2>/dev/null"
    command = Command(image=image, arguments=("sh", "-c", script), mounts=(mount,))
    assert UsernsRunner(store, Silent()).run(command) == 0
    assert not (Path("/dev/shm") / name).exists()


def test_where_proc_is_masked_already_it_is_shown_read_only(store: Store, user: str) -> None:
    """As in a container: the kernel allows no new ``/proc`` to who doesn't see all of the old one."""
    script = """cat /proc/self/comm
for file in sys/kernel/core_pattern self/oom_score_adj 1/oom_score_adj; do
    (: >> /proc/$file) 2>/dev/null || echo refused
done"""
    program = (
        "import sys; from pathlib import Path\n"
        "from envbuild.progress import Silent; from envbuild.run.command import Command\n"
        "from envbuild.run.userns import UsernsRunner; from envbuild.store.content import Store\n"
        "from tests.fakes.image import shell_image\n"
        "store, user, script = Store(Path(sys.argv[1])), sys.argv[2], sys.argv[3]\n"
        "image = shell_image(store, {'User': user})\n"
        "sys.exit(UsernsRunner(store, Silent()).run(Command(image=image, arguments=('sh', '-c', script))))\n"
    )
    masked = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none /proc/fs && "$@"',
        "sh",
    ]
    done = subprocess.run(
        [*masked, sys.executable, "-c", program, str(store.root), user, script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["cat"] + ["refused"] * 3, "")
