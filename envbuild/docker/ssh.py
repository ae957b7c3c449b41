"""A Docker engine behind SSH: each connection to it is one ``ssh … docker system dial-stdio``.

The user's own ``ssh`` is run, with its configuration, agent and known hosts, but never to ask for anything:
who can't log in by a key is told so, in ssh's own words.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

_HOST = re.compile(
    r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@/:\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?"
)
_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T"),
    # A machine that vanishes is noticed after 45 seconds, however silent the job is.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)
_REMOTE = ("docker", "system", "dial-stdio")
_WORDS = 1000
"""Characters of what ssh says that are kept."""
_ENDING = 5


def ssh_command(address: str) -> list[str]:
    """What connects to the engine of ``ssh://[USER@]HOST[:PORT]``. Raises ``ValueError``."""
    match = _HOST.fullmatch(address.removeprefix("ssh://").removesuffix("/"))
    if match is None:
        raise ValueError(f"{address} is not ssh://USER@HOST:PORT")
    user = ["-l", match["user"]] if match["user"] else []
    port = ["-p", match["port"]] if match["port"] else []
    return ["ssh", *_OPTIONS, *user, *port, "--", match["host"].strip("[]"), *_REMOTE]


class SshBridge:
    """A socket of this machine, ours alone, whose connections end at the engine.

    ``address`` is its URL. Raises ``OSError`` and ``ValueError``.
    """

    def __init__(self, address: str, environ: Mapping[str, str]) -> None:
        self._command = ssh_command(address)
        self._environ = dict(environ)
        self._said = ""
        self._closing = False
        self._connections: list[tuple[subprocess.Popen[bytes], threading.Thread]] = []
        self._directory = Path(tempfile.mkdtemp(prefix="envbuild-ssh-"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(self._directory / "docker.sock"))
            self._listener.listen()
        except BaseException:
            self._listener.close()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self.address = f"unix://{self._directory / 'docker.sock'}"
        self._thread = threading.Thread(target=self._serve, name="docker over ssh", daemon=True)
        self._thread.start()

    def close(self) -> str:
        """Ends all connections, and returns the last line that ssh said: why there was none."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
                # Wakes the thread, which then sees that it is over.
                knock.connect(str(self._directory / "docker.sock"))
            self._thread.join(_ENDING)
            self._listener.close()
            for process, listening in self._connections:
                _end(process)
                listening.join(1)
            shutil.rmtree(self._directory, ignore_errors=True)
        return self._said

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self._closing:
                    return
                try:
                    # In a session of its own: Ctrl-C must not cut the way that a job is stopped on.
                    process = subprocess.Popen(
                        self._command,
                        env=self._environ,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.PIPE,
                        start_new_session=True,
                    )
                except OSError as error:
                    self._said = f"can't run ssh: {error.strerror}"
                    continue
            listening = threading.Thread(target=self._listen, args=(process,), daemon=True)
            listening.start()
            self._connections = [connection for connection in self._connections if connection[1].is_alive()]
            self._connections.append((process, listening))

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                if text := line.decode(errors="replace").strip():
                    self._said = text[:_WORDS]
        process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """ssh ends by itself where nobody is at the other end; one that still tries to connect doesn't."""
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
