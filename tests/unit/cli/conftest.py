"""A command line over operations that record what they are asked and answer with fixed results."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from envbuild.app.requests import (
    BuildRequest,
    BuildResult,
    LockRequest,
    LockResult,
    PinChange,
    RenderRequest,
    RenderResult,
    RunRequest,
)
from envbuild.app.session import Session
from envbuild.cli.call import Call
from envbuild.cli.main import main
from envbuild.lock.model import DebianBase, DebianPin, Lock, PipPin, PlatformLock, PythonPin
from envbuild.oci.image import Image, Layer
from envbuild.plan.model import Artifact, ArtifactKind, ImageConfig, Plan, PlannedLayer
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Progress
from envbuild.settings import Settings
from envbuild.specs.model import Spec

DEFINITION = "sha256:" + "d" * 64
LOCK = "sha256:" + "1" * 64
IMAGE = "sha256:" + "a" * 64
INDEX = "sha256:" + "b" * 64
LAYER = "sha256:" + "c" * 64
DIFF_ID = "sha256:" + "e" * 64
REFERENCE = f"train:111111111111@{IMAGE}"


def a_lock(*platforms: Platform) -> Lock:
    base = DebianBase(
        suite="trixie",
        glibc="2.41",
        packages=(
            DebianPin(
                name="libc6",
                version="2.41-1",
                architecture="amd64",
                archive="debian",
                file="pool/libc6.deb",
                size=10,
                sha256="2" * 64,
            ),
        ),
    )
    python = PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13")
    pip = (PipPin(name="numpy", version="2.3.5", file="numpy.whl", size=18_200_000, sha256="3" * 64),)
    return Lock(
        definition=DEFINITION,
        platforms=tuple(
            PlatformLock(platform=platform, base=base, python=python, pip=pip) for platform in platforms
        ),
    )


def an_image(platform: Platform, digest: str = IMAGE) -> Image:
    return Image(
        platform=platform,
        digest=digest,
        media_type="application/vnd.oci.image.manifest.v1+json",
        size=700,
        config_digest="sha256:" + "f" * 64,
        layers=(
            Layer(
                digest=LAYER,
                diff_id=DIFF_ID,
                size=18_000_000,
                media_type="application/vnd.oci.image.layer.v1.tar+gzip",
                name="numpy",
                artifacts=("numpy 2.3.5",),
            ),
        ),
        lock_digest=LOCK,
        definition_digest=DEFINITION,
        level="L3",
    )


@dataclass
class Answers:
    """What the operations answer with, and what they were asked."""

    platforms: tuple[Platform, ...] = (LINUX_AMD64,)
    changes: tuple[PinChange, ...] = ()
    status: int = 0
    fault: BaseException | None = None
    work: Callable[[Progress], None] = lambda progress: None
    package: str = "numpy"
    engine: str = "native"
    bound: tuple[str | None, bool] = (None, False)
    """``as_of`` and ``as_of_kept`` of the lock that is checked."""
    asked: list[tuple[str, object]] = field(default_factory=list)
    closed: int = 0
    settings: list[Settings] = field(default_factory=list)

    def of(self, kind: str) -> object:
        """The one request of that kind."""
        (request,) = [request for name, request in self.asked if name == kind]
        return request

    def _ask(self, session: Session, kind: str, request: object) -> None:
        self.asked.append((kind, request))
        self.work(session.progress)
        if self.fault is not None:
            raise self.fault

    def find_spec(self, session: Session, spec: str) -> Spec:
        self.asked.append(("load", spec))
        return Spec(name="train", source=Path("/specs/train.yaml"))

    def lock_spec(self, session: Session, spec: Spec, request: LockRequest) -> LockResult:
        self._ask(session, "lock", request)
        return LockResult(
            lock=a_lock(*self.platforms),
            directory=Path("/specs/lockfiles/train"),
            changes=self.changes,
            written=bool(self.changes) and not request.dry_run,
        )

    def check_lock(self, session: Session, spec: Spec) -> Lock:
        self._ask(session, "check", spec.name)
        as_of, kept = self.bound
        return replace(a_lock(*self.platforms), as_of=as_of, as_of_kept=kept)

    def plan_image(self, session: Session, spec: Spec, lock: Lock, platform: Platform) -> Plan:
        self._ask(session, "plan", platform)
        pin = lock.platforms[0].pip[0]
        artifact = Artifact(
            kind=ArtifactKind.WHEEL,
            name=self.package,
            version=pin.version,
            sha256=pin.sha256,
            size=pin.size,
            pin=pin,
        )
        return Plan(
            platform=platform,
            lock_digest=LOCK,
            definition_digest=DEFINITION,
            level="L3",
            base=lock.platforms[0].base,
            python=lock.platforms[0].python,
            layers=(PlannedLayer(name="numpy", artifacts=(artifact,)),),
            config=ImageConfig(env=(), user="1000:1000", cmd=("python3",)),
            bytecode=True,
            interpreter=None,
        )

    def describe_plan(
        self, session: Session, spec: Spec, lock: Lock, platform: Platform, request: BuildRequest
    ) -> Plan:
        self._ask(session, "described", request)
        return replace(self.plan_image(session, spec, lock, platform), level="L2")

    def build(self, session: Session, spec: Spec, request: BuildRequest) -> BuildResult:
        self._ask(session, "build", request)
        several = len(self.platforms) > 1
        return BuildResult(
            reference=f"train:111111111111@{INDEX}" if several else REFERENCE,
            digest=INDEX if several else IMAGE,
            images=tuple(an_image(platform) for platform in self.platforms),
            cached=False,
            engine=self.engine,
            seconds=4.25,
            published=("oci layout at out",),
        )

    def render(self, session: Session, spec: Spec, request: RenderRequest) -> tuple[RenderResult, ...]:
        self._ask(session, "render", request)
        several = len(self.platforms) > 1
        return tuple(
            RenderResult(
                platform=platform,
                directory=request.output / platform.subdir if several else request.output,
                files=7,
                size=32_800_000,
                digest=IMAGE,
                lock_digest=LOCK,
                level="L2",
            )
            for platform in self.platforms
        )

    def run(self, session: Session, spec: Spec, request: RunRequest) -> int:
        self._ask(session, "run", request)
        return self.status


class FakeSession(Session):
    """A session that notes its settings, and that it is closed."""

    def __init__(self, answers: Answers, settings: Settings, progress: Progress, **others: Any) -> None:
        super().__init__(settings, progress, **others)
        self._answers = answers
        answers.settings.append(settings)

    def close(self) -> None:
        super().close()
        self._answers.closed += 1


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Shown:
    status: int
    out: str
    err: str


@dataclass
class CommandLine:
    """Runs ``envbuild`` in this process over these answers."""

    directory: Path
    answers: Answers = field(default_factory=Answers)
    environ: dict[str, str] = field(default_factory=dict)
    terminal: bool = False

    def __call__(self, *argv: str) -> Shown:
        out = io.StringIO()
        err = Terminal() if self.terminal else io.StringIO()
        call = Call(
            environ=self.environ,
            cwd=self.directory,
            stdout=out,
            stderr=err,
            make_session=partial(FakeSession, self.answers),
        )
        status = main(argv, call=call)
        return Shown(status, out.getvalue(), err.getvalue())


_OPERATIONS = (
    *("specs.find_spec", "lock.lock_spec", "lock.check_lock", "plan.plan_image", "plan.describe_plan"),
    *("build.build", "plan.render", "run.run"),
)


@pytest.fixture
def envbuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    answers = Answers()
    for operation in _OPERATIONS:
        method = getattr(answers, operation.partition(".")[2])
        monkeypatch.setattr(f"envbuild.app.{operation}", method)
    return CommandLine(tmp_path, answers, environ={"HOME": str(tmp_path / "home")})


BOTH = (LINUX_AMD64, LINUX_ARM64)
