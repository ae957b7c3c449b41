"""Images built by a real Docker engine from a Dockerfile, and what failures leave in it: nothing."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import docker
import pytest

from envbuild.docker.client import NoEngine, connect
from envbuild.docker.container import Container, run_container
from envbuild.engines.docker.engine import DockerEngine
from envbuild.errors import BuildError
from envbuild.images.sinks.daemon import DaemonSink
from envbuild.lock.model import DebianBase
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import ImageSet
from envbuild.plan.model import ImageConfig, Plan
from envbuild.platforms import LINUX_ARM64, Platform
from envbuild.progress import Silent, Task
from envbuild.render.base import BuildContext, ContextFile
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from tests.fakes.image import directory, program_items, put_image, put_layer, tar
from tests.fakes.progress import Notes
from tests.fakes.registry import serve

pytestmark = [pytest.mark.engine]

PLAN = Plan(
    platform=Platform.host(),
    lock_digest=digest_bytes(b"plan"),
    definition_digest=digest_bytes(b"definition"),
    level="L1",
    base=DebianBase(suite="trixie", packages=(), glibc="2.41"),
    python=None,
    layers=(),
    config=ImageConfig(env=(), user="1000", cmd=("sh",)),
    bytecode=False,
    interpreter=None,
)
BASE = "FROM scratch AS base\nADD root.tar /\nENV PATH=/usr/bin\n"


@dataclass(frozen=True)
class Written:
    """A renderer of one Dockerfile. ``unique`` makes its steps unlike those of every other test."""

    dockerfile: str
    unique: str
    labels: tuple[tuple[str, str], ...] = ()
    root: bytes = field(
        default_factory=lambda: tar(
            [*program_items("sh", "cat", "env", "sleep", "touch", "rm"), directory("tmp", 0o1777)]
        ),
        compare=False,
    )

    def unable(self, plan: Plan) -> list[str]:
        return []

    def describe(self, plan: Plan, engine: str) -> Plan:
        text = f"{engine}\n{self.dockerfile}\n{self.unique}\n{plan.lock_digest}"
        return replace(plan, lock_digest=digest_bytes(text.encode()))

    def context(self, plan: Plan, *, offline: bool) -> BuildContext:
        assert offline
        return BuildContext(
            files=(
                ContextFile(path="build/Dockerfile", content=self.dockerfile.encode()),
                ContextFile(path="root.tar", content=self.root),
                ContextFile(path="unique", content=self.unique.encode()),
            ),
            dockerfile="build/Dockerfile",
            labels=self.labels,
            offline=True,
        )


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    found = connect(os.environ)
    if isinstance(found, NoEngine):
        pytest.skip(found.reason)
    yield found
    found.close()


@pytest.fixture
def clean(client: docker.DockerClient) -> Iterator[None]:
    """Removes what the test has the engine keep."""
    before = held(client)
    yield
    # What has children goes after them.
    while left := held(client)[1] - before[1]:
        removed = 0
        for image in left:
            with suppress(docker.errors.APIError):
                client.api.remove_image(image, force=True)
                removed += 1
        assert removed


def held(client: docker.DockerClient) -> tuple[set[str], set[str]]:
    """All containers and images, intermediate ones too."""
    return (
        {container["Id"] for container in client.api.containers(all=True)},
        {image["Id"] for image in client.api.images(all=True)},
    )


def engine(tmp_path: Path, renderer: Written, **options: object) -> DockerEngine:
    environ = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    settings: dict[str, object] = {"environ": environ, **options}
    return DockerEngine(store=Store(tmp_path / "store"), renderer=renderer, **settings)  # type: ignore[arg-type]


def unique() -> str:
    return os.urandom(8).hex()


def leftovers(store: Path) -> list[str]:
    """What a build may leave in the store only while it runs."""
    return [
        path.name
        for area in ("scratch", "leases", "metadata/docker")
        if (store / area).is_dir()
        for path in (store / area).iterdir()
    ]


def files(store: Store, digest: str) -> dict[str, bytes]:
    """The regular files of a gzip layer."""
    with tarfile.open(store.blob(digest), "r:gz") as archive:
        return {
            each.name: content.read()
            for each in archive
            if each.isreg() and (content := archive.extractfile(each))
        }


@pytest.mark.usefixtures("clean")
def test_an_image_is_built_imported_and_found_by_the_engine(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    written = Written(
        BASE
        + "COPY unique /etc/unique\nFROM base\nCOPY --from=base /etc/unique /etc/unique\n"
        + 'CMD ["cat", "/etc/unique"]\n'
        + "RUN touch /tmp/x && cat /etc/unique\n",
        unique(),
        (("dev.envbuild.test", 'it\'s "quoted"'),),
    )
    told = Notes()
    docker_engine = engine(tmp_path, written, keep=True, progress=told)
    assert docker_engine.unable(PLAN) == []
    image = docker_engine.build(PLAN)
    store = docker_engine.store
    config = json.loads(store.blob(image.config_digest).read_bytes())
    assert config["config"]["Labels"] == {"dev.envbuild.test": 'it\'s "quoted"'}
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]
    assert image.config_digest in held(client)[1]
    assert image.lock_digest == written.describe(PLAN, "docker").lock_digest == docker_engine.identity(PLAN)
    assert [layer.name.split()[0] for layer in image.layers] == ["ADD", "COPY", "COPY", "RUN"]
    assert image.layers[-1].name == "RUN touch /tmp/x && cat /etc/unique"
    assert files(store, image.layers[-1].digest) == {"tmp/x": b""}
    assert told.notes == ["step 8/9: RUN touch /tmp/x && cat /etc/unique"]
    assert leftovers(store.root) == []
    # Publishing there is only tagging, and a second build only looks up.
    tag = f"envbuild-test-{os.getpid()}:built"
    DaemonSink(store, Silent(), os.environ).publish(ImageSet(images=(image,), names=(tag,)))
    assert client.images.get(tag).id == image.config_digest
    gone = engine(tmp_path, written, environ={"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert gone.build(PLAN) == image
    client.api.remove_image(tag)


@pytest.mark.usefixtures("clean")
def test_what_is_not_kept_leaves_only_the_build_cache(tmp_path: Path, client: docker.DockerClient) -> None:
    written = Written(BASE + "COPY unique /one\nRUN touch /two\n", unique())
    image = engine(tmp_path, written).build(PLAN)
    assert image.config_digest not in held(client)[1]
    # Steps of another image start with the same ones and take them from the cache.
    before = held(client)
    told = Notes()
    longer = replace(written, dockerfile=written.dockerfile + "RUN touch /three\n")
    engine(tmp_path, longer, progress=told, keep=True).build(PLAN)
    assert told.notes == ["step 5/6: RUN touch /two", "step 6/6: RUN touch /three"]
    assert len(held(client)[1] - before[1]) == 2
    assert held(client)[0] == before[0]


def test_a_failed_build_says_the_step_and_leaves_nothing(tmp_path: Path, client: docker.DockerClient) -> None:
    before = held(client)
    written = Written(
        BASE
        + "COPY unique /one\nRUN touch /two\nFROM base AS second\nCOPY unique /three\n"
        + "RUN echo 'to https://me:hunter2@example.org/x?token=1' \\\n"
        + "    && printf 'a\\rb\\033[31mred\\033[0m\\n' && cat /nothing\nFROM second\nRUN touch /four\n",
        unique(),
    )
    with pytest.raises(BuildError) as raised:
        engine(tmp_path, written).build(PLAN)
    assert raised.value.exit_code == 6
    lines = raised.value.message.splitlines()
    assert lines[0].startswith("step 8 of 10 failed: RUN echo 'to https://example.org/x")
    assert lines[1:3] == ["  exit status 1", "the last lines of its log:"]
    assert sorted(lines[3:]) == [
        "  bred",
        "  cat: /nothing: No such file or directory",
        "  to https://example.org/x",
    ]
    assert held(client) == before
    assert leftovers(tmp_path / "store") == []
    assert ImageIndex(Store(tmp_path / "store"), lambda: 0.0).entries() == ()


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        (BASE + "COPY nothing /x\n", r"step 4 of 4 failed: COPY nothing /x\n  COPY failed: file not found"),
        (
            BASE + 'RUN ["/nothing"]\n',
            r'step 4 of 4 failed: RUN \["/nothing"\]\n  .*no such file or directory',
        ),
        ("FROM scratch\nNOTHING x\n", r"the Docker engine refused: dockerfile parse error .*NOTHING"),
        (BASE + "RUN exit 77", r"step 4 of 4 failed: RUN exit 77\n  exit status 77$"),
    ],
)
def test_other_failures_are_explained(
    dockerfile: str, message: str, tmp_path: Path, client: docker.DockerClient
) -> None:
    before = held(client)
    with pytest.raises(BuildError, match=message):
        engine(tmp_path, Written(dockerfile, unique())).build(PLAN)
    assert held(client) == before


def interrupt() -> None:
    """What Ctrl-C is to this process."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Interrupts(Silent):
    """Sends Ctrl-C to this process's main thread when a step begins to run."""

    def __init__(self, step: str) -> None:
        self.step = step

    def note(self, text: str) -> None:
        if text.startswith(self.step):
            interrupt()


