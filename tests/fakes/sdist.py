"""Source distributions made on the spot, and this machine's python as a root file system to build them."""

from __future__ import annotations

import gzip
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from envbuild.lock.model import ImageBase, PlatformLock, PythonPin
from envbuild.platforms import Platform

BACKEND = """
import os, time, zipfile

def get_requires_for_build_wheel(settings=None):
    return {more!r}

def build_wheel(directory, settings=None, metadata=None):
    name, version, tag = {name!r}, {version!r}, {tag!r}
    {code}
    file = f"{{name}}-{{version}}-{{tag}}.whl"
    info = f"{{name}}-{{version}}.dist-info"
    with zipfile.ZipFile(os.path.join(directory, file), "w", zipfile.ZIP_DEFLATED) as wheel:
        def put(path, text, mode=0o644):
            # Now, as careless backends do.
            entry = zipfile.ZipInfo(path, time.localtime()[:6])
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, text)
        put(f"{{info}}/RECORD", "")
        about = f"Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: {{tag}}\\n"
        put(f"{{info}}/WHEEL", about)
        put(f"{{info}}/METADATA", f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n")
        put(f"{{name}}.py", "value = 1\\n")
        put("b/__init__.py", "")
        put(f"{{name}}-{{version}}.data/scripts/say", "#!python\\n", 0o755)
        put("b/__pycache__/__init__.cpython-311.pyc", "x")
    return file
"""


def source_dist(
    name: str,
    version: str = "1.0",
    *,
    code: str = "pass",
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    more: Sequence[str] = (),
    pyproject: str | None = None,
    files: Mapping[str, str] | None = None,
    entries: Sequence[tarfile.TarInfo] = (),
) -> bytes:
    """A ``.tar.gz`` with static metadata and a build backend of its own. ``code`` is one statement that runs
    while the wheel is built; ``more`` is what the backend asks for; ``entries`` come last, as they are."""
    project = f'[project]\nname = "{name}"\nversion = "{version}"\n'
    system = f'[build-system]\nrequires = {json.dumps(list(requires))}\nbuild-backend = "backend"\n'
    members = {
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": f'{system}backend-path = ["."]\n{project}' if pyproject is None else pyproject,
        "backend.py": BACKEND.format(name=name, version=version, tag=tag, code=code, more=list(more)),
        **(files or {}),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in members.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        for entry in entries:
            archive.addfile(entry)
    return gzip.compress(buffer.getvalue(), mtime=0)


def entry(path: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """The header of an empty file, a link or a device."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname = kind, target
    return info


PYTHON = PythonPin(
    version=platform.python_version(),
    provider="image",
    executable=f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}",
)
INTERPRETER = PlatformLock(
    platform=Platform.host(),
    base=ImageBase(reference="example.test/python:1", digest="sha256:" + "5" * 64, glibc="2.36"),
    python=PYTHON,
)


def python_rootfs(root: Path) -> Path:
    """This machine's python and the libraries it loads, copied below ``root`` and nothing else."""
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    unwanted = shutil.ignore_patterns(
        "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "__pycache__",
        "config-*"
    )  # fmt: skip
    target = root / library.relative_to("/")
    shutil.copytree(library, target, ignore=unwanted, symlinks=True)
    executable = Path(PYTHON.executable)
    programs = [executable, *sorted(library.glob("lib-dynload/*.so"))]
    found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    libraries = {Path(path) for path in re.findall(r"(?:=> |\t)(/\S+) \(0x", found)}
    for path in {executable, *libraries}:
        place = root / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.resolve(), place)
    for name in ("tmp", "proc", "dev", "sys"):
        (root / name).mkdir(exist_ok=True)
    return root


def namespaces() -> bool:
    """Whether this machine lets a user make namespaces."""
    argv = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--net", "true"]
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
