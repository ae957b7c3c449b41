"""A byte compiler that needs no root file system."""

from __future__ import annotations

from pathlib import Path

from envbuild.compose.bytecode import RootfsCompiler


class HostCompiler(RootfsCompiler):
    """A ``ByteCompiler`` over an interpreter of this machine, of the very same version as the image's."""

    def __init__(
        self, executable: str, version: str, *, checked: bool = True, patience: float = 120.0
    ) -> None:
        super().__init__(Path("/"), executable, version, checked=checked, patience=patience)
        self._argv = [executable]
