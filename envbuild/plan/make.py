"""Makes the plan of one platform from its lock: a pure function of the lock and the composition."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from envbuild.lock.debian.selection import python_closure
from envbuild.lock.files import SELF_DESCRIPTION as SELF_DESCRIPTION
from envbuild.lock.files import dump_lock
from envbuild.lock.identity import DESCRIBED_LEVEL, NATIVE_LEVEL, ComposerSettings, lock_digest
from envbuild.lock.model import (
    ContextBase,
    DebianBase,
    ImageBase,
    Lock,
    PlatformLock,
    PythonPin,
)
from envbuild.oci.digest import canonical_digest
from envbuild.plan.layers import group_layers
from envbuild.plan.model import (
    Artifact,
    ArtifactKind,
    GeneratedFile,
    ImageConfig,
    Interpreter,
    Plan,
    PlannedLayer,
)
from envbuild.plan.spark import spark_environment, spark_files
from envbuild.plan.system import home_directory, home_files, prefix_files, system_files, user_name
from envbuild.platforms import Platform
from envbuild.specs.model import PREFIX, ActivationScripts, Bytecode, Clashes, EnvironmentType

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_plan(lock: Lock, pins: PlatformLock, composition: ComposerSettings, *, host: Platform) -> Plan:
    """The plan for the platform of ``pins``. ``host`` only decides which interpreter compiles byte code."""
    base, python = pins.base, pins.python
    identity = plan_identity(lock, pins, composition)
    if _as_it_is(lock):
        return _user_managed(lock, pins, composition, identity)
    artifacts = [*_generated_artifacts(lock, pins), *_packages(pins)]
    settings = generated("settings", (*_self_description(lock, pins), *spark_files(lock, pins)))
    return Plan(
        platform=pins.platform,
        lock_digest=identity,
        definition_digest=lock.definition,
        level=NATIVE_LEVEL,
        base=base,
        python=python,
        layers=group_layers(
            artifacts,
            settings=settings,
            python=python,
            budget=composition.layer_budget,
            base_layers=base.layers if isinstance(base, ImageBase) else 0,
        ),
        config=_config(lock, pins, identity),
        bytecode=lock.bytecode and python is not None,
        interpreter=interpreter(lock, pins, host)
        if lock.bytecode or any(pin.sdist for pin in pins.pip)
        else None,
        system=_system(lock, pins, host) if pins.conda else None,
        created=composition.created,
        compression=composition.compression,
        type=lock.runtime.type,
        runtime=lock.runtime.runtime,
        channels=lock.channels,
        installer=next((tools for tools in lock.installer if tools.platform == pins.platform), None),
        checked_bytecode=lock.runtime.bytecode == Bytecode.CHECKED.value,
        activate=lock.runtime.activation == ActivationScripts.RUN.value,
        refuse_clashes=lock.runtime.clashes == Clashes.ERROR.value,
    )


def _as_it_is(lock: Lock) -> bool:
    return lock.runtime.type == EnvironmentType.USER_MANAGED.value


def _user_managed(lock: Lock, pins: PlatformLock, composition: ComposerSettings, identity: str) -> Plan:
    """Nothing is installed and nothing set but what the spec says: no prefix, no ``PATH``, no description."""
    runtime = lock.runtime
    level = DESCRIBED_LEVEL if isinstance(pins.base, ContextBase) else NATIVE_LEVEL
    return Plan(
        platform=pins.platform,
        lock_digest=identity,
        definition_digest=lock.definition,
        level=level,
        base=pins.base,
        python=None,
        layers=(),
        config=ImageConfig(
            env=tuple(sorted(runtime.environment_variables)),
            user=runtime.user,
            cmd=(),
            labels=_labels(lock, pins, identity, level),
            exposed_ports=_ports(lock),
            inherit=True,
        ),
        bytecode=False,
        interpreter=None,
        created=composition.created,
        compression=composition.compression,
        type=runtime.type,
        runtime=runtime.runtime,
    )


def interpreter(lock: Lock, pins: PlatformLock, host: Platform) -> Interpreter | None:
    """A python of the same version whose programs ``host`` runs: the platform's own, another's of the
    lock, or the toolchain's; None where there is none."""
    if pins.python is None:
        return None
    candidates = [pins, *lock.platforms, *lock.toolchain]
    for candidate in candidates:
        if (
            candidate.platform == host
            and candidate.python
            and candidate.python.version == pins.python.version
        ):
            return Interpreter(python=candidate.python, lock=_interpreter_only(candidate, candidate.python))
    return None


def _system(lock: Lock, pins: PlatformLock, host: Platform) -> PlatformLock | None:
    """A base of the lock whose shell ``host`` runs."""
    candidates = (pins, *lock.platforms, *lock.toolchain)
    return next((candidate for candidate in candidates if candidate.platform == host), None)


def _interpreter_only(pins: PlatformLock, python: PythonPin) -> PlatformLock:
    """``pins`` without what a Debian python needs neither to start nor to compile."""
    if python.provider != "debian" or not isinstance(pins.base, DebianBase):
        return pins
    return replace(pins, base=replace(pins.base, packages=python_closure(pins.base, python)), pip=())


def plan_identity(lock: Lock, pins: PlatformLock, composition: ComposerSettings) -> str:
    """The lock digest of the platform of ``pins``: the image's, known before there is a plan."""
    if _as_it_is(lock):
        return lock_digest(lock, pins, composition)
    artifacts = _generated_artifacts(lock, pins)
    if later := spark_files(lock, pins):
        artifacts.append(generated("spark", later))
    digests = [artifact.sha256 for artifact in artifacts]
    return lock_digest(lock, pins, composition, generated=digests)


