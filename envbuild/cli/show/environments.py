"""What ``envbuild env`` tells people and programs. Lines are neutralised: records come from strangers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.save import exported, save, write_file
from envbuild.cli.show.report import change_json, change_lines, change_summary, json_text
from envbuild.cli.show.text import paint, printable, size_text, table
from envbuild.errors import PublishError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from envbuild.app.compare import Comparison, PackageVersion
    from envbuild.app.environments import RelatedRecords
    from envbuild.cli.call import Call
    from envbuild.specs.model import Spec
    from envbuild.workspace.base import EnvironmentSummary, HistoryEvent, ImageRecord, Version

NEVER = "-"


def time_text(at: datetime) -> str:
    """To the minute, UTC: ``2026-11-03 08:15``."""
    return at.strftime("%Y-%m-%d %H:%M")


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def tags_text(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in pairs)


def summary_lines(summaries: Sequence[EnvironmentSummary]) -> list[str]:
    """A line for each environment."""
    rows = [
        (
            summary.name,
            summary.latest or NEVER,
            str(summary.count),
            ", ".join(f"{label}={version}" for label, version in summary.labels) or NEVER,
            time_text(summary.updated),
            summary.description + (" (archived)" if summary.archived else ""),
        )
        for summary in summaries
    ]
    return table([("name", "latest", "versions", "labels", "updated", "description"), *rows], right=[2])


def summary_json(summary: EnvironmentSummary) -> dict[str, object]:
    return {
        "name": summary.name,
        "latest": summary.latest,
        "versions": summary.count,
        "labels": dict(summary.labels),
        "description": summary.description,
        "tags": dict(summary.tags),
        "archived": summary.archived,
        "updated": summary.updated.isoformat(),
    }


def version_rows(versions: Sequence[Version]) -> list[str]:
    """A line for each version of one environment."""
    rows = [
        (
            version.version,
            short(version.definition),
            ", ".join(version.labels) or NEVER,
            time_text(version.created),
            version.creator,
            _state(version),
        )
        for version in versions
    ]
    return table([("version", "definition", "labels", "registered", "by", ""), *rows])


def _state(version: Version) -> str:
    states = (("anonymous", version.anonymous), ("archived", version.archived))
    return ", ".join(name for name, holds in states if holds)


def version_json(version: Version) -> dict[str, object]:
    return {
        "name": version.environment,
        "version": version.version,
        "definition_digest": version.definition,
        "description": version.description,
        "tags": dict(version.tags),
        "labels": list(version.labels),
        "created": version.created.isoformat(),
        "creator": version.creator,
        "anonymous": version.anonymous,
        "archived": version.archived,
        "origin": version.origin,
        "context": version.context,
    }


def found_lines(records: RelatedRecords) -> list[str]:
    """A version as a whole: what it is, its lock, its images, then its YAML."""
    version = records.versions[0] if records.versions else None
    rows: list[tuple[str, str]] = []
    if version is not None:
        rows = [
            ("environment", version.reference),
            ("also", ", ".join(version.reference for version in records.versions[1:])),
            ("description", version.description),
            ("tags", tags_text(version.tags)),
            ("labels", ", ".join(version.labels)),
            ("registered", f"{time_text(version.created)} by {version.creator}"),
            ("origin", version.origin),
            ("state", _state(version)),
        ]
    rows.append(("definition", records.definition))
    if records.lock is not None:
        locked = f"{', '.join(records.lock.platforms)}, {time_text(records.lock.created)}"
        rows += [("lock", records.lock.digest), ("", locked)]
    lines = table([row for row in rows if row[1]])
    for image in records.images:
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


def found_json(records: RelatedRecords) -> dict[str, object]:
    version = records.versions[0] if records.versions else None
    head: dict[str, object] = version_json(version) if version is not None else {}
    return {
        **head,
        "definition_digest": records.definition,
        "versions": [version.reference for version in records.versions],
        "content": version.content if version is not None else None,
        "lock": {
            "digest": records.lock.digest,
            "platforms": list(records.lock.platforms),
            "created": records.lock.created.isoformat(),
            "files": sorted(records.lock.files),
        }
        if records.lock is not None
        else None,
        "images": [_image_json(image) for image in records.images],
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


def comparison_lines(comparison: Comparison, *, color: bool) -> list[str]:
    """What differs: the definition's lines, the pins, the sizes."""
    lines = []
    for line in comparison.definition:
        shade = "red" if line.startswith("-") else "green"
        lines.append(paint(printable(line), shade, color=color))
    if not lines:
        lines.append("the definitions are the same")
    if comparison.changes is None:
        names = f"{comparison.before.reference} and {comparison.after.reference}"
        lines.append(f"pins can't be compared: {printable(names)} aren't both locked")
    else:
        lines += change_lines(comparison.changes, color=color)
        lines.append(change_summary(comparison.changes))
    rows = [
        (
            move.platform,
            _size(move.before),
            "->",
            _size(move.after),
            f"{_size(move.pulled)} to pull" + (" (downloads, no layers known)" if move.by == "pins" else ""),
        )
        for move in comparison.moves
    ]
    return lines + table(rows, right=[1, 3])


