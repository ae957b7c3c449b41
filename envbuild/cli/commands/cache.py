"""``envbuild cache``: what the local store holds, and making it smaller."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from envbuild.cli.call import Call
from envbuild.cli.options import display_options, json_option, store_options
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import count_text, size_text, table
from envbuild.errors import UsageError
from envbuild.store.content import Store
from envbuild.store.prune import prune as prune_store
from envbuild.store.prune import usage


@click.group(short_help="Show or prune the local store.")
def command() -> None:
    """Show or prune the local store: downloads, segments, layers and images."""


@command.command()
@store_options
@json_option
@display_options
@with_call
def info(call: Call, as_json: bool) -> int:
    """Show what the store holds, by kind, in bytes on disk."""
    store = Store(call.settings().cache_dir)
    areas = usage(store)
    total = sum(area.bytes for area in areas)
    if as_json:
        kinds = [{"area": row.area, "files": row.files, "bytes": row.bytes} for row in areas]
        call.out(json_text({"directory": str(store.root), "bytes": total, "areas": kinds}))
        return 0
    call.out(str(store.root))
    rows = [(row.area, count_text(row.files, "file"), size_text(row.bytes)) for row in areas]
    for line in table([*rows, ("total", "", size_text(total))], right=[1, 2], indent="  "):
        call.out(line)
    return 0


@command.command()
@click.option("--keep-last", type=click.IntRange(0), metavar="N", help="Keep the N images used last.")
@click.option("--max-size", metavar="SIZE", help="Prune until the store is at most this large: 20GB.")
@click.option("--max-age", metavar="AGE", help="Prune what wasn't used for this long: 30d, 12h.")
@click.option("--dry-run", is_flag=True, help="Show what would go; remove nothing.")
@store_options
@json_option
@display_options
@with_call
def prune(
    call: Call,
    keep_last: int | None,
    max_size: str | None,
    max_age: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove from the store what the options don't keep; never what a build, a run or a service uses.

    Without a limit: what no image needs, root file systems that were unpacked and that nothing runs in now
    (they are unpacked again where need be), and what killed processes left behind. A run or a service keeps
    its own image and root file system, however long it runs, and nothing else.
    """
    result = prune_store(
        Store(call.settings().cache_dir),
        keep_last=keep_last,
        max_bytes=_bytes(max_size) if max_size is not None else None,
        max_age=_age(max_age) if max_age is not None else None,
        dry_run=dry_run,
    )
    if as_json:
        call.out(
            json_text(
                {
                    "dry_run": dry_run,
                    "files": result.files,
                    "bytes": result.bytes,
                    "left": result.left,
                    "images": list(result.images),
                    "removed": list(result.removed),
                }
            )
        )
        return 0
    verb = "would remove" if dry_run else "removed"
    parts = [count_text(len(result.images), "image"), count_text(result.files, "file")]
    if result.trees:
        parts.insert(1, count_text(len(result.trees), "unpacked root file system"))
    call.out(f"{verb} {', '.join(parts)}, {size_text(result.bytes)}; {size_text(result.left)} left")
    return 0


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def _bytes(text: str) -> int:
    """``20GB``, ``20G``, ``500 MB``, ``1.5GiB`` or plain bytes, in bytes."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?", text.strip().lower(), re.ASCII)
    if match is None or (match[3] and not match[2]):
        raise UsageError(f"--max-size must be a size like 20GB, not {text!r}")
    unit = _UNITS[match[2]]
    if match[3]:
        unit = 1024 ** list(_UNITS.values()).index(unit)
    return int(float(match[1]) * unit)


def _age(text: str) -> timedelta:
    """``30d``, ``12h``, ``45m``, ``2w``."""
    match = re.fullmatch(r"(\d{1,6})\s*([mhdw])", text.strip().lower(), re.ASCII)
    if match is None:
        raise UsageError(f"--max-age must be an age like 30d or 12h, not {text!r}")
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
    return timedelta(**{unit: int(match[1])})
