"""The note that a run leaves in its outputs, so that a model leads back to the run that wrote it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

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
            found = json.loads(file.read(_LIMIT))
            name = found.get("run") if isinstance(found, Mapping) else None
            if isinstance(name, str) and _NAME.fullmatch(name):
                return name
    return None
