"""Runs what conda sources when an environment is activated, once, so that the image has its variables.

``etc/conda/env_vars.d/*.json`` and ``conda-meta/state`` only hold values; ``etc/conda/activate.d/*.sh`` are
scripts (conda's documentation, "Managing environments"). Each runs in the sandbox, by the shell of the
image's own system and with a fixed environment. The environment's own programs can't be run there, as they
couldn't on a machine of another architecture: so the same packages give the same variables everywhere.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from envbuild.compose.interpreter import Sources, UnpackBase, fill_rootfs
from envbuild.compose.sandbox.run import read_regular, run_sandboxed
from envbuild.compose.unpack import unpack_layers
from envbuild.errors import BuildError
from envbuild.lock.model import DebianBase, PlatformLock
from envbuild.oci.image import Layer
from envbuild.plan.activation import ActivatedVariable, Activation
from envbuild.plan.model import Artifact, ArtifactKind, Plan
from envbuild.platforms import Platform
from envbuild.specs.model import PREFIX
from envbuild.store.content import Store

PATIENCE = 10.0
"""Seconds that one script may take."""
_SOURCED = re.compile(r"etc/conda/(?:activate\.d/[^/]+\.sh|env_vars\.d/[^/]+\.json)|conda-meta/state")
_SHELLS = (
    ("bash", ("--noprofile", "--norc")),
    ("sh", ()),
)
_BINARIES = ("usr/bin", "bin")
_PASSED = {"CONDA_DEFAULT_ENV": str(PREFIX), "CONDA_SHLVL": "1"}
"""What conda's own activation sets beside ``CONDA_PREFIX``; scripts may ask for it, the image hasn't it."""
_OWN = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "PS1", "PS2", "PS4", "IFS", "PROMPT_COMMAND", *_PASSED})
"""Variables that a shell sets by itself, or that are of no use without a prompt."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSET = "***unset***"
_LIMIT = 128 << 10
"""Bytes of all variables together, and the kernel's limit for one string of a new process."""
_TEXT_LIMIT = 1 << 20
_SHOWN = 200
_WORKER = """\
. "$1" >/tmp/out/said 2>/tmp/out/complaint
"$2" -0 >/tmp/out/env
"$3" -A /tmp >/tmp/out/left
"""
_LEFT = {"out"}
_DISARMED = b"#!/nonexistent\n"


def sourced_files(paths: Iterable[str], prefix: str) -> list[str]:
    """Those of ``paths`` that activation reads; all without a leading slash. ``prefix`` is where the
    environment really lies."""
    start = len(prefix) + 1
    return [path for path in paths if path.startswith(prefix) and _SOURCED.fullmatch(path, start)]


@dataclass(kw_only=True)
class Activator:
    """Activates the environment of one image.

    ``tree`` is the image's root file system, as far as scripts may look at it, without its programs
    (:func:`disarm`); ``scratch`` a directory of this user; ``env`` the variables of the image.
    ``notes`` says in the end what is left out, and why."""

    tree: Path
    scratch: Path
    env: Mapping[str, str]
    patience: float = PATIENCE
    notes: list[str] = field(default_factory=list)

    def run(self, files: Mapping[str, str]) -> Activation:
        """What ``files`` set: path in the image to the package that has it. A variable that the image has
        already stays as it is, but for ``PATH``. Raises ``BuildError`` where nothing can be run here."""
        env = {**self.env, **_PASSED}
        setters: dict[str, str] = {}
        for path in sorted(files, key=_order):
            changes = self._changes(path, files[path], env)
            env.update(changes)
            setters.update(dict.fromkeys(changes, files[path]))
        variables = []
        for name, package in sorted(setters.items()):
            if name in _OWN or env[name] == self.env.get(name):
                continue
            if name in self.env and name != "PATH":
                self.notes.append(f"{name} stays {self.env[name]!r}, where {package} would set {env[name]!r}")
                continue
            variables.append(ActivatedVariable(name=name, value=env[name], package=package))
        if sum(len(item.name) + len(item.value.encode()) for item in variables) > _LIMIT:
            raise BuildError(f"activating this environment sets more than {_LIMIT} bytes of variables")
        return Activation.of(variables)

    def _changes(self, path: str, package: str, env: Mapping[str, str]) -> dict[str, str]:
        """The variables that one file sets anew."""
        try:
            after = self._sourced(path, env) if path.endswith(".sh") else self._stated(path)
        except _LeftOut as reason:
            self.notes.append(f"{PurePosixPath(path).name} of {package} is left out: {reason}")
            return {}
        return {name: value for name, value in after.items() if env.get(name) != value}

    def _stated(self, path: str) -> dict[str, str]:
        """The values of a file of JSON."""
        try:
            document = json.loads(self._text(path))
        except (ValueError, RecursionError):
            raise _LeftOut("it is no JSON") from None
        if path.endswith("/state"):
            document = document.get("env_vars") if isinstance(document, dict) else None
        items = document.items() if isinstance(document, dict) else ()
        values = {str(name): value for name, value in items if isinstance(value, str) and value != _UNSET}
        return _checked(values)

    def _text(self, path: str) -> str:
        try:
            data = read_regular(self.tree / path, _TEXT_LIMIT)
            return (data or b"").decode()
        except (OSError, ValueError):
            raise _LeftOut("it can't be read") from None

    def _sourced(self, path: str, env: Mapping[str, str]) -> dict[str, str]:
        """The variables after a script. Run twice: what a script makes of the time or of chance is no part
        of an image."""
        first, second = (self._run(path, env) for _ in range(2))
        if first != second:
            raise _LeftOut("it sets other values each time")
        return first

    def _run(self, path: str, env: Mapping[str, str]) -> dict[str, str]:
        # Made anew each time, whatever a script has left in the one before.
        out, stage = (
            Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch)) for name in ("out", "stage")
        )
        shell, options = self._shell()
        ended = run_sandboxed(
            {
                "rootfs": str(self.tree.resolve()),
                "stage": str(stage.resolve()),
                "mounts": [{"name": "out", "source": str(out.resolve()), "read_only": False}],
                "command": [
                    *(shell, *options, "-c", _WORKER, "activate", f"/{path}"),
                    *(self._program("env"), self._program("ls")),
                ],
                "env": dict(env),
                "file_limit": _TEXT_LIMIT,
                "memory_limit": 1 << 30,
            },
            patience=self.patience,
        )
        if ended.report:
            raise BuildError(
                f"{path} can't be run to activate the environment: {ended.report}",
                hint="allow user namespaces (sysctl user.max_user_namespaces), or leave activation out: "
                "activation: ignore in the spec",
            )
        if ended.status is None:
            raise _LeftOut(f"it does not end within {self.patience:g} seconds")
        try:
            complaint = read_regular(out / "complaint", _TEXT_LIMIT) or b""
            dump = read_regular(out / "env", _TEXT_LIMIT)
            left = read_regular(out / "left", _TEXT_LIMIT) or b""
        except (OSError, ValueError):
            raise _LeftOut("it sets more than an environment holds, or hides what it sets") from None
        if first_line := _first_line(complaint):
            raise _LeftOut(f"it does more than set variables: {first_line}")
        if not dump:
            raise _LeftOut(f"it ends the shell, with status {ended.status}")
        if not _LEFT.issuperset(os.fsdecode(left).split("\n")[:-1]):
            raise _LeftOut("it writes files")
        return _parse(dump)

    def _shell(self) -> tuple[str, tuple[str, ...]]:
        for name, options in _SHELLS:
            if path := self._program(name):
                return path, options
        raise _LeftOut("the image has no shell")

    def _program(self, name: str) -> str:
        """The system's program; empty where there is none."""
        places = (f"{directory}/{name}" for directory in _BINARIES)
        return next((f"/{place}" for place in places if os.path.lexists(self.tree / place)), "")


