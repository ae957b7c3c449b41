"""What Ray is handed, and how a job is watched through its dashboard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import RunError, UsageError
from envbuild.store.content import Store
from envbuild.targets.base import TargetRecord
from envbuild.targets.kinds import TargetContext
from envbuild.targets.polling import ServiceRefusal, ServiceUnreachable
from envbuild.targets.ray.client import RayDashboard
from envbuild.targets.ray.job import POLLING, RayExecution
from envbuild.targets.ray.target import KIND, RayTarget
from tests.fakes import ray_dashboard
from tests.fakes.progress import Notes
from tests.unit.targets.kubernetes import NAME, REGISTRY, a_job, an_image

LIMIT = 20.0
"""Seconds after which a job of a test counts as hanging."""


def a_target(store: Store, options: Mapping[str, str]) -> RayTarget:
    record = TargetRecord(name="r", kind="ray", options=tuple(sorted(options.items())))
    return KIND.open(record, TargetContext(store=store, progress=Notes(), state=Path("/nowhere"), environ={}))


RAY_JOB = """\
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: demo-20261123-060000-ab12
  labels:
    app.kubernetes.io/managed-by: envbuild
spec:
  entrypoint: python 'a b.py'
  shutdownAfterJobFinishes: true
  metadata:
    name: demo-20261123-060000-ab12
    environment: demo:3
    image: IMAGE
    code: CODE
  runtimeEnvYAML: "env_vars:\\n  DEPTH: '3'\\n"
  rayClusterSpec:
    headGroupSpec:
      rayStartParams:
        dashboard-host: 0.0.0.0
      template:
        spec:
          containers:
          - name: ray-head
            image: registry.example.org/team/demo:abc@IMAGE
            resources:
              requests:
                cpu: 500m
                memory: '1000000000'
                nvidia.com/gpu: '1'
              limits:
                cpu: 500m
                memory: '1000000000'
                nvidia.com/gpu: '1'
    workerGroupSpecs:
    - groupName: workers
      replicas: 2
      minReplicas: 2
      maxReplicas: 2
      rayStartParams: {}
      template:
        spec:
          containers:
          - name: ray-worker
            image: registry.example.org/team/demo:abc@IMAGE
            resources:
              requests:
                cpu: 500m
                memory: '1000000000'
                nvidia.com/gpu: '1'
              limits:
                cpu: 500m
                memory: '1000000000'
                nvidia.com/gpu: '1'
"""
CLUSTER = """\
cluster_name: demo-20261123-060000-ab12
docker:
  image: registry.example.org/team/demo:abc@IMAGE
  container_name: ray
  pull_before_run: true
provider:
  type: local
  head_ip: 10.0.0.1
  worker_ips:
  - 10.0.0.2
  - b.example.org
auth:
  ssh_user: ann
