"""Modules that are imported when they are first used: start-up pays only for what a command needs.

A module lists them at its head, under the names that a type checker sees::

    if TYPE_CHECKING:
        import httpx
    else:
        httpx = lazy("httpx")

Their contents are named through them (``httpx.Client``), at any time but at import.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


class _LazyModule(ModuleType):
    """Stands for the module of its name, which the first look at an attribute imports."""

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self.__name__), name)


def lazy(name: str) -> ModuleType:
    """The module ``name``, or what imports it once it is used. Raises ``ImportError`` only then."""
    return sys.modules.get(name) or _LazyModule(name)
