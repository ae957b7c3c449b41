"""Old images of a repository that envbuild made: which there are, which may go, and removing them.

An image is envbuild's where its tag is the one that its own lock digest gives; one that others made of it has
only inherited that. Nothing else is ever removed.
Nothing locks a repository. Each image is looked at again right before it goes, so a push or another prune at
the same time can do harm within one image's few requests only: a tag that is moved to an image then is lost
with it, and the push that moved it must be run again. Whatever a prune leaves half done, the next completes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from envbuild.errors import FetchError, PublishError
from envbuild.images.base import OwnImage, PrunePlan
from envbuild.images.describe import LOCK_LABEL, is_our_manifest, layers_of_others
from envbuild.images.repository import identity_tag
from envbuild.oci.digest import is_digest
from envbuild.oci.manifest import CONFIG_LIMIT, IN_TOTO, INDEXES, ConfigDocument, parts_of
from envbuild.oci.reference import Reference
from envbuild.registry.base import Manifest, RefusedError, Remote
from envbuild.registry.referrers import COSIGN, CREATED, Referrer, fallback_tag, referrers

_IDENTITY = re.compile(r"[0-9a-f]{12}")
_ATTACHED = re.compile(r"sha256-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?")
"""Tags of what is attached to an image, ours, cosign's and others'."""
_SEGMENT = re.compile(r"segment-[0-9a-f]{64}")
"""Tags of a shared cache; there may be thousands, and none is of an image."""
_WORKERS = 8
_PLATFORMS = 64
"""Of an index that we made."""
_DEPTH = 3
"""How deep what is attached may have something attached itself."""

T = TypeVar("T")
R = TypeVar("R")


class RepositoryPruner:
    """Plans and prunes one repository. Everything in it is what strangers may have written."""

    def __init__(self, remote: Remote, repository: Reference) -> None:
        self.repository = repository
        self._remote = remote

    def plan(self, keep: int, *, now: datetime, older_than: timedelta | None = None) -> PrunePlan:
        """Keeps the ``keep`` newest images, what any other tag names and what a kept index lists. With
        ``older_than`` only images that are known to be older go. Raises ``FetchError``."""
        tags = [tag for tag in self._remote.tags(self.repository) if not _is_attached(tag)]
        looked_up = dict(zip(tags, self._each(self._find, tags), strict=True))
        own: list[OwnImage] = []
        others: dict[str, Manifest] = {}
        for tag, top in looked_up.items():
            if top is None:
                continue
            if _IDENTITY.fullmatch(tag) and self._is_own(tag, top):
                own.append(OwnImage(tag=tag, digest=top.digest, children=_children(top), pushed=None))
            else:
                others[tag] = top
        own = list(self._each(self._dated, own))
        return _planned(own, others, keep=keep, now=now, older_than=older_than)

    def remove(self, plan: PrunePlan) -> Iterator[OwnImage]:
        """Removes what ``plan`` says, image by image, with all that is attached to it; yields each that is
        gone. One that was pushed again, or got another tag, since the plan was made stays. Raises
        ``PublishError`` where the registry deletes nothing."""
        known = {*plan.others, *(image.tag for image in plan.images)}
        live = set(plan.live)
        for image in plan.remove:
            tags = self._remote.tags(self.repository)
            for tag in sorted(set(tags) - known):
                known.add(tag)
                if not _is_attached(tag) and (top := self._find(tag)) is not None:
                    live.update((top.digest, *_children(top)))
            top = self._find(image.tag)
            if image.digest in live or top is None or top.digest != image.digest:
                continue
            self._remove(image, live, frozenset(tags))
            yield image

    def _remove(self, image: OwnImage, live: set[str], tags: frozenset[str]) -> None:
        """What is attached goes first, as it couldn't be found without the tag; then the tag's own manifest,
        so that a push at the same time starts from the beginning; then what an index listed."""
        gone = [digest for digest in image.manifests if digest not in live]
        for digest in gone:
            for attached in self._attached(digest, tags):
                if attached not in live:
                    self._delete(attached)
        for digest in gone:
            self._delete(digest)

    def _attached(self, digest: str, tags: frozenset[str]) -> Iterator[str]:
        """Digests of all that is attached to a manifest; what is attached to that comes first."""

        def below(digest: str, depth: int) -> Iterator[str]:
            for referrer in referrers(self._remote, self.repository, digest) if depth < _DEPTH else ():
                if referrer.digest not in seen:
                    seen.add(referrer.digest)
                    yield from below(referrer.digest, depth + 1)
                    yield referrer.digest
            named = fallback_tag(digest)
            for tag in (named, *(f"{named}{suffix}" for suffix in COSIGN)):
                if tag in tags and (top := self._find(tag)) is not None:
                    yield top.digest

        seen = {digest}
        yield from below(digest, 0)

    def _delete(self, digest: str) -> None:
        try:
            self._remote.delete(self.repository, digest)
        except RefusedError as error:
            if error.status == 404:
                return  # Another prune was faster.
            if error.status in (400, 405, 501):
                raise PublishError(
                    f"{self.repository.registry} doesn't delete images (HTTP {error.status})",
                    hint="its operator must allow it; Docker's registry does with storage.delete.enabled",
                ) from error
            raise PublishError(
                f"nothing more is removed from {self.repository.name}: {error.message}", hint=error.hint
            ) from error

    def _find(self, tag: str) -> Manifest | None:
        return self._remote.find_manifest(self.repository, tag)

    def _is_own(self, tag: str, top: Manifest) -> bool:
        locks = self._locks(top)
        return (
            0 < len(locks) <= _PLATFORMS
            and all(is_digest(lock) for lock in locks)
            and identity_tag(locks) == tag
        )

    def _locks(self, top: Manifest) -> list[str]:
        """The lock digests that a manifest, its config or an index states; empty text where it doesn't."""
        try:
            document = json.loads(top.content)
            if top.media_type in INDEXES:
                return [_annotation(entry) for entry in document["manifests"]]
            stated = _annotation(document)
            if is_our_manifest(top.content, stated):
                return [stated]
            (config,) = parts_of(top.content, self.repository.name).configs
            if config.size > CONFIG_LIMIT:
                return []
            path = self._remote.blob(self.repository, config.digest, config.size)
            inner = json.loads(path.read_bytes())
            document = ConfigDocument(inner) if isinstance(inner, dict) else None
            if document is None or layers_of_others(top.content, document) is not None:
                return []
            return [document.labels.get(LOCK_LABEL, "")]
        except (FetchError, ValueError, TypeError, KeyError, RecursionError):
            return []  # Not an image that anybody could run, so none of ours.

    def _dated(self, image: OwnImage) -> OwnImage:
        times = [
            time
            for digest in image.children or (image.digest,)
            for referrer in referrers(self._remote, self.repository, digest, IN_TOTO)
            if (time := self._time(referrer)) is not None
        ]
        return replace(image, pushed=max(times, default=None))

    def _time(self, provenance: Referrer) -> datetime | None:
        stated = provenance.annotation(CREATED)
        if not provenance.annotations:
            # Not every registry takes annotations over into its list.
            manifest = self._remote.find_manifest(self.repository, provenance.digest)
            stated = _annotation(_loaded(manifest.content), CREATED) if manifest else None
        try:
            time = datetime.strptime(stated or "", "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            return None
        return time.replace(tzinfo=timezone.utc)

    def _each(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """The results in order, several made at once."""
        with ThreadPoolExecutor(_WORKERS) as workers:
            yield from workers.map(work, items)


def _planned(
    own: Sequence[OwnImage],
    others: Mapping[str, Manifest],
    *,
    keep: int,
    now: datetime,
    older_than: timedelta | None,
) -> PrunePlan:
    beginning = datetime.min.replace(tzinfo=timezone.utc)
    # Two stable sorts: by tag, and then the newest first.
    ordered = sorted(own, key=lambda verdict: verdict.tag)
    ordered.sort(key=lambda verdict: verdict.pushed or beginning, reverse=True)
    names: dict[str, str] = {}
    for tag, top in sorted(others.items()):
        for digest in (top.digest, *_children(top)):
            names.setdefault(digest, tag)
    judged: list[OwnImage] = []
    for number, image in enumerate(ordered):
        kept = ""
        if number < keep:
            kept = "one of the newest"
        elif image.digest in names:
            kept = f"{names[image.digest]} names it"
        elif older_than is not None and image.pushed is None:
            kept = "nobody knows how old it is"
        elif older_than is not None and image.pushed is not None and now - image.pushed <= older_than:
            kept = "not that old"
        judged.append(replace(image, kept=kept))
    for image in [verdict for verdict in judged if verdict.kept]:
        for digest in image.manifests:
            names.setdefault(digest, image.tag)
    judged = [
        replace(verdict, kept=f"part of {names[verdict.digest]}")
        if not verdict.kept and verdict.digest in names
        else verdict
        for verdict in judged
    ]
    return PrunePlan(images=tuple(judged), others=tuple(sorted(others)), live=frozenset(names))


def _children(top: Manifest) -> tuple[str, ...]:
    if top.media_type not in INDEXES:
        return ()
    return tuple(dict.fromkeys(manifest.digest for manifest in parts_of(top.content, top.digest).manifests))


def _loaded(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _annotation(value: Any, key: str = LOCK_LABEL) -> str:
    """What an object's annotation says; empty where there is none."""
    annotations = value.get("annotations") if isinstance(value, dict) else None
    text = annotations.get(key) if isinstance(annotations, dict) else None
    return text if isinstance(text, str) else ""


def _is_attached(tag: str) -> bool:
    return _ATTACHED.fullmatch(tag) is not None or _SEGMENT.fullmatch(tag) is not None
