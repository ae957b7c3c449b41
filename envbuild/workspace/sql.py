"""The registry in an SQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from envbuild.errors import WorkspaceError
from envbuild.oci.digest import digest_bytes
from envbuild.targets.base import TargetRecord
from envbuild.workspace import artifacts, changes, queries, runs
from envbuild.workspace.base import (
    EnvironmentSummary,
    Event,
    ImageRecord,
    LockRecord,
    NewImage,
    NewRun,
    Registered,
    Run,
    Version,
    check_name,
)
from envbuild.workspace.changes import Change, Request
from envbuild.workspace.checks import (
    LARGEST_CONTENT,
    LARGEST_CONTEXT,
    check_digest,
    check_files,
    check_image,
    check_labels,
    check_new_name,
    check_run,
    check_tags,
    check_target,
    check_text,
    check_version,
)
from envbuild.workspace.database import Database
from envbuild.workspace.schema import labels as labels_table

_LARGEST_NUMBER = (1 << 63) - 1


class SqlEnvironmentStore:
    """``Registry`` over SQLite or PostgreSQL. Nothing is opened before the first use."""

    def __init__(
        self, location: str | Path, *, actor: str, clock: Callable[[], datetime], own: Path | None = None
    ) -> None:
        self._database = Database(location, own=own)
        self._actor = check_text("the user's name", actor, 255)
        self._clock = clock

    @property
    def location(self) -> str:
        return self._database.location

    def close(self) -> None:
        self._database.close()

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
        request = Request(
            name=check_name("an environment", name),
            definition=check_digest("a definition", definition),
            content=check_text("a spec", content, LARGEST_CONTENT),
            version=None if version is None else check_version(version),
            description=None if description is None else check_text("a description", description),
            tags=check_tags(tags),
            labels=check_labels(labels),
            anonymous=anonymous,
            context=None if context is None else check_digest("a context", context),
            origin=check_text("an origin", origin or ""),
        )
        if anonymous and (version is not None or request.labels):
            raise WorkspaceError("an anonymous version has neither a version nor labels of its own")
        if not anonymous:
            check_new_name(name)
        found = self._unchanged(request)
        if found is not None:
            return Registered(version=found, created=False)
        with self._change() as change:
            return changes.register(change, request)

    def _unchanged(self, request: Request) -> Version | None:
        """The version that is there already and stays as it is: that needs no writing, and nobody waits."""
        with self._database.read() as connection:
            try:
                environment = queries.environment_row(connection, request.name)
            except WorkspaceError:
                return None
            row = changes.definition_row(connection, environment, request.definition)
            if row is None:
                return None
            found = queries.value(connection, row)
        asked = request.version in (None, found.version)
        kept = not request.changes(row) and set(request.labels) <= set(found.labels)
        return found if asked and kept and (request.anonymous or not found.anonymous) else None

    def environments(
        self,
        *,
        prefix: str = "",
        include_archived: bool = False,
        include_anonymous: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> tuple[EnvironmentSummary, ...]:
        with self._database.read() as connection:
            return queries.summaries(
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
        with self._database.read() as connection:
            return queries.page(
                connection,
                queries.environment_row(connection, name),
                include_archived=include_archived,
                include_anonymous=include_anonymous,
                limit=_limit(limit),
                before=before,
            )

    def get(self, name: str, version: str | None = None, label: str | None = None) -> Version:
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
            return queries.value(connection, row)

    def by_definition(self, definition: str) -> tuple[Version, ...]:
        check_digest("a definition", definition)
        with self._database.read() as connection:
            return queries.by_definition(connection, definition)

    def label(self, name: str, version: str, labels: Iterable[str]) -> Version:
        wanted = check_labels(labels)
        with self._change() as change:
            environment = change.environment(name)
            row = queries.version_row(change.connection, environment, version)
            if wanted:
                changes.set_labels(change, environment, row, wanted)
            return queries.value(change.connection, row)

    def unlabel(self, name: str, labels: Iterable[str]) -> None:
        unwanted = check_labels(labels)
        with self._change() as change:
            environment = change.environment(name)
            taken = {
                label: queries.labelled_row(change.connection, environment, label)["version"]
                for label in unwanted
            }
            if not taken:
                return
            mine = labels_table.c.environment_id == environment["id"]
            change.connection.execute(sa.delete(labels_table).where(mine, labels_table.c.label.in_(unwanted)))
            change.event("unlabel", name, None, labels=list(unwanted), taken_from=taken)
            change.touch(environment)

    def update(
        self,
        name: str,
        version: str,
        *,
        description: str | None = None,
        tags: Iterable[tuple[str, str]] | None = None,
    ) -> Version:
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
            return queries.value(
                change.connection, queries.version_row(change.connection, environment, version)
            )

    def archive(self, name: str, version: str | None = None) -> None:
        with self._change() as change:
            changes.archive(change, name, version, True)

    def restore(self, name: str, version: str | None = None) -> None:
        with self._change() as change:
            changes.archive(change, name, version, False)

    def clone(self, name: str, version: str, new_name: str, *, new_version: str | None = None) -> Registered:
        if new_name == name:
            raise WorkspaceError(f"a clone of {name} needs another name: the same definition is one version")
        check_new_name(new_name)
        if new_version is not None:
            check_version(new_version)
        with self._change() as change:
            environment = queries.environment_row(change.connection, name)
            source = queries.value(
                change.connection, queries.version_row(change.connection, environment, version)
            )
            request = Request(
                name=new_name,
                definition=source.definition,
                content=source.content,
                version=new_version,
                description=source.description,
                tags=source.tags,
                context=source.context,
                origin=source.reference,
                action="clone",
            )
            return changes.register(change, request)

    def add_lock(self, definition: str, platforms: Iterable[str], files: Mapping[str, bytes]) -> LockRecord:
        check_digest("a definition", definition)
        check_files(files)
        named = sorted({check_text("a platform", platform, 64) for platform in platforms})
        with self._change() as change:
            artifacts.add_lock(change, definition, named, files)
            found = artifacts.lock_record(change.connection, digest=digest_bytes(files["envbuild.lock"]))
        assert found is not None
        return found

    def lock(self, definition: str) -> LockRecord | None:
        check_digest("a definition", definition)
        with self._database.read() as connection:
            return artifacts.lock_record(connection, definition=definition)

    def lock_by_digest(self, digest: str) -> LockRecord | None:
        check_digest("envbuild.lock", digest)
        with self._database.read() as connection:
            return artifacts.lock_record(connection, digest=digest)

    def add_image(self, image: NewImage) -> ImageRecord:
        check_image(image)
        with self._change() as change:
            artifacts.add_image(change, image)
            (found,) = artifacts.image_records(change.connection, digest=image.digest)
        return found

    def image(self, digest: str) -> ImageRecord | None:
        check_digest("an image", digest)
        with self._database.read() as connection:
            found = artifacts.image_records(connection, digest=digest, limit=1)
            listed = found or artifacts.image_records(connection, index=digest, limit=2)
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
        check_digest("a context", digest)
        if len(archive) > LARGEST_CONTEXT:
            raise WorkspaceError(
                f"the build context is too large to be kept: {len(archive)} bytes, at most {LARGEST_CONTEXT}",
                hint="leave out what the Dockerfile doesn't need (.dockerignore)",
            )
        with self._change() as change:
            artifacts.add_context(change, digest, archive)

    def context(self, digest: str) -> bytes:
        check_digest("a context", digest)
        with self._database.read() as connection:
            return artifacts.context(connection, digest)

    def add_target(self, target: TargetRecord, *, replace: bool = False) -> None:
        check_target(target)
        with self._change() as change:
            runs.add_target(change, target, replace=replace)

    def target(self, name: str) -> TargetRecord:
        with self._database.read() as connection:
            return runs.find_target(connection, name)

    def targets(self) -> tuple[TargetRecord, ...]:
        with self._database.read() as connection:
            return runs.all_targets(connection)

    def remove_target(self, name: str) -> None:
        with self._change() as change:
            runs.remove_target(change, name)

    def add_run(self, run: NewRun) -> Run:
        check_run(run)
        with self._change() as change:
            runs.add_run(change, run)
            return runs.one(change.connection, run.name, exactly=True)

    def update_run(
        self, name: str, status: str, *, identity: str | None = None, exit_status: int | None = None
    ) -> Run:
        if identity is not None:
            check_text("a run's name on its target", identity)
        with self._change() as change:
            runs.update_run(change, name, status, identity, exit_status)
            return runs.one(change.connection, name, exactly=True)

    def run(self, name: str) -> Run:
        with self._database.read() as connection:
            return runs.one(connection, check_name("a run", name))

    def runs(
        self,
        *,
        environment: str | None = None,
        version: str | None = None,
        image: str | None = None,
        target: str | None = None,
        limit: int | None = None,
    ) -> tuple[Run, ...]:
        with self._database.read() as connection:
            found = runs.some(
                connection,
                environment=environment,
                version=version,
                image=None if image is None else check_digest("an image", image),
                target=target,
                limit=_limit(limit),
            )
        return tuple(found)

    def history(
        self, name: str | None = None, *, limit: int | None = None, before: int | None = None
    ) -> tuple[Event, ...]:
        # A number that no column holds is behind all others.
        bound = None if before is None else max(0, min(before, _LARGEST_NUMBER))
        with self._database.read() as connection:
            return queries.history(connection, name, _limit(limit), bound)

    @contextmanager
    def _change(self) -> Iterator[Change]:
        with self._database.write() as connection:
            yield Change(connection, self._actor, self._clock())


def _limit(limit: int | None) -> int | None:
    if limit is not None and not 0 <= limit < 1 << 31:
        raise WorkspaceError(f"{limit} is no number of lines")
    return limit
