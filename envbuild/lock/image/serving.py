"""The serving rule (DESIGN §4), checked against what is really inside an image."""

from __future__ import annotations

from envbuild.errors import BuildError
from envbuild.lock.image.inventory import inventory
from envbuild.lock.model import RuntimeSettings
from envbuild.oci.image import Image
from envbuild.specs.model import EnvironmentType
from envbuild.specs.serving import DEFAULTS, DEFAULTS_MINIMUM, WANTED, serves
from envbuild.store.content import Store


def check_serving(image: Image, store: Store, runtime: RuntimeSettings) -> None:
    """Returns if ``image``, made of a lock with ``runtime``, can serve or isn't to.

    Only a user-managed environment is looked into: what envbuild installs is in its lock. Raises
    ``BuildError`` where neither package of the rule is inside, or a layer can't be read."""
    if runtime.type != EnvironmentType.USER_MANAGED.value or not runtime.ports:
        return
    found = inventory(image, store)
    if serves((distribution.name, distribution.version) for distribution in found.distributions):
        return
    old = [distribution.version for distribution in found.distributions if distribution.name == DEFAULTS]
    having = f"it has {DEFAULTS} {old[0]}, older than {DEFAULTS_MINIMUM}" if old else "neither is inside"
    raise BuildError(
        f"the environment has an inference_config, but its image for {image.platform} can't serve: it needs "
        f"{WANTED}, and {having}",
        hint="install it in the image, or leave inference_config out",
    )
