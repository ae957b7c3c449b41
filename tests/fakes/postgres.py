"""A real PostgreSQL server of its own: its data in a new directory, reached over a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "correct-horse-battery"
_TOOLS = ("initdb", "pg_ctl", "postgres")
_LIMIT = 120.0
"""Seconds that starting or stopping may take."""


def absent() -> str | None:
    """Why there can't be a server here; None if there can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} on PATH"
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL doesn't run as root, and there is no setpriv"
    return None


@dataclass
class Server:
    """Started and stopped by whoever holds it."""

    root: Path
    _made: int = field(default=0)

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        self._made += 1
        name = f"ws{self._made}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def url(self, name: str, password: str = PASSWORD) -> str:
        return f"postgresql://keeper:{password}@/{name}?host={self.root}"

    def execute(self, url: str, statement: str) -> None:
        """Runs a statement as another program would."""
        import psycopg

        with psycopg.connect(self._dsn(url.split("@/")[1].split("?")[0])) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        # Nothing is kept after the tests, so nothing has to reach the disk.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.root}' -c fsync=off"
        log = str(self.root / "log")
        self._run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", log, "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.data))

    @property
    def data(self) -> Path:
        return self.root / "data"

    def _dsn(self, name: str) -> str:
        return f"host={self.root} user=keeper password={PASSWORD} dbname={name}"

    def make(self) -> None:
        secret = self.root / "secret"
        secret.write_text(PASSWORD)
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self.root, secret):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._run(
            *("initdb", "-D", str(self.data), "-U", "keeper", "--auth=scram-sha-256", f"--pwfile={secret}"),
            *("--no-sync", "--locale=C.UTF-8", "--encoding=UTF8"),
        )

    def _run(self, *command: str) -> None:
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            ids = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
            command = ("setpriv", *ids, "--", *command)
        with (self.root.parent / f"{self.root.name}.out").open("w+") as out:
            # A file, not a pipe: the server would hold the pipe open for good.
            done = subprocess.run(
                command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd="/",
                timeout=_LIMIT,
                check=False,
            )
            out.seek(0)
            assert done.returncode == 0, out.read()


@contextmanager
def server() -> Iterator[Server]:
    """A running server; gone with all its data at the end."""
    # Not below pytest's directory: that is closed to other users, and the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="envbuild-pg-") as name:
        top = Path(name)
        top.chmod(0o755)
        root = top / "pg"
        root.mkdir(mode=0o700)
        made = Server(root)
        made.make()
        made.start()
        try:
            yield made
        finally:
            if (made.data / "postmaster.pid").exists():
                made.stop()
