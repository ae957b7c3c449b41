"""A dashboard of Ray on loopback: the documented shapes of its Jobs API; commands really run here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "2.60.0"


@dataclass(kw_only=True)
class Submitted:
    """A job: what was asked for, and its process."""

    body: dict[str, Any]
    process: subprocess.Popen[bytes]
    log: Path
    stopped: bool = False

    @property
    def details(self) -> dict[str, Any]:
        code = self.process.poll()
        if code is None:
            status, message = "RUNNING", "Job is currently running."
        elif self.stopped:
            status, message = "STOPPED", "Job was intentionally stopped."
        elif code == 0:
            status, message = "SUCCEEDED", "Job finished successfully."
        else:
            status, message = "FAILED", f"Job entrypoint command failed with exit code {code}"
        return {
            "type": "SUBMISSION",
            "submission_id": self.body["submission_id"],
            "status": status,
            "message": message,
            "entrypoint": self.body["entrypoint"],
            "driver_exit_code": None if self.stopped else code,
        }


@dataclass(kw_only=True)
class Dashboard:
    """What tests see, and what goes wrong."""

    address: str = ""
    token: str | None = None
    """That every request must bring."""
    jobs: dict[str, Submitted] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    away: int = 0
    """As many requests are answered by 503."""
    refuses: str | None = None
    """What submissions are answered with."""
    directory: Path = Path()

    def stop(self, name: str) -> None:
        job = self.jobs[name]
        job.stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGTERM)
        job.process.wait()

    def forget(self, name: str) -> None:
        """As a cluster that was started again."""
        self.stop(name)
        del self.jobs[name]

    def start(self, body: dict[str, Any]) -> None:
        name, runtime = body["submission_id"], body["runtime_env"]
        place = self.directory / name
        place.mkdir()
        if "working_dir" in runtime:
            content = self.packages[runtime["working_dir"].removeprefix("gcs://")]
            zipfile.ZipFile(io.BytesIO(content)).extractall(place)
        log = self.directory / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                body["entrypoint"],
                shell=True,
                cwd=place,
                env={"PATH": os.environ["PATH"], **runtime.get("env_vars", {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.jobs[name] = Submitted(body=body, process=process, log=log)


def _handler(state: Dashboard) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, status: int, content: object) -> None:
            data = json.dumps(content).encode() if not isinstance(content, bytes) else content
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.away > 0:
                state.away -= 1
                return self._answer(503, b"")
            if state.token is not None and self.headers.get("Authorization") != f"Bearer {state.token}":
                return self._answer(401, b"Unauthorized: Missing authentication token")
            words = self.path.strip("/").split("/")[1:]
            if words == ["version"]:
                return self._answer(200, {"version": "4", "ray_version": VERSION, "ray_commit": "x"})
            if words[:2] == ["packages", "gcs"]:
                return self._package(words[2], body)
            if words == ["jobs"] and self.command == "POST":
                if state.refuses is not None:
                    return self._answer(500, f"Traceback\n\n{state.refuses}\n".encode())
                asked = json.loads(body)
                state.start(asked)
                name = asked["submission_id"]
                return self._answer(200, {"job_id": name, "submission_id": name})
            if words[0] != "jobs" or words[1] not in state.jobs:
                return self._answer(404, f"Job {words[-1]} does not exist".encode())
            job = state.jobs[words[1]]
            if words[2:] == ["logs"]:
                return self._answer(200, {"logs": job.log.read_bytes().decode(errors="replace")})
            if words[2:] == ["stop"] and self.command == "POST":
                state.stop(words[1])
                return self._answer(200, {"stopped": True})
            return self._answer(200, job.details)

        def _package(self, name: str, body: bytes) -> None:
            if self.command == "PUT":
                state.packages[name] = body
                return self._answer(200, b"")
            return self._answer(200 if name in state.packages else 404, b"")

        do_GET = do_POST = do_PUT = _serve

    return Handler


@contextlib.contextmanager
def serve(*, token: str | None = None) -> Iterator[Dashboard]:
    with tempfile.TemporaryDirectory() as directory:
        state = Dashboard(token=token, directory=Path(directory))
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        state.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            for name in list(state.jobs):
                state.stop(name)
