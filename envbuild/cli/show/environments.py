"""What ``envbuild env`` tells people and programs. Lines are neutralised: records come from strangers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from envbuild.cli.show.report import change_json, change_lines, change_summary
from envbuild.cli.show.text import paint, printable, size_text, table

if TYPE_CHECKING:
    from datetime import datetime

    from envbuild.app.compare import Comparison, PackageVersion
    from envbuild.app.environments import RelatedRecords
    from envbuild.workspace.base import EnvironmentSummary, Event, ImageRecord, Version

NEVER = "-"


def time_text(at: datetime) -> str:
    """To the minute, UTC: ``2026-11-03 08:15``."""
    return at.strftime("%Y-%m-%d %H:%M")


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def tags_text(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in pairs)


def summary_lines(found: Sequence[EnvironmentSummary]) -> list[str]:
    """A line for each environment."""
    rows = [
        (
            each.name,
            each.latest or NEVER,
            str(each.count),
            ", ".join(f"{label}={version}" for label, version in each.labels) or NEVER,
            time_text(each.updated),
            each.description + (" (archived)" if each.archived else ""),
        )
        for each in found
    ]
    return table([("name", "latest", "versions", "labels", "updated", "description"), *rows], right=[2])


def summary_json(each: EnvironmentSummary) -> dict[str, object]:
    return {
        "name": each.name,
        "latest": each.latest,
        "versions": each.count,
        "labels": dict(each.labels),
        "description": each.description,
        "tags": dict(each.tags),
        "archived": each.archived,
        "updated": each.updated.isoformat(),
    }


def version_rows(found: Sequence[Version]) -> list[str]:
    """A line for each version of one environment."""
    rows = [
        (
            each.version,
            short(each.definition),
            ", ".join(each.labels) or NEVER,
            time_text(each.created),
            each.creator,
            _state(each),
        )
        for each in found
    ]
    return table([("version", "definition", "labels", "registered", "by", ""), *rows])


def _state(version: Version) -> str:
    states = (("anonymous", version.anonymous), ("archived", version.archived))
    return ", ".join(name for name, holds in states if holds)


def version_json(each: Version) -> dict[str, object]:
    return {
        "name": each.environment,
        "version": each.version,
        "definition_digest": each.definition,
        "description": each.description,
        "tags": dict(each.tags),
        "labels": list(each.labels),
        "created": each.created.isoformat(),
        "creator": each.creator,
        "anonymous": each.anonymous,
        "archived": each.archived,
        "origin": each.origin,
        "context": each.context,
    }


def found_lines(found: RelatedRecords) -> list[str]:
    """A version as a whole: what it is, its lock, its images, then its YAML."""
    version = found.versions[0] if found.versions else None
    rows: list[tuple[str, str]] = []
    if version is not None:
        rows = [
            ("environment", version.reference),
            ("also", ", ".join(version.reference for version in found.versions[1:])),
            ("description", version.description),
            ("tags", tags_text(version.tags)),
            ("labels", ", ".join(version.labels)),
            ("registered", f"{time_text(version.created)} by {version.creator}"),
            ("origin", version.origin),
            ("state", _state(version)),
        ]
    rows.append(("definition", found.definition))
    if found.lock is not None:
        locked = f"{', '.join(found.lock.platforms)}, {time_text(found.lock.created)}"
        rows += [("lock", found.lock.digest), ("", locked)]
    lines = table([row for row in rows if row[1]])
    for image in found.images:
        lines += _image_lines(image)
    if version is not None:
        lines += ["", printable(version.content.rstrip(), lines=True)]
    return lines


def _image_lines(image: ImageRecord) -> list[str]:
    rows = [
        ("image", image.digest),
        ("", f"{image.platform}, {image.level}, {size_text(image.size)}, lock {short(image.lock_digest)}"),
        ("", f"{time_text(image.created)} by envbuild {image.envbuild}, {image.engine} engine"),
        *(("", reference) for reference in image.references),
    ]
    # As wide as the longest key of the version above.
    return [f"{key:<11}  {printable(value)}" for key, value in rows]


def found_json(found: RelatedRecords) -> dict[str, object]:
    version = found.versions[0] if found.versions else None
    head: dict[str, object] = version_json(version) if version is not None else {}
    return {
        **head,
        "definition_digest": found.definition,
        "versions": [version.reference for version in found.versions],
        "content": version.content if version is not None else None,
        "lock": {
            "digest": found.lock.digest,
            "platforms": list(found.lock.platforms),
            "created": found.lock.created.isoformat(),
            "files": sorted(found.lock.files),
        }
        if found.lock is not None
        else None,
        "images": [_image_json(image) for image in found.images],
    }


def _image_json(image: ImageRecord) -> Mapping[str, object]:
    return {
        "digest": image.digest,
        "platform": image.platform,
        "level": image.level,
        "lock_digest": image.lock_digest,
        "lock": image.lock,
        "references": list(image.references),
        "indexes": list(image.indexes),
        "engine": image.engine,
        "size": image.size,
        "envbuild": image.envbuild,
        "created": image.created.isoformat(),
    }


def comparison_lines(found: Comparison, *, color: bool) -> list[str]:
    """What differs: the definition's lines, the pins, the sizes."""
    lines = []
    for line in found.definition:
        shade = "red" if line.startswith("-") else "green"
        lines.append(paint(printable(line), shade, color=color))
    if not lines:
        lines.append("the definitions are the same")
    if found.changes is None:
        names = f"{found.before.reference} and {found.after.reference}"
        lines.append(f"pins can't be compared: {printable(names)} aren't both locked")
    else:
        lines += change_lines(found.changes, color=color)
        lines.append(change_summary(found.changes))
    rows = [
        (
            move.platform,
            _size(move.before),
            "->",
            _size(move.after),
            f"{_size(move.pulled)} to pull" + (" (downloads, no layers known)" if move.by == "pins" else ""),
        )
        for move in found.moves
    ]
    return lines + table(rows, right=[1, 3])