class _LeftOut(Exception):
    """Why a file isn't applied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationRoot:
    """Makes what the scripts of ``plan`` see: its image, as far as they may look at it.

    ``host`` is this machine; ``sources`` brings the packages of a base that runs here."""

    plan: Plan
    store: Store
    host: Platform
    sources: Callable[[PlatformLock], Sources]
    unpack_base: UnpackBase | None

    def unpack(self, root: Path, layers: Sequence[Layer], names: Set[str]) -> None:
        """Makes the directory ``root``: the packages ``names`` out of the image's ``layers``, on its own
        system, or where that doesn't run here on another one of the lock. Raises ``BuildError``."""
        plan, system = self.plan, self.plan.system
        if system is None or system.platform != self.host:
            raise BuildError(
                f"packages of this environment set variables for {plan.platform} by scripts, and the lock "
                f"has no shell that runs on this machine ({self.host})",
                hint=f"add {self.host} to platforms, or leave the scripts out: activation: ignore",
            )
        # The image's own system is in its layers.
        own = system.platform == plan.platform
        packages = system.base.packages if isinstance(system.base, DebianBase) and not own else ()
        artifacts = [Artifact.of(pin) for pin in packages]
        fill_rootfs(root, system.base, artifacts, self.sources(system), unpack_base=self.unpack_base)
        kinds = {ArtifactKind.DEBIAN, ArtifactKind.GENERATED} if own else set()
        planned = [planned for planned in plan.layers if planned.artifacts]
        needed = [
            layer
            for number, layer in enumerate(layers)
            if any(item.kind in kinds or item.name in names for item in planned[number].artifacts)
        ]
        unpack_layers([(self.store.blob(layer.digest), layer.media_type) for layer in needed], root)


def disarm(prefix: Path) -> None:
    """Takes the programs of the environment below ``prefix`` away: their files stay, and can't be run."""
    for directory, names, files in os.walk(prefix):
        if directory == str(prefix / "etc"):
            names[:] = [name for name in names if name != "conda"]
        for name in files:
            path = Path(directory, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & 0o111:
                with path.open("rb") as file:
                    head = file.read(4)
                if head == b"\x7fELF" or head.startswith(b"#!"):
                    path.unlink()
                    path.write_bytes(_DISARMED)
                    path.chmod(mode & 0o777)


def _order(path: str) -> tuple[bool, bool, str]:
    """Conda's order: the packages' values, the environment's, then the scripts by their names."""
    return path.endswith(".sh"), path.endswith("/state"), path


def _parse(dump: bytes) -> dict[str, str]:
    """The environment as ``env -0`` writes it; functions of bash have names that no variable has."""
    values = {}
    for item in dump.split(b"\0"):
        name, separator, value = item.partition(b"=")
        if not separator or not _NAME.fullmatch(os.fsdecode(name)):
            continue
        try:
            values[name.decode()] = value.decode()
        except UnicodeDecodeError:
            raise _LeftOut(f"{os.fsdecode(name)} is no UTF-8") from None
    return _checked(values)


def _checked(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise _LeftOut(f"{name[:_SHOWN]!r} is no name of a variable")
        if not value.isprintable():
            raise _LeftOut(f"{name} has control characters in it")
    return values


def _first_line(complaint: bytes) -> str:
    lines = complaint[: 8 * _SHOWN].decode("utf-8", "replace").split("\n")
    text = next((line for line in lines if line.strip()), "")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:_SHOWN]
