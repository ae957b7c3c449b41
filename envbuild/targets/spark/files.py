"""The files of a Spark job: its settings, the command that submits it, and templates of its pods."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from envbuild.errors import UsageError
from envbuild.targets.base import Job, TargetFile
from envbuild.targets.spark.options import SparkOptions
from envbuild.targets.yaml import yaml_text

DEFAULTS = "spark-defaults.conf"
SCRIPT = "spark-submit.sh"
DRIVER, EXECUTOR = "driver.yaml", "executor.yaml"
IMAGE_PYTHON = "/opt/env/bin/python"
_PYTHON = re.compile(r"(?:/[A-Za-z0-9_./-]*/)?python(?:3(?:\.[0-9]{1,2})?)?")
_SCRIPT = re.compile(r"/?[A-Za-z0-9_.][A-Za-z0-9_./+@=-]*\.py")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENTRY = """\
home=$(/opt/env/bin/python -c 'import pyspark; print(pyspark.__path__[0])') || exit
role=$1
shift
case $role in
driver)
  exec "$home/bin/spark-submit" --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \\
    --deploy-mode client "$@" ;;
executor)
  options=()
  while IFS='=' read -r -d '' name value; do
    case $name in SPARK_JAVA_OPT_*) options+=("$value") ;; esac
  done < <(env -0 | sort -z -t_ -k4 -n)
  exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" "${options[@]}" \\
    "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \\
    -cp "${SPARK_CONF_DIR:-}:$home/jars/*:${SPARK_CLASSPATH:-}" \\
    org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \\
    --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \\
    --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \\
    --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME" ;;
*) exec "$role" "$@" ;;
esac
"""
"""What Spark's own images have as their entry point: how its two arguments for pods become processes."""


def application(command: Sequence[str], directory: str) -> tuple[str, tuple[str, ...]]:
    """The script of ``command``, absolute, and its arguments. Raises ``UsageError`` for all but
    ``python SCRIPT.py …`` and ``SCRIPT.py …``: Spark starts nothing else."""
    words = list(command)
    if words and _PYTHON.fullmatch(words[0]):
        words = words[1:]
        # Spark's drivers never buffer what they print.
        while words and words[0] == "-u":
            words = words[1:]
    if not words or not _SCRIPT.fullmatch(words[0]):
        raise UsageError(
            f"Spark can't run {shlex.join(command)[:200]!r}",
            hint="give it a Python script of the code or the image: -- python train.py --epochs 3",
        )
    return str(PurePosixPath(directory, words[0])), tuple(words[1:])


def spark_settings(options: SparkOptions, job: Job) -> dict[str, str]:
    """All settings of the job's Spark. Raises ``UsageError`` where the target's own would change what must
    be as it is."""
    values = {"spark.master": options.master, "spark.app.name": job.name}
    if options.place == "standalone":
        values["spark.submit.deployMode"] = "client"
        values["spark.pyspark.python"] = options.python
        values["spark.pyspark.driver.python"] = IMAGE_PYTHON
        if options.executors is not None:
            values["spark.executor.instances"] = str(options.executors)
            if options.cores is not None:
                # Spark's own clusters give out as many cores as there are, unless they are told.
                values["spark.cores.max"] = str(options.executors * options.cores)
    if options.place == "kubernetes":
        values |= _pods(options, job)
    if options.memory is not None:
        # A local Spark's executor is its driver.
        key = "spark.driver.memory" if options.place == "local" else "spark.executor.memory"
        values[key] = f"{max(1, -(-options.memory // (1 << 20)))}m"
    if options.cores is not None and options.place != "local":
        values["spark.executor.cores"] = str(options.cores)
    if options.place != "local":
        values |= _variables(job, "spark.executorEnv.")
    for key, value in options.conf:
        if values.get(key, value) != value:
            raise UsageError(f"conf can't set {key}: the target's other options do, to {values[key]}")
        values[key] = value
    return values


