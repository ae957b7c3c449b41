"""Requests of the application, made of what options say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from envbuild.app.requests import BuildRequest, LockRequest
from envbuild.cli.options import refuse_both
from envbuild.errors import UsageError
from envbuild.platforms import Platform


def build_request(
    *,
    platforms: Sequence[object] = (),
    locked: bool,
    frozen: bool,
    upgrade: bool,
    upgrade_packages: tuple[str, ...] = (),
    as_of: date | None = None,
    dry_run: bool = False,
    **others: Any,
) -> BuildRequest:
    """The request that options say; raises ``UsageError`` where they exclude each other."""
    moves = {"upgrade": upgrade, "upgrade_package": bool(upgrade_packages), "as_of": as_of is not None}
    refuse_both(locked=locked, frozen=frozen)
    refuse_both(upgrade=upgrade, upgrade_package=bool(upgrade_packages))
    for name, value in moves.items():
        refuse_both(locked=locked, **{name: value})
        refuse_both(frozen=frozen, **{name: value})
    chosen = tuple(dict.fromkeys(platform for platform in platforms if isinstance(platform, Platform)))
    lock = LockRequest(upgrade=upgrade, upgrade_packages=upgrade_packages, as_of=as_of, dry_run=dry_run)
    return BuildRequest(platforms=chosen, locked=locked, frozen=frozen, lock=lock, **others)


def given_variables(given: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Sorted pairs; the last of a name counts, and a name alone passes on this process's value, if any."""
    chosen: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or "\0" in each:
            raise UsageError(f"{each!r} is not NAME=VALUE", hint="a variable is given as -e NAME=VALUE")
        if equals:
            chosen[name] = value
        elif name in environ:
            chosen[name] = environ[name]
    return tuple(sorted(chosen.items()))
