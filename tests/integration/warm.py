"""Starts ``envbuild`` without the second that Python takes to import it.

A server of this module has imported the package and what it uses. Each command is a fork of it: a process
of its own, with its own session, directory, environment and open files, that ends as an interpreter ends.
It becomes a child of the process that asked for it, which waits for it and gets its status as of any other.

What all commands of a server share is the seed of Python's hashes. Tests that compare what several processes
write take interpreters of their own (``Machine.own_interpreters``).
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

_THEIRS = (
    "alembic.command",
    "docker",
    "httpx",
    "jinja2",
    "psycopg",
    "rattler",
    "rich.progress",
    "ruamel.yaml",
)
_AT_START = ("LC_", "LD_", "PYTHON", "MALLOC_")
"""How the variables begin that a process reads as it starts."""
_SET_CHILD_SUBREAPER = 36


def can_be_warm(env: Mapping[str, str]) -> bool:
    """Whether a command with that environment can be a fork: on Linux, if nothing differs that Python reads
    as it starts."""
    changed = {name for name, value in env.items() if os.environ.get(name) != value}
    return (
        sys.platform.startswith("linux")
        and env.get("LANG") == "C.UTF-8"
        and not any(name.startswith(_AT_START) for name in changed)
    )


class WarmCommand(subprocess.Popen[str]):
    """A command line under way, as :class:`subprocess.Popen` has it; ``args`` come after ``envbuild``."""

    def _execute_child(self, args: Any, *values: Any) -> None:
        """What ``Popen`` calls to start its program once it has made the pipes. The order of the values is
        the same in Python 3.10 to 3.14."""
        _, _, _, _, cwd, env, _, _, _, *pipes = values[:15]
        child_ends = (pipes[0], pipes[3], pipes[5])
        try:
            self.pid = _server().start(list(args), str(cwd), env, child_ends)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class _Server:
    """The process that forks, as the one that asks sees it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._asking = threading.Lock()
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def start(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], files: Sequence[int]) -> int:
        """The process id of a new command, which is a child of this process."""
        request = json.dumps({"argv": argv, "cwd": cwd, "env": dict(env), "umask": _umask()}).encode()
        with self._asking:
            # The fork's own parent ends at once; the fork then goes to the nearest ancestor that takes it.
            self._take_orphans(True)
            try:
                size = len(request).to_bytes(4, "big")
                socket.send_fds(self._socket, [size], files)
                self._socket.sendall(request)
                answer = self._socket.recv(4, socket.MSG_WAITALL)
            finally:
                self._take_orphans(False)
        number = int.from_bytes(answer, "big")
        assert number, "no warm command has started; what its server wrote says why"
        return number

    def _take_orphans(self, take: bool) -> None:
        if self._prctl(_SET_CHILD_SUBREAPER, int(take), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


@cache
def _server() -> _Server:
    return _Server()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def serve(number: int) -> None:
    """Forks a command for each request on the socket ``number``, until the other side has closed it."""
    import envbuild

    for module in walk_packages(envbuild.__path__, "envbuild."):
        if ".migrations." not in module.name:
            import_module(module.name)
    for name in _THEIRS:
        import_module(name)
    connection = socket.socket(fileno=number)
    gc.collect()
    gc.freeze()
    while True:
        size, files, _, _ = socket.recv_fds(connection, 4, 3)
        if len(size) < 4:
            return
        request = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        started, report = os.pipe()
        between = os.fork()
        if between == 0:
            command = os.fork()
            if command != 0:
                os._exit(0)
            os.close(started)
            connection.close()
            _become(request, files)
            os.write(report, os.getpid().to_bytes(4, "big"))
            os.close(report)
            _run(request["argv"])
        os.waitpid(between, 0)
        os.close(report)
        connection.sendall(os.read(started, 4) or bytes(4))
        for file in (started, *files):
            os.close(file)


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Makes this process what a new one would be."""
    os.setsid()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    tempfile.tempdir = None
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)


def _run(argv: Sequence[str]) -> None:
    from envbuild.cli import main as command

    sys.argv[:] = [str(command.__file__), *argv]
    status = command.main()
    # What an interpreter does at its end, but for taking apart the modules, which would take the longest.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
