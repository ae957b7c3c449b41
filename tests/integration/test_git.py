"""A git requirement through the command line: locked by its commit, kept, composed, and built elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envbuild.lock.debian.mirror import known_mirror
from envbuild.settings import Settings
from tests.fakes.git import GitRepository, project, serve_git
from tests.fakes.sdist import namespaces
from tests.fakes.wheelhouse import Wheelhouse
from tests.integration.driver import Machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(
        known_mirror(Settings(cache_dir=Path("/nonexistent"))) is None,
        reason="this machine knows no Debian archive",
    ),
    pytest.mark.skipif(not namespaces(), reason="user namespaces are forbidden on this machine"),
]


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "repositories" / "demo.git")


@pytest.fixture
def server(repository: GitRepository) -> Iterator[str]:
    with serve_git(repository.directory.parent) as url:
        yield f"git+{url}/demo.git"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    index = Wheelhouse(tmp_path / "index")
    index.simple.mkdir(parents=True)
    return Machine(root=tmp_path, own_interpreters=True, env={"UV_DEFAULT_INDEX": index.url})


def pin(machine: Machine) -> dict[str, Any]:
    lock = json.loads((machine.lock / "envbuild.lock").read_text())
    (platform,) = lock["platforms"].values()
    (pin,) = platform["pip"]
    assert isinstance(pin, dict)
    return pin


def files(machine: Machine) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in machine.lock.iterdir()}


def test_a_branch_is_locked_as_its_commit_stays_until_an_upgrade_and_gives_one_digest(
    machine: Machine, repository: GitRepository, server: str
) -> None:
    first = repository.commit({f"libs/demo/{path}": text for path, text in project("demo").items()})
    address = f"{server}@main#subdirectory=libs/demo"
    machine.write(
        "envbuild.yaml", f"name: demo\nbase: {{debian: trixie}}\nrequirements: ['demo @ {address}']\n"
    )
    assert machine.run("lock").status == 0
    locked, before = pin(machine), files(machine)
    assert (locked["url"], locked["git"]["commit"]) == (address, first)
    assert locked["git"]["tree"] == repository.git("rev-parse", "HEAD^{tree}")
    assert locked["file"] == "demo-1.0-py3-none-any.whl"
    requirements = before["requirements.linux-64.txt"].decode()
    assert f"demo @ {server}@{first}#subdirectory=libs/demo \\" in requirements
    built = machine.run("build", "--locked").digest
    said = machine.run("run", "--", "python", "-c", "import demo; print(demo.value)")
    assert (said.status, said.stdout) == (0, "1\n"), said.stderr

    # The branch moves. A machine that has nothing builds the locked commit all the same.
    second = repository.commit({f"libs/demo/{path}": text for path, text in project("demo", value=2).items()})
    elsewhere = {"ENVBUILD_CACHE_DIR": str(machine.root / "elsewhere")}
    assert machine.run("build", "--locked", env=elsewhere).digest == built
    assert machine.run("lock", "--check").status == 0
    machine.write(
        "envbuild.yaml", (machine.project / "envbuild.yaml").read_text() + "environment_variables: {A: b}\n"
    )
    assert machine.run("lock", env=elsewhere).status == 0
    assert pin(machine) == locked
    assert machine.run("lock", "--upgrade-package", "demo").status == 0
    assert pin(machine)["git"]["commit"] == second
    said = machine.run("run", "--", "python", "-c", "import demo; print(demo.value)")
    assert (said.status, said.stdout) == (0, "2\n"), said.stderr
    assert machine.leftovers() == []


def test_a_lock_made_again_from_nothing_is_the_same(
    machine: Machine, repository: GitRepository, server: str
) -> None:
    repository.commit(project("demo"), tag="v1")
    machine.write("demo.txt", f"{server}@v1#egg=demo\n")
    digests, locks = [], []
    for store in ("one", "two"):
        env = {
            "ENVBUILD_CACHE_DIR": str(machine.root / store),
            "UV_CACHE_DIR": str(machine.root / f"uv-{store}"),
        }
        (machine.lock / "envbuild.lock").unlink(missing_ok=True)
        digests.append(machine.run("build", "demo.txt", env=env).digest)
        locks.append((machine.lock / "envbuild.lock").read_bytes())
    assert digests[0] == digests[1]
    assert locks[0] == locks[1]