def _size(size: int | None) -> str:
    return NEVER if size is None else size_text(size)


def comparison_json(comparison: Comparison) -> dict[str, object]:
    return {
        "before": comparison.before.reference,
        "after": comparison.after.reference,
        "same_definition": comparison.before.definition == comparison.after.definition,
        "definition": list(comparison.definition),
        "changes": change_json(comparison.changes) if comparison.changes is not None else None,
        "sizes": [
            {
                "platform": move.platform,
                "before": move.before,
                "after": move.after,
                "pulled": move.pulled,
                "by": move.by,
            }
            for move in comparison.moves
        ],
    }


def package_lines(packages: Sequence[PackageVersion]) -> list[str]:
    """A line for each version: what the package is in its lock."""
    rows = []
    for package in packages:
        numbers = {number for _, _, number in package.pins}
        if len(numbers) == 1:
            what = numbers.pop()
        else:
            what = ", ".join(f"{number} ({platform})" for platform, _, number in package.pins) or NEVER
        when = f"locked {time_text(package.locked)}" if package.locked is not None else "not locked"
        rows.append((package.version.version, what, when))
    return table(rows)


def package_json(packages: Sequence[PackageVersion]) -> list[dict[str, object]]:
    return [
        {
            "version": package.version.version,
            "locked": package.locked.isoformat() if package.locked is not None else None,
            "pins": [
                {"platform": platform, "kind": kind, "version": number}
                for platform, kind, number in package.pins
            ],
        }
        for package in packages
    ]


def event_lines(events: Sequence[HistoryEvent]) -> list[str]:
    """A line for each event, the newest first."""
    rows = [
        (
            time_text(event.at),
            event.actor,
            event.action,
            f"{event.environment or ''}:{event.version}" if event.version else event.environment or "",
            _detail(event.detail),
        )
        for event in events
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


def event_json(events: Sequence[HistoryEvent]) -> list[dict[str, object]]:
    return [
        {
            "number": event.number,
            "at": event.at.isoformat(),
            "actor": event.actor,
            "action": event.action,
            "environment": event.environment,
            "version": event.version,
            "detail": dict(event.detail),
        }
        for event in events
    ]


def registered_text(version: Version, *, created: bool) -> str:
    """What registering came to."""
    what = "registered" if created else "is registered already"
    labels = f", labels {', '.join(version.labels)}" if version.labels else ""
    return printable(f"{version.reference} {what}: {short(version.definition)}{labels}")


def deliver(
    call: Call, spec: Spec, *, format: str, output: str | None, overwrite: bool, as_json: bool
) -> None:
    """Writes ``spec`` to stdout (``-`` too), or to ``output``: a file, or a directory that is there or ends
    in a slash.

    With ``as_json`` stdout gets one object with all files."""
    exported_spec = exported(spec, format)
    left_out = (*spec.left_out, *exported_spec.left_out)
    if output is None or output == "-":
        if len(exported_spec.files) > 1 and not as_json:
            names = ", ".join(name for name, _ in exported_spec.files)
            raise UsageError(f"{format} is several files: {names}", hint="name a directory with -o DIR/")
        if not as_json:
            call.stdout.write(exported_spec.files[0][1].decode())
        written: list[str] = []
    else:
        path = call.cwd / output
        if len(exported_spec.files) > 1 or output.endswith("/") or path.is_dir():
            left_out = (*spec.left_out, *save(spec, path, format=format, overwrite=overwrite))
            written = [str(path / name) for name, _ in exported_spec.files]
        else:
            if path.exists() and not overwrite:
                raise UsageError(f"{output} is there already", hint="--overwrite replaces it")
            try:
                write_file(path, exported_spec.files[0][1])
            except OSError as error:
                raise PublishError(f"can't write {output}: {error.strerror}") from error
            written = [str(path)]
            if exported_spec.names_context:
                left_out = tuple(line for line in left_out if not line.startswith("build: "))
                left_out += ("build: the context isn't beside it; -o DIR/ writes it too",)
        call.say(f"{printable(', '.join(_seen(call.cwd, file) for file in written))} written")
    if as_json:
        files = {name: data.decode() for name, data in exported_spec.files}
        call.out(
            json_text({"format": format, "files": files, "written": written, "left_out": list(left_out)})
        )
    for line in dict.fromkeys(left_out):
        call.say(f"left out: {printable(line)}")


def _seen(cwd: Path, file: str) -> str:
    path = Path(file)
    return path.relative_to(cwd).as_posix() if path.is_relative_to(cwd) else file
