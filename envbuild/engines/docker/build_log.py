"""What a Docker engine says while it builds, understood: which step, which images, how it ended.

The classic builder mixes its own lines with what the steps print. While a container runs, everything is
taken for output, whatever it looks like: a program can't make us believe that images were made.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envbuild.redact import clipped, last_seen, safe_text

_log = logging.getLogger(__name__)

LAST_LINES = 20
_LINE = 400
"""Characters of a line that are shown; a build may print megabytes without a line break."""
_INSTRUCTION = 300

_STEP = re.compile(r"Step (\d{1,6})/(\d{1,6}) : (.*)", re.DOTALL)
_RUNNING = re.compile(r" ---> Running in ([0-9a-f]{12,64})\n")
_IMAGE = re.compile(r" ---> ([0-9a-f]{12,64})\n")
_PULLED = re.compile(r"Status: Downloaded newer image for (\S{1,500})")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBegan:
    """The engine goes on to an instruction; ``number`` counts from 1."""

    number: int
    total: int
    instruction: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerBegan:
    """A container was made for the step."""

    container: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMade:
    """The engine has an image that it had not: its id (maybe short), or the name it was downloaded by."""

    image: str


Event = StepBegan | ContainerBegan | ImageMade


class ClassicBuildLog:
    """Takes a build's messages in order and remembers what its end, good or bad, has to say.

    ``hidden`` are words never to be repeated (passwords of proxies).
    """

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        self.step: StepBegan | None = None
        self.container: str | None = None
        self.image: str | None = None
        """The full id of the image that the last finished stage gave."""
        self.error: str | None = None
        self.status: int | None = None
        """The exit status of the command that failed, where one did."""
        self._hidden = tuple(hidden)
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._rest = ""
        self._cached = False

    def take(self, message: Mapping[str, Any]) -> Event | None:
        """What the message means beyond its text, if anything."""
        if "error" in message or "errorDetail" in message:
            self._fail(message)
            return None
        aux = message.get("aux")
        if isinstance(aux, Mapping) and isinstance(aux.get("ID"), str):
            self.image = aux["ID"]
            return None
        if isinstance(message.get("status"), str):
            return self._pull(message)
        text = message.get("stream")
        if not isinstance(text, str):
            return None
        if self.container is None:
            return self._builder(text)
        self._output(text, self.container)
        return None

    def last_lines(self) -> tuple[str, ...]:
        """The end of what the current step printed: at most :data:`LAST_LINES` lines, safe to show."""
        self._flush()
        return tuple(self._lines)

    def _shown(self, text: str, length: int = _LINE) -> str:
        # Cut twice: what is looked at has a bound, and it becomes shorter or longer by being made safe.
        return clipped(safe_text(last_seen(text)[: 4 * length], self._hidden), length)

    def _builder(self, text: str) -> Event | None:
        if match := _STEP.fullmatch(text):
            self._rest = ""
            self._lines.clear()
            self._cached = False
            instruction = self._shown(" ".join(match[3].split()), _INSTRUCTION)
            self.step = StepBegan(number=int(match[1]), total=int(match[2]), instruction=instruction)
            _log.debug("step %d/%d: %s", self.step.number, self.step.total, instruction)
            return self.step
        if match := _RUNNING.fullmatch(text):
            self.container = match[1]
            return ContainerBegan(container=match[1])
        if text == " ---> Using cache\n":
            self._cached = True
        elif match := _IMAGE.fullmatch(text):
            base = self.step is not None and self.step.instruction.upper().startswith("FROM ")
            if not self._cached and not base:
                return ImageMade(image=match[1])
        elif text.strip() and not text.startswith(" ---> "):
            self._add(text)
        return None

    def _output(self, text: str, container: str) -> None:
        if text == f"Removing intermediate container {container}\n" or text.startswith(
            f"Error removing intermediate container {container}: "
        ):
            self.container = None
        else:
            self._add(text)

    def _pull(self, message: Mapping[str, Any]) -> Event | None:
        if "progressDetail" not in message or not message["progressDetail"]:
            _log.debug("%s", self._shown(f"{message.get('id', '')} {message['status']}".strip()))
        match = _PULLED.fullmatch(message["status"].strip())
        return ImageMade(image=match[1]) if match else None

    def _fail(self, message: Mapping[str, Any]) -> None:
        detail = message.get("errorDetail")
        detail = detail if isinstance(detail, Mapping) else {}
        code = detail.get("code")
        if isinstance(code, int) and code:
            self.status = code
        text = message.get("error") or detail.get("message") or "the engine gives no reason"
        self.error = self._shown(" ".join(str(text).split()), 1000)

    def _add(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > 4 * _LINE:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._keep(line)

    def _keep(self, line: str) -> None:
        shown = self._shown(line)
        if shown.strip():
            self._lines.append(shown)
            _log.debug("| %s", shown)

    def _flush(self) -> None:
        rest, self._rest = self._rest, ""
        if rest:
            self._keep(rest)
