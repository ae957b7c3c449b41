"""Runs other programs. Passed in wherever one is needed, so that nothing here starts one by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """What a program that has ended left behind. Output is UTF-8; what isn't is replaced."""

    status: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Starts a program and waits for it."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        input: str = "",
    ) -> Completed:
        """The ended program. ``env`` is its whole environment. Raises ``OSError`` if it can't start."""


class SubprocessRunner:
    """A :class:`Runner` of real processes. The child never outlives an interruption of the parent."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        input: str = "",
    ) -> Completed:
        with subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                stdout, stderr = process.communicate(input)
            except BaseException:
                # Ctrl-C among them: a resolver left alone would go on downloading.
                process.kill()
                raise
        return Completed(status=process.returncode, stdout=stdout, stderr=stderr)
