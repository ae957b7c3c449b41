"""What runtime: spark adds to a spec, and that a check of a lock knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import LockRequest, MavenRequest, PipRequest
from envbuild.lock.check import lock_problems
from envbuild.lock.make import Resolvers, make_lock, runtime_settings
from envbuild.lock.model import Lock, MavenPin, PipPin
from envbuild.lock.python.choice import choose_python
from envbuild.lock.spark import spark_spec
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import (
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    ImageBaseSpec,
    MavenPackage,
    Origin,
    PipRequirement,
    PipSpec,
    Runtime,
    SparkSpec,
    Spec,
)
from tests.unit.lock.sample import AMD64, IDNA
from tests.unit.lock.test_make import FakeBases, never_conda

SPEC = Spec(name="x", source=Path("/p/envbuild.yaml"), runtime=Runtime.SPARK)
IMAGE = ImageBaseSpec(reference="docker.io/library/python:3.13-slim")
LIB = MavenPackage(group="g", artifact="lib", version="1.0")


def pip(*texts: str) -> PipSpec:
    origin = Origin(file="requirements.txt")
    return PipSpec(requirements=tuple(PipRequirement(text=text, origin=origin) for text in texts))


def conda(*dependencies: str) -> CondaSpec:
    return CondaSpec(channels=("conda-forge",), dependencies=dependencies)


def debian(*packages: str) -> DebianBaseSpec:
    return DebianBaseSpec(suite="bookworm", packages=packages)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, runtime=Runtime.PYTHON),
        replace(SPEC, runtime=Runtime.DOCKER, base=debian()),
        replace(SPEC, type=EnvironmentType.USER_MANAGED, base=IMAGE),
    ],
)
def test_nothing_is_added_where_nothing_is_asked_for(spec: Spec) -> None:
    assert spark_spec(spec) is spec


@pytest.mark.parametrize(
    ("given", "requirements"),
    [
        (pip(), ["pyspark"]),
        (pip("pandas"), ["pandas", "pyspark"]),
        (pip("pyspark==3.5.6"), ["pyspark==3.5.6"]),
        (pip("PySpark[sql]>=4"), ["PySpark[sql]>=4"]),
        (pip("pyspark @ file:///w/pyspark-4.0.0.tar.gz"), ["pyspark @ file:///w/pyspark-4.0.0.tar.gz"]),
        (pip("pyspark-client"), ["pyspark-client", "pyspark"]),
    ],
)
def test_pyspark_is_added_unless_it_is_there(given: PipSpec, requirements: list[str]) -> None:
    found = spark_spec(replace(SPEC, pip=given))
    assert [requirement.text for requirement in found.pip.requirements] == requirements


def test_condas_pyspark_will_do() -> None:
    found = spark_spec(replace(SPEC, conda=conda("python=3.12", "conda-forge::pyspark >=4")))
    assert found.pip.requirements == ()
    assert found.conda == conda("python=3.12", "conda-forge::pyspark >=4", "openjdk")


@pytest.mark.parametrize(
    ("given", "base", "dependencies"),
    [
        ({}, DebianBaseSpec(packages=("default-jre-headless",)), None),
        ({"base": debian("git")}, debian("git", "default-jre-headless"), None),
        (
            {"base": debian("openjdk-17-jre-headless=17.0.1-1")},
            debian("openjdk-17-jre-headless=17.0.1-1"),
            None,
        ),
        ({"base": debian("default-jdk")}, debian("default-jdk"), None),
        ({"base": debian("default-jre-headless")}, debian("default-jre-headless"), None),
        (
            {"base": debian("openjdk-17-jre-zero")},
            debian("openjdk-17-jre-zero", "default-jre-headless"),
            None,
        ),
        ({"conda": conda("python")}, None, ("python", "openjdk")),
        ({"conda": conda("openjdk=17")}, None, ("openjdk=17",)),
        ({"conda": conda("python"), "base": IMAGE}, IMAGE, ("python", "openjdk")),
        ({"conda": conda("python"), "base": debian("openjdk-17-jre")}, debian("openjdk-17-jre"), ("python",)),
        ({"environment_variables": (("JAVA_HOME", "/opt/java"),), "base": IMAGE}, IMAGE, None),
    ],
)
def test_java_comes_from_conda_or_debian_unless_it_is_there(
    given: dict[str, object], base: object, dependencies: tuple[str, ...] | None
) -> None:
    found = spark_spec(replace(SPEC, **given))  # type: ignore[arg-type]
    assert found.base == base
    assert (found.conda.dependencies if found.conda else None) == dependencies


def test_an_image_that_says_nothing_of_java_is_refused() -> None:
    with pytest.raises(ResolveError) as caught:
        spark_spec(replace(SPEC, base=IMAGE))
    assert caught.value.message == (
        "/p/envbuild.yaml: Spark needs a Java runtime, which can't be added to the image "
        "docker.io/library/python:3.13-slim"
    )
    assert "JAVA_HOME" in (caught.value.hint or "")


@pytest.mark.parametrize(("python", "suite"), [(None, "trixie"), ("3.11", "bookworm"), ("3.12", "trixie")])
def test_the_python_pin_still_decides_the_suite(python: str | None, suite: str) -> None:
    choice = choose_python(spark_spec(replace(SPEC, python=python)), has_debian=lambda: True)
    assert choice.base == DebianBaseSpec(suite=suite, packages=("default-jre-headless",))


def test_packages_that_spark_is_to_fetch_are_settings_of_the_image() -> None:
    later = SparkSpec(
        packages=(LIB, replace(LIB, artifact="first")),
        repositories=("https://b.example", "https://a.example"),
        precache_packages=False,
    )
    found = runtime_settings(replace(SPEC, spark=later))
    assert (found.runtime, found.spark_packages, found.spark_repositories) == (
        "spark",
        ("g:first:1.0", "g:lib:1.0"),
        ("https://b.example", "https://a.example"),
    )
    now = runtime_settings(replace(SPEC, spark=replace(later, precache_packages=True)))
    assert (now.spark_packages, now.spark_repositories) == ((), ())


def test_a_lock_without_pyspark_java_and_jars_does_not_answer() -> None:
    spec = replace(SPEC, base=DebianBaseSpec(suite="trixie"), spark=SparkSpec(packages=(LIB,)))
    lock = Lock(
        definition=definition_digest(spec),
        platforms=(replace(AMD64, platform=LINUX_AMD64),),
        runtime=runtime_settings(spec),
    )
    assert lock_problems(spec, lock) == [
        "linux/amd64: the Debian package default-jre-headless isn't locked",
        "linux/amd64: pyspark (runtime: spark): nothing is pinned for it",
        "linux/amd64: the Maven package g:lib isn't locked",
    ]
    jar = MavenPin(
        group="g", artifact="lib", version="1.1", file="g/lib/1.1/lib-1.1.jar", size=1, sha256="1" * 64
    )
    better = replace(lock, platforms=(replace(lock.platforms[0], maven=(jar,)),))
    assert "linux/amd64: the Maven package g:lib isn't locked" not in lock_problems(spec, better)


JAR = MavenPin(
    group="g", artifact="lib", version="1.0", file="g/lib/1.0/lib-1.0.jar", size=1, sha256="1" * 64
)
WITH_JARS = replace(SPEC, spark=SparkSpec(packages=(LIB,)), platforms=(LINUX_AMD64, LINUX_ARM64))


@dataclass
class FakeMaven:
    """Answers with one jar, and remembers what it was asked."""

    name: str = "fake-maven"
    asked: list[tuple[SparkSpec, tuple[MavenPin, ...], bool]] = field(default_factory=list)

    def version(self) -> str:
        return "1"

    def resolve(self, request: MavenRequest) -> tuple[MavenPin, ...]:
        self.asked.append((request.spec, tuple(request.preferred), request.offline))
        return (JAR,)


@dataclass
class FakePip:
    """Answers with one wheel."""

    name: str = "fake-pip"
    remembers: bool = False

    def version(self) -> str:
        return "1"

    def resolve(self, request: PipRequest) -> tuple[PipPin, ...]:
        return (IDNA,)


def locked(spec: Spec, maven: FakeMaven, present: Lock | None = None, *, offline: bool = False) -> Lock:
    resolvers = Resolvers(
        bases=(FakeBases,),
        conda=never_conda,
        pip=FakePip,
        has_debian=lambda: True,
        maven=lambda: maven,
    )
    return make_lock(spec, LockRequest(), present, resolvers, progress=Silent(), offline=offline)


def test_every_platform_has_the_same_jars_and_the_definition_is_of_the_spec_as_written() -> None:
    maven = FakeMaven()
    lock = locked(WITH_JARS, maven)
    assert [platform.maven for platform in lock.platforms] == [(JAR,), (JAR,)]
    assert maven.asked == [(WITH_JARS.spark, (), False)]
    assert lock.definition == definition_digest(WITH_JARS)
    assert dict(lock.engines)["fake-maven"] == "1"


def test_present_jars_are_offered_and_offline_they_stay_where_nothing_changed() -> None:
    present = locked(WITH_JARS, FakeMaven())
    online, offline, changed = FakeMaven(), FakeMaven(), FakeMaven()
    locked(WITH_JARS, online, present)
    assert online.asked == [(WITH_JARS.spark, (JAR,), False)]
    assert locked(WITH_JARS, offline, present, offline=True).platforms[0].maven == (JAR,)
    assert offline.asked == []
    other = replace(WITH_JARS, spark=SparkSpec(packages=(replace(LIB, version="2.0"),)))
    locked(other, changed, present, offline=True)
    assert changed.asked == [(other.spark, (JAR,), True)]


def test_packages_left_to_spark_are_not_resolved() -> None:
    maven = FakeMaven()
    later = replace(WITH_JARS, spark=SparkSpec(packages=(LIB,), precache_packages=False))
    lock = locked(later, maven)
    assert (maven.asked, [platform.maven for platform in lock.platforms]) == ([], [(), ()])
    assert lock.runtime.spark_packages == ("g:lib:1.0",)
