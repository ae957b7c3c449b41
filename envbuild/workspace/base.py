"""What a workspace keeps: values, without the database that keeps them (``workspace.store``).

The rules it holds:

* One definition has one version under one name: registering it again gives that version.
* A version that is not asked for is the largest integer version plus one (of more than 18 digits it counts as
  text). An explicit one that another definition has, or a new one for a definition that already has another,
  is a conflict.
* ``latest`` is the version registered last that is neither anonymous nor archived. It is computed, never set.
* An anonymous version (of a build, or a run of a spec without a name) is called by the first 12 hex
  digits of its definition and becomes a normal version when it is registered; the 12 digits still lead to it.
* What is archived is hidden in lists and never ``latest``, but may be used by its version or label. An
  archived environment takes no new version until it is restored; anonymous ones it does take, so that
  builds go on. The same holds for reserved names.
* Content never changes. Description, tags and labels do, and each change is an event of the history.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from envbuild.errors import WorkspaceError

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
class NewVersion:
    """A version as it is to be registered; ``register`` makes a ``Version`` of it."""

    environment: str
    definition: str
    """Definition digest of the spec."""
    content: str
    """The spec as native YAML; its own name and version don't count."""
    version: str | None = None
    """None: the next number, or the one that the definition has."""
    description: str | None = None
    """None leaves that of a version which is there as it is, as no ``tags`` do theirs."""
    tags: Pairs = ()
    labels: tuple[str, ...] = ()
    anonymous: bool = False
    context: str | None = None
    """Digest of a build context that ``add_context`` stored."""
    origin: str = ""
    """Where it comes from: a file, an importer's source, ``name:version`` of a clone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One version of one environment, with what ``NewVersion`` said of it."""

    environment: str
    version: str
    definition: str
    content: str
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
    context: str | None

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
    """Identity of the pins and what else decides the image (docs/design.md §6), as its tag says it."""
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
class RunRecord(NewRun):
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
class HistoryEvent:
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


def check_name(noun: str, text: str) -> str:
    """``text``, which is fit to call an environment, version or label by. Raises ``WorkspaceError``."""
    if NAME.fullmatch(text) is None:
        raise WorkspaceError(
            f"{text[:80]!r} can't be the name of {noun}",
            hint="letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 255",
        )
    return text
