"""A job of Ray from its start to its end, watched by asking the dashboard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from envbuild.errors import RunError
from envbuild.progress import Progress
from envbuild.targets.ray.client import Away, Dashboard, Refused

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
"""Seconds between two looks: the longer a job runs, the less often."""
_STOP_SECONDS = 60.0
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_STATES = ("PENDING", "RUNNING", *_ENDED)
_SIGTERM_STATUS = 143
_TEXT = 2000


class RayExecution:
    """See ``Execution``. ``pause`` sleeps, ``clock`` counts seconds; the dashboard may be away for
    ``patience`` seconds. Reading the log and waiting each ask on their own, as they are done in threads."""

    def __init__(
        self,
        dashboard: Callable[[], Dashboard],
        name: str,
        progress: Progress,
        *,
        patience: float,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = dashboard
        self._dashboard = dashboard()
        self._name = name
        self._progress = progress
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._end: dict[str, Any] | None = None

    @property
    def identity(self) -> str:
        return f"job {self._name}"

    def logs(self) -> Iterator[bytes]:
        """The driver's output; where Ray ended the job or couldn't start it, a line that says so."""
        dashboard, told = self._connect(), 0
        try:
            for found in self._looks(dashboard):
                # The state was asked for first: what is printed before the end is seen, all of it.
                text = self._patiently(lambda: dashboard.logs(self._name)).encode(errors="replace")
                if len(text) > told:
                    yield text[told:]
                    told = len(text)
                if found["status"] in ("FAILED", "STOPPED") and (words := _words(found)):
                    yield f"envbuild: {self.identity} {words}\n".encode()
        finally:
            dashboard.close()

    def wait(self) -> int:
        for found in self._looks(self._dashboard):
            self._end = found if found["status"] in _ENDED else None
        assert self._end is not None, "looks end with the job"
        return _status(self._end)

    def stop(self) -> None:
        if self._end is not None:
            return
        self._patiently(lambda: self._dashboard.stop(self._name))
        limit = self._clock() + _STOP_SECONDS
        for found in self._looks(self._dashboard):
            if found["status"] in _ENDED:
                self._end = found
            elif self._clock() > limit:
                raise RunError(
                    f"{self.identity} hasn't ended {_STOP_SECONDS:.0f} s after it was told to stop",
                    hint=f"see the dashboard, {self._dashboard.address}",
                )

    def bring_outputs(self, directory: Path) -> bool:
        """False: Ray keeps no files of a job."""
        return False

    def close(self) -> None:
        """What Ray knows of the job stays there, for its dashboard."""
        self._dashboard.close()

    # --- looking ----------------------------------------------------------------------------------------

    def _looks(self, dashboard: Dashboard) -> Iterator[dict[str, Any]]:
        """What Ray says of the job, again and again until it has ended."""
        pause = _FIRST_PAUSE
        while True:
            found = self._patiently(lambda: dashboard.job(self._name))
            if found.get("status") not in _STATES:
                raise RunError(f"{dashboard.address} says nothing of the state of {self.identity}")
            yield found
            if found["status"] in _ENDED:
                return
            self._pause(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What ``ask`` returns, tried again while the dashboard is away. Raises ``RunError``."""
        since: float | None = None
        while True:
            try:
                return ask()
            except Away as error:
                now = self._clock()
                if since is None:
                    since = now
                    self._progress.note(f"{error.message}; {self.identity} may go on")
                elif now - since > self._patience:
                    raise RunError(
                        f"{error.message}, for {self._patience:.0f} s now",
                        hint=f"{self.identity} may still run: see the dashboard",
                    ) from error
                self._pause(_LONGEST_PAUSE)
            except Refused as error:
                if error.status == 404:
                    raise RunError(
                        f"the cluster knows nothing of {self.identity} any more",
                        hint="it was deleted, or the cluster was started again",
                    ) from error
                raise


def _status(found: dict[str, Any]) -> int:
    """The driver's exit status; 143 where Ray stopped it, 1 where it never came to one."""
    if found["status"] == "SUCCEEDED":
        return 0
    if found["status"] == "STOPPED":
        return _SIGTERM_STATUS
    code = found.get("driver_exit_code")
    if not isinstance(code, int) or code == 0:
        return 1
    return min(code, 255) if code > 0 else min(128 - code, 255)


def _words(found: dict[str, Any]) -> str:
    if found["status"] == "STOPPED":
        return "was stopped"
    message = found.get("message")
    text = message if isinstance(message, str) else ""
    plain = "".join(each if each.isprintable() or each == "\n" else "?" for each in text[:_TEXT])
    return f"failed: {plain.strip()}" if plain.strip() else "failed"