max_workers: 2
min_workers: 2
head_start_ray_commands:
- ray stop
- ray start --head --port=6379 --dashboard-port=8265 --autoscaling-config=~/ray_bootstrap_config.yaml
worker_start_ray_commands:
- ray stop
- ray start --address=$RAY_HEAD_IP:6379
"""


def test_cluster_without_a_dashboard_gets_files(store: Store) -> None:
    image = an_image(store)
    job = a_job(image, ("python", "a b.py"), env=(("DEPTH", "3"),))
    target = a_target(
        store,
        {
            "registry": REGISTRY,
            "cpus": "0.5",
            "gpus": "0.5",
            "memory": "1GB",
            "workers": "2",
            "head": "10.0.0.1",
            "hosts": "10.0.0.2,b.example.org",
            "ssh-user": "ann",
        },
    )
    found = {file.name: file.content for file in target.job_files(job)}
    assert found == {
        "ray-job.yaml": RAY_JOB.replace("IMAGE", image.digest).replace("CODE", str(job.code_digest)),
        "ray-cluster.yaml": CLUSTER.replace("IMAGE", image.digest),
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "ray://h:10001"}, "address of Ray Client"),
        ({"address": "http://ann:word@h:8265"}, "secret"),
        ({"address": "http://h:8265/x?y"}, "must be the dashboard's address"),
        ({"address": "file:///etc/passwd"}, "must be the dashboard's address"),
        ({"address": "http://h:8265"}, "nodes take the image from a registry"),
        ({"image": "none", "registry": REGISTRY}, "nothing is pulled from a registry"),
        ({"token-env": "s3cr3t!"}, "must be a variable's name"),
        ({"cpus": "0"}, "must be a number above 0"),
        ({"hosts": "a,;rm"}, "must be hosts"),
        ({"head": "-oProxyCommand=x"}, "must be a host"),
        ({"token": "x"}, "token"),
    ],
)
def test_options_that_do_not_fit_are_refused(store: Store, options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        a_target(store, options)


# --- a job, through the dashboard -----------------------------------------------------------------------


@pytest.fixture
def dashboard() -> Iterator[ray_dashboard.Dashboard]:
    with ray_dashboard.serve() as found:
        yield found


class Watched:
    """A job of a shell's, started on the dashboard. ``between`` is called where the execution would pause;
    its clock goes on by each pause."""

    def __init__(self, state: ray_dashboard.Dashboard, script: str) -> None:
        self.state = state
        self.notes = Notes()
        self.between: Callable[[], None] = lambda: None
        self._clock = 0.0
        self._deadline = time.monotonic() + LIMIT
        state.start({"submission_id": NAME, "entrypoint": script, "runtime_env": {}})
        self.execution = RayExecution(
            lambda: RayDashboard(state.address, None),
            NAME,
            self.notes,
            replace(POLLING, patience=10, sleep=self._pause, clock=lambda: self._clock),
        )

    def _pause(self, seconds: float) -> None:
        assert time.monotonic() < self._deadline, "the job hangs"
        self._clock += seconds
        self.between()

    def ended(self) -> None:
        self.state.jobs[NAME].process.wait(LIMIT)

    def comes_to(self, name: str) -> None:
        """Waits for a file that the job makes."""
        while not self.file(name).exists():
            assert time.monotonic() < self._deadline, "the job hangs"
            time.sleep(0.01)

    def logged(self) -> list[bytes]:
        return list(self.execution.logs())

    def file(self, name: str) -> Path:
        return self.state.directory / NAME / name


@pytest.fixture
def watched(dashboard: ray_dashboard.Dashboard) -> Iterator[Callable[[str], Watched]]:
    with contextlib.ExitStack() as stack:

        def start(script: str) -> Watched:
            made = Watched(dashboard, script)
            stack.callback(made.execution.close)
            return made

        yield start


@pytest.mark.parametrize(
    ("script", "status", "printed"),
    [
        ("echo a", 0, b"a\n"),
        ("exit 7", 7, f"envbuild: job {NAME} failed: Job entrypoint command failed with exit code 7\n"),
        (
            "kill -9 $$",
            137,
            f"envbuild: job {NAME} failed: Job entrypoint command failed with exit code -9\n",
        ),
    ],
)
def test_state_of_a_job_becomes_a_status(
    watched: Callable[[str], Watched], script: str, status: int, printed: bytes | str
) -> None:
    job = watched(script)
    job.ended()
    assert job.logged() == [printed.encode() if isinstance(printed, str) else printed]
    assert job.execution.wait() == status


def test_log_comes_in_pieces_and_nothing_twice(watched: Callable[[str], Watched]) -> None:
    job = watched("echo one; touch 1; until [ -e 2 ]; do sleep 0.01; done; printf 'zwei \\303\\274\\n'")
    job.comes_to("1")
    logs = job.execution.logs()
    assert next(logs) == b"one\n"
    job.file("2").touch()
    job.ended()
    assert list(logs) == ["zwei ü\n".encode()]


def test_job_that_is_stopped_has_ended(watched: Callable[[str], Watched]) -> None:
    job = watched("trap 'echo last words; exit 3' TERM; touch 1; while :; do sleep 0.01; done")
    job.comes_to("1")
    job.execution.stop()
    assert job.state.jobs[NAME].stopped
    # What the shell says of the sleep that was ended with it may come first.
    assert b"".join(job.logged()).endswith(f"last words\nenvbuild: job {NAME} was stopped\n".encode())
    assert job.execution.wait() == 143


def test_dashboard_that_is_away_for_a_while_is_asked_again(watched: Callable[[str], Watched]) -> None:
    job = watched("exit 4")
    job.ended()
    job.state.away = 3
    assert job.execution.wait() == 4
    (note,) = job.notes.notes
    assert note.endswith(f"doesn't answer for now (HTTP 503); job {NAME} may go on")


def test_dashboard_that_stays_away_is_waited_for_as_long_as_was_said(
    watched: Callable[[str], Watched],
) -> None:
    job = watched("exit 4")
    job.state.away = 1000
    with pytest.raises(RunError, match=r"\(HTTP 503\), for 10 s now") as raised:
        job.execution.wait()
    assert raised.value.hint == f"job {NAME} may still run: see the dashboard"
    # The first, and one after each pause of two seconds until more than ten are over.
    assert 1000 - job.state.away == 7


def test_cluster_that_was_started_again_knows_nothing_of_the_job(watched: Callable[[str], Watched]) -> None:
    job = watched("while :; do sleep 0.01; done")
    job.between = lambda: job.state.forget(NAME)
    with pytest.raises(RunError, match=f"the cluster knows nothing of job {NAME} any more"):
        job.execution.wait()


def test_refusal_tells_the_last_line_of_what_ray_says(dashboard: ray_dashboard.Dashboard) -> None:
    dashboard.refuses = "ValueError: no such\x1b[31m runtime_env"
    client = RayDashboard(dashboard.address, None)
    with contextlib.closing(client), pytest.raises(ServiceRefusal) as raised:
        client.submit({})
    assert raised.value.status == 500
    assert raised.value.message == (
        "the dashboard refuses POST /api/jobs/ (HTTP 500): ValueError: no such?[31m runtime_env"
    )


def test_token_is_asked_for_and_brought() -> None:
    with ray_dashboard.serve(token="right") as state:
        client = RayDashboard(state.address, "wrong")
        with contextlib.closing(client), pytest.raises(ServiceRefusal, match=r"\(HTTP 401\)") as raised:
            client.version()
        with contextlib.closing(RayDashboard(state.address, "right")) as client:
            assert client.version() == ray_dashboard.VERSION
    assert raised.value.hint == "see token-env of the target"


def test_dashboard_that_is_not_there_is_away() -> None:
    with ray_dashboard.serve() as state:
        address = state.address
    with (
        contextlib.closing(RayDashboard(address, None)) as client,
        pytest.raises(ServiceUnreachable, match="doesn't answer: "),
    ):
        client.version()
