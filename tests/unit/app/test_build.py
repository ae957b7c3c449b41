"""Operations over real stages, where no test of a stage reaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.app import build as builds
from envbuild.app.plan import describe_plan, plan_image, render
from envbuild.app.requests import BuildRequest, BuildResult, RenderRequest, RunRequest
from envbuild.app.run import run
from envbuild.app.session import Session
from envbuild.compose.engine import NativeEngine
from envbuild.compose.image import store_image
from envbuild.engines.docker.engine import DockerEngine
from envbuild.errors import BuildError, PublishError, UsageError
from envbuild.images.repository import identity_tag
from envbuild.images.sinks.registry import RegistrySink
from envbuild.lock.files import write_lock
from envbuild.lock.model import ContextBase, Lock, PlatformLock, RuntimeSettings
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.reference import Reference
from envbuild.plan.model import Plan
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient
from envbuild.run.command import Command
from envbuild.settings import Settings
from envbuild.specs.model import EnvironmentType, Spec
from envbuild.store.content import Store
from envbuild.store.leases import in_use
from tests.fakes.image import Item, put_image, put_layer
from tests.fakes.progress import Notes
from tests.fakes.registry import serve
from tests.unit.lock.sample import LOCK

SPEC = Spec(name="x", source=Path("envbuild.yaml"))


class Recorder:
    """A runner that notes what is in use while its command runs."""

    name = "recorder"

    def __init__(self, store: Store) -> None:
        self.store = store
        self.names: frozenset[str] = frozenset()
        self.since: float | None = 0.0
        self.command: Command | None = None

    def available(self) -> str | None:
        return None

    def run(self, command: Command) -> int:
        self.command = command
        with in_use(self.store) as used:
            self.names, self.since = used.names, used.since
        return 7


def test_what_a_command_runs_in_is_in_use_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    image = put_image(store, [put_layer(store, [Item(name="a")])])
    runner = Recorder(store)
    asked: list[BuildRequest] = []

    def build_images(session: Session, spec: Spec, request: BuildRequest) -> BuildResult:
        asked.append(request)
        return _result(image)

    monkeypatch.setattr("envbuild.app.build.build_images", build_images)
    monkeypatch.setattr("envbuild.app.run.runner", lambda *_: runner)
    with Session(Settings(cache_dir=store.root), Silent(), environ={}) as session:
        assert run(session, SPEC, RunRequest(command=("true",), workdir=tmp_path)) == 7
    digests = (image.digest, image.config_digest, image.layers[0].digest)
    assert runner.names == {f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in digests}
    assert runner.since is None, "what was written since the start is nobody's any more"
    assert runner.command == Command(image=image, arguments=("true",), workdir=tmp_path)
    assert [request.platforms for request in asked] == [(Platform.host(),)]
    with in_use(store) as used:
        assert used.names == frozenset()


@pytest.mark.parametrize("engine", ["native", "docker"])
def test_a_plan_is_described_as_the_chosen_engine_makes_it(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Notes
) -> None:
    # Locked without byte code, so that this machine needs no interpreter to compose it.
    lock = replace(LOCK, bytecode=False)
    monkeypatch.setattr("envbuild.engines.docker.engine.DockerEngine.unable", lambda self, plan: [])
    settings = Settings(cache_dir=tmp_path / "cache", engine=engine)
    with Session(settings, progress, environ={}) as session:
        plan = plan_image(session, SPEC, lock, LINUX_AMD64)
        shown = describe_plan(session, SPEC, lock, LINUX_AMD64, BuildRequest(secrets=("id=a,src=b",)))
    if engine == "native":
        assert shown == plan
        assert progress.notes == ["the secrets are not used: the native engine runs no steps"]
    else:
        assert (shown.level, progress.notes) == ("L2", [])
        assert shown.lock_digest != plan.lock_digest


def test_no_platform_is_built_where_another_can_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(self: DockerEngine, plan: Plan) -> list[str]:
        return [] if plan.platform == LINUX_AMD64 else ["the Docker engine runs linux/amd64"]

    def build(self: DockerEngine, plan: Plan) -> Image:
        raise AssertionError(f"{plan.platform} is built")

    monkeypatch.setattr(DockerEngine, "unable", unable)
    monkeypatch.setattr(DockerEngine, "build", build)
    lock = replace(LOCK, bytecode=False)
    write_lock(tmp_path / "locks" / "x", lock)
    settings = Settings(cache_dir=tmp_path / "cache", lock_dir=tmp_path / "locks", engine="docker")
    with (
        Session(settings, Silent(), environ={}) as session,
        pytest.raises(BuildError, match="the Docker engine runs linux/amd64"),
    ):
        builds.build(session, SPEC, BuildRequest(frozen=True))


@pytest.mark.parametrize("platforms", [(), (LINUX_ARM64, LINUX_AMD64)])
def test_an_archive_of_one_platform_is_refused_for_two_before_any_is_built(
    platforms: tuple[Platform, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: NativeEngine, plan: Plan) -> Image:
        raise AssertionError(f"{plan.platform} is built")

    monkeypatch.setattr(NativeEngine, "build", build)
    write_lock(tmp_path / "locks" / "x", replace(LOCK, bytecode=False))
    settings = Settings(cache_dir=tmp_path / "cache", lock_dir=tmp_path / "locks", engine="native")
    request = BuildRequest(frozen=True, platforms=platforms, outputs=(f"docker-archive:{tmp_path}/a.tar",))
    with (
        Session(settings, Silent(), environ={}) as session,
        pytest.raises(PublishError, match="a docker-archive holds one platform, not linux/") as caught,
    ):
        builds.build(session, SPEC, request)
    assert caught.value.hint == "choose one with --platform, or write oci-archive:FILE"


def test_a_lock_of_a_build_context_needs_a_spec_that_has_one(tmp_path: Path) -> None:
    context = ContextBase(digest="sha256:" + "1" * 64, dockerfile="Dockerfile")
    lock = Lock(
        definition=LOCK.definition,
        platforms=(PlatformLock(platform=LINUX_AMD64, base=context, python=None),),
        runtime=RuntimeSettings(type="user-managed", user=""),
    )
    spec = replace(SPEC, type=EnvironmentType.USER_MANAGED)
    write_lock(tmp_path / "locks" / "x", lock)
    settings = Settings(cache_dir=tmp_path / "cache", lock_dir=tmp_path / "locks")
    request = RenderRequest(output=tmp_path / "out", build=BuildRequest(frozen=True))
    with (
        Session(settings, Silent(), environ={}) as session,
        pytest.raises(
            BuildError, match=r"the lock is of a build context, and envbuild\.yaml has none"
        ) as caught,
    ):
        render(session, spec, request)
    assert caught.value.hint == "bring the lock up to date with: envbuild lock envbuild.yaml"


def test_an_image_that_a_registry_has_is_run_without_being_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: NativeEngine, plan: Plan) -> Image:
        raise AssertionError(f"{plan.platform} is built")

    monkeypatch.setattr(NativeEngine, "build", build)
    lock = replace(LOCK, bytecode=False)
    write_lock(tmp_path / "locks" / "x", lock)
    there, store = Store(tmp_path / "there"), Store(tmp_path / "cache")
    runner = Recorder(store)
    monkeypatch.setattr("envbuild.app.run.runner", lambda *_: runner)
    with serve() as registry:
        settings = Settings(
            cache_dir=store.root, lock_dir=tmp_path / "locks", registry=f"{registry.host}/team"
        )
        environ = {"HOME": str(tmp_path)}
        with Session(settings, Silent(), environ=environ) as session:
            plan = plan_image(session, SPEC, lock, LINUX_AMD64)
        layers = [
            replace(put_layer(there, [Item(name=layer.name)]), name=layer.name)
            for layer in plan.layers
            if layer.artifacts
        ]
        made = store_image(there, plan, layers)
        with RegistryClient(there, Silent(), RegistryCredentials(environ)) as client:
            RegistrySink(
                remote=client,
                store=there,
                repository=Reference.parse(f"{registry.host}/team/x"),
                tags=(identity_tag([plan.lock_digest]),),
            ).publish(ImageSet(images=(made,), names=()))
        request = RunRequest(command=("true",), platform=LINUX_AMD64, build=BuildRequest(frozen=True))
        for _ in range(2):
            with Session(settings, Silent(), environ=environ) as session:
                assert run(session, SPEC, request) == 7
            assert runner.command is not None
            assert (runner.command.image.digest, runner.command.image.level) == (made.digest, "found")
            assert all(store.has_blob(layer.digest) for layer in layers)
            registry.manifests.clear()
        # The second time it was here.


def test_a_platform_that_is_not_locked_is_told_before_a_registry_is_asked(
    tmp_path: Path, progress: Notes
) -> None:
    write_lock(tmp_path / "locks" / "x", LOCK)
    settings = Settings(cache_dir=tmp_path, lock_dir=tmp_path / "locks", registry="127.0.0.1:9/team")
    request = BuildRequest(frozen=True, platforms=(LINUX_AMD64, Platform("linux", "riscv64")))
    with (
        Session(settings, progress, environ={}) as session,
        pytest.raises(UsageError, match="x is not locked for linux/riscv64"),
    ):
        builds.build(session, SPEC, request)
    assert progress.notes == []


def _result(image: Image) -> BuildResult:
    return BuildResult(
        reference=f"x:1@{image.digest}",
        digest=image.digest,
        images=(image,),
        cached=True,
        engine="native",
        seconds=0.0,
        published=(),
    )
