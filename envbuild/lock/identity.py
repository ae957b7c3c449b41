"""The lock digest: what an image's bytes are a function of, and so what its tag is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envbuild.lock.model import (
    Base,
    CondaPin,
    DebianBase,
    DebianPin,
    ImageBase,
    Lock,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonPin,
)
from envbuild.oci.digest import canonical_digest

IDENTITY_FORMAT = 1
_IMAGE_FORMAT = 2
"""How what an image's own config says joins with ours; 2: its PATH stays in its order, behind the prefix."""

NATIVE_LEVEL = "L3"
"""The level of reproducibility (docs/design.md §1) of what the native composer makes of any lock: a lock of
this format pins its base by digest or by packages, so it is closed, and composing it is a pure function. That
holds for an image that is taken as it is, too: its layers are the base's own, its config a function of theirs
and the lock."""
FOUND_LEVEL = "found"
"""In the place of a level: a registry has an image whose labels say that it is the one, and nobody here has
composed or verified it."""
DESCRIBED_LEVEL = "L0"
"""Of an own Dockerfile: its context is known, but nothing that its steps bring is pinned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposerSettings:
    """How an image is put together, where that shows in its bytes."""

    composer: str
    """The composer's format and codec; changes whenever the same pins would give other bytes."""
    compression: str = "gzip"
    layer_budget: int = 40
    created: int = 0
    """Seconds since the epoch."""


def lock_digest(
    lock: Lock, pins: PlatformLock, composition: ComposerSettings, *, generated: Sequence[str] = ()
) -> str:
    """The digest of everything that goes into the image of one platform of ``lock``. ``generated`` are the
    digests of what envbuild itself writes into it besides the lock, in a fixed order.

    The definition digest is part of it, because the image carries it as a label; pins count with the
    fields that reach the image (sizes decide the layers; of a conda package all of them are in
    ``conda-meta``), never who asked for them or which resolver found them.
    """
    return canonical_digest(
        "lock",
        IDENTITY_FORMAT,
        {
            "definition": lock.definition,
            "bytecode": lock.bytecode,
            "platform": str(pins.platform),
            "base": _base(pins.base),
            "python": _python(pins.python) if pins.python else None,
            "conda": [conda_identity(pin) for pin in sorted(pins.conda)],
            "pip": [_pip(pin) for pin in sorted(pins.pip)],
            **({"maven": [_maven(pin) for pin in sorted(pins.maven)]} if pins.maven else {}),
            "environment_variables": [list(pair) for pair in sorted(lock.runtime.environment_variables)],
            "user": lock.runtime.user,
            "ports": sorted(lock.runtime.ports),
            "channels": list(lock.channels),
            "as_of": lock.as_of,
            "generated": list(generated),
            "composition": [
                composition.composer,
                composition.compression,
                composition.layer_budget,
                composition.created,
            ],
        },
    )


def _base(base: Base) -> dict[str, object]:
    if isinstance(base, DebianBase):
        return {"debian": base.suite, "packages": [_debian(pin) for pin in sorted(base.packages)]}
    if isinstance(base, ImageBase):
        return {"image": base.reference, "digest": base.digest, "format": _IMAGE_FORMAT}
    context: dict[str, object] = {"context": base.digest, "dockerfile": base.dockerfile}
    if base.images:
        context["images"] = [[pin.reference, pin.digest] for pin in sorted(base.images)]
    return context


def _python(pin: PythonPin) -> list[str | int]:
    build = pin.build
    installed: list[str | int] = [build.url, build.size, build.sha256] if build else []
    return [pin.version, pin.provider, pin.executable, *installed]


def _debian(pin: DebianPin) -> list[str | int]:
    return [pin.name, pin.version, pin.architecture, pin.archive, pin.file, pin.size, pin.sha256]


def conda_identity(pin: CondaPin) -> dict[str, str | int | list[str] | None]:
    """The canonical form of a conda pin: every field, because all of them reach ``conda-meta`` or the lock
    inside the image."""
    return {
        **({"distributions": sorted(pin.distributions)} if pin.distributions else {}),
        "name": pin.name,
        "version": pin.version,
        "build": pin.build,
        "build_number": pin.build_number,
        "subdir": pin.subdir,
        "url": pin.url,
        "channel": pin.channel,
        "size": pin.size,
        "sha256": pin.sha256,
        "md5": pin.md5,
        "depends": sorted(pin.depends),
        "constrains": sorted(pin.constrains),
        "noarch": pin.noarch,
        "timestamp": pin.timestamp,
        "python_site_packages_path": pin.python_site_packages_path,
    }


def _pip(pin: PipPin) -> list[str | int | list[str] | None]:
    values: list[str | int | list[str] | None] = [
        *(pin.name, pin.version, pin.file, pin.size, pin.sha256, pin.url)
    ]
    if pin.sdist:
        # The image keeps its lock, so what the wheel was built from reaches it too.
        values += [pin.sdist.file, pin.sdist.size, pin.sdist.sha256, list(pin.sdist.requires)]
    if pin.git:
        values += [pin.git.commit, pin.git.tree]
    return values


def _maven(pin: MavenPin) -> list[str | int]:
    return [pin.group, pin.artifact, pin.version, pin.file, pin.size, pin.sha256]
