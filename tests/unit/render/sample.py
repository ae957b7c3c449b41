"""Locks of every type and runtime, and a renderer whose archives are small files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envbuild.lock.identity import ComposerSettings
from envbuild.lock.model import (
    CondaPin,
    DebianBase,
    DebianPin,
    ImageBase,
    Lock,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonPin,
    RuntimeSettings,
)
from envbuild.plan.activation import Activation
from envbuild.plan.make import make_plan
from envbuild.plan.model import Artifact, Plan
from envbuild.platforms import LINUX_AMD64
from envbuild.render.base import BuildContext
from envbuild.render.make import DockerfileRenderer
from envbuild.render.templates import Templates
from tests.unit.lock.sample import AMD64, IDNA, LIBC, PYTHON, SIX, STANDALONE, TZDATA

DIGEST = "sha256:" + "5" * 64
IMAGE = ImageBase(
    reference="registry.example/ml/python:3.13-slim",
    digest=DIGEST,
    glibc="2.41",
    layers=4,
    diff_ids=(DIGEST,),
)
IMAGE_PYTHON = PythonPin(version="3.13.5", provider="image", executable="/usr/local/bin/python3.13")
JRE = DebianPin(
    name="openjdk-21-jre-headless",
    version="21.0.9+10-1",
    architecture="amd64",
    archive="debian",
    file="pool/main/o/openjdk-21/openjdk-21-jre-headless_21.0.9+10-1_amd64.deb",
    size=42000000,
    sha256="7" * 64,
)
PYSPARK = PipPin(
    name="pyspark",
    version="4.3.0",
    file="pyspark-4.3.0-py2.py3-none-any.whl",
    size=450000000,
    sha256="8" * 64,
)
CONDA_PYTHON = CondaPin(
    name="python",
    version="3.12.4",
    build="h0_cpython",
    subdir="linux-64",
    url="https://conda.example/forge/linux-64/python-3.12.4-h0_cpython.conda",
    size=30000000,
    sha256="9" * 64,
    md5="0" * 32,
    channel="https://conda.example/forge",
)
JAR = MavenPin(
    group="org.postgresql",
    artifact="postgresql",
    version="42.7.4",
    file="org/postgresql/postgresql/42.7.4/postgresql-42.7.4.jar",
    size=1100000,
    sha256="a" * 64,
)
DEBIAN = DebianBase(suite="trixie", packages=(LIBC, TZDATA), glibc="2.41")
RUNTIME = RuntimeSettings(environment_variables=(("OMP_NUM_THREADS", "4"),))
SERVING = replace(RUNTIME, ports=(5001, 8080))


def lock(pins: PlatformLock, runtime: RuntimeSettings = RUNTIME, **others: object) -> Lock:
    return replace(
        Lock(definition="sha256:" + "3" * 64, platforms=(pins,), runtime=runtime),
        **others,  # type: ignore[arg-type]
    )


def of(kind: str, runtime: str, settings: RuntimeSettings = RUNTIME) -> RuntimeSettings:
    return replace(settings, type=kind, runtime=runtime)


CONDA = PlatformLock(
    platform=LINUX_AMD64,
    base=DEBIAN,
    python=PythonPin(version="3.12.4", provider="conda", executable="/opt/env/bin/python3.12"),
    conda=(CONDA_PYTHON,),
    pip=(IDNA,),
)
SPARK = PlatformLock(
    platform=LINUX_AMD64,
    base=replace(DEBIAN, packages=(LIBC, JRE, TZDATA)),
    python=PYTHON,
    pip=(PYSPARK,),
    maven=(JAR,),
)
PLAIN = PlatformLock(platform=LINUX_AMD64, base=DEBIAN, python=None)
TAKEN = PlatformLock(platform=LINUX_AMD64, base=IMAGE, python=None)
INSTALLER = PlatformLock(platform=LINUX_AMD64, base=DEBIAN, python=PYTHON)

LOCKS: Mapping[str, Lock] = {
    "system-managed-python": lock(AMD64),
    "system-managed-python-serving": lock(AMD64, of("system-managed", "python", SERVING)),
    "system-managed-python-image": lock(
        PlatformLock(platform=LINUX_AMD64, base=IMAGE, python=IMAGE_PYTHON, pip=(IDNA, SIX))
    ),
    "system-managed-python-standalone": lock(
        PlatformLock(platform=LINUX_AMD64, base=IMAGE, python=STANDALONE, pip=(IDNA, SIX))
    ),
    "system-managed-python-conda": lock(
        CONDA, channels=("https://conda.example/forge",), installer=(INSTALLER,)
    ),
    "system-managed-spark": lock(SPARK, of("system-managed", "spark")),
    "system-managed-docker": lock(PLAIN, of("system-managed", "docker")),
    "curated-python": lock(AMD64, of("curated", "python")),
    "curated-spark": lock(SPARK, of("curated", "spark")),
    "curated-docker": lock(PLAIN, of("curated", "docker")),
    "user-managed-python": lock(TAKEN, replace(of("user-managed", "python", SERVING), user="")),
    "user-managed-spark": lock(TAKEN, replace(of("user-managed", "spark"), user="")),
    "user-managed-docker": lock(TAKEN, replace(of("user-managed", "docker"), user="")),
}


def plan_of(lock: Lock) -> Plan:
    return make_plan(lock, lock.platforms[0], ComposerSettings(composer="1 gzip"), host=LINUX_AMD64)


@dataclass(frozen=True)
class SmallFiles:
    """An ``Archives`` whose files hold their own names."""

    directory: Path

    def fetch_files(self, artifacts: Sequence[Artifact]) -> Mapping[str, Path]:
        found = {}
        for artifact in artifacts:
            found[artifact.sha256] = self.directory / hashlib.sha256(artifact.sha256.encode()).hexdigest()
            found[artifact.sha256].write_text(artifact.name)
        return found


NOT_ACTIVATED = Activation()


def small_renderer(
    directory: Path,
    *,
    templates: Templates | None = None,
    micromamba: str | None = None,
    activation: Activation = NOT_ACTIVATED,
) -> DockerfileRenderer:
    def base_archive(plan: Plan, stage: PlatformLock | None) -> Path:
        path = directory / ("installer" if stage else "base")
        path.write_text("a base")
        return path

    def snapshot(plan: Plan) -> BuildContext:
        raise AssertionError("no own Dockerfile here")

    return DockerfileRenderer(
        templates=templates or Templates(),
        base_archive=base_archive,
        files=lambda plan: SmallFiles(directory),
        snapshot=snapshot,
        activation=lambda plan: activation,
        micromamba=micromamba,
    )
