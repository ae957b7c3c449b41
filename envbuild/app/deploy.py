"""Pinned references for others: pushes an environment's image and writes the files that name it by digest.

All that can be wrong is found before anything is pushed: an image that doesn't fit a target, a kind that has
no such file, a file in the way that isn't ours. Files are the same whenever the environment, the code and the
command are: they hold no time, and the name of a job is made from what it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from envbuild.app import build
from envbuild.app.jobs import (
    environment_version,
    open_job_target,
    present_pins,
    push_made_image,
    refuse,
    run_slug,
    target_context,
    with_code,
)
from envbuild.app.requests import BuildRequest, LockRequest
from envbuild.app.run_files import RUN_NOTE, noted_run
from envbuild.app.save import write_file
from envbuild.app.session import Session
from envbuild.app.sources import checked
from envbuild.errors import PublishError, UsageError
from envbuild.images.base import PushResult
from envbuild.images.repository import PushTarget, identity_tag, push_target, repository_name
from envbuild.oci.digest import canonical_digest
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.specs.model import EnvironmentType, Spec
from envbuild.specs.serving import served
from envbuild.store.content import blob_name
from envbuild.store.leases import Lease
from envbuild.targets.base import (
    EnvironmentFiles,
    Job,
    PreflightFinding,
    PublishedEnvironment,
    Service,
    Target,
    TargetFile,
    WritesOnly,
)
from envbuild.targets.files.base import add_header, check_file_kind, file_target, has_header
from envbuild.targets.preflight import limit_findings, preflight
from envbuild.targets.serving import IMAGE_VARIABLE, entry_script, serving_image


@dataclass(frozen=True, kw_only=True, slots=True)
class _RequestedTarget:
    """One of the targets that were asked for."""

    target: Target
    bare: bool
    """A kind without a target: nothing is connected to."""
    repository: PushTarget
    platform: Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuiltTarget:
    """What is to be pushed and written for one target."""

    requested: _RequestedTarget
    base: Image
    image: Image
    result: PublishedTo


def publish(session: Session, spec: Spec, request: PublishRequest) -> Published:
    """Builds, looks whether it fits, pushes with all that ``build --push`` attaches, and writes the files.

    Raises ``RunError`` with what is in the way at a target, ``UsageError`` for what can't be written; nothing
    was pushed or written then. The references are recorded as those of every build.
    """
    if not request.to:
        raise UsageError("nothing says for what to publish", hint="name a target or a kind: --to kubernetes")
    _check(request)
    if request.serve is not None:
        spec = _served(spec)
    targets = [_requested_target(session, spec, request, name) for name in dict.fromkeys(request.to)]
    with Lease(session.store) as lease:
        built = [_build_target(session, spec, request, target, lease) for target in targets]
        version = environment_version(session, spec)
        if ":" not in version and spec.version is not None:
            version = f"{version}:{spec.version}"
        results = [_with_files(target, spec, request, version) for target in built]
        places = places_of(results, request)
        pushed = tuple(_push_all(session, spec, request, built))
    done = tuple(written(result, place) for result, place in zip(results, places, strict=True))
    return Published(environment=version, targets=done, pushed=pushed)


def _check(request: PublishRequest) -> None:
    if request.command and request.serve is not None:
        raise UsageError("a file runs a command or serves, not both", hint="call it once for each")
    if request.model is not None and request.serve is None:
        raise UsageError("a model belongs to a service", hint="name its entry script: --serve score.py")
    if not request.command and request.serve is None and (request.code is not None or request.env):
        raise UsageError("code and variables belong to a command", hint="put one after two dashes")
    if request.serve is not None:
        # What is wrong with it is said before a build.
        entry_script(request.serve, request.code)


def _served(spec: Spec) -> Spec:
    """What ``envbuild serve`` would build."""
    serving = served(spec)
    return serving if serving is spec else checked(serving)


def _requested_target(session: Session, spec: Spec, request: PublishRequest, name: str) -> _RequestedTarget:
    known = [target.name for target in session.workspace.targets()]
    registry, given = session.settings.registry, None
    if request.push is not None:
        given = push_target(request.push, registry)
    bare = name not in known
    if bare:
        check_file_kind(name, known)
        repository = given or _below(registry, spec, name)
        target = file_target(
            name, target_context(session), registry=repository.repository.name.rpartition("/")[0]
        )
    else:
        target = open_job_target(session, name)
        repository = given or _below(target.registry or registry, spec, name)
    return _RequestedTarget(
        target=target,
        bare=bare,
        repository=repository,
        platform=_platform(target, spec, request.build.platforms),
    )


def _below(registry: str | None, spec: Spec, name: str) -> PushTarget:
    """The environment's own repository below ``registry``, for a target called ``name``."""
    if registry is None:
        raise UsageError(
            f"{name} has no registry to publish to",
            hint="name one: --push REGISTRY/REPOSITORY, or the target's option registry",
        )
    return push_target(f"{registry}/{repository_name(spec.name)}", registry)


def _platform(target: Target, spec: Spec, chosen: Sequence[Platform]) -> Platform:
    """The one platform of an image for ``target``."""
    runs = target.limits.platform
    if len(chosen) > 1:
        raise UsageError("a file names the image of one platform", hint="give --platform once")
    if chosen:
        if runs is not None and chosen[0] != runs:
            raise UsageError(
                f"{target.record.name} runs {runs}, not {chosen[0]}",
                hint="leave --platform out, or choose another target",
            )
        return chosen[0]
    if runs is not None:
        return runs
    host = Platform.host()
    return host if host in spec.platforms else spec.platforms[0]


def _build_target(
    session: Session,
    spec: Spec,
    request: PublishRequest,
    requested: _RequestedTarget,
    lease: Lease,
) -> _BuiltTarget:
    build_request = replace(request.build, platforms=(requested.platform,), push=())
    base = build.build(session, spec, build_request).images[0]
    code: str | None
    if request.serve is not None:
        image, code = _serving_image(session, spec, request, base, lease)
    else:
        image, code, _ = with_code(session, base, request.code, lease)
    target, name = requested.target, requested.target.record.name
    with session.progress.stage("pre-flight"):
        pins = present_pins(session, spec, requested.platform)
        findings = (limit_findings if requested.bare else preflight)(target, image, pins)
    refuse(findings, name)
    return _BuiltTarget(
        requested=requested,
        base=base,
        image=image,
        result=PublishedTo(
            target=name,
            kind=target.record.kind,
            platform=requested.platform,
            reference=_reference(requested.repository.repository, image, coded=code is not None),
            base_reference=_reference(requested.repository.repository, base, coded=False),
            code=code,
            files=(),
            findings=tuple(findings),
        ),
    )


def _serving_image(
    session: Session, spec: Spec, request: PublishRequest, base: Image, lease: Lease
) -> tuple[Image, str]:
    """``base`` with script and model on top, and the code's digest; ``lease`` holds both."""
    assert request.serve is not None, "whoever calls has looked"
    assert spec.inference_config is not None, "a served spec has one"
    lease.use(*map(blob_name, base.blobs))
    with session.progress.stage("code"):
        made = serving_image(
            base,
            entry_script(request.serve, request.code),
            request.model,
            spec.inference_config.scoring_route.port,
            session.store,
            model_run=noted_run(request.model) if request.model is not None else None,
            left_out=(RUN_NOTE,),
        )
    lease.use(*map(blob_name, made.image.blobs))
    return made.image, made.code_digest


def _reference(repository: Reference, image: Image, *, coded: bool) -> str:
    """The image as a push names it, known before."""
    tag = identity_tag([image.lock_digest])
    if coded:
        tag = f"{tag}-{image.digest.removeprefix('sha256:')[:12]}"
    return f"{repository.name}:{tag}@{image.digest}"


# --- the files ----------------------------------------------------------------------------------------


def _with_files(built: _BuiltTarget, spec: Spec, request: PublishRequest, version: str) -> PublishedTo:
    result, target = built.result, built.requested.target
    alone: tuple[TargetFile, ...] = ()
    used: tuple[TargetFile, ...] = ()
    if isinstance(target, EnvironmentFiles):
        alone = target.environment_files(_environment(built, spec, version))
    if request.command:
        used = target.job_files(_job(built, spec, request, version))
    elif request.serve is not None or _serves_itself(spec):
        try:
            used = target.service_files(_service(built, spec, request, version))
        except UsageError:
            if request.serve is not None or not alone:
                raise
    # The same name stands for the one that says more.
    alone = tuple(file for file in alone if file.name not in {new.name for new in used})
    if not alone and not used:
        raise UsageError(
            f"a file for {result.target} says what to run, and nothing is given",
            hint="give a command: -- python train.py; or serve: --serve score.py",
        )
    origin = f"{version}, lock {built.base.lock_digest}, image"
    files = (
        *(add_header(file, f"{origin} {result.base_reference}") for file in alone),
        *(add_header(file, f"{origin} {result.reference}") for file in used),
    )
    how = target.how_to_submit(files) if isinstance(target, WritesOnly) else ()
    return replace(result, files=files, how=how)


def _environment(built: _BuiltTarget, spec: Spec, version: str) -> PublishedEnvironment:
    name, _, number = version.partition(":")
    return PublishedEnvironment(
        name=name,
        version=number or None,
        description=spec.description,
        tags=spec.tags,
        reference=built.result.base_reference,
        image=built.base,
        inference_config=spec.inference_config,
    )


def _job(built: _BuiltTarget, spec: Spec, request: PublishRequest, version: str) -> Job:
    what = canonical_digest(
        "published-job", 1, [built.image.digest, list(request.command), [list(pair) for pair in request.env]]
    )
    return Job(
        name=f"{run_slug(spec.name)}-{what.removeprefix('sha256:')[:8]}",
        reference=built.result.reference,
        image=built.image,
        command=request.command,
        env=request.env,
        environment=version,
        code_digest=built.result.code,
    )


def _serves_itself(spec: Spec) -> bool:
    """Whether the image serves by its own command, as one that was taken as it is may."""
    return spec.type is EnvironmentType.USER_MANAGED and spec.inference_config is not None


def _service(built: _BuiltTarget, spec: Spec, request: PublishRequest, version: str) -> Service:
    routes = spec.inference_config
    assert routes is not None, "whoever calls has looked"
    return Service(
        name=run_slug(spec.name),
        reference=built.result.reference,
        image=built.image,
        port=routes.scoring_route.port,
        liveness=routes.liveness_route.path,
        readiness=routes.readiness_route.path,
        scoring=routes.scoring_route.path,
        # Each answer says which image gave it.
        env=(*request.env, *([(IMAGE_VARIABLE, built.image.digest)] if request.serve is not None else [])),
        environment=version,
    )


# --- the push -----------------------------------------------------------------------------------------


def _push_all(
    session: Session, spec: Spec, request: PublishRequest, built: Sequence[_BuiltTarget]
) -> Iterator[PushResult]:
    """Pushes each image to each of its repositories once: the environment's own by a build that finds it
    done, so that all that a push means holds; the code on top by itself."""
    distinct = {(target.requested.repository, target.requested.platform): target for target in built}
    for (repository, platform), target in distinct.items():
        name = repository.repository.name
        text = f"{name}:{repository.tag}" if repository.tag else name
        # The lock was decided, and the image made, by the first build.
        again = replace(
            request.build, platforms=(platform,), push=(text,), no_cache=False, lock=LockRequest()
        )
        result = build.build(session, spec, again)
        yield from result.pushed
        if result.digest != target.base.digest:
            raise PublishError(
                "the image changed between two builds of one command",
                hint="its base has steps that give another result each time; build it first, then publish",
            )
        if target.image.digest != target.base.digest:
            yield _push_code(session, repository.repository, target)


def _push_code(session: Session, repository: Reference, built: _BuiltTarget) -> PushResult:
    tag = built.result.reference.partition("@")[0].rpartition(":")[2]
    return push_made_image(session, built.image, repository, tag)


_MARKED = 4096
"""Bytes within which a file of ours says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishRequest:
    """What is to be published: a command, or a service; neither, where files are of the environment alone or
    its image serves by itself."""

    to: tuple[str, ...]
    """Targets of the workspace, or kinds of files: ``compose``, ``github``, ``kubernetes``…"""
    command: tuple[str, ...] = ()
    code: Path | None = None
    """The command's, or the entry script's; None: no code, or the directory that the script stands in."""
    serve: Path | None = None
    """An entry script: what is published answers HTTP."""
    model: Path | None = None
    """Directory of the model that it serves."""
    env: tuple[tuple[str, str], ...] = ()
    push: str | None = None
    """``REPO[:TAG]``, instead of the targets' own registries."""
    directory: Path | None = None
    """Where the files are written; None: they are only returned."""
    single: bool = False
    """Whether more than one file is refused, as there is one place for it."""
    build: BuildRequest = field(default_factory=BuildRequest)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTo:
    """What was published for one target."""

    target: str
    kind: str
    platform: Platform
    reference: str
    """What the files name: with the code, if there is any."""
    base_reference: str
    """The environment's own image."""
    code: str | None
    """Digest of the code directory."""
    files: tuple[TargetFile, ...]
    paths: tuple[Path, ...] = ()
    """Where the files are, in their order; empty where they weren't written."""
    findings: tuple[PreflightFinding, ...] = ()
    how: tuple[str, ...] = ()
    """The commands that hand the files in, where the target has a tool for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What became of a request: an entry for each target, in the order of the request."""

    environment: str
    """``name:version``; the name alone where nothing is recorded."""
    targets: tuple[PublishedTo, ...]
    pushed: tuple[PushResult, ...]


def places_of(results: Sequence[PublishedTo], request: PublishRequest) -> list[tuple[Path, ...]]:
    """Where each file goes; with several targets, below a directory of its own for each. Raises
    ``UsageError`` where something is in the way."""
    for result in results:
        for name in (result.target, *(file.name for file in result.files)):
            if Path(name).name != name or name.startswith("."):
                raise PublishError(f"the kind {result.kind} names a file {name!r}, which is no file name")
    if request.single and sum(len(result.files) for result in results) != 1:
        names = ", ".join(file.name for result in results for file in result.files)
        raise UsageError(f"several files are written: {names}", hint="name a directory: --output DIR")
    directory = request.directory
    if directory is None:
        return [()] * len(results)
    below = [directory] if len(results) == 1 else [directory / result.target for result in results]
    places = [
        tuple(place / file.name for file in published.files)
        for published, place in zip(results, below, strict=True)
    ]
    for published, paths in zip(results, places, strict=True):
        for file, path in zip(published.files, paths, strict=True):
            _free(path, file)
    return places


def _free(path: Path, file: TargetFile) -> None:
    """Returns where ``path`` may be written: it isn't there, is ours, or says the same."""
    beyond = next(parent for parent in path.parents if os.path.lexists(parent))
    if not beyond.is_dir() or not os.access(beyond, os.W_OK):
        raise UsageError(f"{path} can't be written: {beyond} is no directory to write in")
    if not os.path.lexists(path):
        return
    there = b""
    if path.is_file():
        try:
            with path.open("rb") as opened:
                # Enough to know whose it is, and whether it is the same.
                there = opened.read(len(file.content.encode()) + _MARKED)
        except OSError as error:
            raise UsageError(f"{path} can't be replaced: {error.strerror}") from error
    content = there.decode(errors="replace")
    if not has_header(content) and content != file.content:
        raise UsageError(
            f"{path} is there, and envbuild didn't write it", hint="choose another directory, or remove it"
        )


def written(result: PublishedTo, places: tuple[Path, ...]) -> PublishedTo:
    """``result`` with its files in ``places``, if there are any. Raises ``PublishError``."""
    try:
        for file, path in zip(result.files, places, strict=False):
            write_file(path, file.content.encode())
            if file.executable:
                path.chmod(path.stat().st_mode | 0o111)
    except OSError as error:
        raise PublishError(
            f"can't write {error.filename or places[0]}: {error.strerror}",
            hint="the image is pushed; call it again with another directory",
        ) from error
    return replace(result, paths=places)
