"""What an image with ``runtime: spark`` is told: variables, and settings of Spark in its own file."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from envbuild.errors import BuildError
from envbuild.lock.model import DebianBase, Lock, PlatformLock, PythonPin, RuntimeSettings
from envbuild.plan.model import GeneratedFile
from envbuild.plan.system import debian_java_home
from envbuild.specs.model import PREFIX, EnvironmentType, Runtime

_COORDINATE = re.compile(r"[A-Za-z0-9_.\-]+:[A-Za-z0-9_.\-]+:[A-Za-z0-9_.+\-]+")
_ADDRESS = re.compile(r"(?:https?|file)://[!-+\--\[\]-~]+")
"""Visible ASCII; no comma, which separates addresses, and no backslash, which Java's properties read."""


def spark_home(python: PythonPin) -> PurePosixPath:
    """The absolute directory of the pyspark package, which is a whole Spark: its jars, scripts and data."""
    return PREFIX / "lib" / f"python{python.short}" / "site-packages" / "pyspark"


def spark_environment(lock: Lock, pins: PlatformLock) -> dict[str, str]:
    """Variables by which Spark finds itself, Java and the environment's python; none for other runtimes."""
    if not _holds_spark(lock.runtime) or pins.python is None:
        return {}
    variables = {
        "SPARK_HOME": str(spark_home(pins.python)),
        "PYSPARK_PYTHON": f"{PREFIX}/bin/python",
        "PYSPARK_DRIVER_PYTHON": f"{PREFIX}/bin/python",
    }
    java = _java_home(pins)
    return {**variables, "JAVA_HOME": java} if java else variables


def spark_files(lock: Lock, pins: PlatformLock) -> tuple[GeneratedFile, ...]:
    """``conf/spark-defaults.conf`` in Spark's home where packages are left for Spark to fetch; it is read
    unless ``SPARK_CONF_DIR`` says otherwise. Raises ``BuildError`` for what can't be a value in it."""
    runtime = lock.runtime
    if not _holds_spark(runtime) or pins.python is None:
        return ()
    lines = []
    for key, values, pattern in (
        ("spark.jars.packages", runtime.spark_packages, _COORDINATE),
        ("spark.jars.repositories", runtime.spark_repositories, _ADDRESS),
    ):
        for value in values:
            if not pattern.fullmatch(value):
                raise BuildError(f"{value!r} can't be a value of {key}", hint="lock again: envbuild lock")
        if values:
            lines.append(f"{key} {','.join(values)}\n")
    if not lines:
        return ()
    path = spark_home(pins.python) / "conf" / "spark-defaults.conf"
    return (GeneratedFile(path=str(path).lstrip("/"), content="".join(lines).encode()),)


def _holds_spark(runtime: RuntimeSettings) -> bool:
    return runtime.runtime == Runtime.SPARK.value and runtime.type != EnvironmentType.USER_MANAGED.value


def _java_home(pins: PlatformLock) -> str | None:
    """Conda's Java goes before Debian's, as in PATH; None: an image's own, which the spec tells."""
    if any(pin.name == "openjdk" for pin in pins.conda):
        return f"{PREFIX}/lib/jvm"
    return debian_java_home(pins.base) if isinstance(pins.base, DebianBase) else None
