"""Pinned references for others: pushes an environment's image and writes the files that name it by digest.

All that can be wrong is found before anything is pushed: an image that doesn't fit a target, a kind that has
no such file, a file in the way that isn't ours. Files are the same whenever the environment, the code and the
command are: they hold no time, and the name of a job is made from what it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envbuild.app.deployed import Published, PublishedTo, PublishRequest, places_of, written
from envbuild.app.jobs import Jobs, digests, push_image, refuse, run_slug
from envbuild.app.requests import LockRequest
from envbuild.errors import PublishError, UsageError
from envbuild.images.base import PushResult
from envbuild.images.repository import PushTarget, identity_tag, push_target, repository_name
from envbuild.oci.digest import canonical_digest
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference
from envbuild.platforms import Platform
from envbuild.specs.model import EnvironmentType, Spec
from envbuild.targets.base import (
    EnvironmentFiles,
    Job,
    PublishedEnvironment,
    Service,
    Target,
    TargetFile,
    WritesOnly,
)

if TYPE_CHECKING:
    from envbuild.app.workspace_pipeline import WorkspacePipeline
    from envbuild.store.leases import Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """One of the targets that were asked for."""

    target: Target
    bare: bool
    """A kind without a target: nothing is connected to."""
    repository: PushTarget
    platform: Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """What is to be pushed and written for one target."""

    asked: _Asked
    base: Image
    image: Image
    result: PublishedTo


def publish(pipeline: WorkspacePipeline, spec: Spec, request: PublishRequest) -> Published:
    """Builds, looks whether it fits, pushes with all that ``build --push`` attaches, and writes the files.

    Raises ``RunError`` with what is in the way at a target, ``UsageError`` for what can't be written; nothing
    was pushed or written then. The references are recorded as those of every build.
    """
    from envbuild.store.leases import Lease

    if not request.to:
        raise UsageError("nothing says for what to publish", hint="name a target or a kind: --to kubernetes")
    _check(request)
    if request.serve is not None:
        spec = _served(spec)
    jobs = Jobs(pipeline)
    asked = [_asked(jobs, pipeline, spec, request, name) for name in dict.fromkeys(request.to)]
    with Lease(pipeline.parts.store) as lease:
        made = [_made(jobs, pipeline, spec, request, each, lease) for each in asked]
        version = jobs.version(spec, made[0].base)
        if ":" not in version and spec.version is not None:
            version = f"{version}:{spec.version}"
        results = [_with_files(each, spec, request, version) for each in made]
        places = places_of(results, request)
        pushed = _pushed(pipeline, spec, request, made)
    done = tuple(written(each, place) for each, place in zip(results, places, strict=True))
    return Published(environment=version, targets=done, pushed=pushed)


def _check(request: PublishRequest) -> None:
    from envbuild.targets.serving import entry_script

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
    from envbuild.app.sources import checked
    from envbuild.specs.serving import served

    found = served(spec)
    return found if found is spec else checked(found)


def _asked(jobs: Jobs, pipeline: WorkspacePipeline, spec: Spec, request: PublishRequest, name: str) -> _Asked:
    from envbuild.targets.files.base import check_file_kind, file_target

    known = [target.name for target in pipeline.workspace.targets()]
    registry, given = pipeline.settings.registry, None
    if request.push is not None:
        given = push_target(request.push, registry)
    bare = name not in known
    if bare:
        check_file_kind(name, known)
        repository = given or _below(registry, spec, name)
        target = file_target(name, jobs.surroundings, registry=repository.repository.name.rpartition("/")[0])
    else:
        target = jobs.target(name)
        repository = given or _below(target.registry or registry, spec, name)
    return _Asked(
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


def _made(
    jobs: Jobs,
    pipeline: WorkspacePipeline,
    spec: Spec,
    request: PublishRequest,
    asked: _Asked,
    lease: Lease,
) -> _Made:
    from envbuild.targets.preflight import misfits, preflight

    build = replace(request.build, platforms=(asked.platform,), push=())
    base = pipeline.build(spec, build).images[0]
    code: str | None
    if request.serve is not None:
        image, code = _serving_image(pipeline, spec, request, base, lease)
    else:
        image, code, _ = jobs.with_code(base, request.code, lease)
    target, name = asked.target, asked.target.record.name
    with pipeline.progress.stage("pre-flight"):
        pins = jobs.pins(spec, asked.platform)
        findings = (misfits if asked.bare else preflight)(target, image, pins)
    refuse(findings, name)
    return _Made(
        asked=asked,
        base=base,
        image=image,
        result=PublishedTo(
            target=name,
            kind=target.record.kind,
            platform=asked.platform,
            reference=_reference(asked.repository.repository, image, coded=code is not None),
            base_reference=_reference(asked.repository.repository, base, coded=False),
            code=code,
            files=(),
            findings=tuple(findings),
        ),
    )


def _serving_image(
    pipeline: WorkspacePipeline, spec: Spec, request: PublishRequest, base: Image, lease: Lease
) -> tuple[Image, str]:
    """``base`` with script and model on top, and the code's digest; ``lease`` holds both."""
    from envbuild.app.run_note import RUN_NOTE, noted_run
    from envbuild.store.content import blob_name
    from envbuild.targets.serving import entry_script, serving_image

    assert request.serve is not None, "whoever calls has looked"
    assert spec.inference_config is not None, "a served spec has one"
    lease.use(*map(blob_name, digests(base)))
    with pipeline.progress.stage("code"):
        made = serving_image(
            base,
            entry_script(request.serve, request.code),
            request.model,
            spec.inference_config.scoring_route.port,
            pipeline.parts.store,
            model_run=noted_run(request.model) if request.model is not None else None,
            left_out=(RUN_NOTE,),
        )
    lease.use(*map(blob_name, digests(made.image)))
    return made.image, made.code_digest


def _reference(repository: Reference, image: Image, *, coded: bool) -> str:
    """The image as a push names it, known before."""
    tag = identity_tag([image.lock_digest])
    if coded:
        tag = f"{tag}-{image.digest.removeprefix('sha256:')[:12]}"
    return f"{repository.name}:{tag}@{image.digest}"


# --- the files ----------------------------------------------------------------------------------------


def _with_files(made: _Made, spec: Spec, request: PublishRequest, version: str) -> PublishedTo:
    from envbuild.targets.files.base import headed

    result, target = made.result, made.asked.target
    alone: tuple[TargetFile, ...] = ()
    used: tuple[TargetFile, ...] = ()
    if isinstance(target, EnvironmentFiles):
        alone = target.environment_files(_environment(made, spec, version))
    if request.command:
        used = target.job_files(_job(made, spec, request, version))
    elif request.serve is not None or _serves_itself(spec):
        try:
            used = target.service_files(_service(made, spec, request, version))
        except UsageError:
            if request.serve is not None or not alone:
                raise
    # The same name stands for the one that says more.
    alone = tuple(each for each in alone if each.name not in {new.name for new in used})
    if not alone and not used:
        raise UsageError(
            f"a file for {result.target} says what to run, and nothing is given",
            hint="give a command: -- python train.py; or serve: --serve score.py",
        )
    origin = f"{version}, lock {made.base.lock_digest}, image"
    files = (
        *(headed(each, f"{origin} {result.base_reference}") for each in alone),
        *(headed(each, f"{origin} {result.reference}") for each in used),
    )
    how = target.how_to_submit(files) if isinstance(target, WritesOnly) else ()
    return replace(result, files=files, how=how)


def _environment(made: _Made, spec: Spec, version: str) -> PublishedEnvironment:
    name, _, number = version.partition(":")
    return PublishedEnvironment(
        name=name,
        version=number or None,
        description=spec.description,
        tags=spec.tags,
        reference=made.result.base_reference,
        image=made.base,
        inference_config=spec.inference_config,
    )


def _job(made: _Made, spec: Spec, request: PublishRequest, version: str) -> Job:
    what = canonical_digest(
        "published-job", 1, [made.image.digest, list(request.command), [list(each) for each in request.env]]
    )
    return Job(
        name=f"{run_slug(spec.name)}-{what.removeprefix('sha256:')[:8]}",
        reference=made.result.reference,
        image=made.image,
        command=request.command,
        env=request.env,
        environment=version,
        code_digest=made.result.code,
    )


def _serves_itself(spec: Spec) -> bool:
    """Whether the image serves by its own command, as one that was taken as it is may."""
    return spec.type is EnvironmentType.USER_MANAGED and spec.inference_config is not None


def _service(made: _Made, spec: Spec, request: PublishRequest, version: str) -> Service:
    from envbuild.targets.serving import IMAGE_VARIABLE

    routes = spec.inference_config
    assert routes is not None, "whoever calls has looked"
    return Service(
        name=run_slug(spec.name),
        reference=made.result.reference,
        image=made.image,
        port=routes.scoring_route.port,
        liveness=routes.liveness_route.path,
        readiness=routes.readiness_route.path,
        scoring=routes.scoring_route.path,
        # Each answer says which image gave it.
        env=(*request.env, *([(IMAGE_VARIABLE, made.image.digest)] if request.serve is not None else [])),
        environment=version,
    )


# --- the push -----------------------------------------------------------------------------------------


def _pushed(
    pipeline: WorkspacePipeline, spec: Spec, request: PublishRequest, made: Sequence[_Made]
) -> tuple[PushResult, ...]:
    """Pushes each image to each of its repositories once: the environment's own by a build that finds it
    done, so that all that a push means holds; the code on top by itself."""
    found: list[PushResult] = []
    distinct = {(each.asked.repository, each.asked.platform): each for each in made}
    for (repository, platform), each in distinct.items():
        name = repository.repository.name
        text = f"{name}:{repository.tag}" if repository.tag else name
        # The lock was decided, and the image made, by the first build.
        build = replace(
            request.build, platforms=(platform,), push=(text,), no_cache=False, lock=LockRequest()
        )
        result = pipeline.build(spec, build)
        found += result.pushed
        if result.digest != each.base.digest:
            raise PublishError(
                "the image changed between two builds of one command",
                hint="its base has steps that give another result each time; build it first, then publish",
            )
        if each.image.digest != each.base.digest:
            found.append(_push_code(pipeline, repository.repository, each))
    return tuple(found)


def _push_code(pipeline: WorkspacePipeline, repository: Reference, made: _Made) -> PushResult:
    tag = made.result.reference.partition("@")[0].rpartition(":")[2]
    return push_image(pipeline, made.image, repository, tag)
