"""A stand-in for a Kubernetes API server on loopback: jobs that print and end, and what can go wrong.

It answers the few requests that a job takes with documents of the shapes that a cluster sends, and takes no
manifest that the published schemas don't.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

TOKEN = "kube-token-51f0c2"
"""What the server knows its user by: it may appear nowhere else."""
NODE = {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
_LIMIT = 60
_SECRET_KINDS = {"secrets": "Secret", "serviceaccounts": "ServiceAccount"}
_KINDS = {**_SECRET_KINDS, "persistentvolumeclaims": "PersistentVolumeClaim"}


@dataclass(kw_only=True)
class Program:
    """What the next job does. ``lines`` are printed at once; it ends with ``status``, unless it is held."""

    lines: Sequence[bytes] = ()
    status: int = 0
    reason: str | None = None
    """``OOMKilled``, say; by default ``Completed`` or ``Error``."""
    message: str | None = None
    held: bool = False
    """Whether it goes on after its lines until ``KubernetesApi.finish``."""
    later: Sequence[bytes] = ()
    """Lines that it prints as it is finished."""
    waiting: Sequence[tuple[str, str] | None] = ()
    """Reason and message of its container before it starts, one for each look at the pod; the last one stays
    where ``stuck``. ``None``: no pod is there yet."""
    stuck: bool = False
    unschedulable: str | None = None
    evicted: str | None = None
    log_breaks: Sequence[int] = ()
    """Of the next logs: bytes after which the connection breaks."""


@dataclass(kw_only=True)
class KubernetesApi:
    """State and behaviour; change the fields while it runs."""

    url: str = ""
    namespaces: set[str] = field(default_factory=lambda: {"default", "train"})
    objects: set[tuple[str, str]] = field(default_factory=set)
    """``secrets`` and other kinds, with their names."""
    nodes: list[dict[str, str]] = field(default_factory=lambda: [dict(NODE)])
    """Labels."""
    node_images: list[str] = field(default_factory=list)
    denied: set[tuple[str, str]] = field(default_factory=set)
    """Verbs and resources that the user may not: ``("create", "jobs")``."""
    program: Program = field(default_factory=Program)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Those that are there, as they were created."""
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[tuple[str, str]] = field(default_factory=list)
    """Names, and in which order with their pods."""
    conditions: list[dict[str, str]] = field(default_factory=list)
    """Of every job."""
    pod_is_gone: bool = False
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """Reasons and messages of events."""
    away: bool = False
    """Whether connections are broken without an answer."""
    faults: list[int | None] = field(default_factory=list)
    """Statuses of the next answers, in turn. 0: as it should be; None: what was asked is done, and the
    connection breaks."""
    answer: bytes | None = None
    """What all answers say, instead."""
    requests: list[tuple[str, str, Mapping[str, list[str]]]] = field(default_factory=list)
    secrets_shown: int = 0
    """How often the content of a secret was sent."""
    followed: threading.Event = field(default_factory=threading.Event)
    """A held job's lines were sent."""
    looks: int = 0
    """At a pod that waits."""
    finished: threading.Event = field(default_factory=threading.Event)
    ended: bool = False
    closing: threading.Event = field(default_factory=threading.Event)
    born: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def finish(self) -> None:
        """Lets the held job end."""
        self.finished.set()

    def kubeconfig(self, path: Path, *, namespace: str = "train", token: str = TOKEN, **cluster: str) -> Path:
        """A kubeconfig with two contexts: ``main``, the current one, and ``other``, which nobody answers."""
        path.parent.mkdir(parents=True, exist_ok=True)
        contexts = [
            {"name": "main", "context": {"cluster": "main", "user": "ann", "namespace": namespace}},
            {"name": "other", "context": {"cluster": "other", "user": "ann"}},
        ]
        clusters = [
            {"name": "main", "cluster": {"server": self.url, **cluster}},
            {"name": "other", "cluster": {"server": "http://127.0.0.1:9"}},
        ]
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "main",
            "clusters": clusters,
            "contexts": contexts,
            "users": [{"name": "ann", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    # --- what it keeps --------------------------------------------------------------------------------

    def stamped(self) -> list[tuple[datetime, bytes]]:
        """The lines printed so far, with their times: two in each millisecond."""
        lines = [*self.program.lines, *(self.program.later if self.is_over else ())]
        return [(self.born + timedelta(milliseconds=number // 2), line) for number, line in enumerate(lines)]

    @property
    def is_over(self) -> bool:
        return not self.program.held or self.finished.is_set()

    def pod(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """The pod as it is at this look, which counts."""
        program = self.program
        template = job["spec"]["template"]
        name = f"{job['metadata']['name']}-x7k2p"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": job["metadata"]["namespace"],
                "labels": template["metadata"]["labels"],
                "creationTimestamp": "2026-11-23T06:00:00Z",
            },
            "spec": template["spec"],
        }
        status: dict[str, Any] = {"phase": "Pending", "conditions": []}
        main: dict[str, Any] = {"name": "main", "ready": False, "restartCount": 0, "image": "", "imageID": ""}
        if program.unschedulable is not None:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            status["conditions"] = [{**condition, "message": program.unschedulable}]
            return {**pod, "status": status}
        if self.looks < len(program.waiting) or (program.waiting and program.stuck):
            waits = program.waiting[min(self.looks, len(program.waiting) - 1)]
            self.looks += 1
            if waits is None:
                return None
            main["state"] = {"waiting": {"reason": waits[0], "message": waits[1]}}
        elif program.evicted is not None and self.is_over:
            status = {"phase": "Failed", "reason": "Evicted", "message": program.evicted}
            return {**pod, "status": status}
        elif self.is_over:
            reason = program.reason or ("Completed" if program.status == 0 else "Error")
            state: dict[str, Any] = {"exitCode": program.status, "reason": reason}
            if program.message is not None:
                state["message"] = program.message
            main["state"] = {"terminated": state}
            status["phase"] = "Succeeded" if program.status == 0 else "Failed"
        else:
            main["state"] = {"running": {"startedAt": "2026-11-23T06:00:01Z"}}
            status["phase"] = "Running"
        # A cluster may add containers of its own.
        status["containerStatuses"] = [{"name": "mesh", "state": {"running": {}}}, main]
        return {**pod, "status": status}


@contextmanager
def serve(*, tls: ssl.SSLContext | None = None) -> Iterator[KubernetesApi]:
    """A server that runs while the context is open."""
    api = KubernetesApi()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Connections that clients break are part of what is tested."""

    server = Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.closing.set()
        api.finish()
        server.shutdown()
        thread.join()
        server.server_close()


class _Broken(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    api: KubernetesApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _LIMIT

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        api = self.api
        api.requests.append((self.command, url.path, query))
        try:
            if api.away:
                raise _Broken
            fault = api.faults.pop(0) if api.faults else 0
            if fault:
                self._status(fault, "fault", "asked for by the test")
                return
            self._broken = fault is None
            if api.answer is not None:
                self._send(200, api.answer)
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._status(401, "Unauthorized", "Unauthorized")
                return
            self._route(url.path.strip("/").split("/"), query, json.loads(body) if body else {})
        except (_Broken, OSError):
            self.close_connection = True

    def _route(self, path: list[str], query: Mapping[str, list[str]], body: dict[str, Any]) -> None:
        api = self.api
        match path:
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]:
                asked = body["spec"]["resourceAttributes"]
                resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
                allowed = (asked["verb"], resource) not in api.denied
                self._json(201, {**body, "status": {"allowed": allowed}})
            case ["api", "v1", "nodes"]:
                if self._may("list", "nodes"):
                    self._json(200, {"kind": "NodeList", "apiVersion": "v1", "items": self._nodes(query)})
            case ["api", "v1", "namespaces", name]:
                self._one("namespaces", "Namespace", name, name in api.namespaces)
            case ["api" | "apis", *_] if (
                "namespaces" in path and path[path.index("namespaces") + 1] not in api.namespaces
            ):
                self._status(404, "NotFound", "the namespace is not there")
            case ["api", "v1", "namespaces", _, kind, name] if kind in _KINDS:
                self._one(kind, _KINDS[kind], name, (kind, name) in api.objects)
            case ["api", "v1", "namespaces", _, "events"]:
                if self._may("list", "events"):
                    items = [{"type": "Warning", "reason": reason, "message": message, "lastTimestamp": None}
                             for reason, message in api.warnings]  # fmt: skip
                    self._json(200, {"kind": "EventList", "apiVersion": "v1", "items": items})
            case ["api", "v1", "namespaces", _, "pods"]:
                if self._may("list", "pods"):
                    self._json(200, {"kind": "PodList", "apiVersion": "v1", "items": self._pods(query)})
            case ["api", "v1", "namespaces", _, "pods", _, "log"]:
                if self._may("get", "pods/log"):
                    self._log(query)
            case ["apis", "batch", "v1", "namespaces", namespace, "jobs"] if self.command == "POST":
                if self._may("create", "jobs"):
                    self._create(namespace, body)
            case ["apis", "batch", "v1", "namespaces", _, "jobs", name] if name not in api.jobs:
                self._status(404, "NotFound", f'jobs.batch "{name}" not found')
            case ["apis", "batch", "v1", "namespaces", _, "jobs", name] if self.command == "DELETE":
                if self._may("delete", "jobs"):
                    self._delete(name, (query.get("propagationPolicy") or [""])[0])
            case ["apis", "batch", "v1", "namespaces", _, "jobs", name]:
                job = {**api.jobs[name], "status": {"conditions": api.conditions}}
                if any(each == name for each, _ in api.deleted):
                    # The garbage collector takes it away once its pods have ended: after this look.
                    api.jobs.pop(name)
                self._json(200, job)
            case _:
                self._status(404, "NotFound", "the server could not find the requested resource")

    # --- parts ----------------------------------------------------------------------------------------

    def _create(self, namespace: str, body: dict[str, Any]) -> None:
        import kubernetes_validate  # type: ignore[import-untyped]

        name = body["metadata"]["name"]
        if name in self.api.jobs:
            self._status(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
            return
        try:
            kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            self._status(422, "Invalid", f"the manifest is invalid: {error.message}")
            return
        self.api.created.append(body)
        job = {**body, "metadata": {**body["metadata"], "namespace": namespace, "uid": "5e1f"}}
        self.api.jobs[name] = job
        self._json(201, job)

    def _delete(self, name: str, policy: str) -> None:
        self.api.deleted.append((name, policy))
        if policy != "Foreground":
            self.api.jobs.pop(name)
        self.api.finished.set()
        self._json(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _pods(self, query: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        wanted = _labels(query)
        found = []
        for job in self.api.jobs.values():
            labels = job["spec"]["template"]["metadata"]["labels"]
            if wanted.items() <= labels.items() and not self.api.pod_is_gone:
                pod = self.api.pod(job)
                found += [pod] if pod is not None else []
        return found

    def _nodes(self, query: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        wanted = _labels(query)
        images = [{"names": [name], "sizeBytes": 1} for name in self.api.node_images]
        return [
            {"metadata": {"name": f"node-{number}", "labels": labels}, "status": {"images": images}}
            for number, labels in enumerate(self.api.nodes)
            if wanted.items() <= labels.items()
        ]

    def _log(self, query: Mapping[str, list[str]]) -> None:
        api = self.api
        assert query["container"] == ["main"]
        assert query["timestamps"] == ["True"] or query["timestamps"] == ["true"]
        follow = query.get("follow", ["false"])[0].lower() == "true"
        since = None
        if "sinceSeconds" in query:
            since = datetime.now(timezone.utc) - timedelta(seconds=int(query["sinceSeconds"][0]))
        breaks = list(api.program.log_breaks)
        allowed = breaks.pop(0) if breaks else None
        api.program.log_breaks = breaks
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        while True:
            over = api.is_over
            lines = api.stamped()
            for time, line in lines[sent:]:
                if since is None or time >= since:
                    allowed = self._chunk(_stamp(time) + line, allowed)
            sent = len(lines)
            if over or not follow:
                break
            api.followed.set()
            while not api.finished.wait(0.02):
                if api.away:
                    raise _Broken
        self._chunk(b"", None)

    def _chunk(self, data: bytes, allowed: int | None) -> int | None:
        if allowed is not None and len(data) > allowed:
            part = data[:allowed]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if part else b"")
            raise _Broken
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
        return allowed - len(data) if allowed is not None else None

    def _one(self, kind: str, name_of_kind: str, name: str, there: bool) -> None:
        if not self._may("get", kind):
            return
        if not there:
            self._status(404, "NotFound", f'{kind} "{name}" not found')
            return
        document: dict[str, Any] = {"kind": name_of_kind, "apiVersion": "v1", "metadata": {"name": name}}
        if "as=PartialObjectMetadata" in (self.headers.get("Accept") or ""):
            document |= {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        elif kind == "secrets":
            self.api.secrets_shown += 1
        self._json(200, document)

    def _may(self, verb: str, resource: str) -> bool:
        if (verb, resource) not in self.api.denied:
            return True
        self._status(403, "Forbidden", f'{resource} is forbidden: User "ann" cannot {verb} resource')
        return False

    def _status(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason}
        self._json(code, {**status, "message": message, "code": code})

    def _json(self, code: int, document: object) -> None:
        if getattr(self, "_broken", False):
            raise _Broken
        self._send(code, json.dumps(document).encode())

    def _send(self, code: int, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _labels(query: Mapping[str, list[str]]) -> dict[str, str]:
    text = (query.get("labelSelector") or [""])[0]
    return dict(re.findall(r"([^=,]+)=([^,]*)", text))


def _stamp(time: datetime) -> bytes:
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond * 1000:09d}Z ".encode()
