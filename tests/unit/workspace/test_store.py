"""Opening costs nothing before it is needed, and the history knows who it was."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.workspace.store import EnvironmentStore, actor_of
from tests.unit.workspace.stores import new_version

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    path = tmp_path / "data" / "workspace.db"
    ws = EnvironmentStore(path, actor="ada")
    assert ws.location == str(path)
    assert not path.parent.exists()
    assert ws.list() == ()
    assert path.is_file()


def test_time_is_now_and_aware(tmp_path: Path) -> None:
    ws = EnvironmentStore(tmp_path / "workspace.db", actor="ada")
    ws.register(new_version("train", 1, content=""))
    (event,) = ws.history()
    assert abs(event.at.timestamp() - (tmp_path / "workspace.db").stat().st_mtime) < 60
    assert event.at.tzinfo is not None


@pytest.mark.parametrize(
    ("program", "loaded"),
    [
        ("import envbuild.workspace.base, envbuild.app.environments", []),
        # Only a database that is new or older needs alembic.
        (
            "from envbuild.workspace.store import EnvironmentStore\n"
            "EnvironmentStore(sys.argv[1], actor='ada').list()",
            ["sqlalchemy"],
        ),
    ],
)
def test_libraries_are_imported_when_they_are_needed(tmp_path: Path, program: str, loaded: list[str]) -> None:
    path = tmp_path / "workspace.db"
    EnvironmentStore(path, actor="ada").list()
    code = f"import sys\n{program}\n" + (
        "names = ('sqlalchemy', 'sqlalchemy.orm', 'alembic', 'psycopg')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"{loaded}\n"


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"LOGNAME": "ada", "USER": "grace"}, "ada"),
        ({"LOGNAME": "", "USER": "grace"}, "grace"),
        ({"USER": "x" * 400}, "x" * 255),
        ({}, pwd.getpwuid(os.getuid()).pw_name),
    ],
)
def test_actor_is_who_the_environment_says(env: dict[str, str], name: str) -> None:
    assert actor_of(env) == name


def test_actor_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert actor_of({}) == "uid 3999999999"
