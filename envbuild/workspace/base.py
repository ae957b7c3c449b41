"""What a workspace keeps, and the registry that keeps it: values and one Protocol, no database.

Rules every registry holds:

* One definition has one version under one name: registering it again gives that version.
* A version that is not asked for is the largest integer version plus one (of more than 18 digits it counts as
  text). An explicit one that another definition has, or a new one for a definition that already has another,
  is a conflict.
* ``latest`` is the version registered last that is neither anonymous nor archived. It is computed, never set.
* An anonymous version (of a build or run of an unregistered spec) is called by the first 12 hex digits of its
  definition and becomes a normal version when it is registered; the 12 digits still lead to it.
* What is archived is hidden in lists and never ``latest``, but may be used by its version or label. An
  archived environment takes no new version until it is restored; anonymous ones it does take, so that
  builds go on. The same holds for reserved names.
* Content never changes. Description, tags and labels do, and each change is an event of the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from envbuild.errors import WorkspaceError
from envbuild.targets.base import TargetRecord

Pairs = tuple[tuple[str, str], ...]
"""A mapping as sorted pairs."""

LATEST = "latest"
"""The one label that nobody sets."""
ANONYMOUS_DIGITS = 12
"""Hex digits of the definition that an anonymous version is called by."""
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
"""What environments, versions and labels may be called."""
RESERVED = ("microsoft", "azureml")
"""Prefixes, in any case, of names that Azure ML keeps for itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One version of one environment."""

    environment: str
    version: str
    definition: str
    """Definition digest of the spec."""
    content: str
    """The spec as native YAML; its own name and version don't count."""
    description: str
    tags: Pairs
    labels: tuple[str, ...]
    """Sorted, without ``latest``."""
    created: datetime
    """Aware, UTC: when it was registered."""
    creator: str
    anonymous: bool
    archived: bool
    """The version itself; the environment may be archived besides."""
    origin: str
    """Where it came from: a file, an importer's source, ``name:version`` of a clone; may be empty."""
    context: str | None
    """Digest of the stored build context."""

    @property
    def reference(self) -> str:
        """``name:version``."""
        return f"{self.environment}:{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """What ``register`` returns. ``created``: the version was not there (as a normal one) before."""

    version: Version
    created: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentSummary:
    """One line of a list. ``description`` and ``tags`` are those of the latest version."""

    name: str
    latest: str | None
    """None where the environment or every version is archived, or all are anonymous."""
    count: int
    """Normal versions, archived ones included."""
    description: str
    tags: Pairs
    labels: Pairs
    """``(label, version)``, sorted, without ``latest``."""
    archived: bool
    updated: datetime
    """When anything of it changed last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRecord:
    """The lock directory that answered a definition at some time."""

    definition: str
    platforms: tuple[str, ...]
    digest: str
    """Of the bytes of ``envbuild.lock``."""
    files: Mapping[str, bytes] = field(repr=False)
    """Contents by file name, ``envbuild.lock`` among them."""
    created: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class NewImage:
    """An image as a build reports it; ``add_image`` makes an ``ImageRecord`` of it."""

    digest: str
    """Of the manifest of one platform."""
    platform: str
    lock_digest: str
    """Identity of the pins and what else decides the image (DESIGN §6), as its tag says it."""
    lock: str | None
    """``LockRecord.digest``: the lock directory that it was built from."""
    definition: str
    level: str
    references: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    """Digests of the indexes that list it."""
    engine: str
    size: int
    """Bytes of all its layers, compressed."""
    envbuild: str
    """Version of the envbuild that built it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord(NewImage):
    """An image, when it was first recorded, and what it is an image of."""

    created: datetime
    versions: Pairs
    """``(environment, version)`` of every version with its definition, sorted."""


RUN_STATES = ("created", "running", "succeeded", "failed", "stopped", "lost")
"""``created`` before the target has it; ``lost`` where the target went away. The last four are final."""
ENDED = RUN_STATES[2:]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A command on a target, as it is about to start."""

    name: str
    """Unique in the workspace."""
    target: str
    kind: str
    environment: str
    version: str
    definition: str
    image: str
    """Digest of the manifest that runs, with the code's layer."""
    base_image: str
    """Digest of the environment's own image: an ``ImageRecord`` where it was recorded."""
    reference: str
    """As the target names the image."""
    code: str | None
    """Digest of the code directory."""
    command: tuple[str, ...]
    variables: tuple[str, ...] = ()
    """Names only: values may be secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(NewRun):
    """A run, and what became of it."""

    actor: str
    created: datetime
    identity: str
    """What the target calls it; empty before it has it."""
    status: str
    """One of ``RUN_STATES``."""
    exit_status: int | None
    ended: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something somebody did. Events are only ever added."""

    number: int
    """Grows with time; not necessarily without gaps."""
    at: datetime
    actor: str
    action: str
    """``record`` (anonymous), ``register``, ``clone``, ``label``, ``unlabel``, ``update``, ``archive``,
    ``restore``, ``lock``, ``image``, ``context``, ``target``, ``untarget``, ``run``, ``ended``."""
    environment: str | None
    version: str | None
    detail: Mapping[str, object]


