"""What the commands that look at images tell people and programs. Lines are neutralised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from envbuild.cli.show.report import change_json, change_lines, push_json, push_line
from envbuild.cli.show.text import count_text, paint, printable, size_text, table

if TYPE_CHECKING:
    from envbuild.images.base import CopyResult
    from envbuild.inspect.model import (
        Contained,
        ImageDifference,
        InspectedImage,
        Inspection,
        LayerDifference,
        PathDifference,
        Rebased,
        Value,
        Verdict,
    )

_SHOWN = 8
"""Packages that are named of one layer, unless all are asked for."""


def inspection_lines(inspection: Inspection, *, everything: bool) -> list[str]:
    """For people. ``everything``: all packages of each layer, each with its size."""
    lines = [f"{printable(inspection.reference)}  {inspection.digest}  {size_text(inspection.size)}"]
    for image in inspection.images:
        lines += ["", *_image_lines(image, everything)]
    if inspection.documents:
        lines += ["", f"attached ({len(inspection.documents)}):"]
        rows = [
            (document.artifact_type, document.digest, size_text(document.size))
            for document in inspection.documents
        ]
        lines += table(rows, right=[2], indent="  ")
    return lines


def _image_lines(image: InspectedImage, everything: bool) -> list[str]:
    facts = [
        ("platform", image.platform),
        ("digest", image.digest),
        ("level", image.level or ("none" if image.derived else "not envbuild's")),
        ("derived", f"made of an image of envbuild's, with {image.derived}" if image.derived else ""),
        ("created", image.created),
        ("lock", image.lock_digest),
        ("definition", image.definition_digest),
        ("base", " ".join(text for text in (image.base, image.base_digest) if text)),
        ("python", image.python),
        ("user", image.user),
        ("directory", image.working_dir),
        ("entry point", " ".join(image.entrypoint)),
        ("command", " ".join(image.command)),
        ("ports", " ".join(image.ports)),
        ("size", f"{size_text(image.size)} in {count_text(len(image.layers), 'layer')}"),
    ]
    lines = table([(name, value) for name, value in facts if value])
    setters = dict(image.activation)
    if image.env:
        lines.append("variables:")
        for name, value in image.env:
            setter = f"  (set by {printable(setters[name])})" if name in setters else ""
            lines.append(f"  {printable(name)}={printable(value)}{setter}")
    if image.labels:
        lines += ["labels:", *(f"  {printable(name)}={printable(value)}" for name, value in image.labels)]
    lines.append("layers:")
    for layer in image.layers:
        lines.append(f"  {layer.digest}  {size_text(layer.size):>9}  {printable(layer.name)}".rstrip())
        lines += _package_lines(layer.packages, everything)
    if image.packages:
        lines += ["packages, of which the layer isn't known:", *_package_lines(image.packages, everything)]
    return lines


def _package_lines(packages: Sequence[Contained], everything: bool) -> list[str]:
    if not packages:
        return []
    if everything:
        rows = [
            (
                package.kind,
                package.name,
                package.version,
                size_text(package.size) if package.size is not None else "",
            )
            for package in packages
        ]
        return table(rows, right=[3], indent="    ")
    named = ", ".join(f"{package.name} {package.version}" for package in packages[:_SHOWN])
    more = len(packages) - _SHOWN
    return [f"    {printable(named)}" + (f" and {more} more" if more > 0 else "")]


def inspection_json(inspection: Inspection) -> dict[str, object]:
    """For programs."""
    return {
        "reference": inspection.reference,
        "digest": inspection.digest,
        "media_type": inspection.media_type,
        "size": inspection.size,
        "images": [_image_json(image) for image in inspection.images],
        "attached": None
        if inspection.documents is None
        else [
            {"digest": document.digest, "artifact_type": document.artifact_type, "size": document.size}
            for document in inspection.documents
        ],
    }


def _image_json(image: InspectedImage) -> dict[str, object]:
    return {
        "platform": image.platform,
        "digest": image.digest,
        "config_digest": image.config_digest,
        "level": image.level or None,
        "derived": image.derived or None,
        "created": image.created or None,
        "lock_digest": image.lock_digest or None,
        "definition_digest": image.definition_digest or None,
        "base": image.base or None,
        "base_digest": image.base_digest or None,
        "python": image.python or None,
        "user": image.user,
        "working_dir": image.working_dir,
        "entrypoint": list(image.entrypoint),
        "command": list(image.command),
        "env": dict(image.env),
        "activation": dict(image.activation),
        "ports": list(image.ports),
        "labels": dict(image.labels),
        "size": image.size,
        "packages_from": image.packages_from or None,
        "layers": [
            {
                "name": layer.name or None,
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "media_type": layer.media_type,
                "size": layer.size,
                "packages": _packages_json(layer.packages),
            }
            for layer in image.layers
        ],
        "packages": _packages_json(image.packages),
    }


def _packages_json(packages: Sequence[Contained]) -> list[dict[str, object]]:
    return [
        {"kind": package.kind, "name": package.name, "version": package.version, "size": package.size}
        for package in packages
    ]


def difference_lines(differences: Sequence[ImageDifference], *, color: bool) -> list[str]:
    """For people: packages, config, bytes and paths."""
    lines: list[str] = []
    for difference in differences:
        where = f"{difference.platform}: " if difference.platform else ""
        if difference.same:
            lines.append(f"{where}the same image")
            continue
        lines += change_lines(difference.packages, color=color)
        lines += _value_lines(difference.config)
        if difference.only:
            verb = "differ" if len(difference.only) > 1 else "differs"
            lines.append(f"{where}the same files and settings; only {' and '.join(difference.only)} {verb}")
        lines.append(
            f"{where}to pull for who has the first: "
            f"{size_text(difference.pulled)} of {size_text(difference.size)}"
        )
        if difference.paths is not None:
            lines += _path_lines(difference.paths, difference.more_paths)
    return lines


def _value_lines(values: Sequence[Value]) -> list[str]:
    lines = []
    for key, before, after in values:
        if before is not None:
            lines.append(f"- {printable(key)}: {printable(before)}")
        if after is not None:
            lines.append(f"+ {printable(key)}: {printable(after)}")
    return lines


def _path_lines(paths: Sequence[PathDifference], more: int) -> list[str]:
    lines = [f"  /{printable(path.path)}: {', '.join(path.reasons)}" for path in paths]
    return [*lines, f"  and {count_text(more, 'path')} more"] if more else lines


def difference_json(before: str, after: str, differences: Sequence[ImageDifference]) -> dict[str, object]:
    """For programs."""
    return {
        "before": before,
        "after": after,
        "differs": any(difference.differs for difference in differences),
        "images": [
            {
                "platform": difference.platform or None,
                "same": difference.same,
                "packages": change_json(difference.packages),
                "config": _values_json(difference.config),
                "only": list(difference.only),
                "pulled": difference.pulled,
                "size": difference.size,
                "paths": None if difference.paths is None else _paths_json(difference.paths),
                "more_paths": difference.more_paths,
            }
            for difference in differences
        ],
    }


def _values_json(values: Sequence[Value]) -> list[dict[str, object]]:
    return [{"key": key, "before": before, "after": after} for key, before, after in values]


def _paths_json(paths: Sequence[PathDifference]) -> list[dict[str, object]]:
    return [{"path": path.path, "reasons": list(path.reasons)} for path in paths]


def verdict_lines(verdicts: Sequence[Verdict], *, color: bool) -> list[str]:
    """For people: what came of each platform; of what differs, what the lock gives is ``-``."""
    lines: list[str] = []
    for verdict in verdicts:
        title = f"{verdict.platform} {verdict.digest}: "
        if verdict.reproduced:
            lines.append(title + paint(f"reproduced ({verdict.level})", "green", color=color))
        else:
            lines.append(
                title + paint("not reproduced", "red", color=color) + f": {printable(verdict.reason)}"
            )
        for layer in verdict.layers:
            lines += _layer_lines(layer)
        lines += _value_lines(verdict.config)
        lines += _value_lines(verdict.manifest)
        if verdict.signed is not None:
            lines.append("signed by the key" if verdict.signed else "not signed by the key")
    return lines


def _layer_lines(layer: LayerDifference) -> list[str]:
    if layer.digest is None:
        what = f"missing, the lock gives {layer.expected}"
    elif layer.expected is None:
        what = f"{layer.digest}, the lock gives none like it"
    else:
        what = f"{layer.digest}, the lock gives {layer.expected}"
    inside = ", ".join(layer.artifacts[:_SHOWN])
    more = len(layer.artifacts) - _SHOWN
    lines = [f"layer {printable(layer.name)}: {what}"]
    if inside:
        lines.append(f"  of {printable(inside)}" + (f" and {more} more" if more > 0 else ""))
    if not layer.paths and layer.digest and layer.expected:
        lines.append("  the same files, compressed otherwise or in another order")
    return lines + _path_lines(layer.paths, layer.more_paths)


def verdict_json(reference: str, verdicts: Sequence[Verdict]) -> dict[str, object]:
    """For programs."""
    return {
        "reference": reference,
        "reproduced": all(verdict.reproduced for verdict in verdicts),
        "images": [
            {
                "platform": verdict.platform,
                "digest": verdict.digest,
                "level": verdict.level or None,
                "reproduced": verdict.reproduced,
                "reason": verdict.reason or None,
                "signed": verdict.signed,
                "layers": [
                    {
                        "name": layer.name or None,
                        "digest": layer.digest,
                        "expected": layer.expected,
                        "artifacts": list(layer.artifacts),
                        "paths": _paths_json(layer.paths),
                        "more_paths": layer.more_paths,
                    }
                    for layer in verdict.layers
                ],
                "config": _values_json(verdict.config),
                "manifest": _values_json(verdict.manifest),
            }
            for verdict in verdicts
        ],
    }


def rebased_lines(rebased: Rebased, copies: Sequence[CopyResult], *, color: bool) -> list[str]:
    """For people: how the base differs, what was made, and where it went."""
    lines = change_lines(rebased.changes, color=color)
    lines += [f"composed from packages, {printable(reason)}" for reason in rebased.reasons]
    lines.append(
        f"{count_text(rebased.taken, 'layer')} taken over, {count_text(rebased.made, 'layer')} composed"
    )
    places = [*rebased.published, *(push_line(copy.pushed) for copy in copies if copy.pushed is not None)]
    return [*lines, *map(printable, places)]


def rebased_json(rebased: Rebased, copies: Sequence[CopyResult]) -> dict[str, object]:
    """For programs."""
    return {
        "reference": rebased.reference,
        "digest": rebased.digest,
        "images": [
            {"platform": str(image.platform), "digest": image.digest, "lock_digest": image.lock_digest}
            for image in rebased.images
        ],
        "changes": change_json(rebased.changes),
        "taken": rebased.taken,
        "composed": rebased.made,
        "reasons": list(rebased.reasons),
        "published": list(rebased.published),
        "pushed": [push_json(copy.pushed) for copy in copies if copy.pushed is not None],
    }
