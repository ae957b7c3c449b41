"""What an image with runtime: spark is told, and where its jars and settings stand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.errors import BuildError
from envbuild.lock.identity import ComposerSettings
from envbuild.lock.model import DebianBase, DebianPin, Lock, MavenPin, PlatformLock, RuntimeSettings
from envbuild.plan.make import make_plan, plan_identity
from envbuild.plan.model import ArtifactKind, Plan
from envbuild.plan.system import system_files
from envbuild.platforms import LINUX_AMD64
from tests.unit.lock.sample import AMD64, BASE, LIBC, LOCK, ZLIB

COMPOSITION = ComposerSettings(composer="1 gzip")
HOME = "/opt/env/lib/python3.13/site-packages/pyspark"
JAR = MavenPin(
    group="g", artifact="lib", version="1", file="g/lib/1/lib-1.jar", size=1 << 20, sha256="a" * 64
)


def package(name: str, architecture: str = "amd64") -> DebianPin:
    return replace(LIBC, name=name, architecture=architecture)


def base(*packages: DebianPin) -> DebianBase:
    return replace(BASE, packages=(*BASE.packages, *packages))


def planned(pins: PlatformLock, **runtime: object) -> tuple[Lock, Plan]:
    settings = RuntimeSettings(**{"runtime": "spark", **runtime})  # type: ignore[arg-type]
    lock = replace(LOCK, platforms=(pins,), runtime=settings)
    return lock, make_plan(lock, pins, COMPOSITION, host=LINUX_AMD64)


def variables(pins: PlatformLock, **runtime: object) -> dict[str, str]:
    found = dict(planned(pins, **runtime)[1].config.env)
    return {name: value for name, value in found.items() if "SPARK" in name or "JAVA" in name}


def test_spark_finds_itself_java_and_python() -> None:
    pins = replace(AMD64, base=base(package("openjdk-21-jre-headless")))
    assert variables(pins) == {
        "JAVA_HOME": "/usr/lib/jvm/java-21-openjdk-amd64",
        "PYSPARK_DRIVER_PYTHON": "/opt/env/bin/python",
        "PYSPARK_PYTHON": "/opt/env/bin/python",
        "SPARK_HOME": HOME,
    }
    assert planned(pins)[1].config.cmd == ("python",)


@pytest.mark.parametrize(
    ("packages", "home"),
    [
        ((package("openjdk-17-jre-headless", "arm64"),), "/usr/lib/jvm/java-17-openjdk-arm64"),
        (
            (package("openjdk-17-jre-headless"), package("openjdk-9-jre-headless")),
            "/usr/lib/jvm/java-17-openjdk-amd64",
        ),
        ((package("openjdk-17-jre-zero"),), None),
    ],
)
def test_javas_home_is_that_of_the_newest_runtime(packages: tuple[DebianPin, ...], home: str | None) -> None:
    assert variables(replace(AMD64, base=base(*packages))).get("JAVA_HOME") == home


def test_condas_java_goes_before_debians() -> None:
    pins = replace(
        AMD64, base=base(package("openjdk-21-jre-headless")), conda=(replace(ZLIB, name="openjdk"),)
    )
    assert variables(pins)["JAVA_HOME"] == "/opt/env/lib/jvm"


def test_the_specs_own_variables_win() -> None:
    pins = replace(AMD64, base=base(package("openjdk-21-jre-headless")))
    own = (("JAVA_HOME", "/mine"), ("SPARK_HOME", "/spark"))
    found = variables(pins, environment_variables=own)
    assert (found["JAVA_HOME"], found["SPARK_HOME"]) == ("/mine", "/spark")


@pytest.mark.parametrize("runtime", [{"runtime": "python"}, {"type": "user-managed"}])
def test_other_environments_are_told_nothing(runtime: dict[str, str]) -> None:
    assert variables(replace(AMD64, base=base(package("openjdk-21-jre-headless"))), **runtime) == {}


def test_a_large_jar_has_a_layer_after_the_base() -> None:
    _, plan = planned(replace(AMD64, maven=(JAR,)))
    names = [layer.name for layer in plan.layers]
    assert names == ["base", "g:lib", "bucket-03", "bucket-06", "settings"]
    assert plan.layers[1].artifacts[0].kind is ArtifactKind.JAR


def test_packages_left_to_spark_are_in_its_defaults() -> None:
    later = {
        "spark_packages": ("g:a:1", "g:b_2.13:2.0"),
        "spark_repositories": ("https://one.example/m2", "https://two.example"),
    }
    lock, plan = planned(AMD64, **later)
    assert plan.layers[-1].name == "settings"
    files = {file.path: file for file in plan.layers[-1].artifacts[0].files}
    assert files[f"{HOME[1:]}/conf/spark-defaults.conf"].content == (
        b"spark.jars.packages g:a:1,g:b_2.13:2.0\n"
        b"spark.jars.repositories https://one.example/m2,https://two.example\n"
    )
    plain, without = planned(AMD64)
    assert not any(file.path.endswith(".conf") for file in without.layers[-1].artifacts[0].files)
    assert plan_identity(lock, AMD64, COMPOSITION) != plan_identity(plain, AMD64, COMPOSITION)


@pytest.mark.parametrize(
    "runtime",
    [
        {"spark_packages": ("g:a:1\nspark.driver.extraJavaOptions -javaagent:x",)},
        {"spark_packages": ("g:a:1,h:b:2",)},
        {"spark_packages": ("g:a:1\\",)},
        {"spark_repositories": ("https://one.example\nspark.submit.pyFiles x",)},
        {"spark_repositories": ("https://one.example,https://two.example",)},
        {"spark_repositories": ("https://one.example/\\u000aspark.x y",)},
        {"spark_repositories": ("https://one.example/ x",)},
        {"spark_repositories": ("javascript:x",)},
    ],
)
def test_no_value_can_be_another_setting(runtime: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(BuildError, match=r"can't be a value of spark\.jars\."):
        planned(AMD64, **runtime)


def test_javas_tools_have_the_links_that_alternatives_would_make() -> None:
    found = {file.path: file for file in system_files(base(package("openjdk-21-jre-headless")), "1000:1000")}
    links = {path: each.target for path, each in found.items() if "jvm" in (each.target or "")}
    above = "../lib/jvm/java-21-openjdk-amd64"
    assert links == {
        "usr/bin/java": f"{above}/bin/java",
        "usr/bin/jexec": f"{above}/lib/jexec",
        "usr/bin/jpackage": f"{above}/bin/jpackage",
        "usr/bin/keytool": f"{above}/bin/keytool",
        "usr/bin/rmiregistry": f"{above}/bin/rmiregistry",
    }
    assert found["etc/.java/.systemPrefs/.system.lock"].content == b""


@pytest.mark.parametrize(("release", "server"), [("17", False), ("21", True)])
def test_a_jdk_has_its_compiler_linked(release: str, server: bool) -> None:
    packages = (package(f"openjdk-{release}-jre-headless"), package(f"openjdk-{release}-jdk-headless"))
    found = {file.path: file.target for file in system_files(base(*packages), "1000:1000")}
    assert found["usr/bin/javac"] == f"../lib/jvm/java-{release}-openjdk-amd64/bin/javac"
    assert ("usr/bin/jwebserver" in found) is server


def test_a_base_without_java_is_as_it_was() -> None:
    assert not any("java" in file.path for file in system_files(BASE, "1000:1000"))
