"""Pins what the installing stages of a Dockerfile use: the newest pip and py-rattler that suit all of them.

    make installer-pins

Writes ``templates/installer/``; the same index gives the same bytes. uv's own settings say which index.
"""

from __future__ import annotations

import os
from pathlib import Path

from envbuild.lock.base import PipRequest, PipTarget
from envbuild.lock.model import PipPin
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import Platform
from envbuild.render.installer import INSTALLER_GLIBC, INSTALLER_PYTHON, dump_pins
from envbuild.specs.model import Origin, PipRequirement, PipSpec

SUBDIRS = ("linux-64", "linux-aarch64")
TARGET = Path(__file__).resolve().parents[1] / "templates" / "installer"


def newest(name: str, subdir: str) -> tuple[PipPin, ...]:
    """``name`` and all it needs, as an installing stage of that platform takes them."""
    wanted = PipRequirement(text=name, origin=Origin(file="installer_pins.py"))
    target = PipTarget(platform=Platform.parse(subdir), python=INSTALLER_PYTHON, glibc=INSTALLER_GLIBC)
    spec = PipSpec(requirements=(wanted,), options=("--only-binary :all:",))
    pins = UvResolver(env=os.environ).resolve(PipRequest(spec=spec, target=target))
    assert all(pin.is_wheel for pin in pins), pins
    return pins


def main() -> None:
    pips = {newest("pip", subdir) for subdir in SUBDIRS}
    rattlers = {subdir: newest("py-rattler", subdir) for subdir in SUBDIRS}
    # One pip and one py-rattler for all, so that a lock is installed alike everywhere.
    (pip,) = pips
    (_,) = {tuple((pin.name, pin.version) for pin in pins) for pins in rattlers.values()}
    (TARGET / "pip.txt").write_bytes(dump_pins(pip))
    for subdir, pins in rattlers.items():
        (TARGET / f"rattler.{subdir}.txt").write_bytes(dump_pins(pins))


if __name__ == "__main__":
    main()
