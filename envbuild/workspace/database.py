"""The database below a workspace: connections, transactions, and what its faults mean for people."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from envbuild.errors import WorkspaceError
from envbuild.workspace.migrate import is_current, upgrade
from envbuild.workspace.private import (
    keep_private,
    make_private_directory,
    make_private_file,
    open_private_file,
)

BUSY_TIMEOUT = 60.0
"""Seconds that a writer waits for others."""
_OPTIONS = {"connect_timeout": 10, "application_name": "envbuild"}
"""Of a connection to PostgreSQL, where the URL says nothing else. Seconds until a server counts as away."""
_WRITING = "envbuild_writing"
_RETRY = "run the command again: registering the same definition twice makes one version"


class Database:
    """Connects when it is first used; brings the schema up to date before that."""

    def __init__(
        self, location: str | Path, *, own: Path | None = None, busy_timeout: float = BUSY_TIMEOUT
    ) -> None:
        """``location`` is a file of SQLite or an SQLAlchemy URL of SQLite or PostgreSQL. ``own`` is the
        directory that is ours alone; any other may have files of other people and keeps its mode."""
        self._url = _url(location)
        self._path = _path(self._url)
        self._own = own
        self._busy_timeout = busy_timeout
        self.location = str(self._path)
        if self._path is None:
            # Options may hold credentials too (sslpassword, passfile), so people see none of them.
            shown = self._url.set(drivername="postgresql", query={})
            self.location = shown.render_as_string(hide_password=True)
        self._guard = threading.Lock()
        self._engine: Engine | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection in a transaction that sees one state throughout."""
        with self._translate_errors(), self._prepare_engine().connect() as connection:
            if self._path is None:
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a transaction: all that is done in it is kept at its end, or nothing.

        In SQLite no other writer is at work meanwhile; in PostgreSQL the caller locks the rows it decides by.
        """
        with self._translate_errors():
            engine = self._prepare_engine().execution_options(**{_WRITING: True})
            with engine.begin() as connection:
                yield connection

    def close(self) -> None:
        """Ends all connections; the next use makes new ones."""
        with self._guard:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _prepare_engine(self) -> Engine:
        """The engine, over a database whose schema is this envbuild's."""
        with self._guard:
            if self._engine is None:
                engine = self._create()
                with engine.connect() as connection:
                    ready = is_current(connection, self.location)
                if not ready:
                    with _creating(self._path):
                        self._use_wal(engine)
                        with engine.execution_options(**{_WRITING: True}).begin() as connection:
                            upgrade(connection, self.location)
                self._engine = engine
            return self._engine

    def _create(self) -> Engine:
        """Connections are never kept between two uses: none is stale, or shared with a fork, or left open."""
        if self._path is None:
            return sa.create_engine(
                self._url,
                hide_parameters=True,
                poolclass=sa.NullPool,
                connect_args={key: value for key, value in _OPTIONS.items() if key not in self._url.query},
            )
        try:
            make_private_directory(self._path.parent)
            directory = self._path.is_dir()
            if not directory:
                self._keep_private(self._path)
        except OSError as error:
            raise WorkspaceError(f"{self._path.parent} can't be made or used: {error.strerror}") from error
        if directory:
            raise WorkspaceError(f"{self._path} is a directory, not a database")
        engine = sa.create_engine(
            self._url,
            hide_parameters=True,
            poolclass=sa.NullPool,
            connect_args={"timeout": self._busy_timeout, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "begin", _on_begin)
        return engine

    def _keep_private(self, path: Path) -> None:
        """Sees that nobody else reads the file; SQLite gives its journals the mode that the file has."""
        if path.parent == self._own:
            keep_private(path.parent, 0o700)
        # SQLite follows a link, too, and puts its journals beside the file itself.
        place = Path(os.path.realpath(path))
        make_private_file(place)
        for suffix in ("", "-wal", "-shm", "-journal"):
            keep_private(place.with_name(place.name + suffix), 0o600)

    def _use_wal(self, engine: Engine) -> None:
        """The journal that lets people read while others write; it is a property of the file.

        Where a file system can't have it, SQLite keeps its old journal, which is as safe.
        """
        if self._path is None:
            return
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL").fetchone()
        finally:
            raw.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Whatever the database raises becomes a ``WorkspaceError`` without credentials or contents."""
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error.orig) from error
        except SQLAlchemyError as error:
            raise WorkspaceError(f"{self.location}: {type(error).__name__}") from error
        except _driver_errors() as error:
            raise self._explain(error) from error

    def _explain(self, error: BaseException | None) -> WorkspaceError:
        text = str(error or "").strip()
        if self._path is not None:
            for pattern, message, hint in _SQLITE_FAULTS:
                if re.search(pattern, text):
                    return WorkspaceError(f"{self.location} {message}", hint=hint)
            return WorkspaceError(f"{self.location}: {_line(text)}")
        state = getattr(error, "sqlstate", None) or ""
        for prefix, message, hint in _POSTGRESQL_FAULTS:
            if state.startswith(prefix):
                return WorkspaceError(f"{self.location} {message}{self._detail(text)}", hint=hint)
        if state:
            return WorkspaceError(f"{self.location}{self._detail(text)}")
        return WorkspaceError(f"{self.location} can't be reached{self._detail(text)}", hint=_RETRY)

    def _detail(self, text: str) -> str:
        """The first line of the driver's message without the password."""
        line = _line(text)
        for secret in (self._url.password, *map(self._url.query.get, ("password", "sslpassword"))):
            if secret:
                line = line.replace(str(secret), "***")
        return f": {line}" if line else ""


_SQLITE_FAULTS = (
    (
        "not a database|malformed|database schema|file is encrypted",
        "is damaged or no SQLite database",
        "put a copy of it in its place; 'sqlite3 FILE .recover' saves what can be read",
    ),
    ("readonly", "can't be written", "see who owns it and its directory"),
    ("unable to open", "can't be opened", "see who owns it and its directory"),
    ("disk is full", "can't grow: the disk is full", "free some space; nothing was changed"),
    ("disk I/O", "can't be read or written: I/O error", "look at the disk and the system's log"),
    ("is locked", "is in use by another process for too long", "see which process holds it, then try again"),
    ("too big", "can't take something that large", None),
)
_POSTGRESQL_FAULTS = (
    ("28", "doesn't let us in", "see the user and password of the URL, or ~/.pgpass"),
    ("3D", "isn't there", "createdb makes one"),
    ("42501", "doesn't allow that", "the user needs rights on the schema"),
    ("53", "is out of room or connections", "nothing was changed; try again later"),
    ("57P", "was shut down meanwhile", _RETRY),
    ("08", "can't be reached", _RETRY),
    ("40", "was too busy: others changed the same at once", _RETRY),
    ("25006", "can't be written", None),
)


def _line(text: str) -> str:
    return text.splitlines()[0][:300] if text else ""


def _url(location: str | Path) -> URL:
    if isinstance(location, Path) or "://" not in location:
        path = Path(location)
        return URL.create("sqlite", database=str(path.absolute()))
    try:
        url = sa.make_url(location)
        backend = url.get_backend_name()
        # The driver that is an extra of ours.
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
            backend = "postgresql"
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The exception may quote the URL, and with it the password.
        raise WorkspaceError(
            "the workspace's URL can't be read",
            hint="sqlite:////path/workspace.db, or postgresql://user@host/database",
        ) from None
    if backend not in ("sqlite", "postgresql"):
        raise WorkspaceError(f"a workspace can't be kept in {backend}: SQLite and PostgreSQL can")
    if backend == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise WorkspaceError(
                "a workspace needs a file, without options", hint="sqlite:////absolute/path/workspace.db"
            )
        return URL.create("sqlite", database=str(Path(url.database).absolute()))
    if url.get_driver_name() != "psycopg":
        raise WorkspaceError(
            f"PostgreSQL isn't reached through {url.get_driver_name()}", hint="write postgresql://…"
        )
    try:
        url.get_dialect().import_dbapi()
    except ImportError as error:
        raise WorkspaceError(
            "the driver of PostgreSQL isn't installed", hint="pip install 'envbuild[postgres]'"
        ) from error
    return url


def _path(url: URL) -> Path | None:
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _driver_errors() -> tuple[type[Exception], ...]:
    """What comes past SQLAlchemy: from pragmas, and from connections that break outside a statement."""
    return (sqlite3.Error,)


def _on_connect(connection: Any, record: Any) -> None:
    # Transactions begin where we say so (_on_begin), not where the driver guesses.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # What was committed survives a power cut, too.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    options: Mapping[str, Any] = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITING) else "BEGIN")


@contextmanager
def _creating(path: Path | None) -> Iterator[None]:
    """Only one process makes or changes the schema of a file: the switch to WAL waits for no lock itself."""
    if path is None:
        yield
        return
    try:
        with open(path.with_name(f".{path.name}.lock"), "ab", opener=open_private_file) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise WorkspaceError(f"{path.parent} can't be written: {error.strerror}") from error
