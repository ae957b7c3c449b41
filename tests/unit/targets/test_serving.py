"""Serving images: what of an entry script is seen before a build, and what lies on top of the environment."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from envbuild.errors import SpecError
from envbuild.images.describe import ENVIRONMENT_LABEL
from envbuild.oci.image import Image
from envbuild.oci.layer import open_layer
from envbuild.store.content import Store
from envbuild.targets.code import CODE_LABEL
from envbuild.targets.serving import (
    ENTRY_LABEL,
    MODEL_LABEL,
    MODEL_RUN_LABEL,
    STOP_SECONDS,
    ServingImage,
    entry_script,
    serving_command,
    serving_image,
)
from tests.fakes.image import Item, put_image, put_layer

SCRIPT = "def init():\n    pass\n\ndef run(data):\n    return data\n"


@pytest.fixture
def image(store: Store) -> Image:
    layer = put_layer(store, [Item(name="etc/os-release", content=b"NAME=x\n")])
    config = {
        "User": "1000:1000",
        "Env": ["A=1", "AML_APP_ROOT=/x"],
        "Entrypoint": ["sh"],
        "Labels": {"a": "b"},
    }
    return put_image(store, [layer], config)


def written(root: Path, text: str = SCRIPT, name: str = "score.py") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


def a_model(root: Path) -> Path:
    root.mkdir()
    (root / "model.bin").write_bytes(b"weights")
    (root / ".gitignore").write_text("*\n")
    (root / ".note").write_text("of a run")
    return root


def served(
    image: Image, store: Store, root: Path, model: Path | None, run: str | None = None
) -> ServingImage:
    entry = entry_script(written(root))
    return serving_image(image, entry, model, 8080, store, model_run=run, left_out=(".note",))


def members(store: Store, image: Image, number: int) -> dict[str, tarfile.TarInfo]:
    layer = image.layers[number]
    with open_layer(store.blob(layer.digest), layer.media_type) as archive:
        return {each.name: each for each in archive}


def config(store: Store, image: Image) -> dict[str, Any]:
    found = json.loads(store.blob(image.config_digest).read_bytes())["config"]
    assert isinstance(found, dict)
    return found


# --- the look at the script ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT,
        "from model import init, run\n",
        "from model import *\n",
        "import model\ninit, run = model.start, model.answer\n",
        "from typing import Any\ninit: Any = print\nrun = lambda data: data\n",
        "try:\n    from fast import init\nexcept E:\n    def init(): 1\nif x:\n    def run(data): 1\n",
        "def init(): pass\n@input_schema('data', X())\ndef run(*args): pass\n",
    ],
)
def test_a_script_with_init_and_run_may_serve(tmp_path: Path, text: str) -> None:
    found = entry_script(written(tmp_path / "code", text))
    assert (found.code, str(found.path)) == (tmp_path / "code", "score.py")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def init(): pass\n", "score.py: defines no run()"),
        (
            "class Model:\n    def init(self): pass\n    def run(self, data): pass\n",
            "score.py: defines no init()",
        ),
        ("def init(): pass\nasync def run(data): pass\n", "score.py:2: run() is async"),
        ("def init(): pass\ndef run(*data): pass\n", "score.py:2: run() can't take *args"),
        ("def init(): pass\ndef run(request_headers): pass\n", "score.py:2: run() takes no argument"),
        ("init: int\ndef run(data): pass\n", "score.py: defines no init()"),
        ("def init():\n    pass\n\ndef run(:\n", "score.py:4: invalid syntax"),
        ("x = '\0'\n", "score.py"),
    ],
)
def test_a_script_that_can_t_serve_is_refused_by_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        entry_script(written(tmp_path, text))
    assert problem in caught.value.problems[0]


def test_a_script_is_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    entry_script(written(tmp_path / "code", f"open({str(mark)!r}, 'w').close()\n{SCRIPT}"))
    assert not mark.exists()


def test_a_script_stands_in_its_code(tmp_path: Path) -> None:
    script = written(tmp_path / "code" / "serve")
    assert str(entry_script(script, tmp_path / "code").path) == "serve/score.py"
    (tmp_path / "other").mkdir()
    with pytest.raises(SpecError, match="isn't in the code's directory"):
        entry_script(script, tmp_path / "other")
    with pytest.raises(SpecError, match="can't be read: No such file"):
        entry_script(tmp_path / "code" / "none.py")


# --- the image ----------------------------------------------------------------------------------------


def test_code_and_model_are_a_layer_each(store: Store, image: Image, tmp_path: Path) -> None:
    made = served(image, store, tmp_path / "code", a_model(tmp_path / "model"), run="train-1")
    assert made.image.layers[:-2] == image.layers
    app = "var/azureml-app"
    assert list(members(store, made.image, -2)) == [
        "var",
        app,
        f"{app}/gunicorn.conf.py",
        f"{app}/service",
        f"{app}/service/score.py",
    ]
    # A model's own .gitignore leaves nothing out of it.
    assert list(members(store, made.image, -1)) == [
        "var",
        app,
        f"{app}/azureml-models",
        f"{app}/azureml-models/.gitignore",
        f"{app}/azureml-models/model.bin",
    ]
    assert config(store, made.image) == {
        "User": "1000:1000",
        "WorkingDir": "/var/azureml-app",
        "Cmd": ["azmlinfsrv", "--entry_script", "service/score.py", "--port", "8080"],
        "ExposedPorts": {"8080/tcp": {}},
        "StopSignal": "SIGTERM",
        "Env": [
            "A=1",
            "AML_APP_ROOT=/var/azureml-app",
            "AZUREML_APP_ROOT=/var/azureml-app",
            "AZUREML_ENTRY_SCRIPT=service/score.py",
            "AZUREML_MODEL_DIR=/var/azureml-app/azureml-models",
            "AZUREML_SOURCE_DIRECTORY=service",
            "PYTHONUNBUFFERED=1",
        ],
        "Labels": {
            "a": "b",
            ENVIRONMENT_LABEL: image.digest,
            CODE_LABEL: made.code_digest,
            ENTRY_LABEL: "score.py",
            MODEL_LABEL: made.model_digest,
            MODEL_RUN_LABEL: "train-1",
        },
    }


def test_the_same_files_are_the_same_image(store: Store, image: Image, tmp_path: Path) -> None:
    first = served(image, store, tmp_path / "one", a_model(tmp_path / "first"))
    other = a_model(tmp_path / "second")
    (other / ".note").write_text("of another run")
    os.utime(other / "model.bin", (1, 1))
    assert served(image, store, tmp_path / "two", other) == first
    (other / "model.bin").write_bytes(b"other")
    changed = served(image, store, tmp_path / "two", other)
    assert changed.code_digest == first.code_digest
    assert changed.image.layers[-2] == first.image.layers[-2]
    assert changed.image.digest != first.image.digest


def test_root_never_serves(store: Store, tmp_path: Path) -> None:
    layer = put_layer(store, [Item(name="x")])
    made = served(put_image(store, [layer], {}), store, tmp_path / "code", None)
    found = config(store, made.image)
    assert found["User"] == "1000:1000"
    assert "HOME=/tmp" in found["Env"]


def test_what_is_no_part_of_an_image_is_refused(store: Store, image: Image, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / ".note").write_text("of a run")
    with pytest.raises(SpecError, match="is empty"):
        served(image, store, tmp_path / "code", model)
    (tmp_path / "code" / ".gitignore").write_text("score.py\n")
    with pytest.raises(SpecError, match=r"score.py is left out of the code by an .amlignore or .gitignore"):
        served(image, store, tmp_path / "code", None)


def test_another_port_is_the_last_word(store: Store, image: Image, tmp_path: Path) -> None:
    made = served(image, store, tmp_path / "code", None)
    assert serving_command(made.image, 9, store)[-4:] == ("--port", "8080", "--port", "9")


# --- what runs inside ---------------------------------------------------------------------------------


class ThreadWorker:
    """Gunicorn's, as far as ours needs it: ``cfg.serve`` stands for its loop and the threads of that."""

    def __init__(self, cfg: SimpleNamespace) -> None:
        self.cfg, self.alive, self.wsgi = cfg, True, cfg.application
        self.log = SimpleNamespace(warning=self._warn)
        self.warnings: list[str] = []

    def _warn(self, message: str) -> None:
        self.warnings.append(message)

    def load_wsgi(self) -> None:
        self.wsgi = self.cfg.application

    def run(self) -> None:
        self.cfg.serve(self)


