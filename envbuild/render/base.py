"""What a Docker build is given: files, and which of them is the Dockerfile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from envbuild.oci.digest import canonical_digest, digest_bytes, digest_file
from envbuild.plan.model import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextFile:
    """One file, symlink or empty directory of a context. ``path`` is relative and ``/``-separated."""

    path: str
    content: bytes | Path = b""
    """Bytes, or a file of this machine that is streamed."""
    mode: int = 0o644
    target: str | None = None
    """Set: a symlink to it."""
    directory: bool = False

    @property
    def sha256(self) -> str:
        """Of the content, bare hex."""
        content = self.content
        digest = digest_bytes(content) if isinstance(content, bytes) else digest_file(content)
        return digest.removeprefix("sha256:")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildContext:
    """Everything one build sees, sorted by path. ``labels`` are put on the image by the engine, where the
    Dockerfile isn't ours and can't say them."""

    files: tuple[ContextFile, ...]
    dockerfile: str = "Dockerfile"
    labels: tuple[tuple[str, str], ...] = ()
    offline: bool = False
    """Whether its own steps need no network."""

    @property
    def digest(self) -> str:
        """Over paths, modes and contents; not over where the files lie on this machine."""
        return canonical_digest(
            "context",
            1,
            [[file.path, file.mode, file.target, file.directory, file.sha256] for file in self.files],
        )


class Renderer(Protocol):
    """Turns plans into what a Docker build is given."""

    def unable(self, plan: Plan) -> list[str]:
        """Every reason why no Dockerfile can make the image of ``plan``; empty where one can."""

    def describe(self, plan: Plan, engine: str) -> Plan:
        """``plan`` as the image of a Dockerfile that ``engine`` builds: with a lock digest of its own, which
        also covers the templates, its own level and labels. Renders and downloads nothing."""

    def context(self, plan: Plan, *, offline: bool) -> BuildContext:
        """The context that builds the image of ``plan``, as :meth:`describe` returned it.

        ``offline``: with all pinned artifacts inside, so that the build needs no network. Raises
        ``BuildError``, ``FetchError``."""
