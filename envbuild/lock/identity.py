"""The lock digest: what an image's bytes are a function of, and so what its tag is made from."""

from __future__ import annotations

from dataclasses import dataclass

from envbuild.digest import canonical_digest
from envbuild.lock.model import CondaPin, DebianBase, DebianPin, Lock, PipPin, PlatformLock

IDENTITY_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """How an image is put together, where that shows in its bytes."""

    composer: str
    """The composer's format and codec; changes whenever the same pins would give other bytes."""
    compression: str = "gzip"
    layer_budget: int = 40
    created: int = 0
    """Seconds since the epoch."""


def lock_digest(lock: Lock, pins: PlatformLock, composition: Composition) -> str:
    """The digest of everything that goes into the image of one platform of ``lock``.

    The definition digest is part of it, because the image carries it as a label; pins count with the
    fields that reach the image (sizes decide the layers, addresses of conda packages are in
    ``conda-meta``), never who asked for them or which resolver found them.
    """
    base = pins.base
    return canonical_digest(
        "lock",
        IDENTITY_FORMAT,
        {
            "definition": lock.definition,
            "bytecode": lock.bytecode,
            "platform": str(pins.platform),
            "base": {"debian": base.suite, "packages": [_debian(pin) for pin in sorted(base.packages)]}
            if isinstance(base, DebianBase)
            else {"image": base.reference, "digest": base.digest},
            "python": [pins.python.version, pins.python.provider, pins.python.executable]
            if pins.python
            else None,
            "conda": [_conda(pin) for pin in sorted(pins.conda)],
            "pip": [_pip(pin) for pin in sorted(pins.pip)],
            "environment_variables": [list(pair) for pair in sorted(lock.runtime.environment_variables)],
            "user": lock.runtime.user,
            "ports": sorted(lock.runtime.ports),
            "channels": list(lock.channels),
            "composition": [
                composition.composer,
                composition.compression,
                composition.layer_budget,
                composition.created,
            ],
        },
    )


def level(lock: Lock) -> str:
    """The level of reproducibility (DESIGN §1) of what the native composer makes of ``lock``: L3.

    Every lock of this format pins its base by digest or by packages, so it is closed; composing it is
    a pure function."""
    return "L3"


def _debian(pin: DebianPin) -> list[str | int]:
    return [pin.name, pin.version, pin.architecture, pin.archive, pin.file, pin.size, pin.sha256]


def _conda(pin: CondaPin) -> list[str | int | None]:
    return [pin.name, pin.version, pin.build, pin.subdir, pin.url, pin.size, pin.sha256, pin.noarch]


def _pip(pin: PipPin) -> list[str | int | None]:
    return [pin.name, pin.version, pin.file, pin.size, pin.sha256, pin.url]
