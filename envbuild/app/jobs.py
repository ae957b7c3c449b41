"""Jobs on targets: builds, puts the code on top, looks whether it fits, brings it there, and keeps what
became of it.

A run leads back to all it was made of: its record names the target, the environment's version, the image by
digest and the code by digest; its log is a file on the machine that started it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app import build
from envbuild.app.environments import Workspace
from envbuild.app.lock import present_lock
from envbuild.app.requests import BuildRequest
from envbuild.app.run_files import Follower, RunLog, leave_note
from envbuild.app.session import Session
from envbuild.errors import EnvbuildError, RunError, UsageError, WorkspaceError
from envbuild.images.repository import identity_tag, repository_name
from envbuild.images.sinks.registry import RegistrySink
from envbuild.lock.model import PlatformLock
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.specs.model import Spec
from envbuild.store.content import blob_name
from envbuild.store.leases import Lease
from envbuild.targets.base import Execution, Job, PreflightFinding, Target, TargetFile, WritesOnly
from envbuild.targets.code import code_image
from envbuild.targets.kinds import TargetContext, open_target
from envbuild.targets.preflight import preflight, registry_findings
from envbuild.workspace.base import NewRun, RunRecord
from envbuild.workspace.private import keep_private, make_private_directory

if TYPE_CHECKING:
    from envbuild.images.base import PushResult

_log = logging.getLogger(__name__)

_SIGNALS = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C and SIGTERM raise."""
_SLUG = 40
"""Characters of an environment's name in the name of its run: all targets take 63."""
LOG_DIRECTORY = "runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """What a job was asked to be."""

    target: str
    command: tuple[str, ...]
    code: Path | None = None
    env: tuple[tuple[str, str], ...] = ()
    register: bool = True
    """Whether an environment that has a name of its own is registered, as submitting it does; else the
    version that it would get is shown."""
    build: BuildRequest = field(default_factory=BuildRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedJob:
    """A job that could start, but for what ``findings`` says."""

    job: Job
    target: Target
    base: Image
    """The environment's own image, without the code."""
    definition: str
    findings: tuple[PreflightFinding, ...]
    code_size: int
    """Bytes of the code's layer, compressed."""
    to_pull: int | None
    """Bytes of the image that the target lacks; None where it can't say."""
    lease: Lease | None = None
    """Holds the image until the target has it; None: nobody does."""

    @property
    def files(self) -> tuple[TargetFile, ...]:
        """What the target would be given."""
        return self.target.job_files(self.job)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutcome:
    """A run that has ended. ``record`` is None where nothing is recorded."""

    exit_status: int
    name: str
    record: RunRecord | None
    log: Path
    outputs: Path | None
    """The directory with what the job wrote below ``outputs/``; None where there is nothing."""


def log_file(workspace: Workspace, name: str) -> Path:
    """Where the log of the run ``name`` is, if this machine started it."""
    return state_directory(workspace) / f"{name}.log"


def state_directory(workspace: Workspace) -> Path:
    """Where files of runs are kept: beside the workspace's file, else below the user's data."""
    file = workspace.file
    if file is not None:
        return file.parent / LOG_DIRECTORY
    return workspace.data_directory / LOG_DIRECTORY


def make_state_directory(workspace: Workspace) -> None:
    """Makes the state directory for this user alone; where that can't be, whoever writes there says why."""
    directory = state_directory(workspace)
    with contextlib.suppress(OSError):
        make_private_directory(directory)
        if directory.parent == workspace.data_directory:
            keep_private(directory, 0o700)


def open_job_target(session: Session, name: str) -> Target:
    """The target of that name in the workspace; ``local`` is always there. Raises ``WorkspaceError``."""
    return open_target(session.workspace.target(name), target_context(session))


def target_context(session: Session) -> TargetContext:
    """What targets of this pipeline may use of the process."""
    return TargetContext(
        store=session.store,
        progress=session.progress,
        state=state_directory(session.workspace),
        environ=session.environ,
    )


@contextlib.contextmanager
def prepare_job(session: Session, spec: Spec, request: JobRequest) -> Iterator[PreparedJob]:
    """The job, built and looked at. The image, and nothing else, stays in the store while the context is
    open, until ``run`` has handed it over."""
    if not request.command:
        raise UsageError("no command to run is given", hint="put it after two dashes: -- python train.py")
    target = open_job_target(session, request.target)
    platform = target.limits.platform or Platform.host()
    if request.build.platforms and request.build.platforms != (platform,):
        raise UsageError(
            f"{request.target} runs {platform}, not {', '.join(map(str, request.build.platforms))}",
            hint="leave --platform out, or choose another target",
        )
    with Lease(session.store) as lease:
        built = build.build(session, spec, replace(request.build, platforms=(platform,)))
        base = built.images[0]
        image, code_digest, code_size = with_code(session, base, request.code, lease)
        version = environment_version(session, spec, register=True, keep=request.register)
        job = Job(
            name=run_name(spec.name),
            reference=target_reference(target, spec.name, image),
            image=image,
            command=request.command,
            env=request.env,
            environment=version,
            code_digest=code_digest,
        )
        with session.progress.stage("pre-flight"):
            findings = preflight(target, image, present_pins(session, spec, platform))
            if target.registry is not None and not isinstance(target, WritesOnly):
                findings += registry_findings(job.reference, session.registry)
            to_pull = None if any(finding.error for finding in findings) else target.bytes_to_pull(image)
        # A job may run for weeks: what it doesn't need is anybody's to prune.
        lease.hold(*map(blob_name, image.blobs))
        yield PreparedJob(
            job=job,
            target=target,
            base=base,
            definition=base.definition_digest,
            findings=findings,
            code_size=code_size,
            to_pull=to_pull,
            lease=lease,
        )