@pytest.fixture
def gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("gunicorn.workers.gthread")
    module.ThreadWorker = ThreadWorker
    for name in ("gunicorn", "gunicorn.workers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "gunicorn.workers.gthread", module)
    monkeypatch.delenv("ENVBUILD_SCORING_THREADS", raising=False)


@pytest.fixture
def hooks(store: Store, image: Image, tmp_path: Path, gunicorn: None) -> Callable[[], dict[str, Any]]:
    """Executes the settings that lie in the image as gunicorn does."""
    layer = served(image, store, tmp_path / "code", None).image.layers[-1]
    with open_layer(store.blob(layer.digest), layer.media_type) as archive:
        (text,) = (
            content.read()
            for member in archive
            if member.name.endswith("gunicorn.conf.py") and (content := archive.extractfile(member))
        )

    def execute() -> dict[str, Any]:
        settings: dict[str, Any] = {}
        exec(compile(text, "gunicorn.conf.py", "exec"), settings)
        return settings

    return execute


class Asking:
    """What the threads of a worker do with its application, each for a connection of its own."""

    def __init__(self, settings: dict[str, Any], application: Any, threads: int | None = None) -> None:
        self.settings, self.application = settings, application
        self.threads = threads or settings["threads"]

    def serve(self, serve: Callable[[Any], None]) -> Any:
        """A worker whose loop is ``serve``, at its end."""
        cfg = SimpleNamespace(
            application=self.application, serve=serve, threads=self.threads, timeout=0, workers=1
        )
        worker = self.settings["Worker"](cfg)
        worker.load_wsgi()
        worker.run()
        return worker


def ask(worker: Any, path: str = "/score", body: bytes = b"", length: int | None = None) -> tuple[str, bytes]:
    """Status and body of an answer, in the thread of its connection."""
    worker.of_thread.connection = object()
    statuses: list[str] = []
    environ = {
        "PATH_INFO": path,
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body) if length is None else length),
    }
    try:
        answer = b"".join(worker.wsgi(environ, lambda status, headers, *more: statuses.append(status)))
    finally:
        worker.unlimit()
    return statuses[-1], answer


