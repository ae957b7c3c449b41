"""Jobs through the official client, on an API server of the tests' own. Time passes only where one sleeps."""

from __future__ import annotations

import logging
import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from envbuild.errors import RunError
from envbuild.lazy import lazy
from envbuild.oci.image import Image
from envbuild.store.content import Store
from envbuild.targets.base import PreflightFinding
from envbuild.targets.kubernetes import access
from envbuild.targets.kubernetes import client as kubernetes_client
from envbuild.targets.kubernetes.access import ClusterAccess, connect
from envbuild.targets.kubernetes.client import POLLING, Cluster
from envbuild.targets.kubernetes.job import KubernetesExecution
from tests.fakes import kubernetes_api
from tests.fakes.kubernetes_api import TOKEN, KubernetesApi, Program
from tests.fakes.progress import Notes
from tests.unit.targets.kubernetes import NAME, a_job, a_target, an_image

LINES = [b"one\n", b"two\n", b"three\n", b"four"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with kubernetes_api.serve() as server:
        yield server


@pytest.fixture
def image(store: Store) -> Image:
    return an_image(store)


@pytest.fixture
def environ(api: KubernetesApi, tmp_path: Path) -> dict[str, str]:
    return {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig")), "HOME": str(tmp_path)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(environ: dict[str, str], store: Store, clock: Clock) -> Iterator[Cluster]:
    found = connect(
        ClusterAccess(), environ, store, replace(POLLING, patience=30, clock=clock, sleep=clock.sleep)
    )
    yield found
    found.close()


def created(cluster: Cluster, store: Store, *, keep: bool = False) -> KubernetesExecution:
    """A job on the cluster that wasn't waited for."""
    job = a_job(an_image(store))
    (file,) = a_target(store).job_files(job)
    cluster.create_job(yaml.safe_load(file.content))
    return KubernetesExecution(cluster, job.name, keep=keep)


# --- from start to end ------------------------------------------------------------------------------------


def test_job_runs_to_its_end_and_is_deleted(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    api.program = Program(lines=LINES, status=3)
    execution = a_target(store, environ=environ).submit(a_job(image))
    assert execution.identity == f"job/{NAME} in train"
    assert b"".join(execution.logs()) == b"one\ntwo\nthree\nfour"
    assert execution.wait() == 3
    assert execution.bring_outputs(Path("/nowhere")) is False
    execution.stop()
    execution.close()
    assert [job["metadata"]["name"] for job in api.created] == [NAME]
    assert (api.jobs, api.deleted) == ({}, [(NAME, "Background")])
    assert store.directory("scratch").exists()
    assert list(store.directory("scratch").iterdir()) == []


def test_job_that_is_to_be_kept_stays(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    execution = a_target(store, {"keep": "true"}, environ=environ).submit(a_job(image))
    assert b"".join(execution.logs()) == b""
    assert execution.wait() == 0
    execution.close()
    assert (list(api.jobs), api.deleted) == ([NAME], [])


def test_job_that_was_never_seen_to_end_stays(api: KubernetesApi, cluster: Cluster, store: Store) -> None:
    api.program = Program(held=True)
    created(cluster, store).close()
    assert (list(api.jobs), api.deleted) == ([NAME], [])


@pytest.mark.parametrize("breaks", [[0], [40], [33, 33], [1, 34, 60, 100]])
def test_log_goes_on_where_its_connection_broke(
    api: KubernetesApi, cluster: Cluster, store: Store, breaks: list[int]
) -> None:
    api.program = Program(lines=LINES, log_breaks=breaks)
    execution = created(cluster, store)
    assert b"".join(execution.logs()) == b"one\ntwo\nthree\nfour"
    logs = [query for method, path, query in api.requests if path.endswith("/log")]
    assert len(logs) == len(breaks) + 1
    assert "sinceSeconds" not in logs[0]
    if breaks[-1] >= 40:
        # From a minute before the last line on: nothing older is sent again.
        assert 55 <= int(logs[-1]["sinceSeconds"][0]) <= 70


def test_lines_that_come_while_the_job_ends_are_seen(
    api: KubernetesApi, cluster: Cluster, store: Store
) -> None:
    api.program = Program(lines=[b"first\n"], held=True, later=[b"last\n"])
    execution = created(cluster, store)
    log = execution.logs()
    assert next(log) == b"first\n"
    api.finish()
    assert b"".join(log) == b"last\n"
    assert execution.wait() == 0


def test_log_that_can_t_be_read_does_not_end_a_job(
    api: KubernetesApi, cluster: Cluster, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    api.program = Program(lines=LINES, status=5, log_breaks=[0] * 1000)
    execution = created(cluster, store)
    assert b"".join(execution.logs()) == b""
    assert execution.wait() == 5
    assert f"the end of the log of {NAME} can't be read" in caplog.messages


def test_log_that_says_nothing_is_asked_for_anew(
    api: KubernetesApi, environ: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection may be dead without either end knowing."""
    monkeypatch.setattr(kubernetes_client, "SILENCE_SECONDS", 0.1)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            api.finish()

    api.program = Program(lines=[b"one\n"], held=True, later=[b"two\n"])
    quick = connect(ClusterAccess(), environ, store, replace(POLLING, patience=30, sleep=sleep))
    execution = created(quick, store)
    assert list(execution.logs()) == [b"one\n", b"two\n"]
    assert execution.wait() == 0
    execution.close()
    assert len([path for _, path, _ in api.requests if path.endswith("/log")]) == 4


# --- how it ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "status", "told"),
    [
        (Program(status=0), 0, None),
        (Program(status=1, message="ignored"), 1, None),
        (
            Program(status=137, reason="OOMKilled"),
            137,
            "OOMKilled: it used more memory than it may, see the target's option memory",
        ),
        (Program(status=137), 137, None),
        (
            Program(status=128, reason="StartError", message='exec: "pithon":\n not found'),
            128,
            'StartError: exec: "pithon": not found',
        ),
        (Program(evicted="the node was low on memory"), 137, "Evicted: the node was low on memory"),
    ],
)
def test_exit_status_and_why(
    api: KubernetesApi,
    cluster: Cluster,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    program: Program,
    status: int,
    told: str | None,
) -> None:
    api.program = program
    assert created(cluster, store).wait() == status
    assert caplog.messages == ([f"{NAME} ended: {told}"] if told else [])


def test_deadline_takes_the_pod_away(
    api: KubernetesApi, cluster: Cluster, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    execution = created(cluster, store)
    api.pod_is_gone = True
    api.conditions = [
        {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    ]
    assert b"".join(execution.logs()) == b""
    assert execution.wait() == 137
    assert caplog.messages == [f"{NAME} ended: DeadlineExceeded: too long"]


def test_job_that_somebody_deletes_is_lost(api: KubernetesApi, cluster: Cluster, store: Store) -> None:
    execution = created(cluster, store)
    api.jobs.clear()
    with pytest.raises(RunError, match=f"the job {NAME} was deleted on the cluster"):
        list(execution.logs())


def test_stop_returns_when_the_job_is_gone(api: KubernetesApi, cluster: Cluster, store: Store) -> None:
    api.program = Program(held=True)
    execution = created(cluster, store)
    execution.stop()
    assert (api.jobs, api.deleted) == ({}, [(NAME, "Foreground")])
    execution.stop()
    # Who follows the log meanwhile sees an end.
    assert b"".join(execution.logs()) == b""
    assert execution.wait() == 143
    execution.close()
    assert len(api.deleted) == 1


def test_job_that_won_t_go_is_told(
    api: KubernetesApi, cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = created(cluster, store)
    monkeypatch.setattr(cluster, "job", lambda name: {"metadata": {"finalizers": ["a/b"]}})
    with pytest.raises(RunError, match=f"the cluster has not ended {NAME} within 50 s") as raised:
        execution.stop()
    assert raised.value.hint == f"look after it: kubectl -n train get job,pod -l dev.envbuild/run={NAME}"


# --- before it starts -------------------------------------------------------------------------------------


def test_start_is_waited_for_and_each_reason_told_once(
    api: KubernetesApi, cluster: Cluster, store: Store
) -> None:
    pull = ("ErrImagePull", "registry is busy")
    api.program = Program(waiting=[None, ("ContainerCreating", ""), pull, pull, ("ContainerCreating", "")])
    told: list[str] = []
    created(cluster, store).await_start(600, told.append)
    assert told == [f"{NAME} waits for its start: ErrImagePull: registry is busy"]


@pytest.mark.parametrize(
    ("program", "seconds", "reason"),
    [
        (
            Program(waiting=[("ImagePullBackOff", "no such\nimage")], stuck=True),
            120,
            "ImagePullBackOff: no such image",
        ),
        (Program(waiting=[("InvalidImageName", "bad")], stuck=True), 0, "InvalidImageName: bad"),
        (
            Program(waiting=[("CreateContainerConfigError", 'secret "a" not found')], stuck=True),
            120,
            'CreateContainerConfigError: secret "a" not found',
        ),
        (Program(waiting=[("ContainerCreating", "")], stuck=True), 200, "ContainerCreating"),
        (Program(unschedulable="0/3 nodes are available"), 200, "Unschedulable: 0/3 nodes are available"),
        (Program(waiting=[None], stuck=True), 200, "Pending: no pod was made yet"),
    ],
)  # fmt: skip
def test_start_that_does_not_come_is_given_up(
    api: KubernetesApi, cluster: Cluster, store: Store, program: Program, seconds: int, reason: str
) -> None:
    api.program = program
    with pytest.raises(RunError) as raised:
        created(cluster, store).await_start(200, lambda text: None)
    assert raised.value.message == f"{NAME} has not started within {seconds} s: {reason}"


def test_quota_that_keeps_the_pod_away_is_told(api: KubernetesApi, cluster: Cluster, store: Store) -> None:
    api.program = Program(waiting=[None], stuck=True)
    api.warnings = [("FailedCreate", "exceeded quota: gpus")]
    with pytest.raises(RunError, match="within 120 s: FailedCreate: FailedCreate: exceeded quota: gpus"):
        created(cluster, store).await_start(600, lambda text: None)


def test_job_that_does_not_start_is_taken_back(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    api.program = Program(waiting=[("InvalidImageName", "bad")], stuck=True)
    progress = Notes()
    with pytest.raises(RunError, match="InvalidImageName"):
        a_target(store, environ=environ, progress=progress).submit(a_job(image))
    assert (api.jobs, api.deleted) == ({}, [(NAME, "Background")])
    assert progress.notes == [f"{NAME} waits for its start: InvalidImageName: bad"]
    assert list(store.directory("scratch").iterdir()) == []


def test_manifest_that_the_cluster_refuses_says_why(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    api.denied = {("create", "jobs")}
    with pytest.raises(RunError, match='the cluster refuses: jobs is forbidden: User "ann" cannot create'):
        a_target(store, environ=environ).submit(a_job(image))
    assert list(store.directory("scratch").iterdir()) == []


def test_job_that_may_not_be_watched_is_taken_back(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    api.denied = {("list", "pods")}
    with pytest.raises(RunError, match="pods is forbidden"):
        a_target(store, environ=environ).submit(a_job(image))
    assert (api.jobs, api.deleted) == ({}, [(NAME, "Background")])


def test_job_of_the_same_name_is_left_alone(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    api.program = Program(held=True)
    other = a_target(store, environ=environ).submit(a_job(image))
    with pytest.raises(RunError, match="already exists"):
        a_target(store, environ=environ).submit(a_job(image))
    assert (list(api.jobs), api.deleted) == ([NAME], [])
    other.close()


# --- a server that goes away ------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [[503], [429, 500, 502, 503, 504], [None]])
def test_server_that_is_away_for_a_moment_is_tried_again(
    api: KubernetesApi, cluster: Cluster, store: Store, clock: Clock, faults: list[int | None]
) -> None:
    """Also where the job was created and only the answer lost."""
    api.faults = list(faults)
    assert created(cluster, store).wait() == 0
    assert len(api.created) == 1
    assert clock.now == sum((0.5, 1, 2, 4, 5)[: len(faults)])


def test_job_of_that_name_is_not_taken_for_ours(api: KubernetesApi, cluster: Cluster, store: Store) -> None:
    created(cluster, store)
    with pytest.raises(RunError, match="already exists"):
        created(cluster, store)


def test_server_that_stays_away_loses_the_job(
    api: KubernetesApi, cluster: Cluster, store: Store, clock: Clock
) -> None:
    api.program = Program(lines=LINES, held=True)
    execution = created(cluster, store)
    log = execution.logs()
    assert [next(log) for _ in LINES] == LINES
    api.away = True
    with pytest.raises(RunError) as raised:
        next(log)
    where = api.url.removeprefix("http://")
    assert raised.value.message == (
        f"the API server at {where} can't be reached: the connection broke; "
        f"{NAME} may go on without being watched"
    )
    assert raised.value.hint == f"look after it: kubectl -n train logs -f job/{NAME}"
    assert 25 <= clock.now <= 32


def test_credentials_that_end_while_a_job_runs(api: KubernetesApi, cluster: Cluster, store: Store) -> None:
    execution = created(cluster, store)
    api.faults = [401]
    with pytest.raises(RunError, match="doesn't know these credentials"):
        list(execution.logs())


@pytest.mark.parametrize("answer", [b"<html>", b"\xff", b"[" * 100_000], ids=["page", "bytes", "depth"])
def test_answer_that_is_none_is_told(
    api: KubernetesApi, cluster: Cluster, store: Store, answer: bytes
) -> None:
    api.answer = answer
    with pytest.raises(RunError, match="gave an answer that is none of Kubernetes'"):
        cluster.job(NAME)


# --- a look before ----------------------------------------------------------------------------------------


def findings(
    store: Store, environ: dict[str, str], options: dict[str, str] | None = None
) -> list[PreflightFinding]:
    return list(a_target(store, options, environ=environ).findings(an_image(store)))


def test_nothing_is_in_the_way(api: KubernetesApi, store: Store, environ: dict[str, str]) -> None:
    api.objects = {("secrets", "pull"), ("serviceaccounts", "trainer"), ("persistentvolumeclaims", "runs")}
    options = {"image-pull-secret": "pull", "service-account": "trainer", "outputs-claim": "runs"}
    assert findings(store, environ, options) == []
    assert api.secrets_shown == 0
    assert [path for method, path, _ in api.requests if path.endswith("/secrets/pull")] != []


def test_parts_that_are_not_there_are_found(
    api: KubernetesApi, store: Store, environ: dict[str, str]
) -> None:
    options = {
        "image-pull-secret": "pull",
        "service-account": "trainer",
        "outputs-claim": "runs",
        "secret-env": "a,b",
    }
    api.objects = {("secrets", "b")}
    assert findings(store, environ, options) == [
        PreflightFinding(text="there is no secret pull in the namespace train"),
        PreflightFinding(text="there is no secret a in the namespace train"),
        PreflightFinding(text="there is no service account trainer in the namespace train"),
        PreflightFinding(text="there is no persistent volume claim runs in the namespace train"),
    ]


def test_unknown_namespace_is_found(api: KubernetesApi, store: Store, environ: dict[str, str]) -> None:
    where = api.url.removeprefix("http://")
    assert findings(store, environ, {"namespace": "tain"}) == [
        PreflightFinding(
            text=f"the cluster at {where} has no namespace tain",
            hint="make it: kubectl create namespace tain",
        )
    ]


def test_missing_permissions_are_found(api: KubernetesApi, store: Store, environ: dict[str, str]) -> None:
    api.denied = {("create", "jobs"), ("get", "jobs"), ("get", "pods/log"), ("delete", "jobs")}
    hint = "ask for a role with: create, get and delete jobs; list pods; get pods/log"
    assert findings(store, environ) == [
        PreflightFinding(text="you may not create jobs in the namespace train", hint=hint),
        PreflightFinding(text="you may not get jobs in the namespace train", hint=hint),
        PreflightFinding(text="you may not get pods/log in the namespace train", hint=hint),
        PreflightFinding(
            text="you may not delete jobs in the namespace train: Ctrl-C can't stop this one", error=False
        ),
    ]


def test_what_may_not_be_seen_is_not_in_the_way(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    api.denied = {("get", "namespaces"), ("get", "secrets"), ("list", "nodes")}
    assert findings(store, environ, {"image-pull-secret": "pull"}) == []
    assert a_target(store, environ=environ).bytes_to_pull(image) is None


def test_nodes_must_fit_the_image(api: KubernetesApi, store: Store, environ: dict[str, str]) -> None:
    where = api.url.removeprefix("http://")
    api.nodes = [{"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"}]
    absent = PreflightFinding(
        text=f"the cluster at {where} has no node for linux/amd64",
        hint="set the target's platform to that of its nodes",
    )
    assert findings(store, environ) == [absent]
    # Nodes that are made when they are asked for.
    api.nodes = []
    assert [(finding.text, finding.error) for finding in findings(store, environ)] == [(absent.text, False)]
    api.nodes = [dict(kubernetes_api.NODE)]
    assert findings(store, environ, {"node-selector": "pool=gpu"}) == [
        PreflightFinding(text="no node has the labels pool=gpu now", error=False)
    ]


def test_what_nodes_have_is_not_pulled(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str]
) -> None:
    target = a_target(store, environ=environ)
    assert target.bytes_to_pull(image) is None
    api.node_images = [f"registry.example.org/team/demo@{image.digest}"]
    assert target.bytes_to_pull(image) == 0
    api.nodes = []
    assert target.bytes_to_pull(image) is None


# --- what opens a cluster ---------------------------------------------------------------------------------


def test_cluster_that_does_not_answer_is_found(store: Store, environ: dict[str, str], image: Image) -> None:
    assert findings(store, environ, {"context": "other"}) == [
        PreflightFinding(
            text="the API server at 127.0.0.1:9 can't be reached: the connection is refused",
            hint="check the cluster's address, and the network: kubectl get --raw /readyz",
        )
    ]
    assert a_target(store, {"context": "other"}, environ=environ).bytes_to_pull(image) is None


def test_credentials_that_are_not_taken_are_found(
    api: KubernetesApi, store: Store, environ: dict[str, str], tmp_path: Path
) -> None:
    api.kubeconfig(tmp_path / "kubeconfig", token="old-token")
    (found,) = findings(store, environ)
    where = api.url.removeprefix("http://")
    assert found.text == f"the API server at {where} doesn't know these credentials"
    assert "old-token" not in repr(found)


def test_namespace_is_the_option_s_then_the_context_s_then_default(
    api: KubernetesApi, store: Store, environ: dict[str, str]
) -> None:
    def namespace(access: ClusterAccess) -> str:
        found = connect(access, environ, store, POLLING)
        found.close()
        return found.namespace

    assert namespace(ClusterAccess(namespace="mine")) == "mine"
    assert namespace(ClusterAccess()) == "train"
    assert namespace(ClusterAccess(context="other")) == "default"


def test_kubeconfig_is_the_option_s_then_the_variable_s_then_the_home_s(
    api: KubernetesApi, store: Store, tmp_path: Path
) -> None:
    home = {"HOME": str(tmp_path)}
    with pytest.raises(RunError, match=f"there is no kubeconfig {tmp_path}/.kube/config"):
        connect(ClusterAccess(), home, store, POLLING)
    named = api.kubeconfig(tmp_path / "named", namespace="named")
    variable = {**home, "KUBECONFIG": str(api.kubeconfig(tmp_path / "variable", namespace="variable"))}
    api.kubeconfig(tmp_path / ".kube" / "config", namespace="home")
    given = (
        (ClusterAccess(kubeconfig=str(named)), variable),
        (ClusterAccess(), variable),
        (ClusterAccess(), home),
    )
    found = [connect(access, environ, store, POLLING) for access, environ in given]
    assert [each.namespace for each in found] == ["named", "variable", "home"]
    for each in found:
        each.close()
    with pytest.raises(RunError, match="there is no kubeconfig /absent"):
        connect(ClusterAccess(kubeconfig="/absent"), variable, store, POLLING)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("current-context: main", "current-context: mein"), "it has no mein"),
        (lambda text: text.replace("cluster: main", "cluster: mein"), "it has no mein"),
        (lambda text: text.replace("server:", "sever:"), "it has no address of a server"),
        (lambda text: text.replace("http://", ""), "it has no address of a server"),
        (lambda text: text.replace("users:", "users: ["), "it is not as a kubeconfig should be"),
        (lambda text: text.replace(f"token: {TOKEN}", f"tokn: [{TOKEN}"), "it is not as a kubeconfig"),
        (lambda text: text.replace("name: ann", "nam: ann"), "something in it is missing"),
        (lambda text: "- " + TOKEN, "it is not as a kubeconfig should be"),
        (lambda text: "", "something in it is missing"),
    ],
)
def test_damaged_kubeconfig_is_told_without_what_stands_in_it(
    store: Store,
    environ: dict[str, str],
    change: Any,
    why: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = Path(environ["KUBECONFIG"])
    path.write_text(change(path.read_text()))
    found = findings(store, environ)
    assert found != []
    assert TOKEN not in repr(found) + caplog.text + "".join(capfd.readouterr())
    assert found[0].text.startswith(f"the kubeconfig {path} can't be used: {why}")
    assert list(store.directory("scratch").iterdir()) == []


def test_unknown_context_is_found(store: Store, environ: dict[str, str]) -> None:
    (found,) = findings(store, environ, {"context": "prod"})
    assert found.text == f"the kubeconfig {environ['KUBECONFIG']} can't be used: it has no prod"


def test_keys_in_a_kubeconfig_leave_no_file(store: Store, tmp_path: Path) -> None:
    """The client writes them into files, which are ours to remove."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    user = authority.issue_cert("ann@example.org")
    with kubernetes_api.serve(tls=context) as api:
        path = api.kubeconfig(tmp_path / "kubeconfig")
        document = yaml.safe_load(path.read_text())
        document["clusters"][0]["cluster"]["certificate-authority-data"] = encoded(authority.cert_pem)
        document["users"][0]["user"] |= {
            "client-certificate-data": encoded(user.cert_chain_pems[0]),
            "client-key-data": encoded(user.private_key_pem),
        }
        path.write_text(yaml.safe_dump(document))
        environ = {"KUBECONFIG": str(path)}
        for _ in range(2):
            found = connect(ClusterAccess(), environ, store, POLLING)
            (scratch,) = [path for path in store.directory("scratch").iterdir() if path.is_dir()]
            assert scratch.stat().st_mode & 0o777 == 0o700
            assert len(list(scratch.iterdir())) == 3
            assert found.has_namespace() is True
            found.close()
            assert not scratch.exists()
        del document["clusters"][0]["cluster"]["certificate-authority-data"]
        path.write_text(yaml.safe_dump(document))
        (finding,) = findings(store, environ)
        where = api.url.removeprefix("https://")
    assert re.fullmatch(rf".*{re.escape(where)}.*: its certificate isn't trusted", finding.text)


def encoded(part: trustme.Blob) -> str:
    import base64

    return base64.b64encode(part.bytes()).decode()


def test_missing_extra_is_named(
    store: Store, environ: dict[str, str], image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setattr(access, "kubernetes", lazy("kubernetes"))
    target = a_target(store, environ=environ)
    assert target.job_files(a_job(image)) != ()
    with pytest.raises(RunError, match="Kubernetes' client, which isn't installed") as raised:
        target.submit(a_job(image))
    assert raised.value.hint == "pip install 'envbuild[kubernetes]'"


def test_nothing_secret_is_logged(
    api: KubernetesApi, store: Store, image: Image, environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api.program = Program(lines=LINES, log_breaks=[40])
    api.faults = [503]
    target = a_target(store, {"image-pull-secret": "pull"}, environ=environ)
    target.findings(image)
    execution = target.submit(a_job(image))
    assert b"".join(execution.logs()) != b""
    execution.close()
    assert TOKEN not in caplog.text