def test_an_interrupt_ends_the_step_and_leaves_nothing(tmp_path: Path, client: docker.DockerClient) -> None:
    before = held(client)
    written = Written(
        BASE + "COPY unique /one\nRUN touch /two\nFROM base\nCOPY unique /x\nRUN sleep 1000\n", unique()
    )
    with pytest.raises(KeyboardInterrupt):
        engine(tmp_path, written, progress=Interrupts("step 8/8: RUN sleep")).build(PLAN)
    assert held(client) == before
    assert leftovers(tmp_path / "store") == []


def test_an_interrupt_while_the_context_is_sent_starts_no_build(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    before = held(client)

    @dataclass(frozen=True)
    class Endless(Written):
        def context(self, plan: Plan, *, offline: bool) -> BuildContext:
            made = super().context(plan, offline=offline)
            pipe = tmp_path / "large"
            with pipe.open("wb") as file:
                file.truncate(1 << 34)
            threading.Timer(0.2, interrupt).start()
            return replace(made, files=(*made.files, ContextFile(path="large", content=pipe)))

    with pytest.raises(KeyboardInterrupt):
        engine(tmp_path, Endless(BASE, unique())).build(PLAN)
    assert held(client) == before
    assert leftovers(tmp_path / "store") == []


class InterruptsStage(Silent):
    """Sends Ctrl-C when a piece of work of a stage is opened."""

    def __init__(self, stage: str) -> None:
        self.wanted = stage

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        if stage == self.wanted:
            interrupt()
        return super().task(stage, what, total=total, unit=unit)


def test_an_interrupt_while_the_image_is_fetched_leaves_nothing(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    before = held(client)
    written = Written(BASE + "COPY unique /one\nRUN touch /two\n", unique())
    with pytest.raises(KeyboardInterrupt):
        engine(tmp_path, written, progress=InterruptsStage("import")).build(PLAN)
    assert held(client) == before
    assert leftovers(tmp_path / "store") == []
    assert not (tmp_path / "store/blobs").exists()


def test_a_context_that_cannot_be_read_ends_the_build(tmp_path: Path, client: docker.DockerClient) -> None:
    before = held(client)

    @dataclass(frozen=True)
    class Gone(Written):
        def context(self, plan: Plan, *, offline: bool) -> BuildContext:
            made = super().context(plan, offline=offline)
            (tmp_path / "secret").mkdir()
            return replace(made, files=(*made.files, ContextFile(path="z", content=tmp_path / "secret")))

    with pytest.raises(BuildError, match=r"can't read .*/secret for z: Is a directory"):
        engine(tmp_path, Gone(BASE, unique())).build(PLAN)
    assert held(client) == before
    assert leftovers(tmp_path / "store") == []


@pytest.mark.usefixtures("clean")
def test_two_builds_of_one_plan_at_once_run_it_once(tmp_path: Path, client: docker.DockerClient) -> None:
    written = Written(BASE + "COPY unique /one\nRUN sleep 1\n", unique())
    told = Notes()
    both = [engine(tmp_path, written, progress=told) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda each: each.build(PLAN), both)
    assert first == second
    assert told.notes == ["step 5/5: RUN sleep 1"]


@pytest.mark.usefixtures("clean")
def test_a_build_that_fails_beside_another_takes_nothing_from_it(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    before = held(client)
    one = unique()
    # What fails made the first steps; what goes on has them from the cache and copies from them later.
    fails = Written(BASE + "COPY unique /one\nRUN sleep 3; exit 1\n", one)
    lasts = Written(BASE + "COPY unique /one\nFROM base AS b\nRUN sleep 6\nCOPY --from=base /one /two\n", one)
    started = threading.Event()

    class Starts(Silent):
        def note(self, text: str) -> None:
            started.set()

    def fail() -> str:
        with pytest.raises(BuildError) as raised:
            engine(tmp_path, fails, progress=Starts()).build(PLAN)
        return raised.value.message

    with ThreadPoolExecutor(2) as pool:
        failure = pool.submit(fail)
        assert started.wait(60)
        success = pool.submit(engine(tmp_path, lasts).build, PLAN)
        assert failure.result().startswith("step 5 of 5 failed: RUN sleep 3; exit 1\n  exit status 1")
        assert files(Store(tmp_path / "store"), success.result().layers[-1].digest) == {"two": one.encode()}
    assert leftovers(tmp_path / "store") == []
    assert held(client)[0] == before[0]


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path, client: docker.DockerClient) -> None:
    written = Written(BASE + "COPY unique /one\n", unique())
    before = held(client)
    image = engine(tmp_path, written, keep=True).build(PLAN)
    made = held(client)[1] - before[1]
    assert image.config_digest in made
    lists = tmp_path / "store/metadata/docker"
    identity = digest_bytes(str(client.info()["ID"]).encode())[7:23]
    (lists / f"{identity}-0123456789abcdef").write_text("".join(f"{each}\n" for each in sorted(made)))
    (lists / "another-engine").write_text("alpine\n")
    with pytest.raises(BuildError, match="exit status 5"):
        engine(tmp_path, Written(BASE + "RUN exit 5\n", unique())).build(PLAN)
    remaining = held(client)[1] - before[1]
    for each in remaining:
        client.api.remove_image(each, noprune=True)
    assert remaining == set()
    assert leftovers(tmp_path / "store") == ["another-engine"]


@pytest.mark.usefixtures("clean")
def test_proxies_reach_the_steps_and_no_image(
    tmp_path: Path, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "docker"
    config.mkdir()
    (config / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": "http://me:hunter2@config.example:1"}}})
    )
    environ = {
        **os.environ,
        "DOCKER_CONFIG": str(config),
        "HTTP_PROXY": "http://environment.example:2",
        "https_proxy": "http://environment.example:3",
        "NO_PROXY": "localhost",
    }
    told: Mapping[str, object] = {"environ": environ, "reuse": False}
    written = Written(BASE + "COPY unique /one\nRUN env >/env\n", unique())
    image = engine(tmp_path, written, **told).build(PLAN)
    store = Store(tmp_path / "store")
    found = files(store, image.layers[-1].digest)["env"].decode().splitlines()
    assert {line for line in found if "proxy" in line.lower()} == {
        "HTTP_PROXY=http://me:hunter2@config.example:1",
        "http_proxy=http://me:hunter2@config.example:1",
        "HTTPS_PROXY=http://environment.example:3",
        "https_proxy=http://environment.example:3",
        "NO_PROXY=localhost",
        "no_proxy=localhost",
    }
    assert b"hunter2" not in store.blob(image.config_digest).read_bytes()
    with pytest.raises(BuildError) as raised:
        engine(tmp_path, Written(BASE + "RUN env; echo hunter2; exit 1\n", unique()), **told).build(PLAN)
    assert "hunter2" not in raised.value.message.partition("\n")[2]


@pytest.mark.usefixtures("clean")
def test_the_image_runs(
    tmp_path: Path, client: docker.DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    written = Written(BASE + "COPY unique /one\nRUN touch /two\nUSER 1000\n", unique())
    image = engine(tmp_path, written, keep=True).build(PLAN)
    container = Container(
        image=image.config_digest,
        arguments=("cat", "/one"),
        environment={},
        binds=(),
        working_dir=None,
        user="1000",
        network=False,
    )
    assert run_container(client, container, lambda _: nullcontext()) == 0
    assert capfd.readouterr().out == written.unique


def test_another_platform_is_refused_before_any_work(tmp_path: Path) -> None:
    other = replace(PLAN, platform=LINUX_ARM64)
    host = Platform.host()
    docker_engine = engine(tmp_path, Written(BASE, unique()))
    reason = f"the Docker engine runs {host}, and the build steps of this image need linux/arm64"
    assert docker_engine.unable(other) == [reason]
    with pytest.raises(BuildError, match=reason):
        docker_engine.build(other)


def test_a_base_that_was_pulled_for_a_failed_build_goes_again(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    before = held(client)
    store = Store(tmp_path / "base")
    base = put_image(store, [put_layer(store, program_items("sh", "touch"))], {"Env": ["PATH=/usr/bin"]})
    with serve() as registry:
        for digest in (base.config_digest, base.layers[0].digest):
            registry.put_blob(store.blob(digest).read_bytes())
        manifest = store.blob(base.digest).read_bytes()
        registry.put_manifest("base", "latest", base.media_type, manifest)
        for name in (f"base@{base.digest}", "base:latest"):
            dockerfile = f"FROM {registry.host}/{name}\nRUN touch /one\n"
            with pytest.raises(BuildError, match="step 3 of 3 failed: RUN exit 9\n  exit status 9"):
                engine(tmp_path, Written(f"{dockerfile}RUN exit 9\n", unique())).build(PLAN)
            assert held(client) == before
            copy = f"FROM scratch\nCOPY unique /u\nCOPY --from={registry.host}/{name} /not /there\n"
            with pytest.raises(BuildError, match="step 3 of 3 failed: COPY --from"):
                engine(tmp_path, Written(copy, unique())).build(PLAN)
            assert held(client) == before


@pytest.mark.usefixtures("clean")
def test_a_context_with_odd_names_arrives_as_it_is(tmp_path: Path, client: docker.DockerClient) -> None:
    @dataclass(frozen=True)
    class Odd(Written):
        def context(self, plan: Plan, *, offline: bool) -> BuildContext:
            made = super().context(plan, offline=offline)
            long = "n" * 120 + "/" + "ä" * 60
            more = (
                ContextFile(path=f"odd/{long}", content=b"1", mode=0o755),
                ContextFile(path="odd/empty", directory=True),
                ContextFile(path="odd/link", target="/not/here"),
            )
            return replace(made, files=(*made.files, *more))

    image = engine(tmp_path, Odd("FROM scratch\nCOPY odd /odd\nCOPY unique /u\n", unique())).build(PLAN)
    with tarfile.open(Store(tmp_path / "store").blob(image.layers[0].digest), "r:gz") as archive:
        rows = {each.name: (each.type, each.mode & 0o7777, each.linkname) for each in archive}
    assert rows == {
        "odd": (tarfile.DIRTYPE, 0o755, ""),
        "odd/" + "n" * 120: (tarfile.DIRTYPE, 0o755, ""),
        "odd/" + "n" * 120 + "/" + "ä" * 60: (tarfile.REGTYPE, 0o755, ""),
        "odd/empty": (tarfile.DIRTYPE, 0o755, ""),
        "odd/link": (tarfile.SYMTYPE, 0o777, "/not/here"),
    }
