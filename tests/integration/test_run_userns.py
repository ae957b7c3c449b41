"""Commands in a user namespace over an image made from this machine's shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest

from envbuild.errors import RunError, UsageError
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.run import launcher
from envbuild.run.command import Command, Mount
from envbuild.run.rootfs import image_rootfs
from envbuild.run.userns import UsernsRunner
from envbuild.store.content import Store
from tests.fakes.image import put_image, shell_image
from tests.integration.driver import needs_user_namespaces

pytestmark = needs_user_namespaces()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def _run(store: Store, *arguments: str, **options: object) -> int:
    command = Command(image=shell_image(store), arguments=arguments, **options)  # type: ignore[arg-type]
    return UsernsRunner(store, Silent()).run(command)


def test_the_command_sees_the_image_and_the_callers_directory(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_text("from outside\n")
    script = "pwd; cat data /etc/image; id -u; echo $FROM_IMAGE $MINE $HOME; echo bad >&2; touch made"
    status = _run(store, "sh", "-c", script, workdir=tmp_path, env=(("MINE", "1"),))
    out, err = capfd.readouterr()
    assert status == 0
    assert out.splitlines() == ["/workspace", "from outside", "made by a test", "1000", "yes 1 /tmp"]
    assert err == "bad\n"
    assert (tmp_path / "made").stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143), ("nosuch", 127)],
)
def test_the_status_is_the_commands(store: Store, script: str, status: int) -> None:
    assert _run(store, "sh", "-c", script) == status


def test_a_command_that_is_not_there_ends_with_127(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(store, "nosuch") == 127
    assert capfd.readouterr().err == "envbuild: nosuch: not found in the image\n"


def test_a_run_changes_nothing_of_the_image(store: Store) -> None:
    script = "echo changed > /etc/image; rm -f /usr/bin/cat; touch /usr/bin/new; exit 0"
    assert _run(store, "sh", "-c", script) == 0
    root = image_rootfs(shell_image(store), store)
    assert (root / "etc/image").read_text() == "made by a test\n"
    assert (root / "usr/bin/cat").is_file()
    assert not (root / "usr/bin/new").exists()


def test_nothing_of_this_machine_is_seen(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    assert _run(store, "sh", "-c", f"[ ! -e {tmp_path}/secret ] && [ $$ -lt 10 ] && [ -c /dev/null ]") == 0
    assert list(store.directory("scratch").iterdir()) == []


def test_mounts_can_be_read_only(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    mount = Mount.parse(f"{tmp_path}:/data/in:ro", relative_to=tmp_path)
    assert mount == Mount(source=tmp_path, target=PurePosixPath("/data/in"), read_only=True)
    assert _run(store, "sh", "-c", "cat /data/in/f && ! touch /data/in/g 2>/dev/null", mounts=(mount,)) == 0
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    "text", ["", "a", "{0}:rel", "{0}:/", "{0}:/a/../b", "{0}/absent:/x", "{0}:/x:rx", ":/x"]
)
def test_a_wrong_mount_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="mount"):
        Mount.parse(text.format(tmp_path), relative_to=tmp_path)


def test_an_image_of_another_platform_is_refused(store: Store) -> None:
    other = LINUX_ARM64 if Platform.host() == LINUX_AMD64 else LINUX_AMD64
    image = put_image(store, shell_image(store).layers, platform=other)
    with pytest.raises(RunError, match=f"the image is for {other}"):
        UsernsRunner(store, Silent()).run(Command(image=image, arguments=("sh",)))


def test_a_signal_reaches_the_command_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from envbuild.progress import Silent; from envbuild.run.command import Command\n"
        "from envbuild.run.userns import UsernsRunner; from envbuild.store.content import Store\n"
        "from tests.fakes.image import shell_image\n"
        "store = Store(Path(sys.argv[1])); image = shell_image(store)\n"
        "script = 'trap \"exit 42\" INT; echo ready; while :; do sleep 0.1; done'\n"
        "sys.exit(UsernsRunner(store, Silent()).run(Command(image=image, arguments=('sh', '-c', script))))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 42
        # The pipe ends only when the last process of the namespace has gone.
        assert process.stdout.read() == b""


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run without root already")
def test_it_works_without_root(store: Store, tmp_path: Path) -> None:
    """The launcher as the user nobody, with any python that nobody may start."""
    python = next(
        (each for each in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(each).exists()), None
    )
    if python is None:
        pytest.skip("no python outside of root's home")
    root = image_rootfs(shell_image(store), store)
    shared = Path("/tmp") / f"envbuild-test-{os.getpid()}-{time.monotonic_ns()}"
    shared.mkdir()
    try:
        subprocess.run(["cp", "-r", str(root), str(shared / "root")], check=True)
        (shared / "launcher.py").write_text(Path(launcher.__file__).read_text())
        (shared / "stage").mkdir()
        subprocess.run(["chown", "-R", "65534:65534", str(shared)], check=True)
        request = {
            "rootfs": str(shared / "root"),
            "stage": str(shared / "stage"),
            "uid": 1000,
            "gid": 1000,
            "network": True,
            "command": ["sh", "-c", "id -u && touch /etc/new && exit 9"],
            "env": {"PATH": "/usr/bin"},
            "directory": "/",
            "mounts": [],
        }
        read, write = os.pipe()
        report_read, report_write = os.pipe()
        os.write(write, json.dumps(request).encode())
        os.close(write)
        done = subprocess.run(
            [python, "-I", "-S", str(shared / "launcher.py"), str(read), str(report_write)],
            pass_fds=(read, report_write),
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            cwd="/",
        )
        os.close(read)
        os.close(report_write)
        with os.fdopen(report_read, "rb") as report:
            assert report.read() == b""
        assert (done.returncode, done.stdout, done.stderr) == (9, b"1000\n", b"")
        assert not (shared / "root/etc/new").exists()
    finally:
        subprocess.run(["rm", "-rf", str(shared)], check=True)


def test_the_commands_own_host_name_resolves(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """Java's InetAddress.getLocalHost fails where it doesn't, and with it Spark."""
    assert _run(store, "sh", "-c", "cat /proc/sys/kernel/hostname /etc/hosts") == 0
    name, *hosts = capfd.readouterr().out.splitlines()
    assert (name, hosts[-1]) == ("envbuild", "127.0.1.1\tenvbuild")
    assert hosts[:-1] == Path("/etc/hosts").read_text().splitlines()
