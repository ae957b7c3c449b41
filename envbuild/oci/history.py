"""What made each layer, as an image's history tells it, in a few words for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONGEST = 60
"""Characters of a step that are shown."""


def layer_names(config: Mapping[str, Any], count: int) -> list[str]:
    """The step that made each of ``count`` layers; empty where ``config``'s history doesn't tell."""
    history = config.get("history")
    steps = [
        str(each.get("created_by") or "")
        for each in (history if isinstance(history, list) else [])
        if isinstance(each, Mapping) and not each.get("empty_layer")
    ]
    return [step_name(step) for step in steps] if len(steps) == count else [""] * count


def step_name(created_by: str) -> str:
    """The start of a step, as a Dockerfile has it: ``RUN apt-get…`` of the classic builder's ``/bin/sh -c
    apt-get…`` and of BuildKit's ``RUN /bin/sh -c apt-get… # buildkit``."""
    text = " ".join(created_by.split()).removesuffix("# buildkit").strip()
    if text.startswith("/bin/sh -c #(nop) "):
        text = text.removeprefix("/bin/sh -c #(nop) ")
    elif text.startswith("/bin/sh -c "):
        text = f"RUN {text.removeprefix('/bin/sh -c ')}"
    elif text.startswith("RUN /bin/sh -c "):
        text = f"RUN {text.removeprefix('RUN /bin/sh -c ')}"
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