def test_the_server_has_threads_and_stops_in_time(hooks: Callable[[], dict[str, Any]]) -> None:
    settings = hooks()
    assert settings["worker_class"] == "__config__.Worker"
    assert settings["threads"] == 320
    assert settings["keepalive"] == 0
    assert settings["graceful_timeout"] < STOP_SECONDS


def test_run_is_called_in_the_thread_of_init_one_request_after_the_other(
    hooks: Callable[[], dict[str, Any]],
) -> None:
    inside: list[object] = []
    seen: set[tuple[str, int]] = set()

    def application(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        inside.append(environ)
        seen.add((threading.current_thread().name, len(inside)))
        yield environ["wsgi.input"].read()
        seen.add((threading.current_thread().name, len(inside)))
        inside.remove(environ)

    def serve(worker: Any) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: ask(worker, body=b"%d" % number), range(50)))
        assert answers == [("200 OK", b"%d" % number) for number in range(50)]

    Asking(hooks(), application).serve(serve)
    assert seen == {(threading.current_thread().name, 1)}


def test_a_script_that_is_thread_safe_is_called_as_often_at_once_as_it_says(
    hooks: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVBUILD_SCORING_THREADS", "3")
    monkeypatch.setenv("SCORING_TIMEOUT_MS", "1000")
    met = threading.Barrier(3)

    def application(environ: Any, start: Any) -> list[bytes]:
        met.wait(30)
        start("200 OK", [])
        return [b"met"]

    def serve(worker: Any) -> None:
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: ask(worker), range(3)))
        assert answers == [("200 OK", b"met")] * 3

    worker = Asking(hooks(), application).serve(serve)
    assert worker.warnings == ["SCORING_TIMEOUT_MS bounds nothing: ENVBUILD_SCORING_THREADS is above 1"]


