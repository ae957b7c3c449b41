"""The lock of an image on another base, and which of its layers are the same there."""

from __future__ import annotations

import re
from dataclasses import replace

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from envbuild.compose.activation import sourced_files
from envbuild.compose.reuse import ABOVE, INSIDE, NotReusable, ReusedLayers
from envbuild.errors import BuildError
from envbuild.inspect.tree import Node, layer_entries
from envbuild.lock.base import ResolvedBase
from envbuild.lock.model import DEFAULT_GLIBC, ContextBase, Lock, PipPin, base_title, glibc_of
from envbuild.oci.image import Image, Layer
from envbuild.plan.model import Artifact, ArtifactKind, Plan, PlannedLayer
from envbuild.store.content import Store

_GLIBC = re.compile(r"__glibc\s*>=?\s*(2\.\d+)")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_OLD = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_SOFTWARE = {ArtifactKind.PYTHON, ArtifactKind.CONDA, ArtifactKind.WHEEL, ArtifactKind.JAR}
_PLAIN = (0o755, 0, 0)


def rebased_lock(lock: Lock, resolved_base: ResolvedBase) -> Lock:
    """``lock``, of one platform, on the base ``found``. Raises ``BuildError`` naming all that doesn't fit:
    what needs a newer glibc, and a python that isn't the very same, since byte code and scripts were made
    for that."""
    (pins,) = lock.platforms
    base = resolved_base.base
    if isinstance(base, ContextBase):
        raise BuildError("a Dockerfile is no base that an image can be put on")
    title = base_title(base)
    glibc = _version(glibc_of(base))
    problems = [
        f"{name} needs glibc {'.'.join(map(str, needed))}, and {title} has {glibc_of(base)}"
        for name, needed in _needs(lock)
        if needed > glibc
    ]
    if base_glibc_unknown(resolved_base):
        problems.append(f"{title} has no glibc that could be found")
    python = pins.python
    if python is not None and python.of_base and resolved_base.python != python:
        new = resolved_base.python
        problems.append(
            f"the software was installed for python {python.version} at {python.executable}, and {title} has "
            + (f"{new.version} at {new.executable} ({new.provider})" if new else "none")
        )
    if problems:
        raise BuildError(
            "\n".join(sorted(problems)),
            hint="build the spec anew on that base: envbuild lock, envbuild build",
        )
    return replace(lock, platforms=(replace(pins, base=base),))


def base_glibc_unknown(resolved_base: ResolvedBase) -> bool:
    """Whether the base has no glibc: musl, or nothing at all."""
    return not isinstance(resolved_base.base, ContextBase) and resolved_base.base.glibc is None


def _needs(lock: Lock) -> list[tuple[str, tuple[int, ...]]]:
    """The least glibc of each package that says one."""
    (pins,) = lock.platforms
    needs = []
    for pin in pins.pip:
        needed = _wheel_glibc(pin)
        if needed is not None:
            needs.append((f"{pin.name} {pin.version}", needed))
    for package in pins.conda:
        for line in package.depends:
            if match := _GLIBC.search(line):
                needs.append((f"{package.name} {package.version}", _version(match[1])))
    return needs


def _wheel_glibc(pin: PipPin) -> tuple[int, ...] | None:
    """The least that any of the wheel's tags asks for; None where one asks for none."""
    try:
        tags = parse_wheel_filename(pin.file)[3]
    except InvalidWheelFilename:
        return None
    least: tuple[int, ...] | None = None
    for tag in tags:
        match = _MANYLINUX.match(tag.platform)
        needed = (int(match[1]), int(match[2])) if match else _OLD.get(tag.platform.partition("_")[0])
        if needed is None:
            return None
        least = needed if least is None else min(least, needed)
    return least


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", text or DEFAULT_GLIBC))


def taken_layers(image: Image, before: Plan, after: Plan, store: Store) -> ReusedLayers:
    """The software layers of ``image``, composed from ``before``, that ``after`` plans too. All of its layers
    are in the store and are read. Raises ``NotReusable`` where a layer depends on more than its packages."""
    planned = [layer for layer in before.layers if layer.artifacts]
    own_layers = image.layers[len(image.layers) - len(planned) :]
    if [own_layer.name for own_layer in own_layers] != [layer.name for layer in planned]:
        raise NotReusable("the image's layers aren't those of its lock")
    if _prefix(before) != _prefix(after):
        raise NotReusable("the prefix itself changes")
    own = {file.path for artifact in _prefix(before) for file in artifact.files}
    own |= {path[:end] for path in own for end, letter in enumerate(path) if letter == "/"}
    there = {_key(layer): record for layer, record in zip(planned, own_layers, strict=True)}
    layers: dict[int, Layer] = {}
    for index, layer in enumerate(after.layers):
        if layer.artifacts and all(artifact.kind in _SOFTWARE for artifact in layer.artifacts):
            record = there.get(_key(layer))
            if record is None:
                raise NotReusable(f"the layer {layer.name} isn't planned as it was")
            names = tuple(f"{artifact.name} {artifact.version}" for artifact in layer.artifacts)
            layers[index] = replace(record, artifacts=names)
    directories: dict[str, tuple[int, int, int]] = {}
    links: set[str] = set()
    digests = {record.digest for record in layers.values()}
    for record in image.layers:
        for path, node in layer_entries(record, store).items():
            if sourced_files([path], INSIDE[:-1]):
                raise NotReusable(f"/{path} is run with the base that the image has")
            _check(path, node, None if record.digest in digests else own)
            if record.digest in digests and path.startswith(INSIDE):
                if node.is_directory:
                    row = (node.mode, node.uid, node.gid)
                    if row != _PLAIN:
                        directories[path] = row
                elif node.is_link:
                    links.add(path)
    return ReusedLayers(layers=layers, directories=directories, links=frozenset(links), own=frozenset(own))


def _check(path: str, node: Node, own: set[str] | None) -> None:
    """Raises ``NotReusable`` for an entry that ties base and software together. ``own``: the paths in the
    prefix that a layer which isn't taken may have; None: it is taken."""
    inside = path.startswith(INSIDE)
    if path in ABOVE:
        if not node.is_directory or (node.mode, node.uid, node.gid) != _PLAIN:
            raise NotReusable(f"/{path} has an owner or a mode of its own")
    elif own is None and not inside:
        raise NotReusable(f"/{path} is software outside the prefix")
    elif own is not None and inside and path not in own:
        raise NotReusable(f"/{path} is in the prefix, and of no package of the software")


def _prefix(plan: Plan) -> tuple[Artifact, ...]:
    return tuple(
        artifact
        for artifact in plan.artifacts
        if artifact.kind is ArtifactKind.GENERATED and artifact.name == "prefix"
    )


def _key(layer: PlannedLayer) -> tuple[str, ...]:
    return (layer.name, *(artifact.sha256 for artifact in layer.artifacts))
