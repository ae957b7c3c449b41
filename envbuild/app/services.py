"""Services on targets: the same environment that trains answers HTTP, built, started, watched and recorded.

A service is recorded as a run: its record names the environment's version, the image by digest and the code
by digest; the image's labels name the model and, where the model's directory says so, the run that wrote it.
Each answer carries the run's name, so that a prediction leads back to all of it.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app import build
from envbuild.app.jobs import (
    PreparedJob,
    RecordedRun,
    bring_image,
    environment_version,
    log_file,
    make_state_directory,
    open_job_target,
    present_pins,
    push_made_image,
    refuse,
    release_image,
    run_name,
    run_slug,
    target_reference,
)
from envbuild.app.requests import BuildRequest
from envbuild.app.run_files import RUN_NOTE, Follower, RunLog, noted_run
from envbuild.app.session import Session
from envbuild.app.sources import checked
from envbuild.errors import EnvbuildError, RunError, UsageError
from envbuild.images.repository import identity_tag
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.specs.model import Spec
from envbuild.specs.serving import served
from envbuild.store.content import blob_name
from envbuild.store.images import read_config
from envbuild.store.leases import Lease
from envbuild.targets.base import Execution, Job, Serves, Service, Target, TargetFile
from envbuild.targets.preflight import preflight
from envbuild.targets.serving import IMAGE_VARIABLE, RUN_HEADER, RUN_VARIABLE, entry_script, serving_image

if TYPE_CHECKING:
    from envbuild.targets.serving import ServingImage

READY_SECONDS = 120.0
"""How long a service may take until it answers: models are large, and imports slow."""
_LOOKED = 0.05
_KEPT = 1 << 16
"""Bytes of what a service said last that are kept, to say why it ended."""
_HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeRequest:
    """What a service was asked to be."""

    entry_script: Path
    code: Path | None = None
    """The directory that goes into the image; None: the one the script stands in."""
    model: Path | None = None
    target: str = "local"
    port: int | None = None
    """Of this machine; None: the one that the environment names."""
    env: tuple[tuple[str, str], ...] = ()
    push: str | None = None
    """A repository that gets the serving image."""
    register: bool = True
    """As of a job; an environment that gets the server added keeps an anonymous version."""
    build: BuildRequest = field(default_factory=BuildRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedService:
    """A service that could start, but for what ``prepared.findings`` says."""

    prepared: PreparedJob
    """The same as a job: what is recorded, and what it takes to bring it there."""
    service: Service
    port: int
    """Of this machine."""
    model_digest: str | None
    model_run: str | None
    pushed: str | None
    """The reference it was pushed as."""

    @property
    def image(self) -> Image:
        return self.service.image

    @property
    def files(self) -> tuple[TargetFile, ...]:
        """What the target would be given, the same for the same image: it is of no run. Raises ``UsageError``
        where it serves nothing."""
        env = tuple(pair for pair in self.service.env if pair[0] != RUN_VARIABLE)
        name = run_slug(self.service.environment.rpartition(":")[0] or self.service.environment)
        return self.prepared.target.service_files(replace(self.service, name=name, env=env))


class Serving:
    """A service that answers at ``url``."""

    def __init__(self, prepared: PreparedService, execution: Execution, follower: Follower) -> None:
        self.name = prepared.service.name
        self.url = f"http://{_HOST}:{prepared.port}"
        self.scoring_url = self.url + prepared.service.scoring
        self.image = prepared.image.digest
        self.reference = prepared.service.reference
        self.code = prepared.prepared.job.code_digest
        self.model = prepared.model_digest
        self.model_run = prepared.model_run
        self.seconds = 0.0
        """From its start until it first answered."""
        self._execution = execution
        self._follower = follower

    def wait(self) -> int:
        """Its exit status, once it has ended by itself. Raises ``RunError`` where the target goes away."""
        self._follower.wait()
        return self._execution.wait()


@contextlib.contextmanager
def prepare_service(session: Session, spec: Spec, request: ServeRequest) -> Iterator[PreparedService]:
    """The service, built and looked at; its image stays in the store while the context is open.

    What can be wrong without a build is said before one: the script, the model, the routes."""
    entry = entry_script(request.entry_script, request.code)
    model_run = _look_at_model(request.model)
    serving = served(spec)
    as_it_is = serving is spec
    serving = spec if as_it_is else checked(serving)
    routes = serving.inference_config
    assert routes is not None, "a served spec has one"
    target = open_job_target(session, request.target)
    platform = target.limits.platform or Platform.host()
    if request.build.platforms and request.build.platforms != (platform,):
        raise UsageError(
            f"{request.target} runs {platform}, not {', '.join(map(str, request.build.platforms))}",
            hint="leave --platform out, or choose another target",
        )
    with Lease(session.store) as lease:
        built = build.build(session, serving, replace(request.build, platforms=(platform,)))
        base = built.images[0]
        lease.use(*map(blob_name, base.blobs))
        with session.progress.stage("code"):
            made = serving_image(
                base,
                entry,
                request.model,
                routes.scoring_route.port,
                session.store,
                model_run=model_run,
                left_out=(RUN_NOTE,),
            )
        image = made.image
        held = list(map(blob_name, image.blobs))
        lease.use(*held)
        pushed = _push_serving_image(session, image, request.push) if request.push is not None else None
        built_service = _BuiltService(
            spec=serving,
            as_it_is=as_it_is,
            target=target,
            base=base,
            serving=made,
            model_run=model_run,
            pushed=pushed,
        )
        prepared = _prepared(session, request, built_service, lease)
        # A service runs for weeks: what it doesn't need is anybody's to prune.
        lease.hold(*held)
        yield prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuiltService:
    """The images of a service, and what they were made of."""

    spec: Spec
    as_it_is: bool
    """Whether ``spec`` is the one that was asked for: nothing was added to serve it."""
    target: Target
    base: Image
    serving: ServingImage
    model_run: str | None
    pushed: str | None


def _prepared(session: Session, request: ServeRequest, built: _BuiltService, lease: Lease) -> PreparedService:
    """The service of that image, as far as the target takes it."""
    spec, target, image = built.spec, built.target, built.serving.image
    routes = spec.inference_config
    assert routes is not None, "a served spec has one"
    reference, name = target_reference(target, spec.name, image), run_name(spec.name)
    env = (*request.env, (RUN_VARIABLE, name), (IMAGE_VARIABLE, image.digest))
    version = environment_version(session, spec, register=built.as_it_is, keep=request.register)
    service = Service(
        name=name,
        reference=reference,
        image=image,
        port=routes.scoring_route.port,
        liveness=routes.liveness_route.path,
        readiness=routes.readiness_route.path,
        scoring=routes.scoring_route.path,
        env=env,
        environment=version,
    )
    job = Job(
        name=name,
        reference=reference,
        image=image,
        command=tuple(read_config(image, session.store).settings["Cmd"]),
        env=env,
        environment=version,
        code_digest=built.serving.code_digest,
    )
    with session.progress.stage("pre-flight"):
        findings = preflight(target, image, present_pins(session, spec, image.platform))
        to_pull = None if any(finding.error for finding in findings) else target.bytes_to_pull(image)
    return PreparedService(
        prepared=PreparedJob(
            job=job,
            target=target,
            base=built.base,
            definition=built.base.definition_digest,
            findings=findings,
            code_size=built.serving.size,
            to_pull=to_pull,
            lease=lease,
        ),
        service=service,
        port=request.port or service.port,
        model_digest=built.serving.model_digest,
        model_run=built.model_run,
        pushed=built.pushed,
    )


@contextlib.contextmanager
def run_service(
    session: Session,
    prepared: PreparedService,
    out: Callable[[bytes], None],
    *,
    ready_seconds: float = READY_SECONDS,
    starting: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Serving]:
    """The service while the context is open, from its first answer on; ``out`` gets what it prints.

    Its end stops the service, which first answers what it has begun; whatever ends it is recorded. Raises
    ``RunError`` where it can't be started, ends by itself, or doesn't answer in time."""
    job, target = prepared.prepared.job, prepared.prepared.target
    refuse(prepared.prepared.findings, target.record.name)
    if not isinstance(target, Serves):
        raise UsageError(
            f"{target.record.name} starts no services from here",
            hint=f"--dry-run prints what starts one on a target of the kind {target.record.kind}",
        )
    free_port(prepared.port)
    bring_image(session, prepared.prepared)
    make_state_directory(session.workspace)
    with RunLog(log_file(session.workspace, job.name)) as log:
        recorded = RecordedRun(session, prepared.prepared)
        starting()
        started = clock()
        try:
            execution = target.serve(prepared.service, prepared.port)
        except BaseException as error:
            recorded.end("failed" if isinstance(error, Exception) else "stopped")
            raise
        try:
            release_image(prepared.prepared)
            recorded.start(execution.identity)
            tail = _Tail(out)
            follower = Follower(execution, log, tail)
            serving = Serving(prepared, execution, follower)
            try:
                _wait_until_ready(prepared, execution, follower, tail, started + ready_seconds, clock)
                serving.seconds = clock() - started
                yield serving
            except BaseException as error:
                _finish(execution, follower, recorded, failed=isinstance(error, EnvbuildError))
                raise
            _finish(execution, follower, recorded, failed=False)
        finally:
            execution.close()


def _finish(execution: Execution, follower: Follower, recorded: RecordedRun, *, failed: bool) -> None:
    """Stops the service where it still runs, and records how it ended."""
    ended = follower.ended()
    try:
        execution.stop()
        follower.settle()
        status = execution.wait()
    except EnvbuildError:
        recorded.end("lost")
        return
    if ended:
        recorded.end("succeeded" if status == 0 else "failed", status)
    else:
        # What the end of a service that was stopped says is how it took that, not how it served.
        recorded.end("failed" if failed else "stopped", status if failed else None)


def _wait_until_ready(
    prepared: PreparedService,
    execution: Execution,
    follower: Follower,
    tail: _Tail,
    until: float,
    clock: Callable[[], float],
) -> None:
    while not _answers(prepared.port, prepared.service.readiness, prepared.service.name):
        if follower.ended():
            follower.wait()
            status = execution.wait()
            raise RunError(
                f"the service ended with the exit status {status} before it answered: {tail.reason}",
                hint=f"all it said: envbuild runs logs {prepared.service.name}",
            )
        if clock() > until:
            raise RunError(
                f"the service doesn't answer at {prepared.service.readiness}, and its time is over",
                hint=f"all it said: envbuild runs logs {prepared.service.name}",
            )
        follower.ended(_LOOKED)


def _push_serving_image(session: Session, image: Image, repository: str) -> str:
    reference = Reference.parse(repository)
    tag = f"{identity_tag([image.lock_digest])}-{image.digest.removeprefix('sha256:')[:12]}"
    push_made_image(session, image, reference, tag)
    return f"{reference.name}:{tag}@{image.digest}"


class _Tail:
    """Passes on what a service prints, and keeps the last of it, to say why it ended."""

    def __init__(self, out: Callable[[bytes], None]) -> None:
        self._out = out
        self._kept = b""
        self._lock = threading.Lock()

    def __call__(self, piece: bytes) -> None:
        with self._lock:
            self._kept = (self._kept + piece)[-_KEPT:]
        self._out(piece)

    @property
    def reason(self) -> str:
        """The error that was raised, where a traceback was printed; else the last line."""
        with self._lock:
            lines = [line.strip() for line in self._kept.decode(errors="replace").splitlines()]
        raised = [
            line for line in lines if re.match(r"[A-Za-z_.]+(Error|Exception|Exit|Interrupt)(:|$)", line)
        ]
        told = [line for line in raised if "UserScript" not in line] or [line for line in lines if line]
        return told[-1][:300] if told else "it said nothing"


def free_port(port: int) -> None:
    """Returns where nobody listens on ``port`` of this machine's loopback. Raises ``RunError``."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the server itself does: what a connection that ended left behind is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
            probe.listen(1)
        except OSError as error:
            raise RunError(
                f"port {port} of this machine can't be used: {error.strerror}",
                hint="name another one with --port",
            ) from error


def _look_at_model(model: Path | None) -> str | None:
    """The run that wrote it, if known. Raises ``UsageError`` where there is nothing."""
    if model is None:
        return None
    if not model.is_dir():
        raise UsageError(f"there is no model directory {model}", hint="name the directory, not a file in it")
    if not any(path.name != RUN_NOTE for path in model.iterdir()):
        raise UsageError(f"the model directory {model} is empty", hint="train the model first")
    return noted_run(model)


def _answers(port: int, path: str, name: str) -> bool:
    """Whether the service of that name answers with a success."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        # Another process may have taken the port meanwhile.
        return response.status == 200 and response.getheader(RUN_HEADER) == name
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
