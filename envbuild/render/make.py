"""Renders plans: the Dockerfile of their type and runtime, and everything that its build needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from envbuild.compose.base import ArtifactFiles
from envbuild.compose.image import timestamp
from envbuild.errors import BuildError
from envbuild.lock.model import (
    CondaPin,
    ContextBase,
    DebianBase,
    ImageBase,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonBuild,
    PythonPin,
)
from envbuild.oci.digest import canonical_digest
from envbuild.oci.reference import is_local
from envbuild.plan.activation import Activation
from envbuild.plan.make import SELF_DESCRIPTION
from envbuild.plan.model import Artifact, ArtifactKind, GeneratedFile, Plan
from envbuild.render.base import BuildContext, ContextFile
from envbuild.render.installer import (
    conda_records,
    explicit_list,
    install_list,
    install_script,
    pip_pin,
    rattler_pins,
    tools_digest,
)
from envbuild.render.templates import Templates, behind, template_name, unwritable
from envbuild.specs.model import PREFIX, STANDALONE, EnvironmentType

RENDER_FORMAT = 1
"""Part of every rendered image's identity; changes whenever the same templates would give another context."""
RENDERED_LEVEL = "L2"
"""Everything is pinned, but what ``RUN`` steps write (times, caches) is not ours (docs/design.md §1)."""


@dataclass(frozen=True, kw_only=True)
class DockerfileRenderer:
    """A ``Renderer``.

    ``base_archive`` composes a base of Debian packages (as a plan that has nothing else) into one
    gzipped tar; ``files`` fetches pinned files; ``snapshot`` gives the context of an own Dockerfile;
    ``activation`` finds out what conda's activation sets.
    ``micromamba`` is an image by digest whose micromamba installs conda packages instead of py-rattler.
    """

    templates: Templates
    base_archive: Callable[[Plan, PlatformLock | None], Path]
    files: Callable[[Plan], ArtifactFiles]
    snapshot: Callable[[Plan], BuildContext]
    activation: Callable[[Plan], Activation]
    micromamba: str | None = None

    def unable(self, plan: Plan) -> list[str]:
        """Every reason why no Dockerfile can make the image of ``plan``, sorted."""
        if isinstance(plan.base, ContextBase):
            return []
        reasons = []
        if isinstance(plan.base, ImageBase) and is_local(plan.base.reference):
            reasons.append(
                f"{plan.base.reference} lies on this machine, and FROM takes images of a registry only"
            )
        for name, value in (*plan.config.env, *plan.config.labels):
            unfit = unwritable(name) or unwritable(value)
            if unfit:
                reasons.append(f"{name}: {unfit}")
        for artifact in plan.artifacts:
            if isinstance(artifact.pin, PipPin) and not artifact.pin.is_wheel:
                reasons.append(f"{artifact.pin.file} is no wheel: what it builds would have no hash")
        if _conda(plan) and not self.micromamba and plan.installer is None:
            reasons.append(
                "the lock has no python for the stage that installs conda packages: lock again where a "
                "Debian mirror or a registry can be reached, or set ENVBUILD_MICROMAMBA_IMAGE"
            )
        return sorted(reasons)

    def describe(self, plan: Plan, engine: str) -> Plan:
        """``plan`` as ``engine`` makes it from a Dockerfile; see the protocol."""
        own = isinstance(plan.base, ContextBase)
        templates = None if own else self.templates.digest(template_name(plan.type, plan.runtime))
        identity = canonical_digest(
            "rendered",
            RENDER_FORMAT,
            [plan.lock_digest, engine, templates, None if own else tools_digest(), self.micromamba],
        )
        level = plan.level if own else RENDERED_LEVEL
        labels = {
            **dict(plan.config.labels),
            "dev.envbuild.level": level,
            "dev.envbuild.lock": identity,
            "org.opencontainers.image.created": timestamp(plan.created),
        }
        return replace(
            plan,
            lock_digest=identity,
            level=level,
            config=replace(plan.config, labels=tuple(sorted(labels.items()))),
        )

    def context(self, plan: Plan, *, offline: bool) -> BuildContext:
        """The context of ``plan``; see the protocol."""
        if isinstance(plan.base, ContextBase):
            return replace(self.snapshot(plan), labels=plan.config.labels)
        reasons = self.unable(plan)
        if reasons:
            raise BuildError(
                "no Dockerfile can make this image:\n" + "\n".join(f"  {reason}" for reason in reasons),
                hint="envbuild build --engine native composes images without a Dockerfile",
            )
        job = _Rendering(self, _activated(plan, self.activation(plan)), offline)
        return BuildContext(files=job.files(), offline=offline)


