"""Jobs on a real Docker engine, the one DOCKER_HOST names: here, and behind a real SSH server."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.docker.client import NoEngine, connect, is_here
from envbuild.docker.job import RUN_LABEL
from envbuild.errors import RunError
from envbuild.oci.image import Image
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import Job, TargetRecord
from envbuild.targets.code import code_image
from envbuild.targets.docker import KIND, DockerTarget
from envbuild.targets.kinds import TargetContext
from tests.fakes import ssh_server
from tests.fakes.image import Item, put_image, put_layer, shell_image
from tests.fakes.ssh_server import SshServer

pytestmark = [pytest.mark.engine]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def base(store: Store) -> Image:
    unique = put_layer(store, [Item(name="unique", content=os.urandom(16))])
    return put_image(
        store, [*shell_image(store).layers, unique], {"Env": ["PATH=/usr/bin"], "User": "1000:1000"}
    )


@pytest.fixture(scope="module")
def image(store: Store, base: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    code = tmp_path_factory.mktemp("code")
    (code / "data").write_text("of the code\n")
    return code_image(base, code, store).image


def target(store: Store, state: Path, environ: dict[str, str] | None = None, **options: str) -> DockerTarget:
    return KIND.open(
        TargetRecord(name="engine", kind="docker", options=tuple(sorted(options.items()))),
        TargetContext(store=store, progress=Silent(), state=state, environ=environ or os.environ),
    )


def a_job(image: Image, script: str, name: str = "") -> Job:
    return Job(
        name=name or f"demo-{os.getpid()}-{os.urandom(4).hex()}",
        reference=f"envbuild-target-test:{os.getpid()}@{image.digest}",
        image=image,
        command=("sh", "-c", script),
        env=(("DEPTH", "3"),),
    )


def containers(name: str) -> list[str]:
    client = connect(os.environ)
    assert not isinstance(client, NoEngine)
    try:
        found = client.api.containers(all=True, filters={"label": f"{RUN_LABEL}={name}"})
        return [str(each["Id"]) for each in found]
    finally:
        client.close()


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    """Takes the test's images from the engine again."""
    yield
    client = connect(os.environ)
    if not isinstance(client, NoEngine):
        for each in client.api.images(name="envbuild-target-test"):
            client.api.remove_image(each["Id"], force=True)
        client.close()


def test_job_runs_and_its_outputs_come_back(store: Store, image: Image, tmp_path: Path) -> None:
    engine = target(store, tmp_path)
    assert engine.findings(image) == []
    job = a_job(
        image,
        "pwd; cat data; echo $DEPTH; echo bad >&2; echo x > outputs/model; exit 7",
    )
    execution = engine.submit(job)
    output = b"".join(execution.logs())
    assert sorted(output.splitlines()) == [b"/workspace", b"3", b"bad", b"of the code"]
    assert execution.wait() == 7
    out = tmp_path / "out"
    out.mkdir()
    assert execution.bring_outputs(out)
    assert [str(path.relative_to(out)) for path in out.rglob("*")] == ["model"]
    assert containers(job.name)
    execution.close()
    assert containers(job.name) == []
    assert engine.bytes_to_pull(image) == 0


@pytest.mark.parametrize(("script", "status"), [("kill -9 $$", 137), ("exec nosuch", 127), ("exit 0", 0)])
def test_status_is_the_job_s_and_no_outputs_are_none(
    store: Store, image: Image, tmp_path: Path, script: str, status: int
) -> None:
    execution = target(store, tmp_path).submit(a_job(image, script))
    b"".join(execution.logs())
    assert execution.wait() == status
    assert not execution.bring_outputs(tmp_path)
    execution.stop()
    execution.close()


def test_megabytes_without_a_newline_come_through(store: Store, base: Image, tmp_path: Path) -> None:
    blob = os.urandom(1 << 20)
    (tmp_path / "blob").write_bytes(blob)
    execution = target(store, tmp_path).submit(
        a_job(code_image(base, tmp_path, store).image, "cat blob blob")
    )
    assert b"".join(execution.logs()) == blob * 2
    assert execution.wait() == 0
    execution.close()


