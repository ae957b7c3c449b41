"""What ``push``, ``pull`` and ``copy`` tell people and programs. Lines are neutralised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from envbuild.cli.show.report import push_json, push_line
from envbuild.cli.show.text import count_text, printable, seconds_text, size_text

if TYPE_CHECKING:
    from envbuild.images.base import CopyResult, PullResult


def copy_lines(results: Sequence[CopyResult]) -> list[str]:
    """What was copied, and what had to be moved to each place for that."""
    first = results[0]
    what = f"{count_text(first.manifests, 'manifest')}, {size_text(first.size)}"
    if first.referrers:
        what += f", {count_text(first.referrers, 'referrer')}"
    places = [
        f"copied to {result.reference}" if result.pushed is None else push_line(result.pushed)
        for result in results
    ]
    seconds = seconds_text(sum(result.seconds for result in results))
    return [*map(printable, (f"{first.source}: {what}", *places)), f"done in {seconds}"]


def copy_json(results: Sequence[CopyResult]) -> dict[str, object]:
    """The object of ``push --json`` and ``copy --json``, of one thing that went to one place or to several;
    sizes in bytes."""
    first = results[0]
    return {
        "reference": first.reference,
        "digest": first.digest,
        "media_type": first.media_type,
        "source": first.source,
        "manifests": first.manifests,
        "size": first.size,
        "referrers": first.referrers,
        "seconds": round(sum(result.seconds for result in results), 3),
        "pushed": [push_json(result.pushed) for result in results if result.pushed is not None],
    }


def pull_lines(result: PullResult) -> list[str]:
    """Each platform's image, what came, and where it was brought."""
    lines = []
    for image in result.images:
        size = size_text(sum(layer.size for layer in image.layers))
        level = f"  {image.level}" if image.level else ""
        lines.append(printable(f"{image.platform}{level}  {count_text(len(image.layers), 'layer')}, {size}"))
    came = [
        f"{size_text(amount)} {what}"
        for amount, what in ((result.fetched, "fetched"), (result.present, "there"))
        if amount
    ]
    lines.append(f"{', '.join(came) or 'nothing to fetch'} in {seconds_text(result.seconds)}")
    return [*lines, *map(printable, result.published)]


def pull_json(result: PullResult) -> dict[str, object]:
    """The object of ``pull --json``; sizes in bytes."""
    return {
        "reference": result.reference,
        "digest": result.digest,
        "images": [
            {
                "platform": str(image.platform),
                "digest": image.digest,
                "level": image.level,
                "lock_digest": image.lock_digest,
                "definition_digest": image.definition_digest,
                "layers": [
                    {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size}
                    for layer in image.layers
                ],
            }
            for image in result.images
        ],
        "fetched": result.fetched,
        "present": result.present,
        "seconds": round(result.seconds, 3),
        "published": list(result.published),
    }
