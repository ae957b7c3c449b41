"""What a spec says to pip, with its relative files found."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

from envbuild.specs.model import PipRequirement, PipSpec

_RELATIVE_FILE = re.compile(r"(?<= @ )file:(?!/)[^\s#]+")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|\$\{|/")


def located_pip(pip: PipSpec, directory: Path) -> PipSpec:
    """``pip`` with ``file:`` addresses and ``--find-links`` paths made absolute from ``directory``.

    For resolvers, which run in a directory of their own; identities and locks hold the relative form.
    """
    directory = directory.absolute()
    return replace(
        pip,
        requirements=tuple(_located(requirement, directory) for requirement in pip.requirements),
        constraints=tuple(_located(constraint, directory) for constraint in pip.constraints),
        options=tuple(_option(option, directory) for option in pip.options),
    )


def located_address(address: str, directory: Path) -> str:
    """A relative ``file:`` address made absolute from ``directory``; any other as it is."""
    path = address.removeprefix("file:")
    if path == address or path.startswith("/"):
        return address
    return "file://" + quote(os.path.normpath(directory.absolute() / unquote(path)))


def relative_address(address: str, directory: Path) -> str:
    """A ``file:`` address below ``directory`` made relative to it, as a lock holds it; any other as it is."""
    path = address.removeprefix("file://")
    if path == address:
        return address
    place = Path(unquote(path))
    if not place.is_relative_to(directory.absolute()):
        return address
    return "file:" + quote(place.relative_to(directory.absolute()).as_posix())


def _located(requirement: PipRequirement, directory: Path) -> PipRequirement:
    def absolute(match: re.Match[str]) -> str:
        return located_address(match[0], directory)

    return replace(requirement, text=_RELATIVE_FILE.sub(absolute, requirement.text))


def _option(option: str, directory: Path) -> str:
    name, _, value = option.partition(" ")
    if name != "--find-links" or _ADDRESS.match(value):
        return option
    return f"{name} {os.path.normpath(directory / value)}"
