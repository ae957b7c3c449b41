"""A workspace for programs: registered versions as specs for every stage, and what was made of them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import EnvbuildError, LockError, SpecError, UsageError, WorkspaceError
from envbuild.lazy import lazy
from envbuild.lock.files import LOCK_FILE, parse_lock, read_lock
from envbuild.oci.digest import digest_bytes, is_digest
from envbuild.settings import Settings, data_directory
from envbuild.specs.cache import remembered_spec
from envbuild.specs.definition import definition_digest
from envbuild.specs.model import BuildContextSpec, EnvironmentType, Spec
from envbuild.store.content import Store
from envbuild.targets.base import LOCAL, TargetRecord
from envbuild.workspace.base import ImageRecord, LockRecord, NewVersion, Registered, Version, check_name

if TYPE_CHECKING:
    from envbuild import settings as settings_module
    from envbuild.app import context_archive
    from envbuild.lock.model import Lock
    from envbuild.specs import load as spec_loader
    from envbuild.specs.exporters import formats
    from envbuild.workspace import store as workspace_store
else:
    context_archive = lazy("envbuild.app.context_archive")
    settings_module = lazy("envbuild.settings")
    formats = lazy("envbuild.specs.exporters.formats")
    spec_loader = lazy("envbuild.specs.load")
    workspace_store = lazy("envbuild.workspace.store")

_SPEC_FILE = "envbuild.yaml"
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}"
_REFERENCE = re.compile(rf"(?P<name>{_NAME})(?::(?P<version>{_NAME})|@(?P<label>{_NAME}))?")
_COMPARED = 3_000
"""Names that an unknown one is compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionReference:
    """``name``, ``name:version`` or ``name@label``: how people name a version of a workspace."""

    name: str
    version: str | None = None
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> VersionReference:
        """Raises ``UsageError`` for what can be no such name."""
        reference = cls.of(text)
        if reference is None:
            raise UsageError(f"{text[:80]!r} names no version", hint="write name, name:version or name@label")
        return reference

    @classmethod
    def of(cls, text: str) -> VersionReference | None:
        """None for what can be no such name."""
        match = _REFERENCE.fullmatch(text)
        return cls(**match.groupdict()) if match else None


