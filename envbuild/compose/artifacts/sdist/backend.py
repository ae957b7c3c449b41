"""A build backend (PEP 517) called by the target's own python, shut off from everything else.

It has the source tree, what it requires (read-only) and an empty directory for its answer. No network, file
or process of this machine is there, its environment is fixed, and its time is bounded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from envbuild.compose.artifacts.sdist.source import BuildSystem, build_requirements
from envbuild.compose.sandbox.run import read_regular, run_sandboxed
from envbuild.errors import BuildError

PATIENCE = 1800.0
"""Seconds that a build may take."""
_FILE_LIMIT = 8 << 30
_MEMORY_LIMIT = 8 << 30
"""Bytes of one process."""
_SHOWN = 3000
"""Characters of a failed build's output that are told."""
_ANSWER_LIMIT = 1 << 20

NO_NAMESPACES = (
    "building a source distribution needs user namespaces (sysctl user.max_user_namespaces=15000; on Debian "
    "kernels also kernel.unprivileged_userns_clone=1; on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0): allow them, or give a wheel of it by address"
)

_ENVIRONMENT = {
    "HOME": "/tmp/home",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": "/tmp/requires",
    "SOURCE_DATE_EPOCH": "315532800",
    "TMPDIR": "/tmp/home",
    "TZ": "UTC",
}

_WORKER = r"""
import json, sys
request = json.loads(sys.argv[1])
import importlib, os, site
site.addsitedir("/tmp/requires")
os.chdir(os.path.join("/tmp/source", request["directory"]))
sys.path[:] = [os.path.join(os.getcwd(), path) for path in request["path"]] + [p for p in sys.path if p]
sys.argv[:] = ["setup.py"]
name, _, attributes = request["backend"].partition(":")
backend = importlib.import_module(name)
for attribute in filter(None, attributes.split(".")):
    backend = getattr(backend, attribute)
if request["step"] == "requires":
    hook = getattr(backend, "get_requires_for_build_wheel", None)
    answer = list(hook(None)) if hook else []
else:
    answer = backend.build_wheel("/tmp/out", None, None)
sys.stdout.flush()
with open("/tmp/out/answer.json", "w") as file:
    json.dump(answer, file)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildBackend:
    """The backend of one source tree. ``rootfs`` holds the interpreter, whose path inside it is
    ``executable``; ``requires`` is the directory its requirements were installed into, ``scratch`` an empty
    one of this user."""

    file: str
    """The sdist's name, for messages."""
    system: BuildSystem
    source: Path
    requires: Path
    rootfs: Path
    executable: str
    scratch: Path
    subdirectory: str = ""
    """Where in the source tree the project lies."""
    patience: float = PATIENCE

    def requirements(self) -> tuple[str, ...]:
        """What the backend asks for besides the static requirements. Raises ``BuildError``."""
        out = self._run("requires")
        return build_requirements(self._answer(out), self.file)

    def wheel(self) -> Path:
        """The wheel that the backend makes of the source tree, a regular file. Raises ``BuildError``."""
        out = self._run("wheel")
        name = self._answer(out)
        if not isinstance(name, str) or name in (".", "..") or "/" in name or "\0" in name:
            raise BuildError(f"{self.file}: its build backend names no wheel")
        path = out / name
        if path.is_symlink() or not path.is_file():
            raise BuildError(f"{self.file}: its build backend made no wheel")
        return path

    def _answer(self, out: Path) -> object:
        try:
            data = read_regular(out / "answer.json", _ANSWER_LIMIT)
            return None if data is None else json.loads(data)
        except (OSError, ValueError, RecursionError) as error:
            raise BuildError(f"{self.file}: its build backend's answer can't be read") from error

    def _run(self, step: str) -> Path:
        """The directory with the answer."""
        out, stage = self.scratch / f"{step}-answer", self.scratch / f"{step}-stage"
        out.mkdir(mode=0o700)
        stage.mkdir(mode=0o700)
        worker = {"step": step, "backend": self.system.backend, "path": self.system.path}
        worker["directory"] = self.subdirectory
        ended = run_sandboxed(
            {
                "rootfs": str(self.rootfs.resolve()),
                "stage": str(stage.resolve()),
                "mounts": [
                    {"name": "home", "source": None, "read_only": False},
                    {"name": "source", "source": str(self.source.resolve()), "read_only": False},
                    {"name": "requires", "source": str(self.requires.resolve()), "read_only": True},
                    {"name": "out", "source": str(out.resolve()), "read_only": False},
                ],
                "command": [self.executable, "-S", "-s", "-B", "-c", _WORKER, json.dumps(worker)],
                "env": _ENVIRONMENT,
                "file_limit": _FILE_LIMIT,
                "memory_limit": _MEMORY_LIMIT,
            },
            patience=self.patience,
        )
        if ended.report:
            raise BuildError(f"{self.file} can't be built here: {ended.report}", hint=NO_NAMESPACES)
        if ended.status is None:
            raise BuildError(
                f"{self.file}: its build did not end within {self.patience:g} seconds"
                f"{_output_end(ended.output)}"
            )
        if ended.status != 0:
            raise BuildError(
                f"{self.file}: its build ended with status {ended.status}{_output_end(ended.output)}",
                hint="it is built without a network, a compiler or any file of this machine: pin a version "
                "that has a wheel, or give a wheel of it by address (name @ https://…/name.whl)",
            )
        return out


def _output_end(output: str) -> str:
    """The end of a build's output, from a line's beginning on, without what would drive a terminal."""
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in output).strip()
    if len(text) > _SHOWN:
        text = "… " + text[-_SHOWN:].partition("\n")[2]
    return f":\n{text}" if text else ""
