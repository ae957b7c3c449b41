"""What holds for all tests: none of them writes into the records of whoever runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_workspace_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Builds in this process and in those that inherit its environment record in a workspace of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield
