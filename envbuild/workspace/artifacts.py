"""Locks, images and build contexts: what was made of definitions, kept by content."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from envbuild.errors import WorkspaceError
from envbuild.lock.identity import FOUND_LEVEL
from envbuild.oci.digest import digest_bytes
from envbuild.workspace.base import ImageRecord, LockRecord, NewImage
from envbuild.workspace.changes import Transaction
from envbuild.workspace.queries import environment_row, version_row
from envbuild.workspace.schema import (
    blobs,
    contexts,
    environments,
    image_indexes,
    image_references,
    images,
    lock_files,
    locks,
    versions,
)

_AT_ONCE = 500
"""Keys of one query: SQLite takes no more than 32,766 parameters, older ones 999."""


def add_lock(
    change: Transaction, definition: str, platforms: Sequence[str], files: Mapping[str, bytes]
) -> None:
    digest = digest_bytes(files["envbuild.lock"])
    row = change.connection.execute(sa.select(locks).where(locks.c.digest == digest)).mappings().first()
    if row is None:
        event = _event(change, "lock", definition, lock=digest)
        new = {"digest": digest, "definition": definition, "platforms": list(platforms)}
        if change.insert_new(locks, **new, created=change.at, event=event):
            # In the order of their digests, so that two writers never wait for each other.
            for blob, data in sorted((digest_bytes(data), data) for data in files.values()):
                change.insert_new(blobs, digest=blob, size=len(data), data=zlib.compress(data, 6))
            for name in sorted(files):
                change.insert_new(lock_files, lock=digest, name=name, blob=digest_bytes(files[name]))
        return
    if row["definition"] != definition:
        raise WorkspaceError(f"envbuild.lock {digest} answers {row['definition']}, not {definition}")
    newest = sa.select(sa.func.max(locks.c.event)).where(locks.c.definition == definition)
    if change.connection.scalar(newest) != row["event"]:
        event = _event(change, "lock", definition, lock=digest)
        change.connection.execute(sa.update(locks).where(locks.c.digest == digest).values(event=event))


def lock_record(
    connection: Connection, *, definition: str | None = None, digest: str | None = None
) -> LockRecord | None:
    """The newest lock of a definition, or the one with a digest."""
    query = sa.select(locks).order_by(locks.c.event.desc()).limit(1)
    if definition is not None:
        query = query.where(locks.c.definition == definition)
    if digest is not None:
        query = query.where(locks.c.digest == digest)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    kept = (
        sa.select(lock_files.c.name, blobs.c.digest, blobs.c.size, blobs.c.data)
        .join_from(lock_files, blobs)
        .where(lock_files.c.lock == row["digest"])
        .order_by(lock_files.c.name)
    )
    return LockRecord(
        definition=row["definition"],
        platforms=tuple(row["platforms"]),
        digest=row["digest"],
        files={mapping["name"]: _inflated(mapping) for mapping in connection.execute(kept).mappings()},
        created=row["created"],
    )


def _inflated(row: RowMapping) -> bytes:
    """The bytes that were kept. Raises ``WorkspaceError`` if they are no longer those."""
    inflater = zlib.decompressobj()
    try:
        # No more than was said, however the row was changed.
        data = inflater.decompress(row["data"], max(row["size"], 1))
    except zlib.error:
        data = b""
    if digest_bytes(data) != row["digest"]:
        raise WorkspaceError(
            f"the workspace's copy of {row['digest']} is damaged", hint="lock the spec again"
        )
    return data


def add_image(change: Transaction, image: NewImage) -> None:
    connection = change.connection
    row = connection.execute(sa.select(images).where(images.c.digest == image.digest)).mappings().first()
    if row is not None and row["definition"] != image.definition:
        raise WorkspaceError(f"image {image.digest} is one of {row['definition']}, not of {image.definition}")
    if row is None:
        if image.lock is not None and lock_missing(connection, image.lock):
            raise WorkspaceError(f"the lock {image.lock} of image {image.digest} isn't in the workspace")
        event = _event(
            change, "image", image.definition, image=image.digest, references=list(image.references)
        )
        names = {field.name for field in fields(NewImage)} - {"references", "indexes"}
        new = {name: getattr(image, name) for name in names}
        change.insert_new(images, **new, created=change.at, event=event)
    elif row["level"] == FOUND_LEVEL:
        # What a build only found is composed or verified now.
        connection.execute(sa.update(images).where(images.c.digest == image.digest).values(level=image.level))
    added = [
        reference
        for reference in sorted(set(image.references))
        if change.insert_new(image_references, image=image.digest, reference=reference)
    ]
    for index in sorted(set(image.indexes)):
        change.insert_new(image_indexes, image=image.digest, index_digest=index)
    if row is not None and added:
        _event(change, "image", image.definition, image=image.digest, references=added)


def lock_missing(connection: Connection, digest: str) -> bool:
    return not connection.scalar(sa.select(sa.exists().where(locks.c.digest == digest)))


def image_records(
    connection: Connection,
    *,
    digest: str | None = None,
    name: str | None = None,
    version: str | None = None,
    definition: str | None = None,
    index: str | None = None,
    limit: int | None = None,
) -> tuple[ImageRecord, ...]:
    """Newest first."""
    query = sa.select(images).order_by(images.c.event.desc()).limit(limit)
    if digest is not None:
        query = query.where(images.c.digest == digest)
    if definition is not None:
        query = query.where(images.c.definition == definition)
    if index is not None:
        listed = sa.select(image_indexes.c.image).where(image_indexes.c.index_digest == index)
        query = query.where(images.c.digest.in_(listed))
    if name is not None:
        environment = environment_row(connection, name)
        definitions = sa.select(versions.c.definition).where(versions.c.environment_id == environment["id"])
        if version is not None:
            row = version_row(connection, environment, version)
            definitions = definitions.where(versions.c.id == row["id"])
        query = query.where(images.c.definition.in_(definitions))
    elif version is not None:
        raise WorkspaceError("a version without the name of its environment says nothing")
    rows = connection.execute(query).mappings().all()
    references: dict[str, list[str]] = {}
    indexes: dict[str, list[str]] = {}
    belongs: dict[str, list[tuple[str, str]]] = {}
    for keys in _portions([row["digest"] for row in rows]):
        named = sa.select(image_references).where(image_references.c.image.in_(keys))
        for image, reference in connection.execute(named.order_by(image_references.c.reference)):
            references.setdefault(image, []).append(reference)
        listing = sa.select(image_indexes).where(image_indexes.c.image.in_(keys))
        for image, index_digest in connection.execute(listing.order_by(image_indexes.c.index_digest)):
            indexes.setdefault(image, []).append(index_digest)
    for keys in _portions(sorted({row["definition"] for row in rows})):
        for owner, environment_name, of in _owners(connection, keys):
            belongs.setdefault(owner, []).append((environment_name, of))
    return tuple(
        ImageRecord(
            **{key: row[key] for key in row if key != "event"},
            references=tuple(references.get(row["digest"], ())),
            indexes=tuple(indexes.get(row["digest"], ())),
            versions=tuple(belongs.get(row["definition"], ())),
        )
        for row in rows
    )


def add_context(change: Transaction, digest: str, archive: bytes) -> None:
    if change.insert_new(contexts, digest=digest, checksum=digest_bytes(archive), archive=archive):
        change.event("context", None, None, context=digest, size=len(archive))


def context(connection: Connection, digest: str) -> bytes:
    row = connection.execute(sa.select(contexts).where(contexts.c.digest == digest)).mappings().first()
    if row is None:
        raise WorkspaceError(f"the build context {digest} isn't in the workspace")
    archive: bytes = row["archive"]
    if digest_bytes(archive) != row["checksum"]:
        raise WorkspaceError(f"the workspace's copy of the build context {digest} is damaged")
    return archive


def _owners(connection: Connection, definitions: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """``(definition, environment, version)``, sorted by environment."""
    query = (
        sa.select(versions.c.definition, environments.c.name, versions.c.version)
        .join_from(versions, environments)
        .where(versions.c.definition.in_(definitions))
        .order_by(environments.c.name)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def _event(change: Transaction, action: str, definition: str, **detail: object) -> int:
    """The number of the last event: each version of the definition gets one, for its history."""
    numbers = [
        change.event(action, environment, version, definition=definition, **detail)
        for _, environment, version in _owners(change.connection, [definition])
    ]
    return numbers[-1] if numbers else change.event(action, None, None, definition=definition, **detail)


def _portions(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))
