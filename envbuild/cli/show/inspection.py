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


def inspection_lines(found: Inspection, *, everything: bool) -> list[str]:
    """For people. ``everything``: all packages of each layer, each with its size."""
    lines = [f"{printable(found.reference)}  {found.digest}  {size_text(found.size)}"]
    for image in found.images:
        lines += ["", *_image_lines(image, everything)]
    if found.documents:
        lines += ["", f"attached ({len(found.documents)}):"]
        rows = [
            (document.artifact_type, document.digest, size_text(document.size))
            for document in found.documents
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
        ("base", " ".join(each for each in (image.base, image.base_digest) if each)),
        ("python", image.python),
        ("user", image.user),
        ("directory", image.working_dir),
        ("entry point", " ".join(image.entrypoint)),
        ("command", " ".join(image.command)),
        ("ports", " ".join(image.ports)),
        ("size", f"{size_text(image.size)} in {count_text(len(image.layers), 'layer')}"),
    ]
    lines = table([(name, value) for name, value in facts if value])
    for title, pairs in (("variables", image.env), ("labels", image.labels)):
        if pairs:
            lines += [f"{title}:", *(f"  {printable(name)}={printable(value)}" for name, value in pairs)]
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


def inspection_json(found: Inspection) -> dict[str, object]:
    """For programs."""
    return {
        "reference": found.reference,
        "digest": found.digest,
        "media_type": found.media_type,
        "size": found.size,
        "images": [_image_json(image) for image in found.images],
        "attached": None
        if found.documents is None
        else [
            {"digest": document.digest, "artifact_type": document.artifact_type, "size": document.size}
            for document in found.documents
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


def difference_lines(found: Sequence[ImageDifference], *, color: bool) -> list[str]:
    """For people: packages, config, bytes and paths."""
    lines: list[str] = []
    for each in found:
        where = f"{each.platform}: " if each.platform else ""
        if each.same:
            lines.append(f"{where}the same image")
            continue
        lines += change_lines(each.packages, color=color)
        lines += _value_lines(each.config)
        lines.append(
            f"{where}to pull for who has the first: {size_text(each.pulled)} of {size_text(each.size)}"
        )
        if each.paths is not None:
            lines += _path_lines(each.paths, each.more_paths)
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
    lines = [f"  /{printable(each.path)}: {', '.join(each.reasons)}" for each in paths]
    return [*lines, f"  and {count_text(more, 'path')} more"] if more else lines


def difference_json(before: str, after: str, found: Sequence[ImageDifference]) -> dict[str, object]:
    """For programs."""
    return {
        "before": before,
        "after": after,
        "differs": any(each.differs for each in found),
        "images": [
            {
                "platform": each.platform or None,
                "same": each.same,
                "packages": change_json(each.packages),
                "config": _values_json(each.config),
                "pulled": each.pulled,
                "size": each.size,
                "paths": None if each.paths is None else _paths_json(each.paths),
                "more_paths": each.more_paths,
            }
            for each in found
        ],
    }


def _values_json(values: Sequence[Value]) -> list[dict[str, object]]:
    return [{"key": key, "before": before, "after": after} for key, before, after in values]


def _paths_json(paths: Sequence[PathDifference]) -> list[dict[str, object]]:
    return [{"path": each.path, "reasons": list(each.reasons)} for each in paths]


def verdict_lines(found: Sequence[Verdict], *, color: bool) -> list[str]:
    """For people: what came of each platform; of what differs, what the lock gives is ``-``."""
    lines: list[str] = []
    for each in found:
        title = f"{each.platform} {each.digest}: "
        if each.reproduced:
            lines.append(title + paint(f"reproduced ({each.level})", "green", color=color))
        else:
            lines.append(title + paint("not reproduced", "red", color=color) + f": {printable(each.reason)}")
        for layer in each.layers:
            lines += _layer_lines(layer)
        lines += _value_lines(each.config)
        lines += _value_lines(each.manifest)
        if each.signed is not None:
            lines.append("signed by the key" if each.signed else "not signed by the key")
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


def verdict_json(reference: str, found: Sequence[Verdict]) -> dict[str, object]:
    """For programs."""
    return {
        "reference": reference,
        "reproduced": all(each.reproduced for each in found),
        "images": [
            {
                "platform": each.platform,
                "digest": each.digest,
                "level": each.level or None,
                "reproduced": each.reproduced,
                "reason": each.reason or None,
                "signed": each.signed,
                "layers": [
                    {
                        "name": layer.name or None,
                        "digest": layer.digest,
                        "expected": layer.expected,
                        "artifacts": list(layer.artifacts),
                        "paths": _paths_json(layer.paths),
                        "more_paths": layer.more_paths,
                    }
                    for layer in each.layers
                ],
                "config": _values_json(each.config),
                "manifest": _values_json(each.manifest),
            }
            for each in found
        ],
    }


def rebased_lines(found: Rebased, copies: Sequence[CopyResult], *, color: bool) -> list[str]:
    """For people: how the base differs, what was made, and where it went."""
    lines = change_lines(found.changes, color=color)
    lines += [f"composed from packages, {printable(reason)}" for reason in found.reasons]
    lines.append(f"{count_text(found.taken, 'layer')} taken over, {count_text(found.made, 'layer')} composed")
    places = [*found.published, *(push_line(copy.pushed) for copy in copies if copy.pushed is not None)]
    return [*lines, *map(printable, places)]


def rebased_json(found: Rebased, copies: Sequence[CopyResult]) -> dict[str, object]:
    """For programs."""
    return {
        "reference": found.reference,
        "digest": found.digest,
        "images": [
            {"platform": str(image.platform), "digest": image.digest, "lock_digest": image.lock_digest}
            for image in found.images
        ],
        "changes": change_json(found.changes),
        "taken": found.taken,
        "composed": found.made,
        "reasons": list(found.reasons),
        "published": list(found.published),
        "pushed": [push_json(copy.pushed) for copy in copies if copy.pushed is not None],
    }
