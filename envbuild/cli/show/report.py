"""What commands tell people and programs of a result. Lines are neutralised: names come from strangers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from envbuild.cli.show.progress import amount_text
from envbuild.cli.show.stages import Tally
from envbuild.cli.show.text import count_text, paint, printable, seconds_text, size_text, table
from envbuild.lock.model import ContextBase, ImageBase, base_title

if TYPE_CHECKING:
    from envbuild.app.requests import BuildResult, PinChange, RenderResult
    from envbuild.images.base import PushResult
    from envbuild.oci.image import Image
    from envbuild.plan.activation import Activation
    from envbuild.plan.model import Artifact, Plan

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_COLORS = {"added": "green", "removed": "red", "changed": "yellow"}


def json_text(value: object) -> str:
    """``value`` as JSON for people and programs: indented, keys in the order given, ASCII only."""
    return json.dumps(value, indent=2)


def stage_lines(tally: Tally) -> list[str]:
    """The table of stages, seconds and amounts. Stages inside each other or in parallel overlap."""
    rows = [("stage", "seconds", "")]
    rows += [(row.name, f"{row.seconds:.2f}", amount_text(row)) for row in tally.rows()]
    rows.append(("total", f"{tally.elapsed():.2f}", ""))
    return table(rows, right=[1])


def change_kind(change: PinChange) -> str:
    """``added``, ``removed`` or ``changed``."""
    if change.before is None:
        return "added"
    return "removed" if change.after is None else "changed"


def change_lines(changes: Sequence[PinChange], *, color: bool) -> list[str]:
    """A line for each pin that differs, those that differ alike on several platforms together."""
    alike: dict[tuple[str, str, str | None, str | None], list[str]] = {}
    kinds = {}
    for change in changes:
        key = (change.kind, change.name, change.before, change.after)
        alike.setdefault(key, []).append(change.platform)
        kinds[key] = change_kind(change)
    groups: dict[tuple[str, ...], list[tuple[str, str, str | None, str | None]]] = {}
    for key, platforms in alike.items():
        groups.setdefault(tuple(platforms), []).append(key)
    lines = []
    for platforms_alike, keys in groups.items():
        lines.append(printable(", ".join(platforms_alike)))
        rows = [
            (
                _SIGNS[kinds[key]],
                key[0],
                key[1],
                " -> ".join(version for version in key[2:] if version is not None),
            )
            for key in keys
        ]
        for key, line in zip(keys, table(rows, indent="  "), strict=True):
            lines.append(paint(line, _COLORS[kinds[key]], color=color))
    return lines


def change_summary(changes: Iterable[PinChange]) -> str:
    """``2 pins added, 1 changed``, or ``no pin changes``."""
    counts = Counter(change_kind(change) for change in changes)
    parts = [(counts[kind], kind) for kind in ("added", "removed", "changed") if counts[kind]]
    if not parts:
        return "no pin changes"
    number, kind = parts[0]
    return ", ".join([f"{count_text(number, 'pin')} {kind}", *(f"{n} {k}" for n, k in parts[1:])])


def change_json(changes: Iterable[PinChange]) -> list[dict[str, object]]:
    return [
        {
            "platform": change.platform,
            "kind": change.kind,
            "name": change.name,
            "before": change.before,
            "after": change.after,
        }
        for change in changes
    ]


def plan_lines(plan: Plan, activation: Activation | None = None, *, verbose: bool, color: bool) -> list[str]:
    """The layers of one platform's plan; with ``verbose`` every artifact. Sizes are the lock's: downloads.
    ``activation`` is what its packages set, where that is known."""
    python = f", python {plan.python.version} from {plan.python.provider}" if plan.python else ""
    head = f"{plan.platform}  {plan.level}  lock {_short(plan.lock_digest)}{python}"
    artifacts = plan.artifacts
    lines = [paint(printable(head), "bold", color=color)]
    if plan.config.inherit:
        return [*lines, printable(f"  {_as_it_is(plan)}")]
    rows = []
    for number, layer in enumerate(plan.layers, start=1):
        size = sum(artifact.size for artifact in layer.artifacts)
        rows.append((str(number), layer.name, size_text(size), _names(layer.artifacts)))
        if verbose:
            for artifact in layer.artifacts:
                rows.append(("", "", size_text(artifact.size), _named(artifact)))
    lines += table(rows, right=[0, 2], indent="  ")
    total = size_text(sum(artifact.size for artifact in artifacts))
    counts = f"{count_text(len(plan.layers), 'layer')}, {count_text(len(artifacts), 'artifact')}, {total}"
    lines.append(f"  {counts} to download where nothing is cached")
    for variable in activation.variables if activation else ():
        line = f"  {variable.name}={variable.value} set by {variable.package} when it was composed"
        lines.append(printable(line))
    return lines


def _as_it_is(plan: Plan) -> str:
    """What a user-managed environment is made of."""
    base = plan.base
    if isinstance(base, ContextBase):
        pinned = (
            f"only {count_text(len(base.images), 'image')} that it names" if base.images else "nothing in it"
        )
        is_pinned = f"{pinned} {'are' if len(base.images) > 1 else 'is'} pinned"
        return f"built by {base_title(base)} from the context {_short(base.digest)}; {is_pinned}"
    if isinstance(base, ImageBase):
        return f"{base_title(base)}@{base.digest} as it is, {count_text(base.layers, 'layer')}"
    return base_title(base)


def plan_json(plan: Plan, activation: Activation | None = None) -> dict[str, object]:
    """For programs. ``activation`` is None where the image wasn't composed here yet."""
    variables = activation.variables if activation else ()
    return {
        "platform": str(plan.platform),
        "level": plan.level,
        "lock_digest": plan.lock_digest,
        "definition_digest": plan.definition_digest,
        "python": plan.python.version if plan.python else None,
        "activation": None
        if activation is None
        else {item.name: {"value": item.value, "package": item.package} for item in variables},
        "layers": [
            {
                "name": layer.name,
                "size": sum(artifact.size for artifact in layer.artifacts),
                "artifacts": [
                    {
                        "kind": artifact.kind.value,
                        "name": artifact.name,
                        "version": artifact.version,
                        "size": artifact.size,
                        "sha256": artifact.sha256,
                    }
                    for artifact in layer.artifacts
                ],
            }
            for layer in plan.layers
        ],
    }


