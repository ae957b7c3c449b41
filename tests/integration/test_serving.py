"""Services from their start to their end, over real HTTP, and ``envbuild serve`` up to there.

The server in here is a process of this machine; the one that images have is in ``test_train_and_serve``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from envbuild.app.environments import Workspace
from envbuild.app.jobs import PreparedJob, log_file
from envbuild.app.run_files import RUN_NOTE, leave_note, noted_run
from envbuild.app.services import PreparedService, run_service
from envbuild.app.session import Session
from envbuild.errors import RunError, UsageError
from envbuild.oci.image import Image
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.targets.base import (
    Execution,
    Job,
    PreflightFinding,
    Service,
    TargetFile,
    TargetLimits,
    TargetRecord,
)
from envbuild.workspace.base import RunRecord
from tests.fakes.image import Item, put_image, put_layer
from tests.fakes.registry import serve
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import World, a_world, demo

SERVER = """
import http.server, os, signal, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"Healthy" if self.path == "/" else b"scored"
        self.send_response(200)
        self.send_header("x-envbuild-run", os.environ["ENVBUILD_RUN"])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, lambda *_: (print("stopping", flush=True), sys.exit(0)))
print("listening", flush=True)
server.serve_forever()
"""
FAILING = """
import sys
print("Traceback (most recent call last):")
print("RuntimeError: model is broken")
print("azureml_inference_server_http.server.user_script.UserScriptException: Caught an unhandled exception")
print("Reason: Worker failed to boot.")
sys.exit(3)
"""
SILENT = "import time; time.sleep(600)"


class ProcessExecution:
    """A process of this machine."""

    def __init__(self, script: str, port: int, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(port)],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.closed = False

    @property
    def identity(self) -> str:
        return f"process {self.process.pid}"

    def logs(self) -> Iterator[bytes]:
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 1 << 16):
            yield piece

    def wait(self) -> int:
        status = self.process.wait(60)
        return status if status >= 0 else 128 - status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def bring_outputs(self, directory: Path) -> bool:
        return False

    def close(self) -> None:
        self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.closed = True


class Elsewhere:
    """A target that starts no services."""

    record = TargetRecord(name="here", kind="here")
    limits = TargetLimits()
    registry: str | None = None

    def __init__(self, script: str = SERVER) -> None:
        self.script = script
        self.executions: list[ProcessExecution] = []

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return ()

    def bytes_to_pull(self, image: Image) -> int | None:
        return 0

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return ()

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        return (TargetFile(name="service", content=f"{service.name} {dict(service.env)}"),)

    def submit(self, job: Job) -> Execution:
        raise AssertionError("nothing is submitted")


class Here(Elsewhere):
    """One that serves by a script of this machine."""

    def serve(self, service: Service, port: int) -> Execution:
        made = ProcessExecution(self.script, port, dict(service.env))
        self.executions.append(made)
        return made


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    settings = Settings(cache_dir=tmp_path / "cache", workspace=tmp_path / "data" / "workspace.db")
    with Workspace(settings, environ={"USER": "ann"}) as found:
        yield found


@pytest.fixture
def session(workspace: Workspace) -> Iterator[Session]:
    with Session(workspace.settings, Silent(), workspace=workspace) as session:
        yield session


def prepared(workspace: Workspace, target: Elsewhere, port: int) -> PreparedService:
    store = Store(workspace.settings.cache_dir)
    image = put_image(store, [put_layer(store, [Item(name="x")])], {})
    env = (("ENVBUILD_RUN", "iris-1"), ("MINE", "1"))
    service = Service(
        name="iris-1",
        reference=f"iris:1@{image.digest}",
        image=image,
        port=5001,
        liveness="/",
        readiness="/",
        scoring="/score",
        env=env,
        environment="iris:1",
    )
    job = Job(
        name="iris-1",
        reference=service.reference,
        image=image,
        command=("azmlinfsrv",),
        env=env,
        environment="iris:1",
        code_digest="sha256:" + "c" * 64,
    )
    return PreparedService(
        prepared=PreparedJob(
            job=job,
            target=target,
            base=image,
            definition="sha256:" + "d" * 64,
            findings=(),
            code_size=1,
            to_pull=0,
        ),
        service=service,
        port=port,
        model_digest="sha256:" + "e" * 64,
        model_run="train-1",
        pushed=None,
    )


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found = probe.getsockname()[1]
        assert isinstance(found, int)
        return found


def recorded(workspace: Workspace) -> RunRecord:
    (found,) = workspace.environments.runs()
    return found


def test_it_answers_while_the_context_is_open(session: Session, workspace: Workspace, port: int) -> None:
    target, printed = Here(), bytearray()
    with run_service(session, prepared(workspace, target, port), printed.extend) as serving:
        assert serving.scoring_url == f"http://127.0.0.1:{port}/score"
        with urllib.request.urlopen(serving.scoring_url, b"{}", timeout=30) as response:
            assert (response.read(), response.headers["x-envbuild-run"]) == (b"scored", "iris-1")
        assert recorded(workspace).status == "running"
        assert 0 < serving.seconds < 60
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(serving.url, timeout=30)
    found = recorded(workspace)
    assert (found.name, found.status, found.exit_status) == ("iris-1", "stopped", None)
    assert (found.target, found.code, found.command) == ("here", "sha256:" + "c" * 64, ("azmlinfsrv",))
    assert found.variables == ("ENVBUILD_RUN", "MINE")
    assert target.executions[0].closed
    # What it says while it is stopped is in the log, too.
    assert log_file(workspace, "iris-1").read_bytes().endswith(b"stopping\n")
    assert b"listening" in printed


def test_one_that_ends_in_init_says_why(session: Session, workspace: Workspace, port: int) -> None:
    target = Here(FAILING)
    message = "the service ended with the exit status 3 before it answered: RuntimeError: model is broken"
    with (
        pytest.raises(RunError, match=message) as caught,
        run_service(session, prepared(workspace, target, port), lambda piece: None),
    ):
        raise AssertionError("it never answers")
    assert caught.value.hint == "all it said: envbuild runs logs iris-1"
    assert (recorded(workspace).status, recorded(workspace).exit_status) == ("failed", 3)
    assert target.executions[0].closed


def test_one_that_never_answers_is_ended(session: Session, workspace: Workspace, port: int) -> None:
    target = Here(SILENT)
    with (
        pytest.raises(RunError, match="doesn't answer at /"),
        run_service(session, prepared(workspace, target, port), lambda piece: None, ready_seconds=0.1),
    ):
        raise AssertionError("it never answers")
    assert target.executions[0].process.returncode == -signal.SIGTERM
    assert recorded(workspace).status == "failed"


def test_one_that_is_killed_is_recorded_as_failed(session: Session, workspace: Workspace, port: int) -> None:
    target = Here()
    with run_service(session, prepared(workspace, target, port), lambda piece: None) as serving:
        target.executions[0].process.kill()
        assert serving.wait() == 137
    assert (recorded(workspace).status, recorded(workspace).exit_status) == ("failed", 137)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_the_context_stops_it(
    session: Session, workspace: Workspace, port: int, error: type[BaseException]
) -> None:
    target = Here()
    with pytest.raises(error), run_service(session, prepared(workspace, target, port), lambda piece: None):
        raise error
    assert target.executions[0].process.returncode == 0
    assert recorded(workspace).status == "stopped"


def test_a_taken_port_is_said_before_anything_starts(session: Session, workspace: Workspace) -> None:
    target = Here()
    with socket.create_server(("0.0.0.0", 0)) as other:
        taken = other.getsockname()[1]
        with (
            pytest.raises(RunError, match=f"port {taken} of this machine can't be used: Address already"),
            run_service(session, prepared(workspace, target, taken), lambda piece: None),
        ):
            raise AssertionError("it never starts")
    assert target.executions == []
    assert workspace.environments.runs() == ()


def test_an_answer_of_another_process_is_none(session: Session, workspace: Workspace, port: int) -> None:
    """Its port was taken after the look: the other one answers with 200, but isn't of this run."""
    target = Here(SERVER.replace('os.environ["ENVBUILD_RUN"]', '"other-1"'))
    with (
        pytest.raises(RunError, match="doesn't answer at /"),
        run_service(session, prepared(workspace, target, port), lambda piece: None, ready_seconds=0.5),
    ):
        raise AssertionError("it isn't ours")


