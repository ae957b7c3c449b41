"""Jobs on a Ray cluster, as people start them. The dashboard is a stand-in: it speaks Ray's Jobs API and
runs the commands as plain processes. No test has a real Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ray_dashboard
from tests.integration.driver import Machine, ended, shell_machine

FOREVER = "while :; do sleep 0.05; done"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the image is of programs of this Linux"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a spec whose image, a shell and a few programs, was built."""
    with shell_machine(tmp_path_factory.mktemp("site")) as machine:
        done = machine.run("build", "--no-record")
        assert done.status == 0, done.stderr
        yield machine


@pytest.fixture
def machine(site: Machine, tmp_path: Path) -> Machine:
    found = Machine(root=tmp_path, env={**site.env, "ENVBUILD_CACHE_DIR": str(site.cache)})
    found.write("envbuild.yaml", (site.project / "envbuild.yaml").read_text())
    return found


@pytest.fixture
def dashboard() -> Iterator[ray_dashboard.Dashboard]:
    with ray_dashboard.serve() as found:
        yield found


def add(machine: Machine, dashboard: ray_dashboard.Dashboard, *options: str) -> None:
    done = machine.run("target", "add", "ray", "ray", f"address={dashboard.address}", "image=none", *options)
    assert done.status == 0, done.stderr


def job(script: str, *options: str) -> list[str]:
    return ["run", ".", "--target", "ray", *options, "--", "sh", "-c", script]


def record(machine: Machine) -> dict[str, Any]:
    (found,) = json.loads(machine.run("runs", "list", "--json").stdout)["runs"]
    assert isinstance(found, dict)
    return found


def started(machine: Machine, script: str) -> subprocess.Popen[str]:
    process = machine.start(*job(script))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_job_runs_with_its_code_and_is_recorded(machine: Machine, dashboard: ray_dashboard.Dashboard) -> None:
    add(machine, dashboard, "cpus=0.5", "memory=1GB")
    machine.write("src/data", "of the code\n")
    done = machine.run(*job("cat data; echo $DEPTH", "--code", "src", "-e", "DEPTH=3 4"))
    assert (done.status, done.stdout) == (0, "of the code\n3 4\n"), done.stderr
    found = record(machine)
    assert (found["status"], found["exit_status"], found["kind"]) == ("succeeded", 0, "ray")
    body = dashboard.jobs[found["name"]].body
    assert body["metadata"] == {
        "name": found["name"],
        "environment": f"demo:{found['version']}",
        "image": found["image"],
        "code": found["code"],
    }
    assert (body["entrypoint_num_cpus"], body["entrypoint_memory"]) == (0.5, 10**9)
    assert machine.run("runs", "logs", found["name"]).stdout == done.stdout


def test_status_of_a_job_is_passed_on(machine: Machine, dashboard: ray_dashboard.Dashboard) -> None:
    add(machine, dashboard)
    done = machine.run(*job("echo words; kill -9 $$"))
    assert done.status == 137, done.stderr
    assert done.stdout.startswith("words\n")
    assert "envbuild: job demo-" in done.stdout
    found = record(machine)
    assert (found["status"], found["exit_status"]) == ("failed", 137)


def test_interrupt_stops_the_job(machine: Machine, dashboard: ray_dashboard.Dashboard) -> None:
    add(machine, dashboard)
    process = started(machine, f"trap 'echo last words; exit 3' TERM; echo ready; {FOREVER}")
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.status == 130, done.stderr
    assert "last words\n" in done.stdout
    assert record(machine)["status"] == "stopped"
    (there,) = dashboard.jobs.values()
    assert there.stopped
    assert there.process.poll() is not None


def test_dashboard_that_is_away_for_a_while_ends_no_job(
    machine: Machine, dashboard: ray_dashboard.Dashboard
) -> None:
    add(machine, dashboard)
    process = started(machine, "echo ready; while [ ! -e go ]; do sleep 0.05; done; echo more; exit 4")
    dashboard.away = 2
    (name,) = dashboard.jobs
    (dashboard.directory / name / "go").touch()
    done = ended(process)
    assert done.status == 4, done.stderr
    assert done.stdout.startswith("more\n")
    assert "doesn't answer for now (HTTP 503)" in done.stderr


def test_dashboard_that_is_not_there_keeps_the_job_from_starting(machine: Machine) -> None:
    with ray_dashboard.serve() as dashboard:
        add(machine, dashboard)
    machine.run(*job("exit 0")).failed(9, "this can't run on ray:", "doesn't answer: ")
    assert json.loads(machine.run("runs", "list", "--json").stdout) == {"runs": []}


def test_token_comes_from_the_environment_and_is_nowhere_else(machine: Machine) -> None:
    with ray_dashboard.serve(token="s3cr3t-of-ray") as dashboard:
        add(machine, dashboard, "token-env=RAY_TOKEN")
        machine.run(*job("exit 0")).failed(9, "the variable RAY_TOKEN holds no token")
        machine.env["RAY_TOKEN"] = "s3cr3t-of-ray"
        done = machine.run(*job("echo yes"))
        assert (done.status, done.stdout) == (0, "yes\n"), done.stderr
        assert "s3cr3t" not in done.stderr
    for path in machine.home.rglob("*"):
        assert not path.is_file() or b"s3cr3t" not in path.read_bytes(), path


def test_dry_run_prints_the_request_and_submits_nothing(
    machine: Machine, dashboard: ray_dashboard.Dashboard
) -> None:
    place = machine.env["REGISTRY"] + "/team"
    done = machine.run("target", "add", "ray", "ray", f"address={dashboard.address}", f"registry={place}")
    assert done.status == 0, done.stderr
    # The image is user-managed: nobody knows whether it has Ray, so that isn't held against it.
    done = machine.run(*job("echo 'a b'", "--dry-run"))
    assert done.status == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["entrypoint"] == """sh -c 'echo '"'"'a b'"'"''"""
    assert shown["runtime_env"]["image_uri"].startswith(f"{place}/demo:")
    assert shown["runtime_env"]["image_uri"].endswith(f"@{shown['metadata']['image']}")
    assert dashboard.jobs == {}


def test_two_jobs_at_once(machine: Machine, dashboard: ray_dashboard.Dashboard) -> None:
    add(machine, dashboard)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda each=each: found.append(machine.run(*job(f"echo {each}")).stdout))
        for each in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["1\n", "2\n"]
    assert len(dashboard.jobs) == 2
