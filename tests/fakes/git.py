"""Git repositories made on the spot, and a server of them on loopback that speaks git's own protocol."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fakes.sdist import BACKEND

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "tests" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "tests@example.test" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_DATE": "2026-01-02T03:04:05Z" for who in ("AUTHOR", "COMMITTER")},
}


def project(name: str, version: str = "1.0", *, value: int = 1) -> dict[str, str]:
    """The files of a project with static metadata and a build backend of its own: ``import name`` has
    ``name.value``."""
    backend = BACKEND.format(name=name, version=version, tag="py3-none-any", code="pass", more=[])
    return {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": backend.replace("value = 1", f"value = {value}"),
    }


class GitRepository:
    """A bare repository in ``directory`` and the work tree beside it that it is written from."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.work = directory.with_name(f"{directory.name}-work")
        self.work.mkdir(parents=True)
        self._run("init", "--quiet", "--initial-branch=main", ".")
        subprocess.run(
            ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(directory)],
            env=_ENVIRONMENT,
            check=True,
        )

    def git(self, *arguments: str) -> str:
        """What git says in the work tree; then all branches and tags are in the bare repository."""
        said = self._run(*arguments)
        self._run("push", "--quiet", "--force", "--all", str(self.directory))
        self._run("push", "--quiet", "--force", "--tags", str(self.directory))
        # Plain files of it serve as a repository, too ("dumb" HTTP).
        subprocess.run(["git", "update-server-info"], cwd=self.directory, env=_ENVIRONMENT, check=True)
        return said

    def commit(self, files: Mapping[str, str], *, tag: str | None = None) -> str:
        """Commits ``files`` and returns the commit's name."""
        for path, text in files.items():
            place = self.work / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        self._run("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "change")
        if tag is not None:
            self.git("tag", "-a", "-m", tag, tag)
        return self._run("rev-parse", "HEAD")

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.work, env=_ENVIRONMENT, check=True, capture_output=True, text=True
        ).stdout.strip()


@contextmanager
def serve_git(root: Path, *, login: str | None = None) -> Iterator[str]:
    """``http://127.0.0.1:PORT`` of the repositories below ``root``; ``login`` is the one ``Authorization``
    that is let in."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _answer(self, body: bytes) -> None:
            if login is not None and self.headers.get("Authorization") != login:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            answer = subprocess.run(
                ["git", "http-backend"],
                input=body,
                stdout=subprocess.PIPE,
                check=True,
                env={
                    **_ENVIRONMENT,
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
            ).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with _serve(Handler) as url:
        yield url


@contextmanager
def serve_files(root: Path) -> Iterator[str]:
    """As :func:`serve_git`, by a server that knows nothing of git ("dumb" HTTP)."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with _serve(partial(Handler, directory=str(root))) as url:
        yield url


@contextmanager
def _serve(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