def test_stop_is_gentle_and_last_words_arrive(store: Store, image: Image, tmp_path: Path) -> None:
    job = a_job(image, "trap 'echo last words; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    execution = target(store, tmp_path).submit(job)
    pieces: list[bytes] = []
    ready = threading.Event()

    def read() -> None:
        for piece in execution.logs():
            pieces.append(piece)
            ready.set()

    reading = threading.Thread(target=read)
    reading.start()
    assert ready.wait(60)
    execution.stop()
    reading.join(60)
    assert not reading.is_alive()
    assert b"".join(pieces) == b"ready\nlast words\n"
    assert execution.wait() == 3
    execution.close()
    assert containers(job.name) == []


def test_job_that_the_engine_refuses_leaves_no_container(store: Store, image: Image, tmp_path: Path) -> None:
    job = replace(a_job(image, ""), env=(("", "no name"),))
    with pytest.raises(RunError, match=r"^the Docker engine refuses the job: "):
        target(store, tmp_path).submit(job)
    assert containers(job.name) == []


def test_image_of_another_architecture_is_found(store: Store, image: Image, tmp_path: Path) -> None:
    other = LINUX_ARM64 if Platform.host() == LINUX_AMD64 else LINUX_AMD64
    (found,) = target(store, tmp_path).findings(put_image(store, image.layers, platform=other))
    assert found.text == f"the engine of engine runs {Platform.host()}, the image is for {other}"
    assert found.hint == f"give the target that platform: platform={Platform.host()}"


# docker-py leaves a socket open that couldn't be connected.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_engine_that_goes_away_is_told(store: Store, image: Image, tmp_path: Path) -> None:
    """Between us and the engine is a way that ends in the middle of the job."""
    path = os.environ["DOCKER_HOST"].removeprefix("unix://")
    with Way(tmp_path / "w.sock", path) as way:
        job = a_job(image, "echo ready; while :; do sleep 0.05; done")
        execution = target(store, tmp_path, host=f"unix://{way.path}").submit(job)
        logs = execution.logs()
        assert next(logs) == b"ready\n"
        way.cut()
        # What was printed by then is all there is; that it isn't the end is seen by asking.
        assert b"".join(logs) == b""
        with pytest.raises(RunError, match="the Docker engine went away"):
            execution.wait()
        with pytest.raises(RunError, match="the Docker engine went away"):
            execution.stop()
        execution.close()
    client = connect(os.environ)
    assert not isinstance(client, NoEngine)
    for container in containers(job.name):
        client.api.remove_container(container, force=True)
    client.close()
    del logs, execution
    gc.collect()


class Way:
    """A socket that passes on to another one, until it is cut."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path = path
        self._engine = engine
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def __enter__(self) -> Way:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        self.path.unlink(missing_ok=True)
        for each in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._engine)
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket) -> None:
        try:
            while piece := one.recv(1 << 16):
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


# --- behind SSH ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    reason = ssh_server.absent()
    if reason is not None:
        pytest.skip(reason)
    variables = {"DOCKER_HOST": os.environ["DOCKER_HOST"], "PATH": os.environ["PATH"]}
    with ssh_server.serve(tmp_path_factory.mktemp("ssh") / "server", variables) as found:
        yield found


def over_ssh(store: Store, state: Path, server: SshServer) -> DockerTarget:
    environ = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    return target(store, state, server.environ(environ), host=f"ssh://root@127.0.0.1:{server.port}")


def bridges() -> list[str]:
    """The ssh processes of our sockets that are alive."""
    done = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True)
    return [
        line
        for line in done.stdout.splitlines()
        if "docker system dial-stdio" in line and line.split()[0] == str(os.getpid())
    ]


def test_engine_behind_ssh_is_sent_only_what_it_lacks(
    store: Store, base: Image, image: Image, server: SshServer, tmp_path: Path
) -> None:
    engine = over_ssh(store, tmp_path, server)
    assert engine.findings(image) == []
    first = engine.submit(a_job(base, "exit 0"))
    assert first.wait() == 0
    first.close()
    fresh = tmp_path / "code"
    fresh.mkdir()
    (fresh / "data").write_bytes(os.urandom(64))
    coded = code_image(base, fresh, store).image
    assert engine.bytes_to_pull(coded) in (coded.layers[-1].size, sum(layer.size for layer in coded.layers))
    job = a_job(coded, "echo $DEPTH; cat data > outputs/copy; exit 5")
    execution = engine.submit(job)
    assert b"".join(execution.logs()) == b"3\n"
    assert execution.wait() == 5
    out = tmp_path / "out"
    out.mkdir()
    assert execution.bring_outputs(out)
    assert (out / "copy").read_bytes() == (fresh / "data").read_bytes()
    execution.close()
    assert containers(job.name) == []
    assert bridges() == []


def test_job_behind_ssh_is_stopped_gently(
    store: Store, image: Image, server: SshServer, tmp_path: Path
) -> None:
    job = a_job(image, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    execution = over_ssh(store, tmp_path, server).submit(job)
    assert next(execution.logs()) == b"ready\n"
    execution.stop()
    assert execution.wait() == 3
    execution.close()
    assert bridges() == []


def test_engine_behind_ssh_is_not_here(server: SshServer) -> None:
    environ = server.environ({**os.environ, "DOCKER_HOST": f"ssh://root@127.0.0.1:{server.port}"})
    client = connect(environ)
    assert not isinstance(client, NoEngine)
    assert not is_here(client)
    client.close()
    client.close()


def test_ssh_that_can_not_log_in_is_told_in_its_words(
    store: Store, image: Image, server: SshServer, tmp_path: Path
) -> None:
    engine = over_ssh(store, tmp_path, server)
    place = f"no Docker engine at ssh://root@127.0.0.1:{server.port} (DOCKER_HOST): "
    try:
        server.use_key("stranger")
        (found,) = engine.findings(image)
        assert found.text == f"{place}root@127.0.0.1: Permission denied (publickey)."
        assert found.hint is not None
        assert found.hint.startswith("ssh asks for nothing here")
        server.use_key("mine")
        server.forget_the_host()
        (found,) = engine.findings(image)
        assert found.text == f"{place}Host key verification failed."
    finally:
        server.use_key("mine")
        server.know_the_host()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = target(store, tmp_path, server.environ(os.environ), host=f"ssh://root@127.0.0.1:{port}")
    (found,) = away.findings(image)
    assert f"connect to host 127.0.0.1 port {port}: Connection refused" in found.text
    with pytest.raises(RunError, match="Connection refused"):
        away.submit(a_job(image, "exit 0"))
    assert bridges() == []


def test_machine_without_ssh_is_told(store: Store, image: Image, tmp_path: Path) -> None:
    engine = target(store, tmp_path, {"PATH": str(tmp_path)}, host="ssh://root@127.0.0.1:1")
    (found,) = engine.findings(image)
    assert found.text.endswith("can't run ssh: No such file or directory")
