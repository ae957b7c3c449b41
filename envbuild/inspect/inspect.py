"""What an image is, as far as its config, the lock inside and, where asked for, its layers say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envbuild.errors import LockError
from envbuild.images.describe import ENVIRONMENT_LABEL, LOCK_LABEL
from envbuild.inspect.model import Contained, InspectedImage, InspectedLayer
from envbuild.inspect.origin import (
    CREATED,
    additions_of_others,
    additions_to_plan,
    annotations_of,
    composition_of,
)
from envbuild.lock.image.embedded import embedded_lock
from envbuild.lock.image.inventory import Inventory, inventory
from envbuild.lock.model import DebianBase, ImageBase, Lock, base_title
from envbuild.oci.image import Image, Layer
from envbuild.plan.activation import Activation
from envbuild.plan.make import make_plan
from envbuild.plan.model import Artifact, ArtifactKind, Plan
from envbuild.platforms import Platform
from envbuild.store.content import Store
from envbuild.store.images import read_config, read_manifest

Bring = Callable[[Sequence[Layer]], None]
"""Pulls layers into the store."""
_SETTINGS = "settings"
_LOCK_LAYER = 64 << 20
"""Bytes of a layer that is brought only for the lock inside."""
_KINDS = {ArtifactKind.WHEEL: "pip", ArtifactKind.JAR: "maven"}


def lock_inside(image: Image, store: Store, bring: Bring) -> Lock | None:
    """The lock inside an image of ours; of its layers only the small ones down to it are brought. Raises
    ``LockError``."""
    names = [layer.name for layer in image.layers]
    if not image.lock_digest or _SETTINGS not in names:
        return None
    above = image.layers[len(names) - 1 - names[::-1].index(_SETTINGS) :]
    if sum(layer.size for layer in above) > _LOCK_LAYER:
        return None
    return embedded_lock(image, store, bring=lambda layer: bring([layer]))


def inspected(
    image: Image, store: Store, *, packages: bool | None, bring: Bring, budget: int
) -> InspectedImage:
    """What ``image`` is. ``packages``: True looks into all layers where no lock is inside; None only where
    one is; False nowhere. Raises ``BuildError``, ``LockError`` and ``FetchError``."""
    manifest, config = read_manifest(image, store), read_config(image, store)
    settings, labels = config.settings, config.labels
    lock = lock_inside(image, store, bring) if packages is not False else None
    derived = additions_of_others(image, store)
    contained: list[list[Contained]] = [[] for _ in image.layers]
    rest: list[Contained] = []
    origin = ""
    if lock is not None:
        origin = "lock"
        made, follows = composition_of(image, manifest, lock, lock.platforms[0], budget=budget)
        plan = make_plan(lock, lock.platforms[0], made, host=Platform.host())
        rest = _planned(image, plan, follows, contained)
        if follows and ENVIRONMENT_LABEL not in labels:
            derived = additions_to_plan(image, plan, store)
    elif packages:
        origin = "layers"
        bring(image.layers)
        for number, package in _found(inventory(image, store)):
            contained[number].append(package)
    base = lock.platforms[0].base if lock else None
    python = lock.platforms[0].python if lock else None
    annotations = annotations_of(manifest)
    return InspectedImage(
        platform=str(image.platform),
        digest=image.digest,
        config_digest=image.config_digest,
        level="" if derived else image.level,
        derived=derived,
        created=annotations.get(CREATED) or config.created,
        lock_digest=image.lock_digest or (labels.get(LOCK_LABEL, "") if derived else ""),
        definition_digest=image.definition_digest,
        base=base_title(base)
        if isinstance(base, DebianBase)
        else base.reference
        if isinstance(base, ImageBase)
        else labels.get("org.opencontainers.image.base.name", ""),
        base_digest=base.digest
        if isinstance(base, ImageBase)
        else labels.get("org.opencontainers.image.base.digest", ""),
        python=python.version if python else "",
        user=str(settings.get("User") or ""),
        working_dir=str(settings.get("WorkingDir") or ""),
        entrypoint=texts(settings.get("Entrypoint")),
        command=texts(settings.get("Cmd")),
        env=tuple(sorted(config.variables.items())),
        ports=tuple(sorted(map(str, settings.get("ExposedPorts") or {}))),
        labels=tuple(sorted(labels.items())),
        layers=tuple(
            InspectedLayer(
                digest=layer.digest,
                diff_id=layer.diff_id,
                size=layer.size,
                media_type=layer.media_type,
                name=layer.name,
                packages=tuple(sorted(below)),
            )
            for layer, below in zip(image.layers, contained, strict=True)
        ),
        activation=tuple((item.name, item.package) for item in Activation.of_config(config).variables),
        packages_from=origin,
        packages=tuple(sorted(rest)),
    )


def _planned(image: Image, plan: Plan, follows: bool, contained: list[list[Contained]]) -> list[Contained]:
    """Puts what the lock's plan has in each layer there; returns what can't be placed: all, where the lock
    isn't the one that these layers follow from."""
    layers = [layer for layer in plan.layers if layer.artifacts]
    first = len(image.layers) - len(layers)
    if (
        not follows
        or [layer.name for layer in image.layers[first:]] != [layer.name for layer in layers]
        or first < 0
    ):
        return [_contained(artifact) for artifact in plan.artifacts if artifact.pin is not None]
    for number, layer in enumerate(layers, first):
        contained[number] += [
            _contained(artifact) for artifact in layer.artifacts if artifact.pin is not None
        ]
    return []


def _contained(artifact: Artifact) -> Contained:
    return Contained(
        kind=_KINDS.get(artifact.kind, artifact.kind.value),
        name=artifact.name,
        version=artifact.version,
        size=artifact.size,
    )


def _found(contents: Inventory) -> list[tuple[int, Contained]]:
    kinds = {
        "debian": contents.debian_packages,
        "conda": contents.conda_packages,
        "pip": contents.distributions,
        "jar": contents.jars,
    }
    return [
        (package.layer, Contained(kind=kind, name=package.name, version=package.version, size=None))
        for kind, packages in kinds.items()
        for package in packages
    ]


def sound_lock(image: Image, store: Store, bring: Bring) -> Lock | None:
    """The lock inside; None also for one that isn't sound: what is there is there, whatever it says."""
    try:
        return lock_inside(image, store, bring)
    except LockError:
        return None


def packages_of(image: Image, store: Store, bring: Bring) -> tuple[Contained, ...]:
    """All packages of an image: by the lock inside, else by what lies in its layers, which are brought."""
    lock = sound_lock(image, store, bring)
    if lock is None:
        bring(image.layers)
        return tuple(sorted(package for _, package in _found(inventory(image, store))))
    pins = lock.platforms[0]
    return tuple(sorted(_contained(Artifact.of(pin)) for pin in pins.files))


def texts(value: object) -> tuple[str, ...]:
    """A list of text, as which Docker may also write a single one, or nothing."""
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, list) else ()