def build_lines(result: BuildResult) -> list[str]:
    """What was built and where it is now: a line for each platform and each place."""
    lines = []
    how = "composed" if result.engine == "native" else f"built by the {result.engine} engine"
    if result.cached:
        how = "nothing to compose" if result.engine == "native" else "nothing to build"
    for image in result.images:
        size = size_text(sum(layer.size for layer in image.layers))
        lines.append(
            f"{image.platform}  {image.level}  {count_text(len(image.layers), 'layer')}, {size}, "
            f"lock {_short(image.lock_digest)}"
        )
    lines.append(f"{how} in {seconds_text(result.seconds)}")
    lines += [printable(place) for place in result.published]
    lines += [push_line(pushed) for pushed in result.pushed]
    return lines


def push_line(pushed: PushResult) -> str:
    """Where an image was pushed, under which tags, and what had to be moved for that."""
    moved = [
        f"{size_text(amount)} {what}"
        for amount, what in ((pushed.sent, "sent"), (pushed.mounted, "mounted"), (pushed.present, "there"))
        if amount
    ]
    tags = f":{', '.join(pushed.tags)}" if pushed.tags else f"@{pushed.digest}"
    return printable(f"pushed to {pushed.repository}{tags}: {', '.join(moved) or 'nothing to send'}")


def push_json(pushed: PushResult) -> dict[str, object]:
    """One push in ``--json``; amounts are in bytes."""
    return {
        "references": list(pushed.references),
        "digest": pushed.digest,
        "sent": pushed.sent,
        "mounted": pushed.mounted,
        "present": pushed.present,
    }


def build_json(result: BuildResult) -> dict[str, object]:
    """The object of ``build --json`` (docs/design.md §8). For several platforms ``digest`` is the index's,
    ``images`` lists all, and the other keys are those of the first."""
    first = _image_json(result.images[0]) if result.images else {}
    value: dict[str, object] = {
        "reference": result.reference,
        **first,
        "digest": result.digest,
        "engine": result.engine,
        "cached": result.cached,
        "seconds": round(result.seconds, 3),
        "published": list(result.published),
        "pushed": [push_json(push) for push in result.pushed],
        "found": list(result.found),
    }
    if len(result.images) > 1:
        value["images"] = [_image_json(image) for image in result.images]
    return value


def render_lines(results: Sequence[RenderResult]) -> list[str]:
    """Where each context is and how to build it."""
    lines = []
    for result in results:
        lines.append(
            f"{result.platform}  {result.level}  {count_text(result.files, 'file')}, "
            f"{size_text(result.size)}, "
            f"lock {_short(result.lock_digest)}"
        )
    return lines


def render_json(results: Sequence[RenderResult]) -> dict[str, object]:
    """The object of ``render --json``: one context for each platform."""
    return {
        "contexts": [
            {
                "platform": str(result.platform),
                "directory": str(result.directory),
                "digest": result.digest,
                "files": result.files,
                "size": result.size,
                "lock_digest": result.lock_digest,
                "level": result.level,
            }
            for result in results
        ]
    }


def _image_json(image: Image) -> Mapping[str, object]:
    return {
        "digest": image.digest,
        "platform": str(image.platform),
        "level": image.level,
        "lock_digest": image.lock_digest,
        "definition_digest": image.definition_digest,
        "layers": [
            {
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "size": layer.size,
                "artifacts": list(layer.artifacts),
            }
            for layer in image.layers
        ],
    }


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _named(artifact: Artifact) -> str:
    return f"{artifact.name} {artifact.version}".strip()


def _names(artifacts: Sequence[Artifact]) -> str:
    """The artifacts of a layer on one line, the first few where there are many."""
    shown = [_named(artifact) for artifact in artifacts[:3]]
    more = len(artifacts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