@pytest.mark.parametrize("said", ["0", "-1", "257", "many", "", "٤", "1.5"])
def test_a_number_of_threads_that_is_none_ends_the_server(
    hooks: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("ENVBUILD_SCORING_THREADS", said)
    with pytest.raises(ValueError, match="has to be a number from 1 to 256"):
        hooks()


def test_liveness_and_refusals_are_answered_while_run_works(hooks: Callable[[], dict[str, Any]]) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def application(environ: Any, start: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/score":
            begun.release()
            assert go_on.wait(30)
        start("200 OK", [])
        return [b"done"]

    def serve(worker: Any) -> None:
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask, worker) for _ in range(2)]
            assert begun.acquire(timeout=30)
            # One works, one waits, and there is room for no more.
            deadline = time.monotonic() + 30
            while worker.room.acquire(blocking=False):
                worker.room.release()
                assert time.monotonic() < deadline
            assert ask(worker, "/") == ("200 OK", b"done")
            assert ask(worker)[0] == "503 Service Unavailable"
            go_on.set()
            assert [each.result(30) for each in asked] == [("200 OK", b"done")] * 2
            assert ask(worker) == ("200 OK", b"done")

    settings = hooks()
    Asking(settings, application, threads=settings["OTHERS"] + 2).serve(serve)


def test_half_a_body_never_reaches_run(hooks: Callable[[], dict[str, Any]]) -> None:
    def application(environ: Any, start: Any) -> list[bytes]:
        raise AssertionError("it isn't called")

    def serve(worker: Any) -> None:
        with pytest.raises(ConnectionResetError):
            ask(worker, body=b"half", length=8)

    Asking(hooks(), application).serve(serve)


def test_what_the_application_raises_is_raised_to_its_own_connection(
    hooks: Callable[[], dict[str, Any]],
) -> None:
    def application(environ: Any, start: Any) -> list[bytes]:
        error: BaseException = SystemExit(3) if environ["wsgi.input"].read() == b"exit" else KeyError("x")
        raise error

    def serve(worker: Any) -> None:
        with pytest.raises(RuntimeError, match=r"run\(\) ended its thread"):
            ask(worker, body=b"exit")
        with pytest.raises(KeyError):
            ask(worker)

    Asking(hooks(), application).serve(serve)


def test_a_loop_that_fails_ends_the_worker(hooks: Callable[[], dict[str, Any]]) -> None:
    def serve(worker: Any) -> None:
        raise OSError("no more files")

    with pytest.raises(OSError, match="no more files"):
        Asking(hooks(), None).serve(serve)


def test_the_server_listens_where_its_starter_says(
    hooks: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = SimpleNamespace(bind=["0.0.0.0:8080"])
    server = SimpleNamespace(
        cfg=SimpleNamespace(bind=cfg.bind, set=lambda name, value: setattr(cfg, name, value))
    )
    starting = hooks()["on_starting"]
    monkeypatch.delenv("ENVBUILD_HOST", raising=False)
    starting(server)
    assert cfg.bind == ["0.0.0.0:8080"]
    monkeypatch.setenv("ENVBUILD_HOST", "127.0.0.1")
    starting(server)
    assert cfg.bind == ["127.0.0.1:8080"]


def test_every_answer_names_its_run(
    hooks: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []

    def application(environ: object, start: Any) -> list[bytes]:
        start("200 OK", [("a", "b")])
        return [b"answer"]

    monkeypatch.setenv("ENVBUILD_RUN", "iris-1")
    monkeypatch.delenv("ENVBUILD_IMAGE", raising=False)
    worker = SimpleNamespace(wsgi=application)
    hooks()["post_worker_init"](worker)
    assert worker.wsgi({}, lambda *given: said.append(given)) == [b"answer"]
    assert said == [("200 OK", [("a", "b"), ("x-envbuild-run", "iris-1")], None)]
