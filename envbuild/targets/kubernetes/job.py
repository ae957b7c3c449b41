"""A job on a cluster: waits for its start, follows its log, says how it ended, stops it."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from envbuild.errors import RunError
from envbuild.targets.kubernetes.client import Cluster, mapping, one_line
from envbuild.targets.kubernetes.log import LogPosition
from envbuild.targets.kubernetes.manifest import CONTAINER, RUN_LABEL
from envbuild.targets.polling import ServiceRefusal, ServiceUnreachable

_log = logging.getLogger(__name__)

_SOON, _POLL, _LATER_POLL = 30, 1.0, 5.0
"""So many looks at a pod that hasn't started are a second apart: what waits longer may wait for hours."""
_ERROR_PATIENCE = 120
"""Seconds that an error of the start may last: a registry may be away for a moment. A node is waited for
longer."""
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
_WAITED_FOR = ("ContainerCreating", "PodInitializing", "Unschedulable", "")
"""What isn't an error yet."""
_STOP_SECONDS = 50
_KILLED = 137
_STOPPED = 143
_OOM = "it used more memory than it may, see the target's option memory"
_MARGIN = timedelta(seconds=60)
"""A log is asked for from so much before its last line, as clocks of nodes differ."""


_PULL = "the nodes must be able to pull it: see the target's options registry and image-pull-secret"
_HINTS = {
    "ImagePullBackOff": _PULL,
    "ErrImagePull": _PULL,
    "CreateContainerConfigError": "a secret or a claim that the target's options name isn't as it should be",
    "Unschedulable": "no node has what the job asks for: see the target's options cpu, memory, gpus, "
    "node-selector and tolerations",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEnd:
    """How a job ended. ``reason`` is empty where its exit status says all."""

    status: int
    reason: str = ""


class KubernetesExecution:
    """A Job that was created. ``cluster`` is closed with it."""

    def __init__(self, cluster: Cluster, name: str, *, keep: bool) -> None:
        self._cluster = cluster
        self._name = name
        self._keep = keep
        self._over: JobEnd | None = None
        self._stopped = False
        self._broken: float | None = None
        """When the log of a job that has ended was first tried in vain."""
        self._opened: tuple[datetime | None, float] = (None, 0.0)
        """The server's time when a log was opened last, and this process's clock then."""

    @property
    def identity(self) -> str:
        return f"job/{self._name} in {self._cluster.namespace}"

    def await_start(self, timeout: float, tell: Callable[[str], None]) -> None:
        """Returns once its container runs, or has run. ``tell`` gets each reason why it waits, once.

        Raises ``RunError`` after ``timeout`` seconds, earlier where the reason is an error.
        """
        polling = self._cluster.polling
        began = since = polling.clock()
        last = ""
        pauses = itertools.chain(itertools.repeat(_POLL, _SOON), itertools.repeat(_LATER_POLL))
        for pod in polling.states(self._pod, pauses):
            state = _main(pod)
            if self._look(pod) is not None or "running" in state:
                return
            reason, message = self._waiting(pod, state)
            now = polling.clock()
            if reason != last:
                last, since = reason, now
                if reason not in ("", "ContainerCreating", "PodInitializing"):
                    tell(f"{self._name} waits for its start: {one_line(reason, message)}")
            error = reason not in _WAITED_FOR
            late = now - began >= timeout or (error and now - since >= min(timeout, _ERROR_PATIENCE))
            if reason in _HOPELESS or late:
                raise RunError(
                    f"{self._name} has not started within {now - began:.0f} s: "
                    f"{one_line(reason or 'Pending', message)}",
                    hint=_HINTS.get(reason, "the target's option start-timeout says how long a job may wait"),
                )

    def logs(self) -> Iterator[bytes]:
        with self._mention_lost_job():
            yield from self._follow(LogPosition())

    def wait(self) -> int:
        with self._mention_lost_job():
            end = self._cluster.polling.until(lambda: self._look(self._pod()))
        assert end is not None, "it is waited for"
        if end.reason:
            _log.warning("%s ended: %s", self._name, end.reason)
        return end.status

    def stop(self) -> None:
        if self._over is not None:
            return
        self._stopped = True
        if not self._cluster.delete_job(self._name, wait=True):
            return
        if not self._cluster.polling.until(lambda: self._cluster.job(self._name) is None, _STOP_SECONDS):
            raise RunError(
                f"the cluster has not ended {self._name} within {_STOP_SECONDS} s",
                hint=f"look after it: kubectl -n {self._cluster.namespace} get job,pod -l "
                f"{RUN_LABEL}={self._name}",
            )

    def bring_outputs(self, directory: Path) -> bool:
        """False: what a pod has written is gone with it, or lies on its claim."""
        return False

    def close(self) -> None:
        """A job that isn't known to have ended stays, as one does that is to be kept."""
        try:
            if self._over is not None and not self._keep and not self._stopped:
                self._cluster.delete_job(self._name, wait=False)
        except RunError as error:
            _log.warning("the job %s stays on the cluster: %s", self._name, error)
        finally:
            self._cluster.close()

    @contextlib.contextmanager
    def _mention_lost_job(self) -> Iterator[None]:
        try:
            yield
        except ServiceUnreachable as error:
            raise RunError(
                f"{error.message}; {self._name} may go on without being watched",
                hint=f"look after it: kubectl -n {self._cluster.namespace} logs -f job/{self._name}",
            ) from error

    def _follow(self, position: LogPosition) -> Iterator[bytes]:
        # Looked at first: what is read of a log after the end is all of it.
        for end in self._cluster.polling.states(lambda: self._look(self._pod())):
            whole = yield from self._read(position, follow=end is None)
            if end is not None and whole:
                if rest := position.rest():
                    yield rest
                return

    def _pod(self) -> dict[str, Any] | None:
        return self._cluster.pod(f"{RUN_LABEL}={self._name}")

    def _look(self, pod: dict[str, Any] | None) -> JobEnd | None:
        """How it ended; None: it hasn't. Raises ``RunError`` where somebody has deleted it."""
        if self._over is None:
            self._over = _end_of_pod(pod) if pod is not None else self._end_of_job()
        return self._over

    def _end_of_job(self) -> JobEnd | None:
        """For a job without a pod: none yet, or none any more."""
        job = self._cluster.job(self._name)
        if job is None and self._stopped:
            return JobEnd(status=_STOPPED)
        if job is None:
            raise RunError(
                f"the job {self._name} was deleted on the cluster",
                hint="its pod was ended with it; run it again",
            )
        failed = _condition(job, "Failed", "True")
        if failed is None:
            return None
        return JobEnd(
            status=_KILLED, reason=one_line(failed.get("reason"), failed.get("message")) or "Failed"
        )

    def _waiting(self, pod: dict[str, Any] | None, state: dict[str, Any]) -> tuple[str, str | None]:
        if pod is None:
            # A quota or a policy that keeps the pod from being made is told of nowhere else.
            warning = self._cluster.warning(self._name)
            return ("FailedCreate", warning) if warning is not None else ("", "no pod was made yet")
        waiting = mapping(state.get("waiting"))
        if waiting:
            return str(waiting.get("reason") or ""), _text(waiting.get("message"))
        unscheduled = _condition(pod, "PodScheduled", "False")
        if unscheduled is None:
            return "", None
        return str(unscheduled.get("reason") or "Unschedulable"), _text(unscheduled.get("message"))

    def _read(self, position: LogPosition, *, follow: bool) -> Generator[bytes, None, bool]:
        """What is new in the log; returns whether it was read to its end. A log that can't be had says
        nothing of the job, so it ends nothing."""
        pod = self._pod()
        name = mapping((pod or {}).get("metadata")).get("name")
        if pod is None or not isinstance(name, str):
            return True
        position.begin()
        since = None
        try:
            if position.time is not None:
                since = self._seconds_since(position)
            with self._cluster.log(name, CONTAINER, follow=follow, since=since) as log:
                self._opened = log.opened, self._cluster.polling.clock()
                for piece in log.pieces():
                    if new := position.take(piece):
                        yield new
        except ServiceUnreachable as error:
            _log.debug("the log of %s broke off: %s", self._name, error)
            return self._gave_up(follow)
        except ServiceRefusal as error:
            # 400: the container hasn't begun, or was lost with its node; 404: the pod is gone.
            if error.status in (401, 403):
                raise
            _log.debug("no log of %s: %s", self._name, error)
            return not follow
        self._broken = None
        return True

    def _gave_up(self, follow: bool) -> bool:
        """Whether the rest of an ended job's log isn't tried for any longer."""
        now = self._cluster.polling.clock()
        self._broken = self._broken if self._broken is not None else now
        if follow or now - self._broken < self._cluster.polling.patience:
            return False
        _log.warning("the end of the log of %s can't be read", self._name)
        return True

    def _seconds_since(self, position: LogPosition) -> int | None:
        """Since a little before the last line, by the server's clock; None: from the beginning."""
        opened, at = self._opened
        if opened is None or position.time is None:
            return None
        now = opened + timedelta(seconds=self._cluster.polling.clock() - at)
        return max(1, int((now - position.time + _MARGIN).total_seconds()))


def _condition(resource: dict[str, Any], type_: str, status: str) -> dict[str, Any] | None:
    """The condition of that type, where it has that status."""
    conditions = mapping(resource.get("status")).get("conditions")
    for condition in map(mapping, conditions if isinstance(conditions, list) else ()):
        if (condition.get("type"), condition.get("status")) == (type_, status):
            return condition
    return None


def _main(pod: dict[str, Any] | None) -> dict[str, Any]:
    """The state of the command's container; empty where it has none."""
    statuses = mapping((pod or {}).get("status")).get("containerStatuses")
    for status in statuses if isinstance(statuses, list) else ():
        if mapping(status).get("name") == CONTAINER:
            return mapping(mapping(status).get("state"))
    return {}


def _end_of_pod(pod: dict[str, Any]) -> JobEnd | None:
    terminated = mapping(_main(pod).get("terminated"))
    status = mapping(pod.get("status"))
    if terminated:
        code = terminated.get("exitCode")
        reason = terminated.get("reason")
        plain = reason in (None, "", "Completed", "Error")
        message = (
            "" if plain else one_line(reason, _OOM if reason == "OOMKilled" else terminated.get("message"))
        )
        if status.get("reason") == "Evicted":
            message = one_line("Evicted", status.get("message"))
        return JobEnd(status=code if isinstance(code, int) else _KILLED, reason=message)
    if status.get("phase") == "Failed":
        return JobEnd(
            status=_KILLED, reason=one_line(status.get("reason"), status.get("message")) or "Failed"
        )
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
