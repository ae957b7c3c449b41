"""What a command in a user namespace has for a terminal, seen from a real one."""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest

from envbuild.run.command import Mount
from envbuild.store.content import Store
from tests.fakes.image import shell_image
from tests.integration.driver import needs_user_namespaces

pytestmark = needs_user_namespaces()

PYTHON = str(Path(sys.executable).resolve())
# Not one long sleep in the place of the shell: what comes just as dash makes way for it would be lost.
WAITS = "echo begun; while :; do sleep 1; done"
PATIENCE = 60
RUN = """
import pickle, sys
from pathlib import Path
from envbuild.progress import Silent
from envbuild.run.command import Command
from envbuild.run.userns import UsernsRunner
from envbuild.store.content import Store

with open(sys.argv[1], "rb") as file:
    root, image, mounts = pickle.load(file)
command = Command(image=image, arguments=tuple(sys.argv[2:]), mounts=mounts)
sys.exit(UsernsRunner(Store(Path(root)), Silent()).run(command))
"""


class Terminal:
    """A terminal and the program that it controls, the leader of its session."""

    def __init__(self, arguments: list[str]) -> None:
        self.keys, self.side = os.openpty()
        self._open = {self.keys, self.side}
        self.resize(24, 80)
        attach = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{attach}os.execvp(sys.argv[1], sys.argv[1:])", *arguments],
            stdin=self.side,
            stdout=self.side,
            stderr=self.side,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PS1": "ready> ", "ENV": ""},
        )
        self.seen = b""
        self.attributes = termios.tcgetattr(self.side)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.keys, text.encode())

    def read(self) -> bool:
        """False at the end: nobody has the terminal open any more."""
        ready, _, _ = select.select([self.keys], [], [], PATIENCE)
        assert ready, self.seen
        try:
            piece = os.read(self.keys, 1 << 16)
        except OSError:
            piece = b""
        self.seen += piece
        return bool(piece)

    def expect(self, text: str) -> str:
        """What was shown up to ``text``, and that; a later call looks behind it."""
        wanted = text.encode()
        while wanted not in self.seen:
            assert self.read(), self.seen
        end = self.seen.index(wanted) + len(wanted)
        shown, self.seen = self.seen[:end], self.seen[end:]
        return shown.decode()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.seen
            select.select([], [], [], 0.01)

    def end(self) -> tuple[int, str]:
        """The exit status, and all that was shown and not expected yet."""
        self._close(self.side)
        while self.read():
            pass
        return self.process.wait(PATIENCE), self.seen.decode()

    def close(self) -> None:
        self._close(self.side)
        self._close(self.keys)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    made = Terminal(list(arguments))
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()
        made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is ``/shared`` to the command."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> list[str]:
    """The words that run a command over an image with this machine's python and programs."""
    store = Store(tmp_path_factory.mktemp("store"))
    prefix = Path(sys.base_prefix).resolve()
    places = [Path("/usr")] if prefix.is_relative_to("/usr") else [Path("/usr"), prefix]
    mounts = [Mount(source=place, target=PurePosixPath(place), read_only=True) for place in places]
    mounts.append(Mount(source=shared, target=PurePosixPath("/shared")))
    directory = tmp_path_factory.mktemp("program")
    (directory / "image").write_bytes(pickle.dumps((str(store.root), shell_image(store), tuple(mounts))))
    (directory / "run.py").write_text(RUN)
    return [sys.executable, str(directory / "run.py"), str(directory / "image")]


# --- what the command can't reach ----------------------------------------------------------------------


def test_what_the_command_types_into_its_terminal_the_caller_never_gets(run: list[str]) -> None:
    """TIOCSTI puts bytes into a terminal's input as if they were typed there. The caller, a shell, would take
    them for its next command."""
    attack = (
        "import contextlib, fcntl, os, termios\n"
        "descriptors = [0, 1, 2]\n"
        "with contextlib.suppress(OSError): descriptors.append(os.open('/dev/tty', os.O_RDWR))\n"
        "for descriptor in descriptors:\n"
        "    for byte in b'exit 66\\n':\n"
        "        with contextlib.suppress(OSError):\n"
        "            fcntl.ioctl(descriptor, termios.TIOCSTI, bytes([byte]))\n"
    )
    for redirections in ("", "< /dev/null", "> /dev/null", "2> /dev/null < /dev/null > /dev/null"):
        with terminal("sh", "-i") as caller:
            caller.expect("ready> ")
            caller.type(f"{shlex.join([*run, PYTHON, '-I', '-c', attack])} {redirections}\n")
            caller.expect("ready> ")
            caller.type("echo alive; exit 7\n")
            assert caller.end()[0] == 7, redirections


