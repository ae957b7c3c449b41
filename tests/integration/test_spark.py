"""A real Spark in a composed image: the committed example, packages from Maven, Debian's Java."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.platforms import Platform, runs_linux
from tests.fakes.maven import MavenRepository

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "spark"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not runs_linux(), reason="runs in a Linux user namespace"),
    pytest.mark.skipif(Platform.host().architecture != "amd64", reason="the example is for linux/amd64"),
]

WORDS = ["the 6", "was 3", "and 2", "fire 2", "night 2", "spark 2", "pi is about 3.1427"]

ASK = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", False).getOrCreate()
jvm = spark.sparkContext._jvm
password = spark.sparkContext._gateway.new_array(jvm.char, 8)
for number, character in enumerate("changeit"):
    password[number] = character
store = jvm.java.security.KeyStore.getInstance(jvm.java.io.File(
    jvm.java.lang.System.getProperty("java.home") + "/lib/security/cacerts"
), password)
loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
found = [url.toString().split("/")[-2:] for url in [loader.getResource("name.txt")] if url]
print("java", jvm.java.lang.System.getProperty("java.specification.version"))
print("certificates", store.size())
print("user", jvm.java.lang.System.getProperty("user.name"))
print("resource", *found[0] if found else ["none"])
spark.stop()
"""


def envbuild(*arguments: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with its own cache and ``environment`` over this one's."""
    return subprocess.run(
        [sys.executable, "-m", "envbuild", *arguments],
        env={**os.environ, "ENVBUILD_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def run(spec: Path, *command: str, cache: Path, **environment: str) -> list[str]:
    """What ``command`` printed in the image of ``spec``, which is built first."""
    built = envbuild("build", str(spec), cache=cache, **environment)
    assert built.returncode == 0, built.stderr
    done = envbuild(
        "run", "--locked", "--backend", "userns", "--workdir", str(spec), str(spec), "--", *command,
        cache=cache, **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def example(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, built: by the committed lock, or by a new one if a Debian package of that has
    left the mirror since."""
    copy = tmp_path_factory.mktemp("example") / "spark"
    shutil.copytree(EXAMPLE, copy)
    done = envbuild("build", "--locked", str(copy), cache=cache)
    if done.returncode == 6 and "--upgrade-package" in done.stderr:
        done = envbuild("build", "--upgrade", str(copy), cache=cache)
    assert done.returncode == 0, done.stderr
    (copy / "ask.py").write_text(ASK)
    return copy


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> MavenRepository:
    repository = MavenRepository(tmp_path_factory.mktemp("maven"))
    repository.add("org.example:asked-for:1.0", "org.example:needed:1.1")
    repository.add("org.example:needed:1.1", packaging="jar")
    return repository


def test_the_committed_lock_answers_the_example(cache: Path) -> None:
    done = envbuild("lock", "--check", str(EXAMPLE), cache=cache)
    assert done.returncode == 0, done.stderr


def test_the_job_runs_in_the_image_without_docker(example: Path, cache: Path) -> None:
    lines = run(example, "spark-submit", "job.py", cache=cache)
    assert lines[:-1] == WORDS
    assert re.fullmatch(r"spark 4\.[\d.]+, jvm 21", lines[-1])


def test_packages_from_maven_are_among_sparks_jars(
    example: Path, cache: Path, packages: MavenRepository, tmp_path: Path
) -> None:
    """Precached: the repository is asked when the lock is made, and never by the container."""
    copy = asking(example, tmp_path, precache=True)
    with packages.serve() as address:
        locked = envbuild("lock", str(copy), cache=cache, ENVBUILD_MAVEN_REPOSITORY=address)
        assert locked.returncode == 0, locked.stderr
    lines = run(copy, "python", "ask.py", cache=cache, ENVBUILD_MAVEN_REPOSITORY="http://127.0.0.1:9")
    assert lines[0] == "java 21"
    assert int(lines[1].removeprefix("certificates ")) > 100
    assert lines[2:] == ["user env", "resource asked-for-1.0.jar! name.txt"]


def test_spark_fetches_packages_that_are_left_to_it(
    example: Path, cache: Path, packages: MavenRepository, tmp_path: Path
) -> None:
    with packages.serve() as address:
        copy = asking(example, tmp_path, precache=False, repository=address)
        lines = run(copy, "python", "ask.py", cache=cache)
    assert lines[-1].startswith("resource org.example_asked-for-1.0.jar")
    assert "/maven2/org/example/needed/1.1/needed-1.1.jar" in packages.asked


def asking(example: Path, directory: Path, *, precache: bool, repository: str = "") -> Path:
    """The example with packages of Maven's."""
    copy = directory / "spark"
    shutil.copytree(example, copy)
    with (copy / "envbuild.yaml").open("a") as spec:
        spec.write(
            "spark:\n"
            "  packages: [{group: org.example, artifact: asked-for, version: '1.0'}]\n"
            f"  repositories: [{repository}]\n"
            f"  precache_packages: {str(precache).lower()}\n"
        )
    return copy
