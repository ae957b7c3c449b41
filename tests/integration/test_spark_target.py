"""Jobs of a real Spark, as people start them: in the image alone, and on a standalone cluster of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envbuild.platforms import Platform, runs_linux
from tests.integration.driver import Ended, Machine, kill_group

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "spark"
PASSED_ON = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY")
START = 60.0
"""Seconds after which a cluster that doesn't come counts as broken."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not runs_linux(), reason="runs in a Linux user namespace"),
    pytest.mark.skipif(Platform.host().architecture != "amd64", reason="the example is for linux/amd64"),
]

JOB = """
import os, sys
from pyspark.sql import SparkSession

context = SparkSession.builder.getOrCreate().sparkContext
told = context.parallelize([1, 2], 2).map(lambda x: (2 * x, os.environ["DEPTH"], sys.executable)).collect()
print("told", context.master, *sorted(told))
sys.exit(int(sys.argv[1]))
"""
QUIET = "spark.ui.enabled=false;spark.driver.host=127.0.0.1;spark.driver.bindAddress=127.0.0.1"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which the example is built: by the committed lock, or by a new one if a Debian package
    of that has left the mirror since."""
    root = tmp_path_factory.mktemp("spark")
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    found = Machine(root=root, env={**kept, "DOCKER_HOST": f"unix://{root}/none"})
    shutil.copytree(EXAMPLE, found.project, dirs_exist_ok=True)
    found.write("src/train.py", JOB)
    for how in ("--locked", "--upgrade"):
        process = found.start("build", how, "--no-record", ".")
        try:
            _, said = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            kill_group(process)
            raise
        if process.returncode == 0:
            return found
    raise AssertionError(said)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(machine: Machine) -> Iterator[tuple[str, str]]:
    """The addresses of a master with a worker, and of its page. Both run in the image, on loopback."""
    port, page = free_port(), free_port()
    master = f"spark://127.0.0.1:{port}"
    place = "org.apache.spark.deploy"
    commands = [
        [f"{place}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)],
        [f"{place}.worker.Worker", "--host", "127.0.0.1", "--cores", "2", "--memory", "512m", master],
    ]
    with contextlib.ExitStack() as stack:
        for words in commands:
            log = stack.enter_context((machine.root / f"{words[0]}.log").open("wb"))
            daemon = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "envbuild",
                    "run",
                    "--backend",
                    "userns",
                    ".",
                    "--",
                    "/opt/env/bin/spark-class",
                    *words,
                ],
                env=machine.environment(),
                cwd=machine.project,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(daemon.wait)
            stack.callback(_kill, daemon)
        deadline = time.monotonic() + START
        while b"Successfully registered" not in (machine.root / f"{commands[1][0]}.log").read_bytes():
            assert time.monotonic() < deadline, "no worker came"
            time.sleep(0.1)
        yield master, f"http://127.0.0.1:{page}"


def _kill(daemon: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(daemon.pid, signal.SIGKILL)


def run(machine: Machine, target: str, status: int) -> Ended:
    words = ["run", ".", "--locked", "--target", target, "--code", "src", "-e", "DEPTH=3 4"]
    began = time.monotonic()
    process = machine.start(*words, "--", "python", "train.py", str(status))
    try:
        stdout, stderr = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        kill_group(process)
        raise
    return Ended(status=process.returncode, stdout=stdout, stderr=stderr, seconds=time.monotonic() - began)


def newest(machine: Machine) -> dict[str, Any]:
    found = json.loads(machine.run("runs", "list", "--json").stdout)["runs"][0]
    assert isinstance(found, dict)
    return found


def add(machine: Machine, name: str, *options: str) -> None:
    done = machine.run("target", "add", name, "spark", *options)
    assert done.status == 0, done.stderr


TOLD = "(2, '3 4', '/opt/env/bin/python') (4, '3 4', '/opt/env/bin/python')\n"


def test_local_spark_runs_the_code_in_the_image(machine: Machine) -> None:
    add(machine, "alone", "master=local[2]", f"conf={QUIET}")
    done = run(machine, "alone", 3)
    assert done.status == 3, done.stderr
    assert "told local[2] (2, '3 4', " in done.stdout
    found = newest(machine)
    assert (found["status"], found["exit_status"], found["kind"]) == ("failed", 3, "spark")


def test_workers_of_a_cluster_use_the_environment_s_python(
    machine: Machine, cluster: tuple[str, str]
) -> None:
    master, page = cluster
    add(machine, "many", f"master={master}", f"master-ui={page}", "memory=512MB", f"conf={QUIET}")
    done = run(machine, "many", 0)
    assert done.status == 0, done.stderr + done.stdout
    assert f"told {master} {TOLD}" in done.stdout
    assert "note:" not in done.stderr
    assert newest(machine)["status"] == "succeeded"


def test_other_commands_are_refused(machine: Machine) -> None:
    add(machine, "plain", f"conf={QUIET}")
    machine.run("run", ".", "--locked", "--target", "plain", "--dry-run", "--", "sh").failed(
        2, "Spark can't run 'sh'"
    )
