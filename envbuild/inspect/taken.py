"""The plan of an image that is another one as it is (``image:`` of a user-managed environment).

Such an image has no lock inside: it has no layer of ours. What it was made from shows in what its config
says beyond its base's, and the lock digest on its label tells whether that is all.
"""

from __future__ import annotations

from itertools import product

from envbuild.compose.engine import NativeEngine
from envbuild.images.describe import labels_of
from envbuild.inspect.documents import config_of, manifest_of, settings_of, variables
from envbuild.inspect.parameters import composition_of
from envbuild.lock.model import ImageBase, Lock, PlatformLock, RuntimeSettings
from envbuild.oci.digest import is_digest
from envbuild.oci.image import Image
from envbuild.plan.make import make_plan
from envbuild.plan.model import Plan
from envbuild.specs.model import EnvironmentType
from envbuild.store.content import Store

_BASE = "org.opencontainers.image.base."


def taken_from(image: Image, store: Store) -> ImageBase | None:
    """Which image ``image`` was made of, as its labels say; None where they don't."""
    labels = labels_of(config_of(image, store))
    reference, digest = labels.get(f"{_BASE}name", ""), labels.get(f"{_BASE}digest", "")
    return ImageBase(reference=reference, digest=digest) if reference and is_digest(digest) else None


def taken_lock(image: Image, store: Store, engine: NativeEngine) -> Plan | str:
    """The plan of ``image``, or why there is none. Raises ``BuildError`` where its base can't be had."""
    config = config_of(image, store)
    base = taken_from(image, store)
    if base is None or engine.base_loader is None:
        return "it has no lock inside, and doesn't say which image it was made of"
    reference, digest = base.reference, base.digest
    contents = engine.base_loader(base, image.platform)
    if [layer.diff_id for layer in contents.layers] != [each.diff_id for each in image.layers]:
        return f"it has no lock inside, and its layers aren't those of {reference}@{digest}"
    base = ImageBase(
        reference=reference,
        digest=digest,
        layers=len(contents.layers),
        diff_ids=tuple(layer.diff_id for layer in contents.layers),
    )
    mine, below = settings_of(config), settings_of(contents.config)
    known = variables(below)
    own = {name: value for name, value in variables(mine).items() if known.get(name) != value}
    ports = set(mine.get("ExposedPorts") or {}) - set(below.get("ExposedPorts") or {})
    user = str(mine.get("User") or "")
    runtime = RuntimeSettings(
        environment_variables=tuple(sorted(own.items())),
        user="" if user == str(below.get("User") or "") else user,
        ports=tuple(
            sorted(int(port.partition("/")[0]) for port in ports if port.partition("/")[0].isdigit())
        ),
        type=EnvironmentType.USER_MANAGED.value,
    )
    pins = PlatformLock(platform=image.platform, base=base, python=None)
    manifest = manifest_of(image, store)
    for bytecode, compression in product((True, False), ("gzip", "zstd")):
        lock = Lock(definition=image.definition_digest, platforms=(pins,), bytecode=bytecode, runtime=runtime)
        composition, follows = composition_of(image, manifest, lock, pins, budget=40, compression=compression)
        if follows:
            return make_plan(lock, pins, composition, host=image.platform)
    return (
        f"its layers are those of {reference}@{digest}, but its lock digest doesn't follow from what its "
        "config says beside"
    )
