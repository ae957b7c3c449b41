"""The example that trains, serves and scores, on real packages and the real server: one environment, in a
user namespace and in a Docker engine."""

from __future__ import annotations

import contextlib
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
    pytest.mark.slow,
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
    command = [sys.executable, "-m", "envbuild", "build", str(copy / "environment.yaml")]
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


def ask(port: int, body: bytes | None, path: str = "/score", timeout: float = 30) -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
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
    assert [(load["status"], load["exit_status"]) for load in json.loads(shown.stdout)["runs"]] == [
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


COUNTING = """
import json, os, threading, urllib.request

inside, met = [], threading.Barrier(3)

def init():
    global called_in
    called_in = threading.current_thread()

def run(data):
    inside.append(data)
    try:
        if data == '"meet"':
            met.wait(30)
        if data == '"alive"':
            url = f"http://127.0.0.1:{os.environ['SERVER_PORT']}/"
            with urllib.request.urlopen(url, timeout=30) as response:
                return [response.status, response.read().decode()]
        if data == '"hang"':
            threading.Event().wait()
        return [len(inside), threading.current_thread() is called_in]
    finally:
        inside.remove(data)
"""
HELD = (
    b"",
    b"GET / HTTP/1.1\r\nHost: half",
    b"POST /score HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf",
)


def counting(here: Machine, example: Path, port: int, *more: str) -> subprocess.Popen[str]:
    script = here.write("counting/score.py", COUNTING)
    return served(
        here, str(example / "environment.yaml"), "--entry-script", str(script), "--port", str(port), *more
    )


def test_connections_that_say_nothing_or_half_hold_up_nobody(
    example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    process = counting(machine(tmp_path, cache, "userns"), example, port)
    try:
        with contextlib.ExitStack() as held:
            for number in range(51):
                connection = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                connection.sendall(HELD[number % 3])
            # Alone, each of them held up a server of one thread for five minutes.
            for _ in range(5):
                assert ask(port, None, "/", timeout=5) == (200, "Healthy")
                assert ask(port, b"1", timeout=5) == (200, "[1, true]")
    finally:
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 143


def test_run_is_one_request_at_a_time_and_liveness_answers_meanwhile(
    example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    process = counting(machine(tmp_path, cache, "userns"), example, port)
    try:
        with ThreadPoolExecutor(50) as pool:
            answers = set(pool.map(lambda number: ask(port, b"%d" % number), range(200)))
        assert answers == {(200, "[1, true]")}
        assert ask(port, b'"alive"') == (200, '[200, "Healthy"]')
    finally:
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 143


def test_run_is_as_many_at_once_as_the_script_is_said_to_bear(
    example: Path, cache: Path, tmp_path: Path, port: int
) -> None:
    process = counting(machine(tmp_path, cache, "userns"), example, port, "-e", "ENVBUILD_SCORING_THREADS=3")
    try:
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: ask(port, b'"meet"'), range(3)))
        assert [status for status, _ in answers] == [200] * 3
        assert max(json.loads(answer)[0] for _, answer in answers) == 3
    finally:
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 143


@pytest.mark.parametrize(
    ("variable", "answer"),
    [
        ("SCORING_TIMEOUT_MS=1000", (500, '{"message": "Scoring timeout after 1000 ms"}')),
        # The worker is replaced, and waits for nothing more than to have said so.
        ("WORKER_TIMEOUT=2", (500, "<html>")),
    ],
)
def test_a_run_that_hangs_is_ended_as_the_server_s_variables_say(
    example: Path, cache: Path, tmp_path: Path, port: int, variable: str, answer: tuple[int, str]
) -> None:
    process = counting(machine(tmp_path, cache, "userns"), example, port, "-e", variable)
    try:
        status, text = ask(port, b'"hang"')
        assert (status, text[: len(answer[1])]) == answer
        assert ask(port, b"1") == (200, "[1, true]")
    finally:
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 143


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
