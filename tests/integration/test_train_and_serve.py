"""The example that trains, serves and scores, on real packages and the real server: one environment, in a
user namespace and in a Docker engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envbuild.platforms import Platform, runs_linux
from tests.integration.driver import Ended, Machine, ended, group

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "train-and-serve"
NO_ENGINE = "unix:///nonexistent/docker.sock"
BACKENDS = [
    pytest.param("userns", id="userns"),
    pytest.param("docker", id="docker", marks=pytest.mark.engine),
]

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(
        not runs_linux() or Platform.host().architecture != "amd64", reason="locked for linux/amd64"
    ),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def example(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, built by the committed lock, or by a new one if a package has left a mirror."""
    copy = tmp_path_factory.mktemp("example") / "train-and-serve"
    shutil.copytree(EXAMPLE, copy)
    command = [sys.executable, "-m", "envbuild.cli.main", "build", str(copy / "environment.yaml")]
    env = {**os.environ, "ENVBUILD_CACHE_DIR": str(cache), "ENVBUILD_RECORD": "false"}
    done = subprocess.run([*command, "--locked"], env=env, capture_output=True, text=True, timeout=600)
    if done.returncode == 6 and "--upgrade-package" in done.stderr:
        done = subprocess.run([*command, "--upgrade"], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return copy


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found = probe.getsockname()[1]
        assert isinstance(found, int)
        return found


def machine(root: Path, cache: Path, backend: str) -> Machine:
    """One that has an engine, or none."""
    env = {"ENVBUILD_CACHE_DIR": str(cache), "DOCKER_HOST": os.environ.get("DOCKER_HOST", "")}
    if backend == "userns":
        env["DOCKER_HOST"] = NO_ENGINE
    return Machine(root=root, env={name: value for name, value in env.items() if value})


def served(here: Machine, *arguments: str) -> subprocess.Popen[str]:
    """A service that says it is ready."""
    process = here.start("serve", "--locked", *arguments)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("ready after"):
            return process
    raise AssertionError("".join(told))


def ask(port: int, body: bytes, path: str = "/score") -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prediction_leads_back_to_lock_and_code(
    backend: str, example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    here = machine(tmp_path, cache, backend)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example / "train_and_serve.py"), "iris.db", str(port)],
        env=here.environment(),
        cwd=here.project,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "registered train-and-serve:1"
    assert json.loads(lines[1])["accuracy"] > 0.9
    trainer = lines[2].removeprefix("trained by ")
    assert lines[3] == f"served at http://127.0.0.1:{port}/score"
    assert lines[4] == "predicted setosa, versicolor, virginica"
    assert lines[5].endswith(", of train-and-serve:1")
    assert lines[8].endswith(f"written by the run {trainer}")
    assert lines[9] == "  trained in the same image: True"
    assert lines[10] == "  trained from the same code: True"
    assert lines[11].startswith("  locked: sha256:")
    shown = here.run("runs", "list", "--json", "--workspace", str(here.project / "iris.db"))
    assert [(each["status"], each["exit_status"]) for each in json.loads(shown.stdout)["runs"]] == [
        ("stopped", None),
        ("succeeded", 0),
    ]


SLOW = """
import threading, time
from pathlib import Path

def init():
    print("initialized", flush=True)

def run(data):
    print("in " + "flight", flush=True)
    time.sleep(1)
    return "answered"
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_request_in_flight_is_answered_before_the_end(
    backend: str, example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    here = machine(tmp_path, cache, backend)
    script = here.write("slow/score.py", SLOW)
    process = served(
        here, str(example / "environment.yaml"), "--entry-script", str(script), "--port", str(port)
    )
    assert process.stdout is not None
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port, b"{}")
        for line in process.stdout:
            if "in flight" in line:
                break
        process.send_signal(signal.SIGINT)
        assert answer.result(60) == (200, '"answered"')
    assert ended(process).status == 130
    assert group(process.pid) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    (run,) = json.loads(here.run("runs", "list", "--json").stdout)["runs"]
    assert run["status"] == "stopped"
    assert "in flight" in here.run("runs", "logs", run["name"]).stdout


BROKEN = "def init(): raise RuntimeError('model is broken')\ndef run(data): return data\n"


@pytest.mark.engine
def test_an_error_in_init_ends_it_with_its_reason(
    example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    here = machine(tmp_path, cache, "docker")
    script = here.write("broken/score.py", BROKEN)
    process = here.start(
        "serve", str(example / "environment.yaml"), "--entry-script", str(script), "--port", str(port)
    )
    done: Ended = ended(process)
    assert done.status == 9
    assert "ended with the exit status 3 before it answered: RuntimeError: model is broken" in done.stderr
    (run,) = json.loads(here.run("runs", "list", "--json").stdout)["runs"]
    assert (run["status"], run["exit_status"]) == ("failed", 3)


def test_bad_requests_are_the_clients_and_the_server_lives_on(
    example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    here = machine(tmp_path, cache, "userns")
    trained = here.run(
        "run", str(example / "environment.yaml"), "--target", "local", "--code", str(example / "src"),
        "--outputs", "model", "--", "python", "train.py",
    )  # fmt: skip
    assert trained.status == 0, trained.stderr
    process = served(
        here, str(example / "environment.yaml"), "--entry-script", str(example / "src" / "score.py"),
        "--model", "model", "--port", str(port),
    )  # fmt: skip
    try:
        for body in (
            b"{bad",
            b"",
            b"[1",
            b"[]",
            b'{"data": 1}',
            b'{"data": [[1, 2]]}',
            b'{"data": [["x"]]}',
            b"\xff",
        ):
            assert ask(port, body)[0] == 400, body
        assert ask(port, b"{}", "/other")[0] == 404
        assert ask(port, b'{"data": [[5.1, 3.5, 1.4, 0.2]]}') == (200, '{"species": ["setosa"]}')
        # Nobody but this machine reaches it.
        listening = subprocess.run(
            ["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True
        )
        assert {line.split()[3] for line in listening.stdout.splitlines()} == {f"127.0.0.1:{port}"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 143