def run_job(
    session: Session,
    prepared: PreparedJob,
    out: Callable[[bytes], None],
    *,
    outputs: Path | None = None,
    starting: Callable[[], None] = lambda: None,
) -> JobOutcome:
    """Brings the image to the target, starts the job and waits for it; ``out`` gets what it prints.
    What it wrote below ``outputs/`` comes into the directory ``outputs``, which is new or empty; by
    default it is beside the log, by the run's name. Plain files and directories come, in the modes 644
    and 755; links, devices and the like don't. They also come where the job failed or was stopped; where
    the target can't bring them, nothing does.
    ``starting`` is called before the job is: from then on an end of this process has to wait for the
    target.

    Whatever ends it is recorded: Ctrl-C stops the job first. Raises ``RunError`` where it can't be
    started or the target goes away, and for the findings that are errors.
    """
    refuse(prepared.findings, prepared.target.record.name)
    if isinstance(prepared.target, WritesOnly):
        # Says what to do, before anything is pushed.
        prepared.target.submit(prepared.job)
    # What the target can't be handed is refused before anything is pushed, too.
    _ = prepared.files
    make_state_directory(session.workspace)
    place = outputs or state_directory(session.workspace) / prepared.job.name
    _make_outputs(place)
    try:
        bring_image(session, prepared)
        file = log_file(session.workspace, prepared.job.name)
        with RunLog(file) as log:
            recorded = RecordedRun(session, prepared)
            starting()
            return _watch_job(prepared, recorded, log, out, place)
    finally:
        # A directory without outputs is none that was asked for.
        with contextlib.suppress(OSError):
            place.rmdir()


def with_code(
    session: Session, base: Image, code: Path | None, lease: Lease
) -> tuple[Image, str | None, int]:
    """``base`` with the code on top, the code's digest, and its layer's size; ``lease`` holds both."""
    lease.use(*map(blob_name, base.blobs))
    if code is None:
        return base, None, 0

    with session.progress.stage("code"):
        made = code_image(base, code, session.store)
    lease.use(*map(blob_name, made.image.blobs))
    return made.image, made.digest, made.size


def present_pins(session: Session, spec: Spec, platform: Platform) -> PlatformLock | None:
    """What the image of that platform was made from; None where no lock says so."""
    lock = present_lock(session, spec)
    return lock.platform(platform) if lock is not None else None


def run_name(environment: str) -> str:
    """A new name for a run of ``environment``."""
    return f"{run_slug(environment)}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def environment_version(session: Session, spec: Spec, *, register: bool = False, keep: bool = True) -> str:
    """``name:version`` that this is a run of: the registered one, else an anonymous one, made now; the name
    alone where nothing is recorded. With ``register``, a spec that has a name of its own is registered, or
    without ``keep`` would be; one that can't be is said."""
    if not _records_runs(session):
        return spec.name
    if register:
        try:
            return session.workspace.record_run(spec, keep=keep).reference
        except WorkspaceError as error:
            session.progress.note(f"the environment isn't registered: {error}")
    return session.workspace.record(spec).reference


def _records_runs(session: Session) -> bool:
    return session.settings.record and session.settings.workspace is not None


def bring_image(session: Session, prepared: PreparedJob) -> None:
    """Pushes the image where the target pulls it from."""
    prefix = prepared.target.registry
    if prefix is None:
        return

    repository, _, tag = prepared.job.reference.partition("@")[0].rpartition(":")
    push_made_image(session, prepared.job.image, Reference.parse(f"{repository}:{tag}"), tag)


def _watch_job(
    prepared: PreparedJob,
    recorded: RecordedRun,
    log: RunLog,
    out: Callable[[bytes], None],
    place: Path,
) -> JobOutcome:
    """The job from its start to its end, all of which is recorded."""
    name = prepared.job.name
    try:
        execution = prepared.target.submit(prepared.job)
    except BaseException as error:
        recorded.end("stopped" if isinstance(error, _SIGNALS) else "failed")
        raise
    closing = True
    try:
        release_image(prepared)
        recorded.start(execution.identity)
        follower = Follower(execution, log, out)
        try:
            follower.wait()
            status = execution.wait()
        except RunError:
            recorded.end("lost")
            raise
        except BaseException:
            _stop(execution, follower, recorded, place)
            raise
        recorded.end("succeeded" if status == 0 else "failed", status)
        try:
            brought = execution.bring_outputs(place)
            if brought:
                leave_note(
                    place,
                    run=name,
                    environment=prepared.job.environment,
                    image=prepared.job.image.digest,
                    code=prepared.job.code_digest,
                )
        except (RunError, OSError) as error:
            # What the job made is worth more than a tidy target.
            closing = False
            raise RunError(
                f"{name} ended with the exit status {status}, but its outputs can't be brought: {error}",
                hint=getattr(error, "hint", None)
                or f"they may still be on {prepared.target.record.name}, in {execution.identity}",
            ) from error
    finally:
        if closing:
            execution.close()
    return JobOutcome(
        exit_status=status,
        name=name,
        record=recorded.run,
        log=log.file,
        outputs=place if brought else None,
    )


