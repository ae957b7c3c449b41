"""A cluster's API through Kubernetes' official client, with its answers and refusals in our words."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from envbuild.errors import RunError
from envbuild.lazy import lazy
from envbuild.targets.polling import Pauses, Polling, ServiceRefusal, ServiceUnreachable

if TYPE_CHECKING:
    import kubernetes
    import urllib3
else:
    kubernetes = lazy("kubernetes")
    urllib3 = lazy("urllib3")

_log = logging.getLogger(__name__)
T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 60.0
"""A log without a line for so long is asked for anew: its connection may be dead."""
_LARGEST = 16 << 20
"""Bytes of an answer."""
_TEXT = 500
"""Characters of a message that are told."""
POLLING = Polling(pauses=Pauses(1.0, 1.0), retries=Pauses(0.5, 5.0, 2.0), patience=0)
_FOR_A_MOMENT = (429, 500, 502, 503, 504)
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PIECE = 1 << 16


class Cluster:
    """A connection. Every method raises ``ServiceRefusal`` or ``ServiceUnreachable``; those for a job that
    runs try again while the server is away for less than the patience of ``polling``."""

    def __init__(
        self,
        api: Any,
        namespace: str,
        resources: contextlib.ExitStack,
        polling: Polling,
    ) -> None:
        self._api = api
        self.namespace = namespace
        self._resources = resources
        self.polling = polling
        self._core = kubernetes.client.CoreV1Api(api)
        self._batch = kubernetes.client.BatchV1Api(api)
        self._authorization = kubernetes.client.AuthorizationV1Api(api)

    @property
    def where(self) -> str:
        """The server's host and port, for people."""
        return urlsplit(str(self._api.configuration.host)).netloc.rpartition("@")[2]

    def close(self) -> None:
        self._api.close()
        self._resources.close()

    # --- a look before the start ----------------------------------------------------------------------

    def has_namespace(self) -> bool | None:
        """None: it may not be looked at."""
        return self._exists(lambda: self._ask(self._core.read_namespace, self.namespace))

    def has(self, kind: str, name: str) -> bool | None:
        """Whether there is a ``secret`` or ``service_account`` or ``persistent_volume_claim`` of that name in
        the namespace; None: it may not be looked at. Only metadata come: a secret's content stays there."""
        api: Any = kubernetes.client.ApiClient(self._api.configuration)
        api.set_default_header("Accept", _METADATA)
        try:
            read = getattr(kubernetes.client.CoreV1Api(api), f"read_namespaced_{kind}")
            return self._exists(lambda: self._ask(read, name, self.namespace))
        finally:
            api.close()

    def may(self, verb: str, group: str, resource: str, subresource: str = "") -> bool:
        """Whether these credentials may do that in the namespace (SelfSubjectAccessReview)."""
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked | ({"subresource": subresource} if subresource else {})},
        }
        answer = self._ask(self._authorization.create_self_subject_access_review, review)
        return mapping(answer.get("status")).get("allowed") is True

    def nodes(self, selector: str) -> list[dict[str, Any]] | None:
        """The nodes that a label selector chooses; None: they may not be listed."""
        try:
            return _items(self._ask(self._core.list_node, label_selector=selector, limit=500))
        except ServiceRefusal as error:
            if error.status in (401, 403):
                return None
            raise

    # --- a job ----------------------------------------------------------------------------------------

    def create_job(self, manifest: dict[str, Any]) -> None:
        name = str(manifest["metadata"]["name"])

        tries = 0

        def create() -> None:
            nonlocal tries
            tries += 1
            try:
                self._ask(self._batch.create_namespaced_job, self.namespace, manifest)
            except ServiceRefusal as error:
                # A try whose answer was lost has made it.
                if error.status != 409 or tries == 1:
                    raise

        self._patiently(create)
        _log.debug("created the job %s in %s", name, self.namespace)

    def job(self, name: str) -> dict[str, Any] | None:
        """None: there is none."""
        return self._patiently(
            lambda: self._unless_absent(
                lambda: self._ask(self._batch.read_namespaced_job, name, self.namespace)
            )
        )

    def pod(self, selector: str) -> dict[str, Any] | None:
        """The newest pod that the selector chooses; None: there is none."""
        pods = self._patiently(
            lambda: _items(self._ask(self._core.list_namespaced_pod, self.namespace, label_selector=selector))
        )
        return max(
            pods, key=lambda pod: str(mapping(pod.get("metadata")).get("creationTimestamp")), default=None
        )

    def warning(self, name: str) -> str | None:
        """The last warning that the cluster has told of the object ``name``; None where there is none, or
        where it may not be seen."""
        chosen = f"involvedObject.name={name},type=Warning"
        try:
            warnings = _items(
                self._ask(self._core.list_namespaced_event, self.namespace, field_selector=chosen)
            )
        except RunError:
            return None
        last = max(warnings, key=lambda event: str(event.get("lastTimestamp")), default=None)
        return one_line(last.get("reason"), last.get("message")) if last is not None else None

    def delete_job(self, name: str, *, wait: bool) -> bool:
        """Has the job deleted; with ``wait`` only after its pods, else before. False: there is none. Tries
        again only with ``wait``."""
        policy = "Foreground" if wait else "Background"

        def delete() -> bool:
            call = self._batch.delete_namespaced_job
            answer = self._unless_absent(
                lambda: self._ask(call, name, self.namespace, propagation_policy=policy)
            )
            return answer is not None

        return self._patiently(delete) if wait else delete()

    @contextlib.contextmanager
    def log(self, pod: str, container: str, *, follow: bool, since: int | None) -> Iterator[PodLog]:
        """A pod's log with stamps, once. Errors of its connection also come as ours, from inside too."""
        more: dict[str, Any] = {"since_seconds": since} if since is not None else {}
        with self._translate_errors():
            response = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=follow,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(_CONNECT_SECONDS, SILENCE_SECONDS),
                **more,
            )
            try:
                yield PodLog(cast(Any, response))
            finally:
                cast(Any, response).close()

    # --- how it is asked ------------------------------------------------------------------------------

    def _ask(self, call: Callable[..., Any], *arguments: Any, **more: Any) -> dict[str, Any]:
        with self._translate_errors():
            response = call(
                *arguments,
                **more,
                _preload_content=False,
                _request_timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            )
            try:
                content = response.read(_LARGEST + 1, decode_content=True)
            finally:
                response.close()
        try:
            if len(content) > _LARGEST:
                raise ValueError("too large")
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise ServiceUnreachable(f"{self.where} gave an answer that is none of Kubernetes'") from None
        return mapping(answer)

    def _patiently(self, call: Callable[[], T]) -> T:
        return self.polling.patiently(call, self._missed)

    def _missed(self, error: ServiceUnreachable, away: float, pause: float) -> None:
        if away + pause > self.polling.patience:
            raise error
        if away == 0:
            _log.info("%s; trying again for %d s", error, self.polling.patience)

    def _exists(self, call: Callable[[], object]) -> bool | None:
        try:
            return self._unless_absent(call) is not None
        except ServiceRefusal as error:
            if error.status == 403:
                return None
            raise

    @staticmethod
    def _unless_absent(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except ServiceRefusal as error:
            if error.status == 404:
                return None
            raise

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Says in our words what the server, or the way to it, refused."""
        try:
            yield
        except kubernetes.client.exceptions.ApiException as error:
            raise self._refusal(int(error.status or 0), error.body, str(error.reason or "")) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServiceUnreachable(
                f"the API server at {self.where} can't be reached: {_cause(error)}",
                hint="check the cluster's address, and the network: kubectl get --raw /readyz",
            ) from None

    def _refusal(self, status: int, body: object, reason: str) -> RunError:
        if status == 0:
            # What this client makes of TLS.
            return ServiceUnreachable(f"there is no trusted connection to {self.where}: {_cause(reason)}")
        message = _status_message(body) or f"HTTP {status}"
        if status in _FOR_A_MOMENT:
            return ServiceUnreachable(f"the API server at {self.where} is out of service: {message}")
        if status == 401:
            return ServiceRefusal(
                f"the API server at {self.where} doesn't know these credentials",
                status=status,
                hint="log in to the cluster again: kubectl auth whoami",
            )
        return ServiceRefusal(f"the cluster refuses: {message}", status=status)


class PodLog:
    """An open log."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.opened = _date(response.headers.get("Date"))
        """The server's time when it was opened, if told."""

    def pieces(self) -> Iterator[bytes]:
        """As they come."""
        yield from self._response.stream(_PIECE, decode_content=True)


def one_line(reason: object, message: object) -> str:
    """A reason and its message in one bounded line."""
    words = [str(part) for part in (reason, message) if isinstance(part, str) and part]
    return " ".join(": ".join(words).split())[:_TEXT]


def mapping(value: object) -> dict[str, Any]:
    """``value`` where it is an object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    items = answer.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _status_message(body: object) -> str | None:
    """What a ``Status`` of the API says; None where it is none."""
    try:
        text = body.decode() if isinstance(body, bytes) else str(body)
        message = mapping(json.loads(text)).get("message")
    except (ValueError, RecursionError):
        return None
    return one_line(message, None) or None


def _cause(error: object) -> str:
    """A few words of ours: the client's may hold an address with all that stands in it."""
    text = str(error).lower()
    known = {
        "certificate verify failed": "its certificate isn't trusted",
        "ssl": "TLS fails",
        "refused": "the connection is refused",
        "timed out": "it doesn't answer in time",
        "name or service": "its name isn't known",
        "resolve": "its name isn't known",
    }
    return next((words for part, words in known.items() if part in text), "the connection broke")


def _date(text: object) -> datetime | None:
    try:
        date = parsedate_to_datetime(str(text))
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