class Workspace:
    """The environments of one workspace. Connects when first used; safe for several processes at once.

    >>> with Workspace.open("team.db") as workspace:
    ...     workspace.environments.list()
    """

    def __init__(self, settings: Settings, *, environ: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self._environ = os.environ if environ is None else environ
        self._store = Store(settings.cache_dir)

    @classmethod
    def open(cls, url: str | Path | None = None, *, settings: Settings | None = None) -> Workspace:
        """The workspace in a file of SQLite or behind an SQLAlchemy URL; by default that of the settings."""
        if settings is None:
            settings = settings_module.load_settings({"workspace": url}, os.environ, Path.cwd())
        elif url is not None:
            settings = replace(settings, workspace=url)
        if settings.workspace is None:
            raise UsageError("no workspace is named", hint="give a file, a URL or ENVBUILD_WORKSPACE")
        return cls(settings)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connections; it may be used again."""
        if "environments" in self.__dict__:
            self.environments.close()

    @cached_property
    def environments(self) -> workspace_store.EnvironmentStore:
        """The records themselves, with every operation on them."""
        if self.settings.workspace is None:
            raise WorkspaceError("there is no workspace", hint="set ENVBUILD_WORKSPACE")
        actor = workspace_store.actor_of(self._environ)
        return workspace_store.EnvironmentStore(self.settings.workspace, actor=actor, own=self.data_directory)

    @property
    def file(self) -> Path | None:
        """The database's file; None for one behind a URL, or where there is no workspace."""
        where = self.settings.workspace
        if where is None or (isinstance(where, str) and "://" in where):
            return None
        return Path(where)

    @property
    def is_there(self) -> bool:
        """Whether anything can be found: asking makes no database, and imports no library."""
        file = self.file
        return self.settings.workspace is not None and (file is None or file.exists())

    @property
    def data_directory(self) -> Path:
        """Where files of the user's own are, that belong to no database."""
        return data_directory(self._environ)

    def target(self, name: str) -> TargetRecord:
        """The target of that name; ``local``, this machine, is always there. Raises ``WorkspaceError``."""
        if name == LOCAL.name and not self.is_there:
            return LOCAL
        try:
            return self.environments.target(name)
        except WorkspaceError:
            if name == LOCAL.name:
                return LOCAL
            raise

    def targets(self) -> tuple[TargetRecord, ...]:
        """All targets, sorted by name, ``local`` among them."""
        registered = self.environments.targets() if self.is_there else ()
        own = () if any(target.name == LOCAL.name for target in registered) else (LOCAL,)
        return tuple(sorted((*registered, *own), key=lambda target: target.name))

    # --- versions -------------------------------------------------------------------------------------

    def get(self, reference: str) -> Version:
        """The version that ``name``, ``name:version`` or ``name@label`` names. Raises ``WorkspaceError``."""
        named = VersionReference.parse(reference)
        return self.environments.get(named.name, named.version, named.label)

    def find(self, text: str) -> Version | None:
        """What ``get`` returns; None where there is no environment of that name, or only anonymous versions
        of it and none was named. Raises ``WorkspaceError`` for an unknown version or label of a known one."""
        named = VersionReference.of(text)
        if named is None or not self.is_there:
            return None
        exact = named.version is not None or named.label is not None
        known = self.environments.list(
            prefix=named.name, include_archived=True, include_anonymous=exact, limit=1
        )
        if not known or known[0].name != named.name:
            return None
        return self.environments.get(named.name, named.version, named.label)

    def names(self) -> tuple[str, ...]:
        """What environments there are, the first few thousand: for those who mistyped one."""
        if not self.is_there:
            return ()
        return tuple(environment.name for environment in self.environments.list(limit=_COMPARED))

    def register(
        self,
        spec: Spec,
        *,
        name: str | None = None,
        version: str | None = None,
        description: str | None = None,
        tags: Iterable[tuple[str, str]] = (),
        labels: Iterable[str] = (),
        keep: bool = True,
    ) -> Registered:
        """The version of ``spec``: the one with the same definition if there is one, else the next. Without
        ``keep``, the one that it would be.

        Raises ``WorkspaceError`` where an explicit version is another definition's, and for a spec that
        would mean something else on another machine.
        """
        if spec.type is EnvironmentType.CURATED:
            # What is registered is a copy, which is anyone's to change.
            spec = replace(spec, type=EnvironmentType.SYSTEM_MANAGED)
        spec = replace(spec, name=name or spec.name, version=None)
        context, archive = None, None
        if isinstance(spec.base, BuildContextSpec):
            context, archive = spec.base.digest, context_archive.pack_context(spec)
        content = kept_content(spec)
        definition = definition_digest(spec)
        self._check_portable(spec, content, archive, definition)
        if keep and context is not None and archive is not None:
            self.environments.add_context(context, archive)
        register = self.environments.register if keep else self.environments.would_register
        return register(
            NewVersion(
                environment=spec.name,
                definition=definition,
                content=content,
                version=version,
                description=description if description is not None else spec.description,
                tags=tuple(tags) or spec.tags,
                labels=tuple(labels),
                context=context,
                origin=str(spec.source),
            )
        )

    def record(self, spec: Spec) -> Version:
        """The version with the definition of ``spec``, an anonymous one where there is none."""
        new = NewVersion(
            environment=spec.name,
            definition=definition_digest(spec),
            content=kept_content(spec),
            description=spec.description,
            tags=spec.tags,
            anonymous=True,
            origin=str(spec.source),
        )
        return self.environments.register(new).version

    def record_run(self, spec: Spec, *, keep: bool = True) -> Version:
        """The version that a run of ``spec`` is of: a registered one where the spec has a name of its own,
        else an anonymous one. It gets the version that the spec names, where that is free. Without ``keep``,
        nothing is registered, and it is the version that would be.

        Raises ``WorkspaceError``, as ``register`` does; then the definition has its anonymous version."""
        known = self.record(spec)
        if not known.anonymous or not spec.named or spec.type is EnvironmentType.CURATED:
            return known
        version = spec.version
        if version is not None:
            with contextlib.suppress(WorkspaceError):
                self.environments.get(spec.name, version)
                version = None
        return self.register(spec, version=version, keep=keep).version

    def _check_portable(self, spec: Spec, content: str, archive: bytes | None, definition: str) -> None:
        """Sees that the content alone, wherever it lies, is the same definition."""
        with self._store.scratch() as scratch:
            try:
                same = definition_digest(_written(scratch, content, archive)) == definition
            except SpecError:
                same = False
        if same:
            return
        problems = [
            problem for problem in formats.portable_problems(spec) if not problem.startswith("build:")
        ]
        raise WorkspaceError(
            "\n".join([f"{spec.name} can't be registered: it needs files that stand beside it", *problems]),
            hint="name them by an absolute path or a URL, so that the same is meant from everywhere",
        )

    def spec(self, version: Version) -> Spec:
        """A registered version as a spec in a directory of the store, with its build context and its newest
        lock beside it: every stage takes it as any other. Raises ``WorkspaceError`` for damaged content."""
        place = self._store.directory("metadata/versions") / version.definition.removeprefix("sha256:")
        if not (place / _SPEC_FILE).is_file():
            archive = self.environments.context(version.context) if version.context is not None else None
            with self._store.scratch() as scratch:
                try:
                    _check_same(version, _written(scratch / "version", version.content, archive))
                except SpecError as error:
                    raise _unreadable(version, error) from error
                # Whoever comes second has written the same.
                _move(scratch / "version", place)
        spec = self._loaded(version, place)
        # The workspace's newest lock is the one that counts: it may have been made on another machine.
        record = self.environments.lock(version.definition)
        if record is not None:
            _write_files(place / "lockfiles" / version.environment, record)
        return replace(
            spec,
            name=version.environment,
            version=version.version,
            description=version.description or None,
            tags=version.tags,
        )

    def _loaded(self, version: Version, place: Path) -> Spec:
        try:
            spec = remembered_spec(place / _SPEC_FILE, self._store.directory("metadata/specs"))
        except EnvbuildError as error:
            raise _unreadable(version, error) from error
        _check_same(version, spec)
        return spec

    # --- locks ----------------------------------------------------------------------------------------

    def keep_lock(self, spec: Spec, directory: Path) -> LockRecord | None:
        """Keeps the lock in ``directory`` for the definition it answers; None where there is none."""
        try:
            head = (directory / LOCK_FILE).read_bytes()
        except OSError:
            return None
        lock, beside = parse_lock(head)
        try:
            files = {LOCK_FILE: head, **{name: (directory / name).read_bytes() for name in beside}}
        except OSError as error:
            raise WorkspaceError(f"the lock of {spec.name} can't be read: {error.strerror}") from error
        return self.environments.add_lock(
            lock.definition, [str(pins.platform) for pins in lock.platforms], files
        )

    def keep_answering_lock(self, spec: Spec, directory: Path) -> None:
        """Keeps the lock in ``directory`` if it is one of ``spec`` as it is; a damaged or older one stays
        where it is."""
        with contextlib.suppress(LockError):
            lock = read_lock(directory)
            if lock is not None and lock.definition == definition_digest(spec):
                self.keep_lock(spec, directory)

    def lock_of(self, version: Version) -> Lock | None:
        """The newest lock of a version; None where it was never locked."""
        record = self.environments.lock(version.definition)
        return read_record(record) if record is not None else None


def kept_content(spec: Spec) -> str:
    """What a workspace keeps of a spec: YAML that needs nothing beside it but its build context."""
    if spec.type is EnvironmentType.CURATED:
        # As it came, because a copy would be another definition.
        return spec.source.read_text(encoding="utf-8")
    if isinstance(spec.base, BuildContextSpec):
        spec = replace(spec, base=replace(spec.base, path=Path(context_archive.DIRECTORY)))
    return formats.dump_native(replace(spec, version=None))


def _check_same(version: Version, spec: Spec) -> None:
    definition = definition_digest(spec)
    if definition != version.definition:
        raise WorkspaceError(
            f"{version.reference} is {version.definition}, but its content is {definition}",
            hint="it was changed, or written by another envbuild; register its spec again",
        )


def _unreadable(version: Version, error: EnvbuildError) -> WorkspaceError:
    hint = error.hint
    if version.anonymous and version.context is None:
        hint = f"it was only built, never registered; register {version.origin or 'its spec'}"
    return WorkspaceError(f"{version.reference} can't be read: {error.message}", hint=hint)


def read_record(record: LockRecord) -> Lock:
    """The lock that the workspace keeps. Raises ``LockError`` for a damaged one."""
    return parse_lock(record.files[LOCK_FILE], f"the workspace's lock {record.digest}")[0]


def _written(place: Path, content: str, archive: bytes | None) -> Spec:
    """The spec that ``content`` is when it lies in ``place``, with its build context beside it."""
    place.mkdir(parents=True, exist_ok=True)
    (place / _SPEC_FILE).write_text(content, encoding="utf-8")
    if archive is not None:
        context_archive.unpack_context(archive, place / context_archive.DIRECTORY)
    return spec_loader.load_spec(place / _SPEC_FILE)


def _move(path: Path, place: Path) -> None:
    try:
        path.rename(place)
    except OSError as error:
        if not (place / _SPEC_FILE).is_file():
            raise WorkspaceError(f"can't write {place}: {error.strerror}") from error


def _write_files(directory: Path, record: LockRecord) -> None:
    """Writes a lock directory, ``envbuild.lock`` last: it says that the rest is there."""
    try:
        if digest_bytes((directory / LOCK_FILE).read_bytes()) == record.digest:
            return
    except OSError:
        pass  # It isn't there.
    directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(record.files, key=lambda name: (name == LOCK_FILE, name)):
        # The workspace checked names when they came in, but a database can be changed by others.
        part = directory / f".{check_name('a file of a lock', name)}.{os.getpid()}.part"
        part.write_bytes(record.files[name])
        part.replace(directory / name)


_IMAGES = 20
"""Images of a version that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelatedRecords:
    """Everything that belongs to one definition."""

    definition: str
    versions: tuple[Version, ...]
    """The one that was asked for comes first; empty where only its lock or its image was recorded."""
    lock: LockRecord | None
    """Of an image: the one it was built from; else the newest."""
    images: tuple[ImageRecord, ...]
    """The one that was asked for alone, or the newest of the definition."""


def look_up(workspace: Workspace, text: str) -> RelatedRecords:
    """What ``name``, ``name:version``, ``name@label``, ``sha256:…`` (image, index, definition or
    ``envbuild.lock``), or ``name:tag@sha256:…`` leads to. Raises ``WorkspaceError`` where that is nothing."""
    digest = text.rpartition("@")[2]
    if digest.startswith("sha256:"):
        if not is_digest(digest):
            raise UsageError(f"{digest[:80]!r} is no digest", hint="write sha256: and all 64 hex digits")
        return _by_digest(workspace, digest)
    version = workspace.get(text)
    environments = workspace.environments
    others = [other for other in environments.by_definition(version.definition) if other != version]
    return RelatedRecords(
        definition=version.definition,
        versions=(version, *others),
        lock=environments.lock(version.definition),
        images=environments.images(definition=version.definition, limit=_IMAGES),
    )


def _by_digest(workspace: Workspace, digest: str) -> RelatedRecords:
    environments = workspace.environments
    image = environments.image(digest)
    images = (image,) if image is not None else environments.images(index=digest, limit=_IMAGES)
    lock = None
    if images:
        definition = images[0].definition
        lock = environments.lock_by_digest(images[0].lock) if images[0].lock is not None else None
    else:
        lock = environments.lock_by_digest(digest)
        definition = lock.definition if lock is not None else digest
        images = environments.images(definition=definition, limit=_IMAGES)
        lock = lock or environments.lock(definition)
    versions = environments.by_definition(definition)
    if not versions and not images and lock is None:
        raise WorkspaceError(
            f"nothing in {environments.location} has the digest {digest}",
            hint="an image is known to the workspace that it was built with",
        )
    return RelatedRecords(definition=definition, versions=versions, lock=lock, images=images)
