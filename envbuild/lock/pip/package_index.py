"""The indexes of single distributions: which counts on a target, and how uv is told of it.

uv has a place for these in a ``pyproject.toml`` only (``tool.uv.sources``). So what has an index of its own
stands in such a file, and the rest beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from envbuild.errors import ResolveError
from envbuild.lock.base import PipTarget
from envbuild.lock.pip.command import expand
from envbuild.lock.pip.satisfied import marker_environment
from envbuild.lock.pip.uv_config import index_address
from envbuild.specs.model import PackageIndex

PROJECT = "indexed/pyproject.toml"
"""Not beside a ``uv.toml``, which would take its place."""


def own_indexes(indexes: Iterable[PackageIndex], target: PipTarget | None) -> dict[str, PackageIndex]:
    """The index of each distribution that has one of its own on ``target``; None: on every target.

    Raises ``ResolveError`` where there are two."""
    own: dict[str, PackageIndex] = {}
    environment = {**marker_environment(target), "extra": ""} if target is not None else None
    for index in indexes:
        for package in map(Requirement, index.packages):
            if package.marker and (environment is None or not package.marker.evaluate(environment)):
                continue
            if target is not None and own.setdefault(package.name, index) != index:
                raise ResolveError(
                    f"{package.name} is to come from {index.url} and from {own[package.name].url} on "
                    f"{target.platform}, python {target.python}",
                    hint="let the markers of its indexes exclude each other",
                )
            own[package.name] = index
    return own


def open_address(index: PackageIndex, env: Mapping[str, str]) -> str:
    """The address with the login that variables have for it."""
    return index_address(expand(index.url, env), index.name, env)


def write_project(
    directory: Path,
    requirements: Mapping[str, Sequence[str]],
    own: Mapping[str, PackageIndex],
    env: Mapping[str, str],
) -> tuple[str, ...]:
    """A file below ``directory``, which nobody else may read, that asks for ``requirements``, lists by their
    names, from ``own`` indexes. Returns its path for a command line, or nothing where nothing is asked."""
    if not requirements:
        return ()
    # uv's variables may say another address for a name.
    written = Counter(index.name for index in set(own.values()))
    names = {
        index: index.name if index.name and written[index.name] == 1 else f"index-{number}"
        for number, index in enumerate(dict.fromkeys(own.values()))
    }
    asked = [text for texts in requirements.values() for text in texts]
    lines = [
        '[project]\nname = "envbuild-indexed"\nversion = "0"',
        f"dependencies = {json.dumps(asked, ensure_ascii=False)}",
    ]
    lines += ["[tool.uv.sources]", *(f'{name} = {{index = "{names[own[name]]}"}}' for name in requirements)]
    for index, name in names.items():
        address = json.dumps(open_address(index, env), ensure_ascii=False)
        lines.append(f'[[tool.uv.index]]\nname = "{name}"\nurl = {address}\nexplicit = true')
    (directory / PROJECT).parent.mkdir(exist_ok=True)
    (directory / PROJECT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return (PROJECT,)