@dataclass
class _Rendering:
    """One plan being rendered."""

    renderer: DockerfileRenderer
    plan: Plan
    offline: bool
    found: dict[str, ContextFile] = field(default_factory=dict)

    def files(self) -> tuple[ContextFile, ...]:
        if self.plan.type != EnvironmentType.USER_MANAGED.value:
            self._lock_files()
            self._bases()
            self._installer()
            self._archives()
            self._spark()
        text = self.renderer.templates.render(
            template_name(self.plan.type, self.plan.runtime), self._values()
        )
        self._add("Dockerfile", text.encode())
        self._add(".dockerignore", _ignore(self.found))
        return tuple(self.found[path] for path in sorted(self.found))

    def _add(self, path: str, content: bytes | Path) -> None:
        self.found[path] = ContextFile(path=path, content=content)

    def _lock_files(self) -> None:
        for artifact in self.plan.artifacts:
            if artifact.kind is ArtifactKind.GENERATED and artifact.name == "settings":
                for file in artifact.files:
                    self._add(file.path.replace(SELF_DESCRIPTION, "lock", 1), file.content)

    def _bases(self) -> None:
        if isinstance(self.plan.base, DebianBase):
            self._add("base.tar.gz", self.renderer.base_archive(self.plan, None))
        installer = self._stage()
        if installer is not None and isinstance(installer.base, DebianBase):
            self._add("installer.tar.gz", self.renderer.base_archive(self.plan, installer))

    def _stage(self) -> PlatformLock | None:
        """What the stage that installs conda packages stands on, where there is one of ours."""
        return self.plan.installer if _conda(self.plan) and not self.renderer.micromamba else None

    def _installer(self) -> None:
        """Pins and scripts of the installing stages."""
        conda, stage = _conda(self.plan), self._stage()
        tools: list[PipPin] = []
        if _pip(self.plan) or stage:
            tools.append(pip_pin())
        if stage:
            rattler = rattler_pins(self.plan.platform)
            self._add("installer/conda.json", conda_records(conda, self.plan.channels))
            self._add("installer/install_conda.py", install_script().read_bytes())
            self._add("installer/rattler.txt", install_list(rattler))
            if self.offline:
                tools.extend(rattler)
        elif conda:
            packages = PurePosixPath("/installer/packages") if self.offline else None
            self._add("installer/conda.txt", explicit_list(conda, directory=packages))
        if tools:
            files = self.renderer.files(self.plan).fetch_files([Artifact.of(tool) for tool in tools])
            for tool in tools:
                folder = "installer" if tool.name == "pip" else "installer/wheels"
                self._add(f"{folder}/{tool.file}", files[tool.sha256])

    def _archives(self) -> None:
        """The pinned files: those that no index has, and offline all of them."""
        carried: list[tuple[str, Artifact]] = []
        for artifact in self.plan.artifacts:
            pin = artifact.pin
            if isinstance(pin, PipPin) and (self.offline or pin.sdist or _is_file(pin)):
                carried.append((f"wheels/{pin.file}", artifact))
            elif isinstance(pin, CondaPin) and self.offline:
                carried.append((f"packages/{pin.subdir}/{pin.file}", artifact))
            elif isinstance(pin, PythonBuild):
                carried.append(("python.tar.gz", artifact))
            elif isinstance(pin, MavenPin):
                carried.append((f"jars/{pin.file.rpartition('/')[2]}", artifact))
        if carried:
            archives = self.renderer.files(self.plan).fetch_files([artifact for _, artifact in carried])
            for path, artifact in carried:
                if path in self.found:
                    raise BuildError(f"two packages of this environment have the file name {path}")
                self._add(path, archives[artifact.sha256])
        pins = _pip(self.plan)
        if pins:
            self._add("requirements.txt", install_list(pins, carried=self._carried()))

    def _carried(self) -> frozenset[str]:
        return frozenset(path.partition("/")[2] for path in self.found if path.startswith("wheels/"))

    def _spark(self) -> None:
        settings = self._spark_settings()
        if settings is not None:
            self._add("spark-defaults.conf", settings.content)

    def _spark_settings(self) -> GeneratedFile | None:
        """Spark's own settings file, where the plan has one."""
        files = (file for artifact in self.plan.artifacts for file in artifact.files)
        return next((file for file in files if file.path.endswith("/spark-defaults.conf")), None)

    def _values(self) -> Mapping[str, object]:
        plan, config = self.plan, self.plan.config
        stage = self._stage()
        uid = config.user.partition(":")[0]
        env = dict(config.env)
        settings = self._spark_settings()
        return {
            "lock_digest": plan.lock_digest,
            "prefix": str(PREFIX),
            "base": _base(plan.base),
            "installer": None
            if stage is None
            else {**_base(stage.base), "python": stage.python.executable if stage.python else ""},
            "micromamba": self.renderer.micromamba,
            "python": None if plan.python is None else {"executable": plan.python.executable},
            "standalone": None if plan.python is None else _standalone(plan.python),
            "conda": bool(_conda(plan)),
            "pip": bool(_pip(plan)),
            "pip_wheel": pip_pin().file,
            "wheels": bool(self._carried()),
            "jars": any(path.startswith("jars/") for path in self.found),
            "spark_home": env.get("SPARK_HOME", ""),
            "spark_conf": f"/{settings.path}" if settings else None,
            "bytecode": plan.bytecode,
            "invalidation_mode": "checked-hash" if plan.checked_bytecode else "unchecked-hash",
            "offline": self.offline,
            "env": self._env(),
            "labels": config.labels,
            "ports": config.exposed_ports,
            "user": config.user,
            "uid": uid,
            "working_dir": config.working_dir,
            "cmd": config.cmd,
        }

    def _env(self) -> Sequence[tuple[str, str]]:
        """The variables; on an image, its own PATH goes behind ours, as the native engine has it."""
        env = self.plan.config.env
        if isinstance(self.plan.base, DebianBase) or self.plan.config.inherit:
            return env
        return [(name, behind(value, "PATH") if name == "PATH" else value) for name, value in env]


