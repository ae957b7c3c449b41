"""Distributions that another package manager installs, shown to uv as wheels without dependencies.

With a stand-in of exactly the installed version uv finds what fits it (and says why nothing does), and
neither asks an index about a version that may only exist on a conda channel nor drags in what that
version needs, which is the other manager's affair.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from packaging.version import InvalidVersion, Version


def write_provided(directory: Path, provided: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Constraint lines that name a stand-in in ``directory``, and the names that must be left out of the
    resolution altogether because their version isn't one of Python's (PEP 440)."""
    constraints, excluded = [], []
    directory.mkdir(mode=0o700)
    for name, text in sorted(provided.items()):
        try:
            version = str(Version(text))
        except InvalidVersion:
            excluded.append(name)
            continue
        stem = f"{name.replace('-', '_')}-{version}"
        path = directory / f"{stem}-py3-none-any.whl"
        info = f"{stem}.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: envbuild\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        constraints.append(f"{name} @ {path.as_uri()}")
    return constraints, excluded