def test_no_descriptor_of_the_command_is_the_callers_terminal(run: list[str]) -> None:
    program = (
        "import os\n"
        "places = sorted(os.readlink(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd')[:-1])\n"
        "print('descriptors', *places)\n"
        "print('session', os.getsid(0), os.getpgrp() == os.getpid() == os.tcgetpgrp(0))\n"
        "print('named', os.ttyname(0), os.stat('/dev/pts/0').st_rdev == os.fstat(2).st_rdev)\n"
    )
    with terminal(*run, PYTHON, "-I", "-c", program) as caller:
        status, shown = caller.end()
    assert (status, shown.splitlines()) == (
        0,
        ["descriptors /dev/pts/0 /dev/pts/0 /dev/pts/0", "session 1 True", "named /dev/pts/0 True"],
    )


def test_without_a_terminal_the_session_has_none(run: list[str]) -> None:
    """Though the caller's session has one, which ``/dev/tty`` would open."""
    program = (
        "import os\n"
        "try:\n"
        "    os.open('/dev/tty', os.O_RDWR)\n"
        "except OSError as error:\n"
        "    print(error.strerror, os.getsid(0))\n"
    )
    words = shlex.join([*run, PYTHON, "-I", "-c", program])
    with terminal("sh", "-c", f"x=$({words} 2>&1 < /dev/null); echo $x") as caller:
        assert caller.end() == (0, "No such device or address 1\r\n")


# --- what works as on the caller's own ------------------------------------------------------------------


def test_the_size_is_the_callers_and_follows_it(run: list[str]) -> None:
    program = (
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])\n"
        "print('size', *os.get_terminal_size(), flush=True)\n"
        "signal.sigwait([signal.SIGWINCH])\n"
        "print('size', *os.get_terminal_size())\n"
    )
    for redirection in ("", "< /dev/null"):
        words = f"{shlex.join([*run, PYTHON, '-I', '-c', program])} {redirection}"
        with terminal("sh", "-c", f"{words}; exit $?") as caller:
            caller.expect("size 80 24\r\n")
            caller.resize(50, 132)
            assert caller.end() == (0, "size 132 50\r\n"), redirection


def test_ctrl_c_ends_the_command_and_not_envbuild(run: list[str]) -> None:
    with terminal(*run, "sh", "-c", WAITS) as caller:
        caller.expect("begun\r\n")
        caller.type("\x03")
        assert caller.end() == (130, "^C")


def test_a_shell_inside_controls_its_jobs(run: list[str]) -> None:
    with terminal(*run, "env", "PS1=inside> ", "sh", "-i") as caller:
        assert caller.expect("inside> ") == "inside> "
        caller.type("cat\n")
        caller.expect("cat\r\n")
        caller.type("one\n")
        caller.expect("one\r\none\r\n")
        caller.type("\x1a")
        assert "Stopped" in caller.expect("inside> ")
        caller.type("fg\n")
        caller.expect("cat\r\n")
        caller.type("two\n")
        caller.expect("two\r\ntwo\r\n")
        caller.type("\x03")
        caller.expect("inside> ")
        caller.type("exit 5\n")
        assert caller.end() == (5, "exit 5\r\n")


@pytest.mark.parametrize("keys", ["typed\n", "typed\x7f\n", "typed\x15\n"])
def test_lines_are_edited_as_the_callers_terminal_says(run: list[str], keys: str) -> None:
    lines = {"typed\n": "typed", "typed\x7f\n": "type", "typed\x15\n": ""}
    with terminal(*run, "sh", "-c", "echo ready; IFS= read -r line; echo got:$line:") as caller:
        caller.expect("ready\r\n")
        caller.type(keys)
        caller.expect(f"got:{lines[keys]}:\r\n")
        assert caller.end() == (0, "")


def test_ctrl_z_gives_the_caller_his_shell_and_his_terminal_back(run: list[str]) -> None:
    with terminal("sh", "-i") as caller:
        caller.expect("ready> ")
        caller.type(f"{shlex.join([*run, 'cat'])}\n")
        caller.expect("\r\n")
        caller.until(lambda: termios.tcgetattr(caller.side)[1] & termios.OPOST == 0)
        caller.type("one\n")
        caller.expect("one\r\none\r\n")
        caller.type("\x1a")
        assert "Stopped" in caller.expect("ready> ")
        assert termios.tcgetattr(caller.side) == caller.attributes
        caller.type("fg\n")
        caller.until(lambda: termios.tcgetattr(caller.side)[1] & termios.OPOST == 0)
        caller.type("two\n")
        caller.expect("two\r\ntwo\r\n")
        caller.type("\x04")
        caller.expect("ready> ")
        assert termios.tcgetattr(caller.side) == caller.attributes
        caller.type("exit $?\n")
        assert caller.end() == (0, "exit $?\r\n")


