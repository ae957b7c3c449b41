"""Compiles environment specs into reproducible images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envbuild.api import Environment
    from envbuild.app.script_run import ScriptRun
    from envbuild.app.workspace import Workspace

__all__ = ["Environment", "ScriptRun", "Workspace", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The front door, imported when it is first used: ``import envbuild`` costs next to nothing."""
    if name == "Environment":
        from envbuild.api import Environment

        return Environment
    if name == "ScriptRun":
        from envbuild.app.script_run import ScriptRun

        return ScriptRun
    if name == "Workspace":
        from envbuild.app.workspace import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
