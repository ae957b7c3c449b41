"""``envbuild prune``: old images of a repository that envbuild made."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import click

from envbuild.app import images
from envbuild.cli.call import Call
from envbuild.cli.options import display_options, json_option, store_options
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import count_text, printable, table

if TYPE_CHECKING:
    from envbuild.images.base import OwnImage, PrunePlan


@click.command(short_help="Remove old images of a repository that envbuild made.")
@click.argument("repository", metavar="REPO")
@click.option("--keep", type=click.IntRange(0), required=True, metavar="N", help="Keep the N newest.")
@click.option(
    "--older-than",
    type=click.IntRange(0, 36500),
    metavar="DAYS",
    help="Remove only what was pushed longer ago.",
)
@click.option("--yes", is_flag=True, help="Remove them; without it, only show what would go.")
@store_options
@json_option
@display_options
@with_call
def command(call: Call, repository: str, keep: int, older_than: int | None, yes: bool, as_json: bool) -> int:
    """Remove the images of REPO that envbuild made, but for the N newest and what another tag names.

    An image is envbuild's where its tag is the one of its own lock. What is attached to it goes with it.
    Its time is that of its first push, as its provenance says; one without provenance is the oldest, and
    stays where --older-than is given.
    """
    removed: list[OwnImage] = []
    with call.session() as session:
        pruner = images.repository_pruner(session, repository)
        now = datetime.now(timezone.utc)
        age = None if older_than is None else timedelta(days=older_than)
        plan = pruner.plan(keep, now=now, older_than=age)
        if yes:
            for image in pruner.remove(plan):
                removed.append(image)
                call.say(f"removed {printable(image.tag)} {image.digest}")
    if as_json:
        call.out(json_text(_json(pruner.repository.name, plan, removed, dry_run=not yes)))
        return 0
    for line in _lines(plan, removed, dry_run=not yes):
        call.out(line)
    return 0


def _lines(plan: PrunePlan, removed: list[OwnImage], *, dry_run: bool) -> list[str]:
    gone = plan.remove if dry_run else tuple(removed)
    rows = []
    for image in plan.images:
        what = "remove" if image in plan.remove else f"keep: {printable(image.kept)}"
        when = image.pushed.strftime("%Y-%m-%d %H:%M") if image.pushed else "time unknown"
        rows.append((printable(image.tag), when, image.digest[:19], what))
    lines = table(rows, right=[]) if dry_run and rows else []
    verb = "would remove" if dry_run else "removed"
    left = len(plan.images) - len(gone)
    lines.append(
        f"{verb} {count_text(len(gone), 'image')}, {left} left; "
        f"{count_text(len(plan.others), 'tag')} not envbuild's own"
    )
    return lines


def _json(repository: str, plan: PrunePlan, removed: list[OwnImage], *, dry_run: bool) -> dict[str, object]:
    gone = plan.remove if dry_run else tuple(removed)
    return {
        "repository": repository,
        "dry_run": dry_run,
        "removed": [_image(tag) for tag in gone],
        "kept": [
            {**_image(image), "why": image.kept or "it changed meanwhile"}
            for image in plan.images
            if image not in gone
        ],
        "others": list(plan.others),
    }


def _image(image: OwnImage) -> dict[str, object]:
    return {
        "tag": image.tag,
        "digest": image.digest,
        "pushed": image.pushed.strftime("%Y-%m-%dT%H:%M:%SZ") if image.pushed else None,
    }
