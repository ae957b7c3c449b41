"""The tools of a Dockerfile's installing stages, brought from a real index and used as a Dockerfile does."""

from __future__ import annotations

import hashlib
import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envbuild.compose.artifacts.wheel.files import WheelFiles
from envbuild.compose.artifacts.wheel.index import PackageIndexes
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.model import PipPin
from envbuild.plan.model import Artifact
from envbuild.platforms import PLATFORMS
from envbuild.progress import Silent
from envbuild.render.installer import install_list, pip_pin, rattler_pins
from envbuild.settings import Settings
from envbuild.store.content import Store
from tests.fakes.channel import python_version
from tests.fakes.compiler import HostCompiler
from tests.fakes.wheelhouse import Wheel

pytestmark = [pytest.mark.network]

DEMO = Wheel(
    name="demo",
    files={
        "demo/__init__.py": b"import os\n\n\ndef main():\n    print('demo', os.name)\n",
        "demo/data.py": b"WORDS = " + repr([f"word {number}" for number in range(500)]).encode() + b"\n",
        "demo/broken.py": b"print 'of another Python'\n",
        "demo-1.0.data/scripts/old": b"#!python\nprint(1)\n",
    },
    entry_points="[console_scripts]\ndemo = demo:main\n",
)


def archives(root: Path, *pins: PipPin) -> dict[str, Path]:
    store = Store(root / "store")
    artifacts = [Artifact.of(pin) for pin in pins]
    settings = Settings(cache_dir=store.root)
    with HttpFetcher(store, offline=False, settings=settings, progress=Silent()) as fetcher:
        return WheelFiles(store, fetcher, PackageIndexes(env=os.environ)).fetch_files(artifacts)


def test_the_pins_of_all_platforms_are_files_of_the_index(tmp_path: Path) -> None:
    pins = [pip_pin(), *(pin for platform in PLATFORMS for pin in rattler_pins(platform))]
    found = archives(tmp_path, *pins)
    assert len(found) == 1 + len(PLATFORMS)
    for pin in pins:
        data = found[pin.sha256].read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (pin.sha256, pin.size)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A virtual environment without pip, as a Dockerfile makes it, with a wheel in it."""
    pin = pip_pin()
    pip = tmp_path / pin.file
    pip.write_bytes(archives(tmp_path, pin)[pin.sha256].read_bytes())
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / DEMO.file).write_bytes(DEMO.data())
    listed = tmp_path / "requirements.txt"
    listed.write_bytes(install_list([DEMO.pin()]))
    prefix = tmp_path / "env"
    home = tmp_path / "home"
    home.mkdir()
    install = [sys.executable, f"{pip}/pip", f"--python={prefix}/bin/python", "install", "--no-deps"]
    install += ["--require-hashes", "--only-binary=:all:", "--no-compile", "--no-cache-dir", "--no-index"]
    install += [f"--find-links={wheels}", f"--requirement={listed}"]
    for command in ([sys.executable, "-m", "venv", "--without-pip", str(prefix)], install):
        env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PIP_CONFIG_FILE": os.devnull}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert list(home.iterdir()) == []
    return prefix


def test_pip_installs_from_its_wheel_where_there_is_no_pip(prefix: Path) -> None:
    ran = subprocess.run([prefix / "bin" / "demo"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"demo {os.name}\n"
    (site,) = prefix.glob("lib/python*/site-packages")
    assert sorted(path.name for path in site.iterdir() if path.name != "__pycache__") == [
        "demo",
        "demo-1.0.dist-info",
    ]
    assert (site / "demo-1.0.dist-info" / "INSTALLER").read_text() == "pip\n"
    assert (prefix / "bin" / "old").read_text() == f"#!{prefix}/bin/python\nprint(1)\n"


def test_byte_code_is_the_composers(prefix: Path) -> None:
    sources = sorted(prefix.glob("lib/python*/site-packages/demo/*.py"))
    # As a conda package may ship it: made from the source of another place, and not to be trusted.
    stale = [sys.executable, "-m", "compileall", "-q", "-s", str(prefix), str(sources[2])]
    subprocess.run(stale, check=True)
    options = ["-q", "-f", "-j", "0", "--invalidation-mode=checked-hash"]
    done = subprocess.run(
        [prefix / "bin" / "python", "-m", "compileall", *options, prefix / "lib"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, "demo/broken.py is of another Python"
    compiler = HostCompiler(sys.executable, python_version())
    expected = dict(compiler.compile((str(path), path.read_bytes()) for path in sources))
    found = {str(path): path.read_bytes() for path in prefix.rglob("*.pyc")}
    assert sorted(Path(path).name.split(".")[0] for path in expected) == ["__init__", "data"]
    assert {path: data[:16] for path, data in found.items()} == {
        path: data[:16] for path, data in expected.items()
    }
    assert {path: marshal.loads(data[16:]) for path, data in found.items()} == {
        path: marshal.loads(data[16:]) for path, data in expected.items()
    }
    if sys.version_info >= (3, 11):
        # Before, marshal marks the same objects otherwise from one run to the next.
        assert found == expected