def _size(size: int | None) -> str:
    return NEVER if size is None else size_text(size)


def comparison_json(found: Comparison) -> dict[str, object]:
    return {
        "before": found.before.reference,
        "after": found.after.reference,
        "same_definition": found.before.definition == found.after.definition,
        "definition": list(found.definition),
        "changes": change_json(found.changes) if found.changes is not None else None,
        "sizes": [
            {
                "platform": move.platform,
                "before": move.before,
                "after": move.after,
                "pulled": move.pulled,
                "by": move.by,
            }
            for move in found.moves
        ],
    }


def package_lines(found: Sequence[PackageVersion]) -> list[str]:
    """A line for each version: what the package is in its lock."""
    rows = []
    for each in found:
        numbers = {number for _, _, number in each.pins}
        if len(numbers) == 1:
            what = numbers.pop()
        else:
            what = ", ".join(f"{number} ({platform})" for platform, _, number in each.pins) or NEVER
        when = f"locked {time_text(each.locked)}" if each.locked is not None else "not locked"
        rows.append((each.version.version, what, when))
    return table(rows)


def package_json(found: Sequence[PackageVersion]) -> list[dict[str, object]]:
    return [
        {
            "version": each.version.version,
            "locked": each.locked.isoformat() if each.locked is not None else None,
            "pins": [
                {"platform": platform, "kind": kind, "version": number}
                for platform, kind, number in each.pins
            ],
        }
        for each in found
    ]


def event_lines(found: Sequence[Event]) -> list[str]:
    """A line for each event, the newest first."""
    rows = [
        (
            time_text(each.at),
            each.actor,
            each.action,
            f"{each.environment or ''}:{each.version}" if each.version else each.environment or "",
            _detail(each.detail),
        )
        for each in found
    ]
    return table(rows)


def _detail(detail: Mapping[str, object]) -> str:
    shown = {
        key: value for key, value in detail.items() if value not in ("", None, [], {}) and key != "origin"
    }
    parts = []
    for key, value in shown.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{key} {short(text) if text.startswith('sha256:') else text}")
    return "; ".join(parts)


def event_json(found: Sequence[Event]) -> list[dict[str, object]]:
    return [
        {
            "number": each.number,
            "at": each.at.isoformat(),
            "actor": each.actor,
            "action": each.action,
            "environment": each.environment,
            "version": each.version,
            "detail": dict(each.detail),
        }
        for each in found
    ]


def registered_text(version: Version, *, created: bool) -> str:
    """What registering came to."""
    what = "registered" if created else "is registered already"
    labels = f", labels {', '.join(version.labels)}" if version.labels else ""
    return printable(f"{version.reference} {what}: {short(version.definition)}{labels}")
