"""The files envbuild itself puts into an image: the software prefix and the home directory."""

from __future__ import annotations

from pathlib import PurePosixPath

from envbuild.lock.model import PythonPin
from envbuild.plan.model import GeneratedFile
from envbuild.spec.model import PREFIX

HOME = "home/env"
"""Of the user a container runs as; it is the working directory too, because that user can write there."""

_PREFIX = str(PREFIX).lstrip("/")


def home_directory(user: str) -> GeneratedFile:
    """The home of ``uid:gid``, owned by it."""
    uid, _, gid = user.partition(":")
    return GeneratedFile(path=HOME, directory=True, mode=0o755, uid=int(uid), gid=int(gid or uid))


def prefix_files(python: PythonPin | None, *, conda: bool) -> tuple[GeneratedFile, ...]:
    """What makes ``/opt/env`` an environment: a virtual environment over the base's python (PEP 405), or a
    conda prefix with its history. Sorted by path."""
    if conda:
        return (GeneratedFile(path=f"{_PREFIX}/conda-meta/history", content=b""),)
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
