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

from envbuild.app.requests import BuildRequest
from envbuild.app.run_log import Follower, RunLog
from envbuild.app.run_note import leave_note
from envbuild.app.workspace import Workspace, kept_content
from envbuild.errors import EnvbuildError, RunError, UsageError, WorkspaceError
from envbuild.lock.model import PlatformLock
from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import Spec
from envbuild.targets.base import Execution, Finding, Job, Target, TargetFile, WritesOnly
from envbuild.workspace.base import NewRun, Run
from envbuild.workspace.private import keep_private, make_private_directory

if TYPE_CHECKING:
    from envbuild.app.workspace_pipeline import WorkspacePipeline
    from envbuild.images.base import PushResult
    from envbuild.oci.reference import Reference
    from envbuild.store.leases import Lease
    from envbuild.targets.kinds import TargetContext

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
    build: BuildRequest = field(default_factory=BuildRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A job that could start, but for what ``findings`` says."""

    job: Job
    target: Target
    base: Image
    """The environment's own image, without the code."""
    definition: str
    findings: tuple[Finding, ...]
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
class Outcome:
    """A run that has ended. ``record`` is None where nothing is recorded."""

    exit_status: int
    name: str
    record: Run | None
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


class Jobs:
    """Starts jobs through a pipeline and its workspace. ``now`` is the wall clock, aware."""

    def __init__(
        self,
        pipeline: WorkspacePipeline,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        token: Callable[[], str] = lambda: secrets.token_hex(2),
    ) -> None:
        self._pipeline = pipeline
        self._workspace = pipeline.workspace
        self._parts = pipeline.parts
        self._now = now
        self._token = token

    def target(self, name: str) -> Target:
        """The target of that name in the workspace; ``local`` is always there. Raises ``WorkspaceError``."""
        from envbuild.targets.kinds import open_target

        return open_target(self._workspace.target(name), self.surroundings)

    @property
    def surroundings(self) -> TargetContext:
        """What targets of this pipeline may use of the process."""
        from envbuild.targets.kinds import TargetContext

        return TargetContext(
            store=self._parts.store,
            progress=self._pipeline.progress,
            state=state_directory(self._workspace),
            environ=self._parts.environ,
        )

    @contextlib.contextmanager
    def prepared(self, spec: Spec, request: JobRequest) -> Iterator[Prepared]:
        """The job, built and looked at. The image, and nothing else, stays in the store while the context is
        open, until ``run`` has handed it over."""
        from envbuild.store.content import blob_name
        from envbuild.store.leases import Lease
        from envbuild.targets.preflight import preflight, registry_findings

        if not request.command:
            raise UsageError("no command to run is given", hint="put it after two dashes: -- python train.py")
        target = self.target(request.target)
        platform = target.limits.platform or Platform.host()
        if request.build.platforms and request.build.platforms != (platform,):
            raise UsageError(
                f"{request.target} runs {platform}, not {', '.join(map(str, request.build.platforms))}",
                hint="leave --platform out, or choose another target",
            )
        with Lease(self._parts.store) as lease:
            built = self._pipeline.build(spec, replace(request.build, platforms=(platform,)))
            base = built.images[0]
            image, code_digest, code_size = self.with_code(base, request.code, lease)
            version = self.version(spec, base)
            job = Job(
                name=self._name(spec.name),
                reference=target_reference(target, spec.name, image),
                image=image,
                command=request.command,
                env=request.env,
                environment=version,
                code_digest=code_digest,
            )
            with self._pipeline.progress.stage("pre-flight"):
                findings = preflight(target, image, self.pins(spec, platform))
                if target.registry is not None and not isinstance(target, WritesOnly):
                    findings += registry_findings(job.reference, self._parts.registry)
                to_pull = None if any(finding.error for finding in findings) else target.bytes_to_pull(image)
            # A job may run for weeks: what it doesn't need is anybody's to prune.
            lease.hold(*(blob_name(digest) for digest in digests(image)))
            yield Prepared(
                job=job,
                target=target,
                base=base,
                definition=base.definition_digest,
                findings=findings,
                code_size=code_size,
                to_pull=to_pull,
                lease=lease,
            )

    def run(
        self,
        prepared: Prepared,
        out: Callable[[bytes], None],
        *,
        outputs: Path | None = None,
        starting: Callable[[], None] = lambda: None,
    ) -> Outcome:
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
        make_state_directory(self._workspace)
        place = outputs or state_directory(self._workspace) / prepared.job.name
        _make_place(place)
        try:
            self._bring(prepared)
            file = log_file(self._workspace, prepared.job.name)
            with RunLog(file) as log:
                record = self._begin(prepared)
                starting()
                return self._watched(prepared, record, log, out, place)
        finally:
            # A directory without outputs is none that was asked for.
            with contextlib.suppress(OSError):
                place.rmdir()

    # --- parts ----------------------------------------------------------------------------------------

    def with_code(self, base: Image, code: Path | None, lease: Lease) -> tuple[Image, str | None, int]:
        """``base`` with the code on top, the code's digest, and its layer's size; ``lease`` holds both."""
        from envbuild.store.content import blob_name

        lease.use(*(blob_name(digest) for digest in digests(base)))
        if code is None:
            return base, None, 0
        from envbuild.targets.code import code_image

        with self._pipeline.progress.stage("code"):
            made = code_image(base, code, self._parts.store)
        lease.use(*(blob_name(digest) for digest in digests(made.image)))
        return made.image, made.digest, made.size

    def pins(self, spec: Spec, platform: Platform) -> PlatformLock | None:
        """What the image of that platform was made from; None where no lock says so."""
        lock = self._pipeline.present_lock(spec)
        return lock.platform(platform) if lock is not None else None

    def _name(self, environment: str) -> str:
        return f"{run_slug(environment)}-{self._now():%Y%m%d-%H%M%S}-{self._token()}"

    def version(self, spec: Spec, image: Image) -> str:
        """``name:version`` that this is a run of: the registered one, else an anonymous one, made now."""
        if not self._records:
            return spec.name
        definition = definition_digest(spec)
        registry = self._workspace.registry
        found = registry.register(
            spec.name,
            definition=definition,
            content=kept_content(spec),
            description=spec.description,
            tags=spec.tags,
            anonymous=True,
            origin=str(spec.source),
        )
        return found.version.reference

    @property
    def _records(self) -> bool:
        settings = self._pipeline.settings
        return settings.record and settings.workspace is not None

    def _bring(self, prepared: Prepared) -> None:
        """Pushes the image where the target pulls it from."""
        prefix = prepared.target.registry
        if prefix is None:
            return
        from envbuild.oci.reference import Reference

        repository, _, tag = prepared.job.reference.partition("@")[0].rpartition(":")
        push_image(self._pipeline, prepared.job.image, Reference.parse(f"{repository}:{tag}"), tag)

    def _watched(
        self,
        prepared: Prepared,
        record: Run | None,
        log: RunLog,
        out: Callable[[bytes], None],
        place: Path,
    ) -> Outcome:
        """The job from its start to its end, all of which is recorded."""
        name = prepared.job.name
        try:
            execution = prepared.target.submit(prepared.job)
        except BaseException as error:
            self._end(record, "stopped" if isinstance(error, _SIGNALS) else "failed", None)
            raise
        closing = True
        try:
            let_go(prepared)
            self._update(record, "running", identity=execution.identity)
            follower = Follower(execution, log, out)
            try:
                follower.wait()
                status = execution.wait()
            except RunError:
                self._end(record, "lost", None)
                raise
            except BaseException:
                self._stop(execution, follower, record, place)
                raise
            ended = self._end(record, "succeeded" if status == 0 else "failed", status)
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
        return Outcome(
            exit_status=status,
            name=name,
            record=ended,
            log=log.file,
            outputs=place if brought else None,
        )

    def _begin(self, prepared: Prepared) -> Run | None:
        if not self._records:
            return None
        job, record = prepared.job, prepared.target.record
        environment, _, version = job.environment.rpartition(":")
        return self._workspace.registry.add_run(
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

    def _update(self, record: Run | None, status: str, *, identity: str) -> None:
        """Keeps where the job is. It runs by then: a workspace that is away must not end it."""
        if record is None:
            return
        try:
            self._workspace.registry.update_run(record.name, status, identity=identity)
        except WorkspaceError as error:
            _log.warning(
                "that the run %s is %s as %s isn't recorded: %s", record.name, status, identity, error
            )

    def _end(self, record: Run | None, status: str, exit_status: int | None) -> Run | None:
        """Keeps the end. The job has ended by then: a workspace that is away must not change its status."""
        if record is None:
            return None
        try:
            return self._workspace.registry.update_run(record.name, status, exit_status=exit_status)
        except WorkspaceError as error:
            _log.warning("the end of the run %s (%s) isn't recorded: %s", record.name, status, error)
            return record

    def _stop(self, execution: Execution, follower: Follower, record: Run | None, place: Path) -> None:
        """Stops the job, and keeps what it says and makes on its way out: checkpoints, for one."""
        try:
            execution.stop()
        except EnvbuildError as error:
            _log.warning("the job may still run as %s: %s", execution.identity, error)
            self._end(record, "lost", None)
            return
        follower.settle()
        self._end(record, "stopped", None)
        try:
            if execution.bring_outputs(place):
                _log.warning("the job was stopped; what it had written is in %s", place)
        except (EnvbuildError, OSError) as error:
            _log.warning("the outputs of the stopped job can't be brought: %s", error)


def let_go(prepared: Prepared) -> None:
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


def push_image(pipeline: WorkspacePipeline, image: Image, repository: Reference, tag: str) -> PushResult:
    """Pushes one image, without what is attached to an environment's own. Raises ``PublishError``."""
    from envbuild.images.sinks.registry import push_publication
    from envbuild.oci.image import ImageSet

    with pipeline.progress.stage("push"):
        return push_publication(
            ImageSet(images=(image,), names=()),
            repository,
            (tag,),
            pipeline.parts.registry,
            pipeline.parts.store,
            pipeline.progress,
        )


def refuse(findings: Sequence[Finding], target: str) -> None:
    """Raises ``RunError`` with every finding that is an error."""
    errors = [finding for finding in findings if finding.error]
    if errors:
        raise RunError(
            "\n".join([f"this can't run on {target}:", *(error.text for error in errors)]),
            hint=next((error.hint for error in errors if error.hint), None),
        )


def _make_place(place: Path) -> None:
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
    from envbuild.images.repository import identity_tag, repository_name

    tag = identity_tag([image.lock_digest])
    local = repository_name(name)
    where = f"{target.registry}/{local}" if target.registry is not None else local
    return f"{where}:{tag}-{image.digest.removeprefix('sha256:')[:12]}@{image.digest}"


def digests(image: Image) -> tuple[str, ...]:
    """Of all blobs of the image."""
    return (image.digest, image.config_digest, *(layer.digest for layer in image.layers))
