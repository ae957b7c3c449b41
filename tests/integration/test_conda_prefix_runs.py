"""A composed prefix really runs: the python of this machine as a conda package, and an entry point."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from envbuild.compose.artifacts.conda.source import CondaSource
from envbuild.compose.base import EntryKind
from envbuild.lock.base import CondaRequest, CondaTarget
from envbuild.lock.conda.rattler import RattlerResolver
from envbuild.lock.conda.satisfied import virtual_packages
from envbuild.lock.model import PythonPin
from envbuild.plan.model import Artifact
from envbuild.plan.system import history_file
from envbuild.platforms import Platform, runs_linux
from envbuild.specs.model import CondaSpec
from envbuild.store.content import Store
from tests.fakes.channel import make_channel
from tests.unit.compose.test_artifacts_conda_source import Files


@pytest.mark.skipif(not runs_linux(), reason="runs Linux programs")
def test_the_prefix_runs_its_python_its_entry_point_and_its_patched_files(tmp_path: Path) -> None:
    url = make_channel(tmp_path / "channel")
    host = Platform.host()
    target = CondaTarget(platform=host, virtual_packages=virtual_packages("2.41", host, {}))
    spec = CondaSpec(channels=(url,), dependencies=("greeter", "python", "tool"))
    pins = RattlerResolver(tmp_path / "cache").resolve(CondaRequest(spec=spec, targets=[target]))[host]
    python = next(pin for pin in pins if pin.name == "python")
    prefix = PurePosixPath(tmp_path / "env")
    store = Store(tmp_path / "store")
    brought = PythonPin(version=python.version, provider="conda", executable=f"{prefix}/bin/python")
    artifacts = [Artifact.of(pin) for pin in pins]
    source = CondaSource(store, Files(store), python=brought, prefix=prefix)
    source.fetch(artifacts)
    for artifact in artifacts:
        for entry in source.entries(artifact):
            path = Path("/", entry.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.kind is EntryKind.SYMLINK:
                path.symlink_to(entry.target)
                continue
            content = entry.content
            path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
            path.chmod(entry.mode)
    history = history_file(prefix)
    Path("/", history.path).write_bytes(history.content)

    def run(*command: str) -> str:
        done = subprocess.run(
            command, env={"PATH": "/usr/bin:/bin"}, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    code = "import sys, ssl, ctypes, sqlite3, lzma, bz2, zlib; print(sys.prefix, sys.version_info[:2])"
    assert run(f"{prefix}/bin/python", "-c", code) == f"{prefix} {sys.version_info[:2]}"
    assert run(f"{prefix}/bin/greet") == f"hello from {prefix}"
    assert Path(str(prefix), "etc/greeter.conf").read_text() == f"prefix={prefix}\n"
    assert Path(str(prefix), "bin/tool").read_text().splitlines()[0] == f"#!{prefix}/bin/sh"
    from rattler import PrefixRecord

    records = sorted(Path(str(prefix), "conda-meta").glob("*.json"))
    assert [PrefixRecord.from_path(path).name.normalized for path in records] == [pin.name for pin in pins]
    assert not [path for path in records if str(tmp_path / "store") in path.read_text()]
    assert json.loads(records[-1].read_text())["url"].startswith("file:///")
