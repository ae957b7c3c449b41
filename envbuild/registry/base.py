"""What is asked of a container registry (OCI distribution-spec 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from envbuild.errors import FetchError
from envbuild.oci.manifest import Descriptor
from envbuild.oci.reference import Reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A manifest or index, byte for byte as the registry has it."""

    content: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What a push of blobs came to, in bytes."""

    sent: int = 0
    mounted: int = 0
    """Taken over from another repository of the same registry."""
    present: int = 0
    """The repository had them."""

    def __add__(self, other: Pushed) -> Pushed:
        return Pushed(
            sent=self.sent + other.sent,
            mounted=self.mounted + other.mounted,
            present=self.present + other.present,
        )


class UnreachableError(FetchError):
    """Nobody answers at a registry's address, or it isn't who it should be."""


class RefusedError(FetchError):
    """A registry's answer is no. ``status`` is that of HTTP, ``codes`` are those of the distribution spec."""

    def __init__(self, message: str, *, hint: str | None = None, status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.after: float | None = None
        """Seconds the registry asked to wait."""
        self.codes: frozenset[str] = frozenset()


class Remote(Protocol):
    """One process's way to registries. Thread safe. Raises ``FetchError``: what, where, why."""

    def manifest(self, reference: Reference, target: str | None = None) -> Manifest:
        """The manifest or index that ``reference`` names, or ``target``, another tag or digest there. It is
        in the store afterwards."""

    def find_manifest(self, reference: Reference, target: str | None = None) -> Manifest | None:
        """As ``manifest``; None where the registry has no such repository, tag or digest."""

    def blob(self, reference: Reference, digest: str, size: int) -> Path:
        """A blob of ``size`` bytes, streamed into the store and checked; at once where the store has it."""

    def pull_blobs(self, reference: Reference, blobs: Sequence[Descriptor]) -> None:
        """All of ``blobs`` in the store and checked, several at once."""

    def push_blobs(
        self,
        reference: Reference,
        blobs: Sequence[Descriptor],
        *,
        mount_from: Sequence[Reference] = (),
        fetch: Callable[[Descriptor], object] | None = None,
    ) -> Pushed:
        """Makes the repository have ``blobs``, which are in the store: what it has is not sent, what a
        repository of ``mount_from`` on the same registry has is mounted, the rest is uploaded, several at
        once, and each checked on the way. ``fetch`` brings a blob into the store that has to be uploaded, and
        is called for no other, from several threads; without it all of ``blobs`` are there."""

    def push_manifest(
        self, reference: Reference, content: bytes, media_type: str, target: str | None = None
    ) -> str:
        """Puts a manifest or index under ``target``, or what ``reference`` names, and returns its digest,
        which the registry has confirmed. Does nothing where the registry has these bytes under it."""

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the repository, sorted; empty where the registry doesn't know the repository."""

    def delete(self, reference: Reference, target: str) -> None:
        """Removes a manifest by digest, and with it all its tags."""

    def referrers(
        self, reference: Reference, digest: str, artifact_type: str | None = None
    ) -> tuple[bytes, ...] | None:
        """The registry's own list of what refers to ``digest``, indexes as they were sent, one a page; it may
        have left out other artifact types. None where it has no such list (before distribution-spec 1.1)."""
