"""Compiles environment specs into reproducible images."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from envbuild._version import __version__ as __version__

if TYPE_CHECKING:
    from envbuild.api import Environment, ScriptRun
    from envbuild.app.environments import Workspace

__all__ = ["Environment", "ScriptRun", "Workspace", "__version__"]

_FRONT_DOOR = {
    "Environment": "envbuild.api",
    "ScriptRun": "envbuild.api",
    "Workspace": "envbuild.app.environments",
}


def __getattr__(name: str) -> object:
    """The front door, imported when it is first used: ``import envbuild`` costs next to nothing."""
    if name in _FRONT_DOOR:
        return getattr(import_module(_FRONT_DOOR[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
