"""What Spark is handed: settings, a command line, templates of pods."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from envbuild.errors import RunError, UsageError
from envbuild.platforms import runs_linux
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import TargetRecord
from envbuild.targets.kinds import TargetContext
from envbuild.targets.spark.files import application, properties_text
from envbuild.targets.spark.target import KIND, SparkTarget
from tests.unit.targets.kubernetes import NAME, REGISTRY, a_job, an_image

MASTER = "k8s://https://k8s.example.org:6443"
CLUSTER = {"master": MASTER, "registry": REGISTRY}


def a_target(
    store: Store, options: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> SparkTarget:
    record = TargetRecord(name="sp", kind="spark", options=tuple(sorted(options.items())))
    surroundings = TargetContext(
        store=store, progress=Silent(), state=Path("/nowhere"), environ=environ or {}
    )
    return KIND.open(record, surroundings)


def contents(store: Store, options: Mapping[str, str], **job: object) -> dict[str, str]:
    target = a_target(store, options)
    return {file.name: file.content for file in target.job_files(a_job(an_image(store), **job))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "script", "arguments"),
    [
        (("python", "train.py", "--lr", "-1"), "/workspace/train.py", ("--lr", "-1")),
        (("python3.13", "-u", "a/b.py"), "/workspace/a/b.py", ()),
        (("/opt/env/bin/python", "/code/x.py"), "/code/x.py", ()),
        (("job.py", "x y"), "/workspace/job.py", ("x y",)),
    ],
)
def test_python_scripts_become_applications(
    command: tuple[str, ...], script: str, arguments: tuple[str, ...]
) -> None:
    assert application(command, "/workspace") == (script, arguments)


@pytest.mark.parametrize(
    "command",
    [("sh", "-c", "x"), ("python", "-c", "1"), ("python", "-m", "x"), ("python",), ("python", "a#b.py"), ()],
)
def test_other_commands_are_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="Spark can't run"):
        application(command, "/workspace")


def test_properties_are_escaped_as_java_reads_them() -> None:
    assert properties_text({"spark.a": "b=c:d #!\\ \u00e9\U0001f600", "spark.b": "1\n2\tx"}) == (
        "spark.a=b=c:d #!\\\\ \\u00e9\\ud83d\\ude00\nspark.b=1\\n2\\tx\n"
    )


@pytest.mark.parametrize("value", ["", " x", "x\n"])
def test_values_that_spark_would_change_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"spark\.a that is empty or begins or ends with a space"):
        properties_text({"spark.a": value})


def test_standalone_cluster_is_told_whose_python_its_workers_use(store: Store) -> None:
    found = contents(
        store,
        {
            "master": "spark://m1:7077,m2:7077",
            "executors": "3",
            "cores": "2",
            "memory": "8GB",
            "conf": "spark.ui.enabled=false; spark.x=a=b",
        },
        env=(("DEPTH", "3"),),
    )
    assert found["spark-defaults.conf"].splitlines() == [
        "spark.master=spark://m1:7077,m2:7077",
        f"spark.app.name={NAME}",
        "spark.submit.deployMode=client",
        "spark.pyspark.python=/opt/env/bin/python",
        "spark.pyspark.driver.python=/opt/env/bin/python",
        "spark.executor.instances=3",
        "spark.cores.max=6",
        "spark.executor.memory=7630m",
        "spark.executor.cores=2",
        "spark.executorEnv.DEPTH=3",
        "spark.ui.enabled=false",
        "spark.x=a=b",
    ]
    assert found["spark-submit.sh"].splitlines()[-1] == (
        "exec /opt/env/bin/spark-submit --properties-file spark-defaults.conf /workspace/train.py"
    )


DOCUMENTED = {
    *("spark.master", "spark.app.name", "spark.submit.deployMode", "spark.executor.instances"),
    *("spark.pyspark.python", "spark.pyspark.driver.python"),
    "spark.kubernetes.namespace",
    "spark.kubernetes.container.image",
    "spark.kubernetes.container.image.pullPolicy",
    "spark.kubernetes.container.image.pullSecrets",
    "spark.kubernetes.driver.pod.name",
    "spark.kubernetes.driver.podTemplateFile",
    "spark.kubernetes.driver.podTemplateContainerName",
    "spark.kubernetes.executor.podTemplateFile",
    "spark.kubernetes.executor.podTemplateContainerName",
    "spark.kubernetes.submission.waitAppCompletion",
    "spark.kubernetes.authenticate.driver.serviceAccountName",
    "spark.kubernetes.driver.label.app.kubernetes.io/managed-by",
    "spark.kubernetes.driverEnv.DEPTH",
    "spark.executorEnv.DEPTH",
}
"""Of Spark's pages "Configuration" and "Running Spark on Kubernetes"."""