def _activated(plan: Plan, activation: Activation) -> Plan:
    """``plan`` with the variables and the label that the native engine gives its image too."""
    env = {**dict(plan.config.env), **activation.env}
    labels = activation.with_labels(dict(plan.config.labels))
    config = replace(plan.config, env=tuple(sorted(env.items())), labels=tuple(sorted(labels.items())))
    return replace(plan, config=config)


def _standalone(python: PythonPin) -> dict[str, object] | None:
    """Where a standalone build is unpacked, and what of it byte code is made of."""
    if python.build is None:
        return None
    return {
        "version": python.version,
        "parent": str(STANDALONE.parent),
        "library": str(STANDALONE / "lib" / f"python{python.short}"),
    }


def _conda(plan: Plan) -> tuple[CondaPin, ...]:
    return tuple(artifact.pin for artifact in plan.artifacts if isinstance(artifact.pin, CondaPin))


def _pip(plan: Plan) -> tuple[PipPin, ...]:
    return tuple(artifact.pin for artifact in plan.artifacts if isinstance(artifact.pin, PipPin))


def _is_file(pin: PipPin) -> bool:
    """Whether a direct reference names a file of the spec's directory, which no build stage sees."""
    return pin.url is not None and pin.url.startswith("file:")


def _base(base: object) -> dict[str, object]:
    if isinstance(base, DebianBase):
        return {"archive": True, "suite": base.suite, "packages": len(base.packages)}
    assert isinstance(base, ImageBase)
    return {"archive": False, "reference": base.reference, "digest": base.digest}


def _ignore(files: Mapping[str, ContextFile]) -> bytes:
    """Everything is left out but what is there now: a file that strays into the directory changes nothing."""
    tops = sorted({path.partition("/")[0] for path in files} - {"Dockerfile"})
    return "".join(f"{line}\n" for line in ("*", *(f"!{top}" for top in tops), "!Dockerfile")).encode()