class RecordedRun:
    """One run in the session's workspace: from its start to its end. Records nothing where the settings say
    so, and once the job runs never raises: a workspace that is away must not end it."""

    def __init__(self, session: Session, prepared: PreparedJob) -> None:
        """Raises ``WorkspaceError``: what can't be recorded isn't started."""
        self._workspace = session.workspace
        self.run: RunRecord | None = None
        if not _records_runs(session):
            return
        job, record = prepared.job, prepared.target.record
        environment, _, version = job.environment.rpartition(":")
        self.run = self._workspace.environments.add_run(
            NewRun(
                name=job.name,
                target=record.name,
                kind=record.kind,
                environment=environment,
                version=version,
                definition=prepared.definition,
                image=job.image.digest,
                base_image=prepared.base.digest,
                reference=job.reference,
                code=job.code_digest,
                command=job.command,
                variables=tuple(sorted({name for name, _ in job.env})),
            )
        )

    def start(self, identity: str) -> None:
        """Keeps where the job runs."""
        if self.run is None:
            return
        try:
            self._workspace.environments.update_run(self.run.name, "running", identity=identity)
        except WorkspaceError as error:
            _log.warning(
                "that the run %s is running as %s isn't recorded: %s", self.run.name, identity, error
            )

    def end(self, status: str, exit_status: int | None = None) -> None:
        """Keeps how it ended: ``succeeded``, ``failed``, ``stopped`` or ``lost``."""
        if self.run is None:
            return
        try:
            self.run = self._workspace.environments.update_run(self.run.name, status, exit_status=exit_status)
        except WorkspaceError as error:
            _log.warning("the end of the run %s (%s) isn't recorded: %s", self.run.name, status, error)


def _stop(execution: Execution, follower: Follower, recorded: RecordedRun, place: Path) -> None:
    """Stops the job, and keeps what it says and makes on its way out: checkpoints, for one."""
    try:
        execution.stop()
    except EnvbuildError as error:
        _log.warning("the job may still run as %s: %s", execution.identity, error)
        recorded.end("lost")
        return
    follower.settle()
    recorded.end("stopped")
    try:
        if execution.bring_outputs(place):
            _log.warning("the job was stopped; what it had written is in %s", place)
    except (EnvbuildError, OSError) as error:
        _log.warning("the outputs of the stopped job can't be brought: %s", error)


def release_image(prepared: PreparedJob) -> None:
    """Ends the hold on the image: the target has it by now, and one that runs it from the store itself holds
    what it needs."""
    # A disk that is full must not end what has begun.
    with contextlib.suppress(EnvbuildError):
        if prepared.lease is not None:
            prepared.lease.hold()


def run_slug(environment: str) -> str:
    """An environment's name as part of a run's: what all targets take, from a letter on."""
    slug = re.sub(r"[^a-z0-9]+", "-", environment.lower()).strip("-") or "run"
    return (slug if slug[0].isalpha() else f"run-{slug}")[:_SLUG].strip("-")


def push_made_image(session: Session, image: Image, repository: Reference, tag: str) -> PushResult:
    """Pushes one image, without what is attached to an environment's own. Raises ``PublishError``."""
    with session.progress.stage("push"):
        sink = RegistrySink(remote=session.registry, store=session.store, repository=repository, tags=(tag,))
        return sink.publish(ImageSet(images=(image,), names=()))


def refuse(findings: Sequence[PreflightFinding], target: str) -> None:
    """Raises ``RunError`` with every finding that is an error."""
    errors = [finding for finding in findings if finding.error]
    if errors:
        raise RunError(
            "\n".join([f"this can't run on {target}:", *(error.text for error in errors)]),
            hint=next((error.hint for error in errors if error.hint), None),
        )


def _make_outputs(place: Path) -> None:
    """Makes the directory for outputs: whether it can be written is known before anything starts. Raises
    ``UsageError``."""
    hint = "name another directory for the outputs"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise UsageError(f"{place} is not empty", hint=hint)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UsageError(f"outputs can't be written to {place}: {error.strerror}", hint=hint) from error


def target_reference(target: Target, name: str, image: Image) -> str:
    """The image as the target names it: known before it is pushed."""
    tag = identity_tag([image.lock_digest])
    local = repository_name(name)
    where = f"{target.registry}/{local}" if target.registry is not None else local
    return f"{where}:{tag}-{image.digest.removeprefix('sha256:')[:12]}@{image.digest}"