def _pods(options: SparkOptions, job: Job) -> dict[str, str]:
    values = {
        "spark.submit.deployMode": "cluster",
        "spark.kubernetes.namespace": options.namespace,
        "spark.kubernetes.container.image": job.reference,
        "spark.kubernetes.container.image.pullPolicy": "IfNotPresent",
        "spark.kubernetes.driver.pod.name": job.name,
        "spark.kubernetes.driver.podTemplateFile": DRIVER,
        "spark.kubernetes.driver.podTemplateContainerName": "spark",
        "spark.kubernetes.executor.podTemplateFile": EXECUTOR,
        "spark.kubernetes.executor.podTemplateContainerName": "spark",
        "spark.kubernetes.submission.waitAppCompletion": "true",
        "spark.kubernetes.driver.label.app.kubernetes.io/managed-by": "envbuild",
        "spark.pyspark.python": IMAGE_PYTHON,
        "spark.pyspark.driver.python": IMAGE_PYTHON,
    }
    if options.service_account is not None:
        values["spark.kubernetes.authenticate.driver.serviceAccountName"] = options.service_account
    if options.image_pull_secret is not None:
        values["spark.kubernetes.container.image.pullSecrets"] = options.image_pull_secret
    if options.executors is not None:
        values["spark.executor.instances"] = str(options.executors)
    return values | _variables(job, "spark.kubernetes.driverEnv.")


def _variables(job: Job, prefix: str) -> dict[str, str]:
    for name, _ in job.env:
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"Spark passes no variable on that is called {name[:80]!r}")
    return {f"{prefix}{name}": value for name, value in job.env}


def properties_text(settings: dict[str, str]) -> str:
    """A Java properties file with a setting a line. Raises ``UsageError`` for what Spark wouldn't keep."""
    lines = []
    for key, value in settings.items():
        if value != value.strip() or not value:
            # Spark strips every value, whatever is escaped.
            raise UsageError(f"Spark keeps no value of {key} that is empty or begins or ends with a space")
        lines.append(f"{_escaped(key, key=True)}={_escaped(value)}\n")
    return "".join(lines)


def _escaped(text: str, *, key: bool = False) -> str:
    special = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    escaped = []
    for character in text:
        if character in special:
            escaped.append(special[character])
        elif " " <= character <= "~":
            escaped.append(f"\\{character}" if key and character in " =:#!" else character)
        else:
            units = character.encode("utf-16-be", "surrogatepass")
            escaped += [f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)]
    return "".join(escaped)


def submit_arguments(options: SparkOptions, job: Job, directory: str) -> tuple[str, ...]:
    """What ``spark-submit`` is given behind its properties file."""
    script, arguments = application(job.command, directory)
    return (f"local://{script}" if options.place == "kubernetes" else script, *arguments)


def job_files(options: SparkOptions, job: Job, directory: str) -> tuple[TargetFile, ...]:
    """What ``submit`` uses: the settings, the command, and on Kubernetes the templates of pods."""
    where = "on this machine" if options.place == "kubernetes" else "in the environment's image"
    words = (options.spark_submit, "--properties-file", DEFAULTS, *submit_arguments(options, job, directory))
    target_files = [
        TargetFile(name=DEFAULTS, content=properties_text(spark_settings(options, job))),
        TargetFile(
            name=SCRIPT, content=f"#!/bin/sh\n# Run {where}.\nexec {shlex.join(words)}\n", executable=True
        ),
    ]
    if options.place == "kubernetes":
        target_files += [TargetFile(name=name, content=_template(directory)) for name in (DRIVER, EXECUTOR)]
    return tuple(target_files)


def _template(directory: str) -> str:
    container = {
        "name": "spark",
        "command": ["/bin/bash", "-c", _ENTRY, "envbuild"],
        "workingDir": directory,
    }
    return yaml_text({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}})