def test_pods_run_the_image_by_digest_with_documented_settings(store: Store) -> None:
    options = {
        **CLUSTER,
        "namespace": "jobs",
        "service-account": "spark",
        "image-pull-secret": "pull",
        "executors": "2",
    }
    found = contents(store, options, env=(("DEPTH", "3"),))
    pairs = dict(line.split("=", 1) for line in found["spark-defaults.conf"].splitlines())
    assert set(pairs) == DOCUMENTED
    assert pairs["spark.kubernetes.container.image"].startswith(f"{REGISTRY}/demo:abc@sha256:")
    assert pairs["spark.kubernetes.driver.pod.name"] == NAME
    assert pairs["spark.kubernetes.namespace"] == "jobs"
    assert found["spark-submit.sh"].splitlines()[-1] == (
        "exec spark-submit --properties-file spark-defaults.conf local:///workspace/train.py"
    )
    for name in ("driver.yaml", "executor.yaml"):
        (container,) = yaml.safe_load(found[name])["spec"]["containers"]
        assert container["name"] == "spark"
        assert container["command"][:2] == ["/bin/bash", "-c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"master": "yarn"}, "YARN takes a script from the submitting machine"),
        ({"master": "mesos://x"}, "must be local"),
        ({"master": "spark://h"}, "must be local"),
        ({"master": MASTER}, "pods take the image from a registry"),
        ({**CLUSTER, "deploy-mode": "client"}, "the driver runs in a pod"),
        ({"master": "spark://h:1", "deploy-mode": "cluster"}, "only as clients"),
        ({"executors": "2"}, "a local Spark has one executor"),
        ({"conf": "x=y"}, "must be settings of Spark"),
        ({"conf": "spark.a"}, "must be settings of Spark"),
        ({"conf": "spark.a=1;spark.a=2"}, "given twice"),
        ({"conf": "spark.ssl.keyPassword=hunter2"}, "holds a secret"),
        ({"master-ui": "ftp://x"}, "master-ui must be like"),
    ],
)
def test_options_that_do_not_fit_are_refused(store: Store, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        a_target(store, options)


def test_conf_can_not_change_what_is_run(store: Store) -> None:
    with pytest.raises(UsageError, match=r"conf can't set spark\.master"):
        contents(store, {"conf": "spark.master=local[7]"})


@pytest.mark.skipif(not runs_linux(), reason="the driver runs in a user namespace")
def test_master_that_is_not_there_is_told_before_the_start(store: Store) -> None:
    target = a_target(store, {"master": "spark://127.0.0.1:1"})
    (found,) = target.findings(an_image(store))
    assert found.error
    assert found.text.startswith("no master answers at spark://127.0.0.1:1: ")


SUBMIT = """#!/bin/sh
echo "$@" >> "$TRACE"
case "$*" in
*--kill*) kill "$(cat "$TRACE.pid")"; exit 0 ;;
esac
echo $$ > "$TRACE.pid"
{body}
"""


def command(directory: Path, body: str) -> dict[str, str]:
    """Variables with a stand-in for ``spark-submit`` on the path."""
    file = directory / "spark-submit"
    file.write_text(SUBMIT.replace("{body}", body))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{directory}:/usr/bin:/bin", "TRACE": str(directory / "trace")}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("echo 'exit code: 0'; echo 'phase: Succeeded'", 0),
        ("echo 'exit code: 3'; echo 'phase: Failed'", 3),
        ("echo '(phase: Failed)'", 1),
        ("echo 'phase: Succeeded'; exit 5", 5),
        ("kill -9 $$", 137),
    ],
)
def test_driver_s_end_counts_and_not_the_command_s(
    store: Store, tmp_path: Path, body: str, status: int
) -> None:
    target = a_target(store, CLUSTER, command(tmp_path, f"test -s driver.yaml || exit 99; {body}"))
    assert target.findings(an_image(store)) == []
    execution = target.submit(a_job(an_image(store)))
    try:
        b"".join(execution.logs())
        assert execution.wait() == status
    finally:
        execution.close()


def test_command_that_says_nothing_of_the_driver_is_no_success(store: Store, tmp_path: Path) -> None:
    execution = a_target(store, CLUSTER, command(tmp_path, "exit 0")).submit(a_job(an_image(store)))
    b"".join(execution.logs())
    with pytest.raises(RunError, match=f"without saying how pod default/{NAME} did"):
        execution.wait()
    execution.close()


def test_stop_kills_the_driver_s_pod(store: Store, tmp_path: Path) -> None:
    environ = command(tmp_path, "echo ready; exec sleep 100")
    execution = a_target(store, CLUSTER, environ).submit(a_job(an_image(store)))
    assert next(iter(execution.logs())) == b"ready\n"
    execution.stop()
    execution.close()
    lines = (tmp_path / "trace").read_text().splitlines()
    assert lines[-1] == f"--master {MASTER} --kill default:{NAME}"


def test_missing_command_is_told(store: Store) -> None:
    (found,) = a_target(store, CLUSTER, {"PATH": "/nowhere"}).findings(an_image(store))
    assert found.error
    assert "there is no command spark-submit" in found.text
