"""One environment of each type and runtime, built with a real Docker engine, and something real run in it.

Bases come from a registry on loopback that holds an image composed here. The plain python environments are in
``test_parity.py``, those with conda in ``test_conda_engine.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from envbuild.app import lock as locks
from envbuild.app import plan as plans
from envbuild.app import specs
from envbuild.app.session import Session
from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.settings import Settings
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from tests.fakes.image import Item, put_image, put_layer
from tests.fakes.registry import Registry, serve
from tests.integration.parity import config, differences, docker, members, packages
from tests.integration.test_example import ROOT, envbuild

pytestmark = [pytest.mark.engine, pytest.mark.network]

HOST = Platform.host()


@dataclass(frozen=True)
class Base:
    """An image with python in a registry: its name there, and what it is made of."""

    name: str
    image: Image
    registry: Registry


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def spec_of(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "envbuild.yaml").write_text(f"platforms: ['{HOST}']\n{text}")
    return directory


def build(spec: Path, engine: str, cache: Path, *arguments: str) -> str:
    """The name of the spec's image in the Docker engine."""
    done = envbuild("build", "--engine", engine, "--load", *arguments, str(spec), cache=cache)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(image: str, *command: str) -> str:
    return docker("run", "--rm", "--network=host", image, *command)


@pytest.fixture(scope="module")
def base(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    directory = tmp_path_factory.mktemp("base")
    spec = spec_of(directory / "machine", "name: machine\nbase: {debian: trixie}\n")
    done = envbuild("build", "--json", str(spec), cache=cache)
    assert done.returncode == 0, done.stderr
    store = Store(cache)
    image = ImageIndex(store, lambda: 0.0).get(json.loads(done.stdout)["lock_digest"].removeprefix("sha256:"))
    assert image is not None
    with serve() as registry:
        offer(registry, store, image, "machine")
        yield Base(f"{registry.host}/machine:1", image, registry)


@pytest.fixture(scope="module")
def bare(base: Base, cache: Path) -> str:
    """The name of an image with python and no environment of its own."""
    store = Store(cache)
    settings = json.loads(store.blob(base.image.config_digest).read_bytes())["config"]
    emptied = put_layer(store, [Item(name="opt/.wh.env")])
    image = put_image(
        store, [*base.image.layers, emptied], {"User": settings["User"]}, platform=base.image.platform
    )
    offer(base.registry, store, image, "bare")
    return f"{base.registry.host}/bare:1"


def offer(registry: Registry, store: Store, image: Image, name: str) -> None:
    for digest in {image.config_digest, *(layer.digest for layer in image.layers)}:
        registry.put_blob(store.blob(digest).read_bytes())
    registry.put_manifest(name, "1", image.media_type, store.blob(image.digest).read_bytes())


def layers(image: str) -> list[str]:
    (inspected,) = json.loads(docker("image", "inspect", image))
    found: list[str] = inspected["RootFS"]["Layers"]
    return found


@pytest.mark.parametrize("engine", ["native", "docker", "buildx"])
def test_an_image_is_taken_as_it_is(engine: str, base: Base, cache: Path, tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path, f"name: taken\nimage: {base.name}\nenvironment_variables: {{GREETING: 'a $b \"c\"'}}\n"
    )
    image = build(spec, engine, cache)
    assert layers(image) == [layer.diff_id for layer in base.image.layers]
    assert (
        run(image, "python", "-c", "import os; print(os.environ['GREETING'], os.getuid())")
        == 'a $b "c" 1000\n'
    )


@pytest.mark.parametrize("engine", ["docker", "buildx"])
def test_pip_packages_on_an_image(engine: str, bare: str, cache: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, f"name: based\nimage: {bare}\nrequirements: [six, 'idna>=3']\n")
    native, built = build(spec, "native", cache), build(spec, engine, cache)
    assert run(built, "python", "-c", "import six, sys; print(sys.prefix)") == "/opt/env\n"
    assert packages(built) == packages(native)
    assert config(built) == config(native)
    assert differences(members(native), members(built)).get("", []) == []


@pytest.mark.parametrize("engine", ["native", "docker", "buildx"])
def test_a_base_with_an_environment_is_refused_by_every_engine(
    engine: str, base: Base, cache: Path, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, f"name: mixed\nimage: {base.name}\nrequirements: [six]\n")
    done = envbuild("build", "--engine", engine, str(spec), cache=cache)
    assert done.returncode == 4
    assert f"the base {base.name}@{base.image.digest} already has files in /opt/env" in done.stderr


@pytest.mark.parametrize("engine", ["native", "docker", "buildx"])
def test_a_plain_image_of_debian_packages(engine: str, cache: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "name: plain\nruntime: docker\nbase: {debian: trixie, packages: [jq]}\n")
    image = build(spec, engine, cache)
    assert run(image, "sh", "-c", "echo '{\"a\": 3}' | jq .a; command -v python3 || echo none") == "3\nnone\n"
    assert config(image)["Cmd"] == ["sh"]


def context(directory: Path, base: Base, *steps: str) -> Path:
    (directory / "app").mkdir(parents=True)
    (directory / "app" / "score.py").write_text("print('scored')\n")
    (directory / "app" / "notes.txt").write_text("for people\n")
    (directory / "app" / ".dockerignore").write_text("*.txt\n")
    lines = [
        f"FROM {base.name}",
        "USER 0",
        "COPY . /app/",
        *steps,
        "USER 1000",
        'CMD ["python", "/app/score.py"]',
    ]
    (directory / "app" / "Dockerfile").write_text("\n".join(lines) + "\n")
    return spec_of(directory, "name: own\nbuild: {path: app}\n")


@pytest.mark.parametrize("engine", ["docker", "buildx", "auto"])
def test_an_own_dockerfile(engine: str, base: Base, cache: Path, tmp_path: Path) -> None:
    spec = context(tmp_path, base, "RUN ls /app > /app/list")
    image = build(spec, engine, cache)
    assert run(image) == "scored\n"
    assert run(image, "cat", "/app/list").split() == ["Dockerfile", "list", "score.py"]
    labels = json.loads(docker("image", "inspect", image))[0]["Config"]["Labels"]
    assert labels["dev.envbuild.level"] == "L0"


def test_the_choice_of_an_engine_is_said(base: Base, cache: Path, tmp_path: Path) -> None:
    spec = context(tmp_path, base, "RUN echo said")
    done = envbuild("build", str(spec), cache=cache)
    assert done.returncode == 0, done.stderr
    assert "engine: buildx, because native can't build this: " in done.stderr
    done = envbuild("build", "--engine", "native", str(spec), cache=cache)
    assert done.returncode == 6
    assert "hint: --engine buildx can" in done.stderr


def test_a_secret_is_there_for_its_step_only(base: Base, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cr3t-token")
    right = 'test "$(wc -c </run/secrets/token)" = 12'
    step = f"RUN --mount=type=secret,id=token {right} && echo used > /app/used"
    spec = context(tmp_path, base, step)
    secret = f"id=token,src={tmp_path / 'token'}"
    image = build(spec, "auto", cache, "--secret", secret)
    assert run(image, "sh", "-c", "cat /app/used; ls /run/secrets 2>/dev/null | wc -l").split() == [
        "used",
        "0",
    ]
    assert "s3cr3t" not in docker("history", "--no-trunc", image) + docker("image", "inspect", image)
    done = envbuild("build", "--engine", "docker", "--secret", secret, str(spec), cache=cache)
    assert done.returncode == 6
    assert "build secrets (token)" in done.stderr


def everything() -> tuple[set[str], set[str]]:
    """Every container and every image of the engine, the steps in between included."""
    return set(docker("ps", "-aq", "--no-trunc").split()), set(docker("images", "-aq", "--no-trunc").split())


@pytest.mark.parametrize("engine", ["docker", "buildx"])
def test_a_build_that_fails_in_the_middle(engine: str, base: Base, cache: Path, tmp_path: Path) -> None:
    spec = context(
        tmp_path, base, "RUN echo before > /app/x", "RUN echo the reason && exit 7", "RUN echo after"
    )
    build(context(tmp_path / "warm", base, "RUN true"), engine, cache)
    before, scratch = everything(), sorted((cache / "scratch").iterdir())
    done = envbuild("build", "--engine", engine, str(spec), cache=cache, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (6, "")
    assert "Traceback" not in done.stderr
    for said in ("echo the reason && exit 7", "the reason\n", "7"):
        assert said in done.stderr
    assert everything() == before
    assert sorted((cache / "scratch").iterdir()) == scratch


def test_what_must_serve_has_a_server_inside(base: Base, cache: Path, tmp_path: Path) -> None:
    spec = context(tmp_path, base)
    routes = "{path: /, port: 5001}"
    text = (spec / "envbuild.yaml").read_text()
    text += (
        f"inference_config:\n  liveness_route: {routes}\n  readiness_route: {routes}\n"
        "  scoring_route: {path: /score, port: 5001}\n"
    )
    (spec / "envbuild.yaml").write_text(text)
    done = envbuild("build", str(spec), cache=cache)
    assert done.returncode == 6
    assert "azureml-inference-server-http" in done.stderr


def test_spark_runs_a_job(cache: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spark"
    shutil.copytree(ROOT / "examples" / "spark", spec)
    first = envbuild("build", "--locked", "--engine", "native", "--load", str(spec), cache=cache)
    if first.returncode == 6 and "--upgrade-package" in first.stderr:
        first = envbuild("build", "--upgrade", "--engine", "native", "--load", str(spec), cache=cache)
    assert first.returncode == 0, first.stderr
    native, built = first.stdout.strip(), build(spec, "docker", cache)
    done = subprocess.run(
        ["docker", "run", "--rm", "--network=host", "-v", f"{spec}:/job:ro", built, "python", "/job/job.py"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["the 6", "was 3"]
    assert config(built) == config(native)
    assert packages(built) == packages(native)
    assert differences(members(native), members(built)).get("", []) == []


def test_a_curated_environment_is_built_from_its_lock(cache: Path, tmp_path: Path) -> None:
    """The catalogue has none yet, so the lock is one of a spec, called curated."""
    from envbuild.engines.docker.engine import DockerEngine
    from envbuild.engines.factory import EngineOptions
    from envbuild.lock.base import LockRequest
    from envbuild.progress import Silent

    spec_file = spec_of(tmp_path, "name: ours\nbase: {debian: trixie}\nrequirements: [six]\n")
    with Session(Settings(cache_dir=cache), Silent(), environ=os.environ) as session:
        spec = specs.find_spec(session, str(spec_file))
        lock = locks.lock_spec(session, spec, LockRequest()).lock
        lock = replace(lock, runtime=replace(lock.runtime, type="curated"))
        engine = session.engines(specs.inputs_of(spec)).by_name(EngineOptions(keep=True))["docker"]()
        assert isinstance(engine, DockerEngine)
        image = engine.build(plans.plan_image(session, spec, lock, HOST))
    assert run(image.config_digest, "python", "-c", "import six; print(six.__name__)") == "six\n"
