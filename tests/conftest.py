"""What holds for all tests, and what many of them need: a store, a registry and its client, a database, a
user's machine, and progress that keeps what people are told.

None writes into the records of whoever runs them; signals do what they do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient
from envbuild.store.content import Store
from tests.fakes import postgres
from tests.fakes.progress import Notes
from tests.fakes.registry import Registry, serve
from tests.integration.driver import Machine


@pytest.fixture(scope="session", autouse=True)
def no_workspace_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Builds in this process and in those that inherit its environment record in a workspace of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pip_configuration_of_the_user() -> Iterator[None]:
    """What pip is set to on this machine is no part of what the tests expect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        yield


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def progress() -> Notes:
    """Progress that keeps what people are told."""
    return Notes()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A user's machine on which nothing has happened yet."""
    return Machine(root=tmp_path / "machine")


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry in this process, which forgets all at the end."""
    with serve() as running:
        yield running


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[RegistryClient]:
    """A client without credentials, which waits for nothing."""
    credentials = RegistryCredentials({"HOME": str(tmp_path)})
    with RegistryClient(store, Silent(), credentials, sleep=lambda seconds: None) as opened:
        yield opened


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[postgres.Server | None]:
    """Both kinds of databases: a server of PostgreSQL, or None for a file of SQLite."""
    if request.param == "sqlite":
        yield None
        return
    reason = postgres.absent()
    if reason:
        pytest.skip(reason)
    with postgres.server() as running:
        yield running


@pytest.fixture
def location(server: postgres.Server | None, tmp_path: Path) -> str:
    """Where the workspace of one test is."""
    return server.database() if server else str(tmp_path / "workspace.db")
