"""What the documentation says to type: the commands of its ``console`` blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^```console( run)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A command as it stands after ``$ ``, with its continued lines and its comment."""

    command: str
    printed: str
    """What the text shows of its standard output; ``…`` stands for anything."""
    runs: bool
    """Whether its block is marked as one that runs as written, in a checkout."""


def commands(text: Path) -> list[Typed]:
    """All commands of ``text``, in order."""
    typed = []
    for mark, block in _BLOCK.findall(text.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            size = next((n for n, line in enumerate(lines) if not line.endswith("\\\n")), len(lines)) + 1
            typed.append(Typed(command="".join(lines[:size]), printed="".join(lines[size:]), runs=bool(mark)))
    return typed
