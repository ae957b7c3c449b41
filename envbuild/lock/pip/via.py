"""Who asked for a distribution: the ``# via`` comments of a compiled requirements file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.utils import canonicalize_name

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==|@)")


def load_via(text: str, sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Name to the sorted names that asked for it. ``sources`` says which file a name is asked for in
    (``-r requirements.in``); constraint files asked for nothing and are left out."""
    found: dict[str, set[str]] = {}
    current: set[str] | None = None
    for line in text.splitlines():
        match = _PIN.match(line)
        if match is not None:
            name = canonicalize_name(match[1])
            current = found.setdefault(name, set())
            if name in sources:
                current.add(sources[name])
        elif current is not None and line.startswith("    #"):
            asker = line.strip().lstrip("#").strip().removeprefix("via").strip()
            if asker and not asker.startswith(("-r ", "-c ")):
                # uv names an extra of the asker too: ``fastapi[all]``.
                current.add(canonicalize_name(asker.split("[", 1)[0]))
    return {name: tuple(sorted(askers)) for name, askers in found.items()}
