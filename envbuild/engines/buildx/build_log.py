"""BuildKit's plain progress log, told to people step by step; the failing step is remembered.

Each line of a step begins ``#<number> ``: first its name, then output behind a time (``0.345 text``), states
of transfers, and at last ``DONE``, ``CACHED``, ``CANCELED`` or ``ERROR``. When BuildKit turns to another step
and back, the name is repeated. Output can't be mistaken for an end, since it always has a time before it.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from envbuild.errors import BuildError
from envbuild.progress import Progress, Task
from envbuild.redact import clipped, safe_text

_LOG = logging.getLogger(__name__)

LAST_LINES = 20
"""Lines of the failing step that the error quotes."""
LONGEST = 16 << 10
"""Bytes of a line that are looked at."""

_LINE = re.compile(r"#(\d{1,9}) (.*)", re.DOTALL)
_OUTPUT = re.compile(r"\d+\.\d+ ?(.*)", re.DOTALL)
_DONE = re.compile(r"DONE (\d+(?:\.\d+)?)s")
_STEP = re.compile(r"(\[[^\]]*\d+/\d+\]) (.*)", re.DOTALL)
_FLAGS = re.compile(r"(\] RUN )(?:--\S+ +)+")
_EXIT = re.compile(r".*exit code: (\d+)\s*$", re.DOTALL)
_NETWORK = re.compile(
    r"(?i)no such host|dial tcp|i/o timeout|timed out|connection refused|proxyerror|name resolution"
    r"|could not resolve"
)


@dataclass(kw_only=True, slots=True)
class _Vertex:
    name: str
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    error: str | None = None
    task: Task | None = None
    over: bool = False
    work: ExitStack = field(default_factory=ExitStack)

    @property
    def step(self) -> tuple[str, str] | None:
        """``[stage 2/5]`` and the instruction; None for what isn't a line of the Dockerfile."""
        match = _STEP.fullmatch(self.name)
        return (match[1], match[2]) if match else None

    @property
    def label(self) -> str:
        return self.step[0] if self.step else self.name

    @property
    def title(self) -> str:
        return clipped(_FLAGS.sub(r"\1", self.name), 100)


class BuildKitLog:
    """Follows one build. ``hidden`` are values that nobody may see; :meth:`close` ends what is still open."""

    def __init__(self, progress: Progress, hidden: Iterable[str] = ()) -> None:
        self._progress = progress
        self._hidden = tuple(hidden)
        self._vertices: dict[str, _Vertex] = {}
        self._outside: deque[str] = deque(maxlen=LAST_LINES)

    def line(self, raw: bytes) -> None:
        """Takes the next line, with or without its end."""
        text = raw[:LONGEST].decode("utf-8", "replace").rstrip("\n")
        match = _LINE.fullmatch(text)
        if match is None:
            if shown := safe_text(text, self._hidden):
                self._outside.append(shown)
            return
        number, rest = match.groups()
        vertex = self._vertices.get(number)
        if vertex is None:
            vertex = self._vertices[number] = _Vertex(name=safe_text(rest, self._hidden))
            if vertex.step is not None:
                task = self._progress.task("build", vertex.title, total=1, unit="steps")
                vertex.task = vertex.work.enter_context(task)
            return
        self._event(vertex, rest)

    def close(self) -> None:
        for vertex in self._vertices.values():
            vertex.work.close()

    def failure(self, status: int, platform: str, *, proxy: str | None = None) -> BuildError:
        """What went wrong: the step, its instruction and the end of its output, else the builder's words.
        ``proxy`` is one that steps were told of but can't reach."""
        failed = [vertex for vertex in self._vertices.values() if vertex.error is not None]
        failed.sort(key=lambda vertex: "context canceled" in (vertex.error or ""))
        output = "\n".join((*(failed[0].last if failed else ()), *self._outside))
        if failed and failed[0].step is not None:
            vertex = failed[0]
            label, instruction = vertex.step or ("", "")
            match = _EXIT.fullmatch(vertex.error or "")
            reason = f"exit code {match[1]}" if match else vertex.error
            lines = [f"the step {label} failed: {reason}", f"  {instruction}"]
            if vertex.last:
                lines += ["the end of its log:", *(f"  {line}" for line in vertex.last)]
        else:
            reason = failed[0].error if failed else next(reversed(self._outside), f"status {status}")
            where = f"{failed[0].title}: " if failed else ""
            lines = [f"the build failed: {where}{str(reason).removeprefix('ERROR: ')}"]
        return BuildError("\n".join(lines), hint=_hint(f"{output}\n{lines[0]}", platform, proxy))

    def _event(self, vertex: _Vertex, rest: str) -> None:
        if output := _OUTPUT.fullmatch(rest):
            text = safe_text(output[1], self._hidden)
            if text:
                vertex.last.append(text)
                _LOG.debug("%s | %s", vertex.label, text)
        elif rest.startswith("ERROR"):
            vertex.error = safe_text(rest.removeprefix("ERROR").lstrip(": "), self._hidden)
            self._end(vertex, None)
        elif rest == "CACHED":
            self._end(vertex, "cached")
        elif done := _DONE.fullmatch(rest):
            self._end(vertex, f"{done[1]} s")
        elif rest == "CANCELED":
            self._end(vertex, None)
        else:
            _LOG.debug("%s: %s", vertex.title, safe_text(rest, self._hidden))

    def _end(self, vertex: _Vertex, how: str | None) -> None:
        # A step with several transfers may be said to be done more than once.
        if vertex.over:
            return
        vertex.over = True
        if vertex.step is not None and how is not None:
            self._progress.note(f"{vertex.title}: {how}")
            if vertex.task is not None:
                vertex.task.advance(1)
        vertex.work.close()


def _hint(said: str, platform: str, proxy: str | None) -> str:
    if "exec format error" in said:
        return (
            f"the builder can't run programs of {platform}: register an emulator (binfmt) or add a node to it"
        )
    if "no space left on device" in said:
        return "free some space where the builder keeps its data: docker builder prune"
    if _NETWORK.search(said):
        if proxy is not None:
            return f"the proxy {proxy} is this machine's own, out of the steps' reach: --offline needs none"
        return "check the builder's network and proxy; --offline puts the pinned files into the context"
    return "envbuild render SPEC -o DIR writes what was built, to try the step by hand"