def _generated_artifacts(lock: Lock, pins: PlatformLock) -> list[Artifact]:
    user = lock.runtime.user
    artifacts = [
        ("system", system_files(pins.base, user))
        if isinstance(pins.base, DebianBase)
        else ("home", home_files(user)),
        ("prefix", prefix_files(pins.python, conda=bool(pins.conda))),
    ]
    return [generated(name, files) for name, files in artifacts if files]


def _packages(pins: PlatformLock) -> list[Artifact]:
    return [Artifact.of(pin) for pin in pins.files]


def _self_description(lock: Lock, pins: PlatformLock) -> tuple[GeneratedFile, ...]:
    """The lock as the image keeps it: of this platform alone and without the resolvers' versions, so
    that neither another platform nor a newer resolver that finds the same pins changes the bytes."""
    alone = Lock(
        definition=lock.definition,
        platforms=(pins,),
        bytecode=lock.bytecode,
        runtime=lock.runtime,
        channels=lock.channels,
        as_of=lock.as_of,
    )
    return tuple(
        GeneratedFile(path=f"{SELF_DESCRIPTION}/{name}", content=data)
        for name, data in sorted(dump_lock(alone).items())
    )


def generated(name: str, files: tuple[GeneratedFile, ...]) -> Artifact:
    """``files`` as one artifact, by the digest of their canonical form."""
    content: list[list[str | int | bool | None]] = [
        [file.path, file.content.hex(), file.mode, file.target, file.directory, file.uid, file.gid]
        for file in files
    ]
    return Artifact(
        kind=ArtifactKind.GENERATED,
        name=name,
        version="1",
        sha256=canonical_digest("generated", 1, content).removeprefix("sha256:"),
        size=sum(len(file.content) for file in files),
        files=files,
    )


def _config(lock: Lock, pins: PlatformLock, identity: str) -> ImageConfig:
    env: dict[str, str] = {
        # What an image has on its own PATH stays there, behind ours.
        "PATH": f"{PREFIX}/bin:{DEFAULT_PATH}" if isinstance(pins.base, DebianBase) else f"{PREFIX}/bin",
        "LANG": "C.UTF-8",
        "HOME": home_directory(lock.runtime.user),
        # For whichever uid a platform starts it as, which the image has no account for.
        "LOGNAME": user_name(lock.runtime.user),
        "USER": user_name(lock.runtime.user),
    }
    if pins.conda:
        env["CONDA_PREFIX"] = str(PREFIX)
    elif pins.python:
        env["VIRTUAL_ENV"] = str(PREFIX)
    env.update(spark_environment(lock, pins))
    env.update(lock.runtime.environment_variables)
    return ImageConfig(
        env=tuple(sorted(env.items())),
        user=lock.runtime.user,
        cmd=_command(pins.python),
        working_dir=home_directory(lock.runtime.user),
        labels=_labels(lock, pins, identity, NATIVE_LEVEL),
        exposed_ports=_ports(lock),
    )


def _ports(lock: Lock) -> tuple[str, ...]:
    return tuple(f"{port}/tcp" for port in lock.runtime.ports)


def _command(python: PythonPin | None) -> tuple[str, ...]:
    return ("python",) if python else ("sh",)


def _labels(lock: Lock, pins: PlatformLock, identity: str, level: str) -> tuple[tuple[str, str], ...]:
    labels: Mapping[str, str] = {
        "dev.envbuild.definition": lock.definition,
        "dev.envbuild.level": level,
        "dev.envbuild.lock": identity,
    }
    base = pins.base
    if isinstance(base, ImageBase):
        labels = {
            **labels,
            "org.opencontainers.image.base.digest": base.digest,
            "org.opencontainers.image.base.name": base.reference,
        }
    return tuple(sorted(labels.items()))


_ROOT = "0:0"


def activation_plan(plan: Plan, names: Set[str]) -> Plan:
    """What of ``plan`` is needed to activate its environment: the system and the conda packages ``names``."""
    system = {ArtifactKind.DEBIAN, ArtifactKind.GENERATED}
    layers = [
        replace(
            layer,
            artifacts=tuple(
                artifact
                for artifact in layer.artifacts
                if artifact.kind in system or (artifact.kind is ArtifactKind.CONDA and artifact.name in names)
            ),
        )
        for layer in plan.layers
    ]
    return replace(
        plan,
        lock_digest=canonical_digest("activation", 1, [plan.lock_digest, sorted(names)]),
        layers=tuple(layer for layer in layers if layer.artifacts),
        bytecode=False,
    )


def base_plan(plan: Plan, stage: PlatformLock | None = None) -> Plan:
    """The Debian base of ``plan`` as one layer, with the users and links of its image; or that of ``stage``,
    which a stage of a Dockerfile stands on. Always gzip, because every builder unpacks that."""
    if stage is None:
        artifacts = tuple(
            artifact
            for artifact in plan.artifacts
            if artifact.kind is ArtifactKind.DEBIAN or artifact.name == "system"
        )
        base, python, bytecode = plan.base, plan.python, plan.bytecode
    else:
        assert isinstance(stage.base, DebianBase)
        base, python, bytecode = stage.base, stage.python, False
        packages = map(Artifact.of, stage.base.packages)
        artifacts = (*packages, generated("system", system_files(stage.base, _ROOT)))
    return replace(
        plan,
        lock_digest=canonical_digest(
            "base-archive", 1, [plan.lock_digest, [artifact.sha256 for artifact in artifacts], bytecode]
        ),
        base=base,
        python=python,
        bytecode=bytecode,
        layers=(PlannedLayer(name="base", artifacts=artifacts),),
        config=replace(plan.config, env=(), labels=(), exposed_ports=(), user="", working_dir=""),
        compression="gzip",
    )
