"""An index of single packages through the command line: locked, composed, and asked for nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from envbuild.lock.debian.mirror import known_mirror
from envbuild.settings import Settings
from tests.fakes.channel import serve
from tests.fakes.sdist import namespaces
from tests.fakes.wheelhouse import Wheel, Wheelhouse
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
SECRET = "s3cret"
PROJECT = """\
[project]
name = "demo"
version = "1"
requires-python = "==3.13.*"
dependencies = ["torch", "six"]

[tool.uv.sources]
torch = {{index = "pytorch"}}

[[tool.uv.index]]
name = "pytorch"
url = "{url}/simple"
explicit = true
"""


def login(path: str, headers: Mapping[str, str]) -> str | None:
    wanted = base64.b64encode(f"me:{SECRET}".encode()).decode()
    return path if headers.get("Authorization") == f"Basic {wanted}" else None


def test_torch_of_its_own_index_is_locked_built_and_run(tmp_path: Path) -> None:
    main, cpu = Wheelhouse(tmp_path / "main"), Wheelhouse(tmp_path / "cpu")
    main.add(Wheel(name="torch", version="2.9.1"), Wheel(name="six", files={"six.py": b"FROM = 'main'\n"}))
    cpu.add(
        Wheel(name="torch", version="2.9.0+cpu", requires=["six"], files={"torch.py": b"FROM = 'cpu'\n"}),
        Wheel(name="six", files={"six.py": b"FROM = 'cpu'\n"}),
    )
    for page in cpu.simple.glob("*/index.html"):
        page.write_text(re.sub("#sha256=[0-9a-f]*", "", page.read_text()))
    env = {
        "UV_DEFAULT_INDEX": main.url,
        "UV_INDEX_PYTORCH_USERNAME": "me",
        "UV_INDEX_PYTORCH_PASSWORD": SECRET,
    }
    with serve(cpu.root, login) as (url, requests):
        machine = Machine(root=tmp_path / "machine", env=env)
        machine.write("pyproject.toml", PROJECT.format(url=url))
        made = machine.run("lock", "pyproject.toml", "-v")
        assert made.status == 0, made.stderr
        assert f"index: spec: {url}/simple (for torch)" in made.stderr
        lock = json.loads((machine.lock / "envbuild.lock").read_text())
        (platform,) = lock["platforms"].values()
        assert [(pin["name"], pin["version"]) for pin in platform["pip"]] == [
            ("six", "1.0"),
            ("torch", "2.9.0+cpu"),
        ]
        built = machine.run("build", "pyproject.toml", "--locked")
        assert built.status == 0, built.stderr
        ran = machine.run(
            *("run", "pyproject.toml", "--frozen", "--backend", "userns", "--"),
            *("python", "-c", "import six, torch; print(six.FROM, torch.FROM)"),
        )
        assert (ran.status, ran.stdout) == (0, "main cpu\n"), ran.stderr
    assert {path.split("/")[2] for path in requests if path.startswith("/simple/")} == {"torch"}
    assert SECRET not in made.stderr + built.stderr + (machine.lock / "envbuild.lock").read_text()
