"""The records of a workspace: each operation is checked, and one transaction of its SQL database."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import sqlalchemy as sa

from envbuild.errors import WorkspaceError
from envbuild.oci.digest import digest_bytes
from envbuild.targets.base import TargetRecord
from envbuild.workspace import artifacts, changes, queries, runs
from envbuild.workspace.base import (
    EnvironmentSummary,
    HistoryEvent,
    ImageRecord,
    LockRecord,
    NewImage,
    NewRun,
    NewVersion,
    Registered,
    RunRecord,
    Version,
    check_name,
)
from envbuild.workspace.changes import Transaction
from envbuild.workspace.checks import (
    LARGEST_CONTEXT,
    check_digest,
    check_files,
    check_image,
    check_labels,
    check_new_name,
    check_new_version,
    check_run,
    check_tags,
    check_target,
    check_text,
    check_version,
)
from envbuild.workspace.database import Database
from envbuild.workspace.schema import labels as labels_table

_LARGEST_NUMBER = (1 << 63) - 1


class _Undone(Exception):
    """Ends a transaction whose result alone was wanted."""


class EnvironmentStore:
    """A workspace's records. All methods raise ``WorkspaceError``; a change happens wholly or not at all."""

    def __init__(
        self,
        location: str | Path,
        *,
        actor: str,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        own: Path | None = None,
    ) -> None:
        """The records in a file of SQLite or behind an SQLAlchemy URL.

        A file that isn't there is made, and an older schema brought up to date, at the first use. Then nobody
        else can read the file, nor the directory ``own`` where it lies there. ``actor`` is who the history
        says did it. Raises ``WorkspaceError`` for a URL that can't be one.
        """
        self._database = Database(location, own=own)
        self._actor = check_text("the user's name", actor, 255)
        self._clock = clock

    @property
    def location(self) -> str:
        """Where the records are, for people: a path or a URL without credentials."""
        return self._database.location

    def close(self) -> None:
        """Ends all connections."""
        self._database.close()

    def register(self, new: NewVersion) -> Registered:
        """The version with this definition, made if it isn't there.

        For one that is there, the content stays as it is; labels, description and tags that are given and
        differ are set, unless ``anonymous``.
        """
        new = check_new_version(new)
        known = self._unchanged(new)
        if known is not None:
            return Registered(version=known, created=False)
        with self._change() as change:
            return changes.register(change, new)

    def would_register(self, new: NewVersion) -> Registered:
        """What ``register`` would return now; nothing is kept."""
        new = check_new_version(new)
        with suppress(_Undone), self._change() as change:
            registered = changes.register(change, new)
            raise _Undone
        return registered

    def _unchanged(self, new: NewVersion) -> Version | None:
        """The version that is there already and stays as it is: that needs no writing, and nobody waits."""
        with self._database.read() as connection:
            try:
                environment = queries.environment_row(connection, new.environment)
            except WorkspaceError:
                return None
            row = changes.definition_row(connection, environment, new.definition)
            if row is None:
                return None
            known = queries.version_of(connection, row)
        same = new.version in (None, known.version)
        same = same and not changes.changed_columns(new, row) and set(new.labels) <= set(known.labels)
        return known if same and (new.anonymous or not known.anonymous) else None

    def list(
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
        with self._database.read() as connection:
            return queries.list_environments(
                connection,
                prefix=check_name("an environment", prefix) if prefix else "",
                include_archived=include_archived,
                include_anonymous=include_anonymous,
                limit=_limit(limit),
                after=None if after is None else check_name("an environment", after),
            )

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
        with self._database.read() as connection:
            return queries.list_versions(
                connection,
                queries.environment_row(connection, name),
                include_archived=include_archived,
                include_anonymous=include_anonymous,
                limit=_limit(limit),
                before=before,
            )

    def get(self, name: str, version: str | None = None, label: str | None = None) -> Version:
        """By version or by label, never both; by neither it is the latest."""
        if version is not None and label is not None:
            raise WorkspaceError("a version and a label at once name nothing", hint="give one of them")
        with self._database.read() as connection:
            environment = queries.environment_row(connection, name)
            if version is not None:
                row = queries.version_row(connection, environment, version)
            elif label is not None:
                row = queries.labelled_row(connection, environment, label)
            else:
                row = queries.latest_row(connection, environment)
            return queries.version_of(connection, row)

    def by_definition(self, definition: str) -> tuple[Version, ...]:
        """Every version with this definition digest, sorted by name; may be empty."""
        check_digest("a definition", definition)
        with self._database.read() as connection:
            return queries.by_definition(connection, definition)

    def label(self, name: str, version: str, labels: Iterable[str]) -> Version:
        """Moves ``labels`` to this version, from whichever had them."""
        wanted = check_labels(labels)
        with self._change() as change:
            environment = change.environment(name)
            row = queries.version_row(change.connection, environment, version)
            if wanted:
                changes.set_labels(change, environment, row, wanted)
            return queries.version_of(change.connection, row)

    def unlabel(self, name: str, labels: Iterable[str]) -> None:
        """Takes labels away; an unknown one is an error and none is taken."""
        unwanted = check_labels(labels)
        with self._change() as change:
            environment = change.environment(name)
            taken_from = {
                label: queries.labelled_row(change.connection, environment, label)["version"]
                for label in unwanted
            }
            if not taken_from:
                return
            in_environment = labels_table.c.environment_id == environment["id"]
            change.connection.execute(
                sa.delete(labels_table).where(in_environment, labels_table.c.label.in_(unwanted))
            )
            change.event("unlabel", name, None, labels=list(unwanted), taken_from=taken_from)
            change.touch(environment)

    def update(
        self,
        name: str,
        version: str,
        *,
        description: str | None = None,
        tags: Iterable[tuple[str, str]] | None = None,
    ) -> Version:
        """Replaces what isn't None."""
        wanted: dict[str, object] = {}
        if description is not None:
            wanted["description"] = check_text("a description", description)
        if tags is not None:
            wanted["tags"] = dict(check_tags(tags))
        with self._change() as change:
            environment = change.environment(name)
            row = queries.version_row(change.connection, environment, version)
            changed = {key: value for key, value in wanted.items() if row[key] != value}
            changes.set_columns(change, environment, row, changed)
            return queries.version_of(
                change.connection, queries.version_row(change.connection, environment, version)
            )

    def archive(self, name: str, version: str | None = None) -> None:
        """Archives a version, or the whole environment."""
        with self._change() as change:
            changes.archive(change, name, version, True)

    def restore(self, name: str, version: str | None = None) -> None:
        """Undoes ``archive`` of the same."""
        with self._change() as change:
            changes.archive(change, name, version, False)

    def clone(self, name: str, version: str, new_name: str, *, new_version: str | None = None) -> Registered:
        """Registers the same definition under another name, with description, tags and context."""
        if new_name == name:
            raise WorkspaceError(f"a clone of {name} needs another name: the same definition is one version")
        check_new_name(new_name)
        if new_version is not None:
            check_version(new_version)
        with self._change() as change:
            environment = queries.environment_row(change.connection, name)
            source = queries.version_of(
                change.connection, queries.version_row(change.connection, environment, version)
            )
            clone = NewVersion(
                environment=new_name,
                definition=source.definition,
                content=source.content,
                version=new_version,
                description=source.description,
                tags=source.tags,
                context=source.context,
                origin=source.reference,
            )
            return changes.register(change, clone, action="clone")

    def add_lock(self, definition: str, platforms: Iterable[str], files: Mapping[str, bytes]) -> LockRecord:
        """Keeps a lock directory; one that is there already becomes the newest again."""
        check_digest("a definition", definition)
        check_files(files)
        named = sorted({check_text("a platform", platform, 64) for platform in platforms})
        with self._change() as change:
            artifacts.add_lock(change, definition, named, files)
            record = artifacts.lock_record(change.connection, digest=digest_bytes(files["envbuild.lock"]))
        assert record is not None
        return record

    def lock(self, definition: str) -> LockRecord | None:
        """The lock of a definition that was added last."""
        check_digest("a definition", definition)
        with self._database.read() as connection:
            return artifacts.lock_record(connection, definition=definition)

    def lock_by_digest(self, digest: str) -> LockRecord | None:
        """The lock whose ``envbuild.lock`` has this digest."""
        check_digest("envbuild.lock", digest)
        with self._database.read() as connection:
            return artifacts.lock_record(connection, digest=digest)

    def add_image(self, image: NewImage) -> ImageRecord:
        """Keeps an image; of one that is there, new references and indexes are added."""
        check_image(image)
        with self._change() as change:
            artifacts.add_image(change, image)
            (record,) = artifacts.image_records(change.connection, digest=image.digest)
        return record

    def image(self, digest: str) -> ImageRecord | None:
        """By the digest of its manifest; for an index with one image, by the index's too."""
        check_digest("an image", digest)
        with self._database.read() as connection:
            records = artifacts.image_records(connection, digest=digest, limit=1)
            listed = records or artifacts.image_records(connection, index=digest, limit=2)
        return listed[0] if len(listed) == 1 else None

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
        with self._database.read() as connection:
            return artifacts.image_records(
                connection,
                name=name,
                version=version,
                definition=None if definition is None else check_digest("a definition", definition),
                index=None if index is None else check_digest("an index", index),
                limit=_limit(limit),
            )

    def add_context(self, digest: str, archive: bytes) -> None:
        """Keeps a build context's archive under the digest of its snapshot."""
        check_digest("a context", digest)
        if len(archive) > LARGEST_CONTEXT:
            raise WorkspaceError(
                f"the build context is too large to be kept: {len(archive)} bytes, at most {LARGEST_CONTEXT}",
                hint="leave out what the Dockerfile doesn't need (.dockerignore)",
            )
        with self._change() as change:
            artifacts.add_context(change, digest, archive)

    def context(self, digest: str) -> bytes:
        """The archive that ``add_context`` got."""
        check_digest("a context", digest)
        with self._database.read() as connection:
            return artifacts.context(connection, digest)

    def add_target(self, target: TargetRecord, *, replace: bool = False) -> None:
        """Keeps a target. Another one of that name is an error unless ``replace``."""
        check_target(target)
        with self._change() as change:
            runs.add_target(change, target, replace=replace)

    def target(self, name: str) -> TargetRecord:
        """The target of that name; an unknown one is an error with the nearest names."""
        with self._database.read() as connection:
            return runs.find_target(connection, name)

    def targets(self) -> tuple[TargetRecord, ...]:
        """Sorted by name."""
        with self._database.read() as connection:
            return runs.all_targets(connection)

    def remove_target(self, name: str) -> None:
        """Forgets a target; its runs stay."""
        with self._change() as change:
            runs.remove_target(change, name)

    def add_run(self, run: NewRun) -> RunRecord:
        """Keeps a run as ``created``. Its name must be new."""
        check_run(run)
        with self._change() as change:
            runs.add_run(change, run)
            return runs.find_run(change.connection, run.name, exactly=True)

    def update_run(
        self, name: str, status: str, *, identity: str | None = None, exit_status: int | None = None
    ) -> RunRecord:
        """Changes what became of a run. One that has ended stays as it is."""
        if identity is not None:
            check_text("a run's name on its target", identity)
        with self._change() as change:
            runs.update_run(change, name, status, identity, exit_status)
            return runs.find_run(change.connection, name, exactly=True)

    def run(self, name: str) -> RunRecord:
        """By its name, or the beginning of it where that is unique."""
        with self._database.read() as connection:
            return runs.find_run(connection, check_name("a run", name))

    def runs(
        self,
        *,
        environment: str | None = None,
        version: str | None = None,
        image: str | None = None,
        target: str | None = None,
        limit: int | None = None,
    ) -> tuple[RunRecord, ...]:
        """Newest first, those that fit all that is given."""
        with self._database.read() as connection:
            records = runs.list_runs(
                connection,
                environment=environment,
                version=version,
                image=None if image is None else check_digest("an image", image),
                target=target,
                limit=_limit(limit),
            )
        return tuple(records)

    def history(
        self, name: str | None = None, *, limit: int | None = None, before: int | None = None
    ) -> tuple[HistoryEvent, ...]:
        # A number that no column holds is behind all others.
        """Newest first; at most ``limit``, only numbers below ``before``."""
        bound = None if before is None else max(0, min(before, _LARGEST_NUMBER))
        with self._database.read() as connection:
            return queries.history(connection, name, _limit(limit), bound)

    @contextmanager
    def _change(self) -> Iterator[Transaction]:
        with self._database.write() as connection:
            yield Transaction(connection, self._actor, self._clock())


def _limit(limit: int | None) -> int | None:
    if limit is not None and not 0 <= limit < 1 << 31:
        raise WorkspaceError(f"{limit} is no number of lines")
    return limit


def actor_of(env: Mapping[str, str]) -> str:
    """The name of whoever runs this, for the history: as ``getpass`` finds it, from ``env``."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if env.get(variable):
            return env[variable][:255]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run as a user that no one named.
        return f"uid {os.getuid()}"