def test_a_target_that_starts_no_services_is_refused(
    session: Session, workspace: Workspace, port: int
) -> None:
    with (
        pytest.raises(UsageError, match="here starts no services from here"),
        run_service(session, prepared(workspace, Elsewhere(), port), lambda piece: None),
    ):
        raise AssertionError("it never starts")


def test_files_are_of_no_run(workspace: Workspace, port: int) -> None:
    (file,) = prepared(workspace, Here(), port).files
    assert file.content == "iris {'MINE': '1'}"


def test_a_model_leads_back_to_its_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert noted_run(tmp_path / "model") is None
    leave_note(tmp_path, run="train-1", environment="iris:1", image="sha256:1", code=None)
    assert noted_run(tmp_path) == "train-1"
    assert noted_run(tmp_path / "model") == "train-1"
    for damaged in ('{"run": "../x"}', "[]", "{", '{"run": 1}'):
        (tmp_path / RUN_NOTE).write_text(damaged)
        assert noted_run(tmp_path) is None


# --- the command, up to the server --------------------------------------------------------------------

SERVER_WHEEL = Wheel(name="azureml-inference-server-http", version="1.5", requires=("six<2",))
ROUTES = (
    "inference_config: {liveness_route: {path: /, port: 8080}, readiness_route: {path: /, port: 8080}, "
    "scoring_route: {path: /score, port: 8080}}\n"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = a_world(
        tmp_path_factory.mktemp("world"),
        [SERVER_WHEEL, Wheel(name="six", version="1.0"), Wheel(name="six", version="2.0")],
    )
    made.machine.write("src/score.py", "def init(): pass\ndef run(data): return data\n")
    made.machine.write("model/model.bin", "weights")
    return made


def dry(world: World, *more: str) -> list[str]:
    return ["serve", ".", "--entry-script", "src/score.py", "--dry-run", *more]


def test_an_environment_with_the_server_is_one_image_for_both_uses(world: World) -> None:
    machine = world.machine
    machine.write("envbuild.yaml", demo("azureml-inference-server-http", "six", more=ROUTES))
    assert machine.run("lock", "--no-bytecode").status == 0
    built = machine.run("build")
    done = machine.run(*dry(world, "--model", "model"))
    assert done.status == 0, done.stderr
    assert "8080:8080" in done.stdout
    assert sorted(path.name for path in machine.lock.parent.iterdir()) == ["demo"]
    digest = done.stdout.partition("image: ")[2].split()[0].partition("@")[2]
    shown = machine.run("inspect", digest)
    assert shown.status == 0, shown.stderr
    assert f"dev.envbuild.environment={built.digest}" in shown.stdout
    assert "dev.envbuild.entry-script=score.py" in shown.stdout
    assert machine.run(*dry(world, "--model", "model")).stdout == done.stdout
    with serve() as registry:
        pushed = machine.run(*dry(world, "--model", "model", "--push", f"{registry.host}/team/iris"))
        assert f"pushed {registry.host}/team/iris:" in pushed.stderr
        remote = machine.run("inspect", f"{registry.host}/team/iris@{digest}")
    assert f"dev.envbuild.environment={built.digest}" in remote.stdout
    shutil.rmtree(machine.lock.parent)


def test_another_environment_is_locked_with_the_server(world: World) -> None:
    machine = world.machine
    machine.write("envbuild.yaml", demo("six"))
    # The base made for tests has no interpreter to compile with, so this ends after its lock.
    machine.run(*dry(world)).failed(6, "interpreter")
    lock = (machine.lock.parent / "demo-serving" / "requirements.linux-64.txt").read_text()
    assert "azureml-inference-server-http==1.5" in lock
    assert "six==1.0" in lock
    assert not machine.lock.exists()


def test_a_conflict_with_the_server_is_one_of_the_lock(world: World) -> None:
    world.machine.write("envbuild.yaml", demo("six==2.0"))
    world.machine.run(*dry(world)).failed(4, "six", "azureml-inference-server-http")


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (("--model", "none"), 2, ("there is no model directory",)),
        (("--target", "nowhere"), 8, ("there is no target 'nowhere'",)),
        (("--code", "model"), 3, ("isn't in the code's directory",)),
    ],
)
def test_what_is_wrong_is_said_before_a_build(
    world: World, more: tuple[str, ...], status: int, words: tuple[str, ...]
) -> None:
    world.machine.write("envbuild.yaml", demo("absent-from-the-index"))
    world.machine.run(*dry(world, *more)).failed(status, *words)


def test_a_syntax_error_is_said_by_line_before_a_build(world: World) -> None:
    world.machine.write("envbuild.yaml", demo("absent-from-the-index"))
    world.machine.write("bad/score.py", "def init(): pass\ndef run(:\n")
    done = world.machine.run("serve", ".", "--entry-script", "bad/score.py")
    done.failed(3, "score.py:2: invalid syntax")
