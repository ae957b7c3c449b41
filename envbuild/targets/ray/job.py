"""A job of Ray from its start to its end, watched by asking the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from envbuild.errors import RunError
from envbuild.progress import Progress
from envbuild.targets.polling import Pauses, Polling, ServiceRefusal, ServiceUnreachable
from envbuild.targets.ray.client import RayDashboard

T = TypeVar("T")

POLLING = Polling(pauses=Pauses(0.2, 2.0), patience=120)
_STOP_SECONDS = 60.0
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_STATES = ("PENDING", "RUNNING", *_ENDED)
_SIGTERM_STATUS = 143
_TEXT = 2000


class RayExecution:
    """See ``Execution``. Reading the log and waiting each ask a dashboard of their own, as they are done in
    threads."""

    def __init__(
        self,
        dashboard: Callable[[], RayDashboard],
        name: str,
        progress: Progress,
        polling: Polling = POLLING,
    ) -> None:
        self._connect = dashboard
        self._dashboard = dashboard()
        self._name = name
        self._progress = progress
        self._polling = polling
        self._end: dict[str, Any] | None = None

    @property
    def identity(self) -> str:
        return f"job {self._name}"

    def logs(self) -> Iterator[bytes]:
        """The driver's output; where Ray ended the job or couldn't start it, a line that says so."""
        dashboard, printed = self._connect(), 0
        try:
            for state in self._polling.states(lambda: self._state(dashboard)):
                # The state was asked for first: what is printed before the end is seen, all of it.
                text = self._patiently(lambda: dashboard.logs(self._name)).encode(errors="replace")
                if len(text) > printed:
                    yield text[printed:]
                    printed = len(text)
                if state["status"] in ("FAILED", "STOPPED"):
                    yield f"envbuild: {self.identity} {_reason(state)}\n".encode()
                if state["status"] in _ENDED:
                    return
        finally:
            dashboard.close()

    def wait(self) -> int:
        self._end = self._polling.until(self._ended)
        assert self._end is not None, "it is waited for"
        return _status(self._end)

    def stop(self) -> None:
        if self._end is not None:
            return
        self._patiently(lambda: self._dashboard.stop(self._name))
        self._end = self._polling.until(self._ended, _STOP_SECONDS)
        if self._end is None:
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

    def _state(self, dashboard: RayDashboard) -> dict[str, Any]:
        """What Ray says of the job."""
        state = self._patiently(lambda: dashboard.job(self._name))
        if state.get("status") not in _STATES:
            raise RunError(f"{dashboard.address} says nothing of the state of {self.identity}")
        return state

    def _ended(self) -> dict[str, Any] | None:
        state = self._state(self._dashboard)
        return state if state["status"] in _ENDED else None

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What ``ask`` returns, tried again while the dashboard is away. Raises ``RunError``."""
        try:
            return self._polling.patiently(ask, self._missed)
        except ServiceRefusal as error:
            if error.status == 404:
                raise RunError(
                    f"the cluster knows nothing of {self.identity} any more",
                    hint="it was deleted, or the cluster was started again",
                ) from error
            raise

    def _missed(self, error: ServiceUnreachable, away: float, pause: float) -> None:
        if away == 0:
            self._progress.note(f"{error.message}; {self.identity} may go on")
        elif away > self._polling.patience:
            raise RunError(
                f"{error.message}, for {self._polling.patience:.0f} s now",
                hint=f"{self.identity} may still run: see the dashboard",
            ) from error


def _status(state: dict[str, Any]) -> int:
    """The driver's exit status; 143 where Ray stopped it, 1 where it never came to one."""
    if state["status"] == "SUCCEEDED":
        return 0
    if state["status"] == "STOPPED":
        return _SIGTERM_STATUS
    code = state.get("driver_exit_code")
    if not isinstance(code, int) or code == 0:
        return 1
    return min(code, 255) if code > 0 else min(128 - code, 255)


def _reason(state: dict[str, Any]) -> str:
    if state["status"] == "STOPPED":
        return "was stopped"
    message = state.get("message")
    text = message if isinstance(message, str) else ""
    plain = "".join(
        character if character.isprintable() or character == "\n" else "?" for character in text[:_TEXT]
    )
    return f"failed: {plain.strip()}" if plain.strip() else "failed"