def test_where_nobody_could_continue_it_ctrl_z_does_not_stop_it(run: list[str]) -> None:
    program = (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])\n"
        "print('begun', flush=True)\n"
        "print(signal.sigwait([signal.SIGCONT]).name, flush=True)\n"
        "print('got', input())\n"
    )
    with terminal(*run, PYTHON, "-I", "-c", program) as caller:
        caller.expect("begun\r\n")
        caller.type("\x1a")
        caller.expect("SIGCONT\r\n")
        caller.type("on\n")
        assert caller.end() == (0, "on\r\ngot on\r\n")


def test_in_the_background_it_prints_and_waits_for_the_terminal(run: list[str]) -> None:
    with terminal("sh", "-i") as caller:
        caller.expect("ready> ")
        caller.type(f"{shlex.join([*run, 'sh', '-c', 'echo printed; cat'])} &\n")
        caller.expect("printed\r\n")
        process = caller.process.pid

        def stopped() -> bool:
            listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            return all(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T" for pid in listed)

        caller.until(stopped)
        assert termios.tcgetattr(caller.side) == caller.attributes
        caller.type("fg\n")
        caller.until(lambda: termios.tcgetattr(caller.side)[3] & termios.ICANON == 0)
        caller.type("typed\n")
        caller.expect("typed\r\ntyped\r\n")
        caller.type("\x04")
        caller.expect("ready> ")
        caller.type("exit $?\n")
        assert caller.end() == (0, "exit $?\r\n")


# --- what isn't the terminal stays what it is -----------------------------------------------------------


def test_pipes_and_files_get_exact_bytes(run: list[str], tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000 + b"\r\n\n\r"
    (tmp_path / "in").write_bytes(data)
    words = f"cat {tmp_path}/in | {shlex.join([*run, 'sh', '-c', 'cat; echo said >&2'])} > {tmp_path}/out"
    with terminal("sh", "-c", f"{words}; exit $?") as caller:
        assert caller.end() == (0, "said\r\n")
    assert (tmp_path / "out").read_bytes() == data


def test_output_is_shown_whole_and_as_the_callers_terminal_would(run: list[str]) -> None:
    """However the command ends, and whatever it leaves running."""
    program = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.execvp('sleep', ['sleep', '600'])\n"
        "for number in range(100_000): print(number)\n"
        "print('carriage\\rreturn\\r\\n', end='', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    shown = "".join(f"{number}\r\n" for number in range(100_000))
    for redirection in ("", "< /dev/null"):
        words = f"{shlex.join([*run, PYTHON, '-I', '-c', program])} {redirection}"
        with terminal("sh", "-c", f"{words}; exit $?") as caller:
            assert caller.end() == (137, f"{shown}carriage\rreturn\r\r\n"), redirection


def test_who_reads_the_output_has_the_keyboard_until_the_command_asks(run: list[str], shared: Path) -> None:
    """As in ``envbuild run … | less``."""
    command = "echo first; while [ ! -e /shared/go ]; do sleep 0.05; done; read line; echo got $line"
    reader = (
        "import sys, pathlib\n"
        "print('reader', sys.stdin.readline(), end='', flush=True)\n"
        "print('key', open('/dev/tty').readline(), end='', flush=True)\n"
        f"pathlib.Path({str(shared / 'go')!r}).touch()\n"
        "print('reader', sys.stdin.read(), end='')\n"
    )
    words = f"{shlex.join([*run, 'sh', '-c', command])} | {shlex.join([PYTHON, '-I', '-c', reader])}"
    with terminal("sh", "-c", words) as caller:
        caller.expect("reader first\r\n")
        assert termios.tcgetattr(caller.side) == caller.attributes
        caller.type("to the reader\n")
        caller.expect("key to the reader\r\n")
        caller.until(lambda: termios.tcgetattr(caller.side)[3] & termios.ICANON == 0)
        caller.type("to the command\n")
        assert caller.end() == (0, "to the command\r\nreader got to the command\r\n")


def test_two_at_the_same_terminal(run: list[str]) -> None:
    first = shlex.join([*run, "sh", "-c", "echo asked >&2; read line; echo first $line"])
    second = shlex.join(
        [*run, "sh", "-c", "cat; echo asked too >&2; read line < /dev/tty; echo second $line"]
    )
    with terminal("sh", "-c", f"{first} | {second}; echo ended; read line") as caller:
        caller.expect("asked\r\n")
        caller.type("one\n")
        caller.expect("asked too\r\n")
        caller.type("two\n")
        caller.expect("second two\r\n")
        caller.expect("ended\r\n")
        assert termios.tcgetattr(caller.side) == caller.attributes


def test_the_end_of_input_is_passed_on(run: list[str]) -> None:
    with terminal("sh", "-c", f"printf one | {shlex.join([*run, 'cat'])}") as caller:
        assert caller.end() == (0, "one")


# --- the caller's terminal afterwards -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["true", "exit 3", "kill -9 $$", "nosuch"])
def test_the_callers_terminal_is_as_before(run: list[str], command: str) -> None:
    with terminal("sh", "-c", f"{shlex.join([*run, 'sh', '-c', command])}; echo ended; read line") as caller:
        caller.expect("ended\r\n")
        assert termios.tcgetattr(caller.side) == caller.attributes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_goes_to_the_command_and_the_terminal_is_as_before(run: list[str], number: int) -> None:
    with terminal(*run, "sh", "-c", WAITS) as caller:
        caller.expect("begun\r\n")
        caller.process.send_signal(number)
        assert caller.process.wait(PATIENCE) == 128 + number
        assert termios.tcgetattr(caller.side) == caller.attributes


def test_a_terminal_that_goes_away_goes_away_from_the_command(run: list[str]) -> None:
    script = "trap : HUP; echo begun; cat; (: < /dev/tty) 2> /dev/null || exit 4"
    with terminal(*run, "sh", "-c", script) as caller:
        caller.expect("begun\r\n")
        caller.close()
        assert caller.process.wait(PATIENCE) == 4


def test_a_terminal_that_the_command_gave_away_keeps_nobody_waiting(run: list[str], shared: Path) -> None:
    """A process outside, reached by a socket in a mount, still has it open when the command has ended."""
    program = (
        "import socket\n"
        "made = socket.socket(socket.AF_UNIX)\n"
        "made.connect('/shared/socket')\n"
        "socket.send_fds(made, [b'x'], [0])\n"
        "print('given')\n"
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(shared / "socket"))
        server.listen()
        with terminal(*run, PYTHON, "-I", "-c", program) as caller, server.accept()[0] as connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
            assert caller.end() == (0, "given\r\n")
            os.close(descriptors[0])


# --- signals without a terminal -------------------------------------------------------------------------

COUNT = (
    "import signal\n"
    "numbers = [signal.SIGINT, signal.SIGTERM]\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
    "print('ready', flush=True)\n"
    "got = []\n"
    "while got[-1:] != [signal.SIGTERM]:\n"
    "    got.append(signal.sigwait(numbers))\n"
    "    print(got[-1].name, flush=True)\n"
)


def test_ctrl_c_reaches_a_command_whose_input_is_a_pipe_once(run: list[str]) -> None:
    words = f"{shlex.join([*run, PYTHON, '-I', '-c', COUNT])} < /dev/null"
    with terminal("sh", "-c", f"trap : INT; {words}; exit $?") as caller:
        caller.expect("ready\r\n")
        caller.type("\x03")
        caller.expect("SIGINT\r\n")
        caller.type("\x03")
        caller.expect("SIGINT\r\n")
        child = int(Path(f"/proc/{caller.process.pid}/task/{caller.process.pid}/children").read_text())
        os.kill(child, signal.SIGTERM)
        assert caller.end() == (0, "SIGTERM\r\n")


def test_ctrl_c_reaches_all_of_the_commands_group(run: list[str]) -> None:
    """A shell ends by it only when the program that it waits for has."""
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "    print('begun', flush=True)\n"
        "    signal.pause()\n"
        "print('ended by', os.WTERMSIG(os.waitpid(child, 0)[1]))\n"
    )
    words = f"{shlex.join([*run, PYTHON, '-I', '-c', program])} < /dev/null"
    with terminal("sh", "-c", f"trap : INT; {words}; exit $?") as caller:
        caller.expect("begun\r\n")
        caller.type("\x03")
        assert caller.end() == (0, "^Cended by 2\r\n")


def test_ctrl_z_stops_a_command_without_a_terminal(run: list[str], tmp_path: Path) -> None:
    program = "import time\nwhile True: print('x', flush=True); time.sleep(0.01)"
    words = f"{shlex.join([*run, PYTHON, '-I', '-c', program])} < /dev/null > {tmp_path}/log 2>&1"
    log = tmp_path / "log"
    with terminal("sh", "-i") as caller:
        caller.expect("ready> ")
        caller.type(f"{words}\n")
        caller.until(lambda: log.exists() and log.stat().st_size > 0)
        caller.type("\x1a")
        caller.expect("Stopped")
        caller.expect("ready> ")
        caller.type("fg\n")
        size = log.stat().st_size
        caller.until(lambda: log.stat().st_size > size)
        caller.type("\x03")
        caller.expect("ready> ")
        caller.type("exit $?\n")
        assert caller.end() == (130, "exit $?\r\n")


def test_what_the_caller_ignores_stays_ignored(run: list[str]) -> None:
    """``nohup envbuild run …`` outlives its terminal."""
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *run, PYTHON, "-I", "-c", COUNT]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        assert process.stdout.read() == "SIGINT\nSIGTERM\n"
        assert process.wait(PATIENCE) == 0
