"""The log of a run: a file beside the workspace, held by a lock for as long as somebody watches the job.

The lock is the kernel's (``flock``), so it ends with the process however that ends: an unfinished run whose
log nobody holds is one that nobody will ever record the end of.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from envbuild.targets.base import Execution
from envbuild.workspace.private import make_private_directory, open_private_file

_log = logging.getLogger(__name__)

_PIECE = 1 << 16
_LOOKED = 0.25
"""Seconds between two looks for more of a log that is being written."""
_DRAINED = 5
"""Seconds that the rest of what a stopped job printed may take to arrive."""


class RunLog:
    """The log ``file`` while a job is watched. A log that can't be written is warned of once: no job ends by
    that. Raises nothing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._open: BinaryIO | None = None
        self._broken = False

    def __enter__(self) -> RunLog:
        with self._told():
            make_private_directory(self.file.parent)
            # A job may print what is secret.
            self._open = open(self.file, "ab", buffering=0, opener=open_private_file)
            # Waits at most for somebody who looks whether it is held.
            fcntl.flock(self._open, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.close()

    def write(self, piece: bytes) -> None:
        if self._open is None or self._broken:
            return
        rest = memoryview(piece)
        with self._told():
            while rest:
                rest = rest[self._open.write(rest) :]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The file stays open with its lock, as the job is watched all the same.
            self._broken = True
            _log.warning("the log %s is not complete: %s", self.file, error.strerror or error)


class Follower:
    """Reads what a job prints in a thread of its own, so that its last words are read while it is stopped.

    ``out`` gets each piece after the log has it. Where ``out`` can't take it any more (a pipe was closed),
    the job goes on and the log with it.
    """

    def __init__(self, execution: Execution, log: RunLog, out: Callable[[bytes], None]) -> None:
        self._execution = execution
        self._log = log
        self._out: Callable[[bytes], None] | None = out
        self._failure: BaseException | None = None
        # Where Ctrl-C interrupts a join, Python 3.11 takes the thread for ended; an event isn't fooled.
        self._read_all = threading.Event()
        self._thread = threading.Thread(target=self._read, name="job log", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when all has been read. Raises what reading raised, ``RunError`` among it."""
        self._read_all.wait()
        if self._failure is not None:
            raise self._failure

    def ended(self, seconds: float = 0) -> bool:
        """Whether all has been read, ``seconds`` from now at the latest."""
        return self._read_all.wait(seconds)

    def settle(self) -> None:
        """Waits a little for the rest of an ended job's output."""
        self._read_all.wait(_DRAINED)

    def _read(self) -> None:
        try:
            for piece in self._execution.logs():
                self._log.write(piece)
                self._show(piece)
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            self._failure = error
        finally:
            self._read_all.set()

    def _show(self, piece: bytes) -> None:
        if self._out is None:
            return
        try:
            self._out(piece)
        except OSError as error:
            self._out = None
            _log.warning(
                "nobody takes what the job prints (%s); it goes on, and its log is %s",
                error.strerror or error,
                self._log.file,
            )


def is_watched(file: Path) -> bool | None:
    """Whether a process of this machine watches the run with that log; None where the log isn't here."""
    try:
        with file.open("rb") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:
        return None
    return False


def log_pieces(
    file: Path, *, follow: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    """What the log holds; with ``follow`` also what comes, until nobody writes it any more. Raises
    ``OSError``."""
    with file.open("rb") as log:
        while True:
            # Asked before reading: what was written until the end of watching is then read too.
            ending = not follow or not is_watched(file)
            while piece := os.read(log.fileno(), _PIECE):
                yield piece
            if ending:
                return
            sleep(_LOOKED)


RUN_NOTE = ".envbuild-run.json"
"""A file of this name is no part of a model: the same model has the same digest, whichever run wrote it."""
_LIMIT = 1 << 16
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def leave_note(outputs: Path, *, run: str, environment: str, image: str, code: str | None) -> None:
    """Writes the note into ``outputs``, where it can be written."""
    said = {"run": run, "environment": environment, "image": image, "code": code}
    with contextlib.suppress(OSError):
        (outputs / RUN_NOTE).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def noted_run(model: Path) -> str | None:
    """The run that wrote the directory ``model``, or the one it stands in; None where neither says so."""
    for directory in (model, model.resolve().parent):
        with contextlib.suppress(OSError, ValueError), (directory / RUN_NOTE).open("rb") as file:
            note = json.loads(file.read(_LIMIT))
            name = note.get("run") if isinstance(note, Mapping) else None
            if isinstance(name, str) and _NAME.fullmatch(name):
                return name
    return None
