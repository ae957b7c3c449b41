"""Runs a program in the sandbox and waits for its end."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from envbuild.compose.sandbox import launcher
from envbuild.platforms import runs_linux


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxResult:
    """How a run ended: ``status`` is None where it was stopped because it took too long; ``report`` says why
    nothing was started; ``output`` is the end of what was said."""

    status: int | None
    report: str
    output: str


def run_sandboxed(request: Mapping[str, Any], *, patience: float) -> SandboxResult:
    """Runs one program; see ``launcher``. Whatever happens here, none of its processes outlives it."""
    if not runs_linux():
        return SandboxResult(status=None, report="this is no Linux machine", output="")
    report_read, report_write = os.pipe()
    with os.fdopen(report_read, "rb") as report:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", launcher.__file__, json.dumps(request), str(report_write)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(report_write,),
                cwd="/",
                env={},
            )
        finally:
            os.close(report_write)
        assert process.stdout is not None
        tail: deque[bytes] = deque(maxlen=16)
        reader = threading.Thread(target=_keep_end, args=(process.stdout, tail), daemon=True)
        reader.start()
        status: int | None = None
        try:
            status = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
            process.wait()
            # The kernel ends the others as soon as the first is gone; only then nobody writes any more.
            reader.join()
            process.stdout.close()
        message = report.read(4096).decode("utf-8", "replace")
    output = b"".join(tail).decode("utf-8", "replace")
    return SandboxResult(
        status=status, report=message if status == launcher.NOT_STARTED else "", output=output
    )


def read_regular(path: Path, limit: int) -> bytes | None:
    """The content of a file that a stranger may have put there; None where there is none. A link isn't
    followed and nothing but a regular file is opened. Raises ``OSError``, ``ValueError`` where too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("not a regular file")
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError("too large")
    return data


def _keep_end(stream: IO[bytes], tail: deque[bytes]) -> None:
    while chunk := os.read(stream.fileno(), 4096):
        tail.append(chunk)
