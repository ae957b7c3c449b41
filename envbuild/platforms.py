"""Platforms in every spelling the field has: OCI, conda, Debian, wheels."""

from __future__ import annotations

import platform as _host
import sys
from dataclasses import dataclass

from envbuild.errors import UsageError


@dataclass(frozen=True, order=True)
class Platform:
    """One operating system and architecture, named as the OCI image specification does."""

    os: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"

    @property
    def subdir(self) -> str:
        """Conda's name: ``linux-64``."""
        return _KNOWN[self].subdir

    @property
    def debian(self) -> str:
        """Debian's name of the architecture: ``amd64``."""
        return _KNOWN[self].debian

    @property
    def machine(self) -> str:
        """The kernel's name, used in wheel tags: ``x86_64``."""
        return _KNOWN[self].machine

    @property
    def multiarch(self) -> str:
        """Debian's multiarch tuple, the directory of its libraries: ``x86_64-linux-gnu``."""
        return f"{self.machine}-linux-gnu"

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform named ``linux/amd64``, ``linux-64``, ``linux/x86_64``…; raises ``UsageError``."""
        platform = _SPELLINGS.get(text.strip().lower())
        if platform is None:
            known = ", ".join(f"{platform} ({platform.subdir})" for platform in PLATFORMS)
            raise UsageError(f"unknown platform {text!r}", hint=f"known platforms: {known}")
        return platform

    @classmethod
    def host(cls) -> Platform:
        """The Linux platform whose programs this machine runs; a Mac counts as Linux of its architecture."""
        return _SPELLINGS.get(_host.machine().lower(), LINUX_AMD64)


@dataclass(frozen=True)
class _Names:
    subdir: str
    debian: str
    machine: str


LINUX_AMD64 = Platform("linux", "amd64")
LINUX_ARM64 = Platform("linux", "arm64")
_KNOWN = {
    LINUX_AMD64: _Names("linux-64", "amd64", "x86_64"),
    LINUX_ARM64: _Names("linux-aarch64", "arm64", "aarch64"),
}
PLATFORMS = tuple(_KNOWN)
_SPELLINGS = {
    spelling: platform
    for platform, names in _KNOWN.items()
    for spelling in (
        str(platform),
        names.subdir,
        names.debian,
        names.machine,
        f"linux/{names.machine}",
        f"linux-{names.machine}",
        f"linux-{names.debian}",
    )
}


def runs_linux() -> bool:
    """Whether this machine's kernel is Linux."""
    return sys.platform == "linux"
