"""What the installing stages of a Dockerfile are given: their tools, pinned, and the lists these install.

The tools are pinned in ``templates/installer``: pip as one wheel, which runs as it is, and py-rattler.
``scripts/installer_pins.py`` writes these files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from envbuild.errors import BuildError, LockError
from envbuild.lock.conda.records import channel_record, link_order
from envbuild.lock.model import CondaPin, PipPin
from envbuild.lock.pip.requirements import dump_requirements, load_requirements
from envbuild.oci.digest import canonical_digest, digest_bytes
from envbuild.platforms import Platform
from envbuild.resources import resource_directory

INSTALLER_PYTHON = "3.10"
"""The oldest python that an installing stage may stand on."""
INSTALLER_GLIBC = "2.28"
"""The oldest glibc that an installing stage may stand on: py-rattler's wheels ask for it on arm64."""

_HEADER = """\
#
# A tool of a Dockerfile's installing stage, pinned by: make installer-pins
#
"""
_PIN = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[\w.+!]+) \\\n"
    r"    --hash=sha256:(?P<sha256>[0-9a-f]{64})\n"
    r"    # (?P<file>[\w.+!-]+\.whl), (?P<size>[0-9]+) bytes\n"
)


def install_script() -> Path:
    """The program that installs what :func:`conda_records` lists, with py-rattler."""
    return _directory() / "install_conda.py"


def pip_pin() -> PipPin:
    """pip's wheel: ``python pip-….whl/pip --python PREFIX/bin/python install …`` runs it."""
    (pin,) = _load(_directory() / "pip.txt")
    return pin


def rattler_pins(platform: Platform) -> tuple[PipPin, ...]:
    """py-rattler and all it needs, for any python since 3.10. Raises ``BuildError`` for a platform that no
    pins are shipped for."""
    path = _directory() / f"rattler.{platform.subdir}.txt"
    if not path.is_file():
        raise BuildError(f"py-rattler isn't pinned for {platform}, so it can't install conda packages there")
    return _load(path)


def tools_digest() -> str:
    """Over everything that a Dockerfile's installing stages bring along, for all platforms."""
    return canonical_digest(
        "tools",
        1,
        [
            [path.name, digest_bytes(path.read_bytes())]
            for path in sorted(_directory().iterdir())
            if path.is_file()
        ],
    )


def dump_pins(pins: Sequence[PipPin]) -> bytes:
    """A requirements file of ``pins`` that also says the name and size of each file. Names no index."""
    parts = [
        f"{pin.name}=={pin.version} \\\n    --hash=sha256:{pin.sha256}\n    # {pin.file}, {pin.size} bytes\n"
        for pin in sorted(pins, key=lambda pin: pin.name)
    ]
    return "".join([_HEADER, *parts]).encode()


def load_pins(text: str) -> tuple[PipPin, ...]:
    """The pins of a file as :func:`dump_pins` writes it. Raises ``ValueError`` for any other text."""
    body = text.removeprefix(_HEADER)
    pins = tuple(
        PipPin(
            name=match["name"],
            version=match["version"],
            file=match["file"],
            size=int(match["size"]),
            sha256=match["sha256"],
        )
        for match in _PIN.finditer(body)
    )
    if not pins or dump_pins(pins).decode() != text:
        raise ValueError("not a file of pinned tools")
    return pins


def conda_records(pins: Sequence[CondaPin], channels: Sequence[str]) -> bytes:
    """What ``install_conda.py`` installs, as JSON: ``channels`` and, in the order they are linked,
    ``packages``, each with the fields and names of a record in ``conda-meta``. The same pins give the same
    bytes."""
    document = {
        "channels": list(channels),
        "packages": [_record(pin) for pin in link_order(pins)],
    }
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def explicit_list(pins: Sequence[CondaPin], *, directory: PurePosixPath | None = None) -> bytes:
    """The pins as conda's explicit list, which conda and micromamba install without a solve: one address a
    line, with the SHA-256 that the archive must have, and after what it depends on: they link in this order.

    ``directory``: archives are taken from there, ``SUBDIR/NAME``, and not from their channels. Raises
    ``BuildError`` for an address that would be read as more than one line or hash."""
    lines = ["@EXPLICIT"]
    for pin in link_order(pins):
        url = pin.url
        if directory is not None:
            url = "file://" + quote(str(directory / pin.subdir / pin.file))
        if re.fullmatch(r"[!-~]+", url) is None or "#" in url:
            raise BuildError(
                f"conda package {pin.name} {pin.version}: {url!r} is no address",
                hint="the lock was edited: lock again",
            )
        lines.append(f"{url}#sha256:{pin.sha256}")
    return ("\n".join(lines) + "\n").encode()


def _record(pin: CondaPin) -> dict[str, Any]:
    return {key: value for key, value in channel_record(pin).items() if value is not None}


def _load(path: Path) -> tuple[PipPin, ...]:
    try:
        return load_pins(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path} can't be read", hint="install envbuild again") from error


def _directory() -> Path:
    return resource_directory("templates") / "installer"


_HEADER_requirements = (
    "What pip installs in the image, each file by its hash; lock/ says who asked for it.",
)
_HINT = "make the lock anew with: envbuild lock --upgrade"


def install_list(pins: Sequence[PipPin], *, carried: Collection[str] = ()) -> bytes:
    """A requirements file of ``pins``. Those whose file name is in ``carried`` lie in the context, so they
    are asked for by version, whatever address the lock has for them."""
    chosen = [replace(pin, via=(), sdist=None, url=None if pin.file in carried else pin.url) for pin in pins]
    text = dump_requirements(chosen, header=_HEADER_requirements)
    # A lock comes from elsewhere: what pip will read must be what was meant, line by line.
    try:
        read = [
            (requirement.name, requirement.version, requirement.sha256s, requirement.url)
            for requirement in load_requirements(text)
        ]
    except LockError as error:
        raise BuildError(error.message, hint=_HINT) from error
    meant = sorted((pin.name, None if pin.url else pin.version, (pin.sha256,), pin.url) for pin in chosen)
    if sorted(read, key=lambda pin: pin[0]) != meant:
        raise BuildError(
            "the lock has a Python distribution whose name, version or address is no such thing",
            hint=_HINT,
        )
    return text.encode()
