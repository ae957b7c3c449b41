"""The files envbuild itself puts into an image: the software prefix and the home directory."""

from __future__ import annotations

from pathlib import PurePosixPath

from envbuild.lock.model import PythonPin
from envbuild.plan.model import GeneratedFile
from envbuild.plan.system import USER_NAME, home_directory
from envbuild.specs.model import PREFIX

_PREFIX = str(PREFIX).lstrip("/")


def history_file(prefix: PurePosixPath = PREFIX) -> GeneratedFile:
    """``conda-meta/history``: by it conda knows a directory for an environment. Always the same."""
    return GeneratedFile(
        path=f"{str(prefix).lstrip('/')}/conda-meta/history",
        content=b"# Composed by envbuild; the packages are recorded beside this file.\n",
    )


def home_files(user: str) -> tuple[GeneratedFile, ...]:
    """The home of ``uid:gid`` on a base that is an image, owned by it; a Debian base has its own."""
    home = home_directory(user).lstrip("/")
    if home != f"home/{USER_NAME}":
        return ()
    uid, _, gid = user.partition(":")
    return (GeneratedFile(path=home, directory=True, mode=0o755, uid=int(uid), gid=int(gid or uid)),)


def prefix_files(python: PythonPin | None, *, conda: bool) -> tuple[GeneratedFile, ...]:
    """What makes ``/opt/env`` an environment: a virtual environment over the base's python (PEP 405), or a
    conda prefix with its history. Sorted by path."""
    if conda:
        return (history_file(),)
    if python is None:
        return ()
    home = PurePosixPath(python.executable).parent
    settings = (
        f"home = {home}\n"
        "include-system-site-packages = false\n"
        f"version = {python.version}\n"
        f"executable = {python.executable}\n"
    )
    return (
        GeneratedFile(path=f"{_PREFIX}/bin/python", target=python.executable),
        GeneratedFile(path=f"{_PREFIX}/bin/python3", target="python"),
        GeneratedFile(path=f"{_PREFIX}/bin/python{python.short}", target="python"),
        GeneratedFile(path=f"{_PREFIX}/lib64", target="lib"),
        GeneratedFile(path=f"{_PREFIX}/pyvenv.cfg", content=settings.encode()),
    )