class EnvironmentStore(Protocol):
    """A workspace's records. All methods raise ``WorkspaceError``; a change happens wholly or not at all."""

    @property
    def location(self) -> str:
        """Where the records are, for people: a path or a URL without credentials."""

    def register(
        self,
        name: str,
        *,
        definition: str,
        content: str,
        version: str | None = None,
        description: str | None = None,
        tags: Iterable[tuple[str, str]] = (),
        labels: Iterable[str] = (),
        anonymous: bool = False,
        context: str | None = None,
        origin: str | None = None,
    ) -> Registered:
        """The version with this definition, made if it isn't there.

        For one that is there, the content stays as it is; labels, description and tags that are given and
        differ are set, unless ``anonymous``. ``context`` names a context that ``add_context`` stored.
        """

    def environments(
        self,
        *,
        prefix: str = "",
        include_archived: bool = False,
        include_anonymous: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> tuple[EnvironmentSummary, ...]:
        """Sorted by name; at most ``limit``, only names behind ``after``.

        Environments of nothing but anonymous versions only with ``include_anonymous``."""

    def versions(
        self,
        name: str,
        *,
        include_archived: bool = False,
        include_anonymous: bool = False,
        limit: int | None = None,
        before: str | None = None,
    ) -> tuple[Version, ...]:
        """The one registered last comes first; at most ``limit``, only those registered before ``before``."""

    def get(self, name: str, version: str | None = None, label: str | None = None) -> Version:
        """By version or by label, never both; by neither it is the latest."""

    def by_definition(self, definition: str) -> tuple[Version, ...]:
        """Every version with this definition digest, sorted by name; may be empty."""

    def label(self, name: str, version: str, labels: Iterable[str]) -> Version:
        """Moves ``labels`` to this version, from whichever had them."""

    def unlabel(self, name: str, labels: Iterable[str]) -> None:
        """Takes labels away; an unknown one is an error and none is taken."""

    def update(
        self,
        name: str,
        version: str,
        *,
        description: str | None = None,
        tags: Iterable[tuple[str, str]] | None = None,
    ) -> Version:
        """Replaces what isn't None."""

    def archive(self, name: str, version: str | None = None) -> None:
        """Archives a version, or the whole environment."""

    def restore(self, name: str, version: str | None = None) -> None:
        """Undoes ``archive`` of the same."""

    def clone(self, name: str, version: str, new_name: str, *, new_version: str | None = None) -> Registered:
        """Registers the same definition under another name, with description, tags and context."""

    def add_lock(self, definition: str, platforms: Iterable[str], files: Mapping[str, bytes]) -> LockRecord:
        """Keeps a lock directory; one that is there already becomes the newest again."""

    def lock(self, definition: str) -> LockRecord | None:
        """The lock of a definition that was added last."""

    def lock_by_digest(self, digest: str) -> LockRecord | None:
        """The lock whose ``envbuild.lock`` has this digest."""

    def add_image(self, image: NewImage) -> ImageRecord:
        """Keeps an image; of one that is there, new references and indexes are added."""

    def image(self, digest: str) -> ImageRecord | None:
        """By the digest of its manifest; for an index with one image, by the index's too."""

    def images(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        definition: str | None = None,
        index: str | None = None,
        limit: int | None = None,
    ) -> tuple[ImageRecord, ...]:
        """Newest first, those that fit all that is given; ``version`` needs ``name``."""

    def add_context(self, digest: str, archive: bytes) -> None:
        """Keeps a build context's archive under the digest of its snapshot."""

    def context(self, digest: str) -> bytes:
        """The archive that ``add_context`` got."""

    def add_target(self, target: TargetRecord, *, replace: bool = False) -> None:
        """Keeps a target. Another one of that name is an error unless ``replace``."""

    def target(self, name: str) -> TargetRecord:
        """The target of that name; an unknown one is an error with the nearest names."""

    def targets(self) -> tuple[TargetRecord, ...]:
        """Sorted by name."""

    def remove_target(self, name: str) -> None:
        """Forgets a target; its runs stay."""

    def add_run(self, run: NewRun) -> Run:
        """Keeps a run as ``created``. Its name must be new."""

    def update_run(
        self, name: str, status: str, *, identity: str | None = None, exit_status: int | None = None
    ) -> Run:
        """Changes what became of a run. One that has ended stays as it is."""

    def run(self, name: str) -> Run:
        """By its name, or the beginning of it where that is unique."""

    def runs(
        self,
        *,
        environment: str | None = None,
        version: str | None = None,
        image: str | None = None,
        target: str | None = None,
        limit: int | None = None,
    ) -> tuple[Run, ...]:
        """Newest first, those that fit all that is given."""

    def history(
        self, name: str | None = None, *, limit: int | None = None, before: int | None = None
    ) -> tuple[Event, ...]:
        """Newest first; at most ``limit``, only numbers below ``before``."""

    def close(self) -> None:
        """Ends all connections."""


def check_name(what: str, text: str) -> str:
    """``text``, which is fit to call an environment, version or label by. Raises ``WorkspaceError``."""
    if NAME.fullmatch(text) is None:
        raise WorkspaceError(
            f"{text[:80]!r} can't be the name of {what}",
            hint="letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 255",
        )
    return text
