"""An unpacked root file system of the interpreter that byte code is compiled with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from envbuild.compose.base import ArtifactSource, Entry, EntryKind
from envbuild.compose.filesystem import DIRECTORY_MODE, USRMERGE, parents, resolve
from envbuild.compose.tar import check_path
from envbuild.errors import BuildError
from envbuild.lock.model import Base, CondaPin, DebianBase, ImageBase, Pin
from envbuild.oci.digest import canonical_digest
from envbuild.plan.model import Artifact, ArtifactKind, Interpreter
from envbuild.store.content import Store
from envbuild.store.locks import locked

ROOTFS_FORMAT = 1
_C_LIBRARY = re.compile(r"libc6|libgcc-s1|libcrypt1|zlib1g")
_DEBIAN_PYTHON = re.compile(
    r"libc6|libgcc-s1|libcrypt1|zlib1g|libexpat1|(lib)?python3(\.\d+)?t?(-minimal|-stdlib)?"
)
"""What an interpreter needs to start and compile (``Depends`` of ``python3.X-minimal``) and the standard
library. Compiling waits for these to be unpacked, so the rest of a base stays out."""
_LIBRARIES = re.compile(
    _DEBIAN_PYTHON.pattern + r"|libbz2-1\.0|libffi8|liblzma5|libssl3(t64)?|libuuid1|libzstd1"
)
"""With what the standard library's own extensions load: programs other than our compiler import those."""
_NAME = re.compile(r"[^ =<>!~\[;|]+")

Sources = Mapping[ArtifactKind, Callable[[], AbstractContextManager[ArtifactSource]]]
UnpackBase = Callable[[ImageBase, Path], None]
"""Unpacks the layers of an image base into an empty directory."""


def interpreter_artifacts(interpreter: Interpreter, *, whole: bool = False) -> tuple[Artifact, ...]:
    """The packages the interpreter runs on, sorted; without those an image base brings. ``whole``: enough
    for programs that use all of the standard library, not only for compiling."""
    lock = interpreter.lock
    pins: list[Pin] = []
    conda, build = interpreter.python.provider == "conda", interpreter.python.build
    if build is not None:
        pins.append(build)
    if isinstance(lock.base, DebianBase):
        needed = _C_LIBRARY if conda or build else _LIBRARIES if whole else _DEBIAN_PYTHON
        pins.extend(pin for pin in lock.base.packages if needed.fullmatch(pin.name))
    if conda:
        # What conda only adds to python isn't needed to start it.
        pins.extend(conda_closure((pin for pin in lock.conda if pin.name != "pip"), ("python",)))
    return tuple(Artifact.of(pin) for pin in sorted(pins, key=lambda pin: (type(pin).__name__, pin.name)))


def interpreter_rootfs(
    interpreter: Interpreter,
    store: Store,
    sources: Sources,
    *,
    unpack_base: UnpackBase | None = None,
    whole: bool = False,
) -> Path:
    """The directory of the root file system, made once for these packages and kept in the store; see
    ``interpreter_artifacts`` for ``whole``.

    Two builds at once make it once. Raises ``BuildError``."""
    artifacts = interpreter_artifacts(interpreter, whole=whole)
    key = rootfs_key(interpreter, whole=whole)
    path = store.directory("rootfs") / key
    if path.is_dir():
        os.utime(path)
        return path
    with locked(store.root / "locks" / f"rootfs-{key}"), store.scratch() as scratch:
        if path.is_dir():
            return path
        root = scratch / "root"
        fill_rootfs(root, interpreter.lock.base, artifacts, sources, unpack_base=unpack_base)
        try:
            root.replace(path)
        except OSError as error:
            raise BuildError(f"can't write {path}: {error.strerror}") from error
    return path


def fill_rootfs(
    root: Path,
    base: Base,
    artifacts: Sequence[Artifact],
    sources: Sources,
    *,
    unpack_base: UnpackBase | None = None,
) -> None:
    """Makes the directory ``root`` the root file system of ``artifacts``, on the image ``base`` where it is
    one. Raises ``BuildError``."""
    root.mkdir(mode=0o755)
    links: dict[str, str] = {}
    if isinstance(base, ImageBase):
        if unpack_base is None:
            raise BuildError(f"nothing here unpacks the base {base.reference} for its interpreter")
        unpack_base(base, root)
    else:
        links.update(USRMERGE)
    with ExitStack() as stack:
        for kind in sorted({artifact.kind for artifact in artifacts}):
            source = stack.enter_context(sources[kind]())
            group = [artifact for artifact in artifacts if artifact.kind is kind]
            source.fetch(group)
            for artifact in group:
                materialise(source.entries(artifact), root, links)
    for link, target in links.items():
        if not (root / link).exists() and not (root / link).is_symlink() and (root / target).is_dir():
            (root / link).symlink_to(target)
    for directory in ("tmp", "proc", "dev", "sys"):
        (root / directory).mkdir(exist_ok=True)


def rootfs_key(interpreter: Interpreter, *, whole: bool = False) -> str:
    """The name of the root file system in the store, bare hex."""
    base = interpreter.lock.base
    artifacts = interpreter_artifacts(interpreter, whole=whole)
    value = [
        [interpreter.python.version, interpreter.python.provider, interpreter.python.executable],
        base.suite if isinstance(base, DebianBase) else base.digest,
        [[artifact.kind.value, artifact.sha256] for artifact in artifacts],
    ]
    return canonical_digest("rootfs", ROOTFS_FORMAT, value).removeprefix("sha256:")


def materialise(entries: Iterable[Entry], root: Path, links: Mapping[str, str]) -> None:
    """Writes entries below ``root``, through ``links`` (paths of the image) only.

    Never follows a symlink on disk: a parent that is one, and isn't in ``links``, is resolved inside
    ``root`` by its target, or refused where that leads nowhere. Owners are this user; modes keep only
    read and execute for others, set-id bits never.
    """
    made: set[str] = set()
    all_links = dict(links)
    for entry in entries:
        check_path(entry.path)
        path = resolve(entry.path, all_links, whole=entry.kind is EntryKind.DIRECTORY)
        for parent in reversed(list(parents(path))):
            path = _make_parent(root, parent, path, all_links, made)
        place = root / path
        if entry.kind is EntryKind.DIRECTORY:
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise BuildError(f"{entry.path} is a directory of one package and a file of another")
            place.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            continue
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.is_dir():
            if entry.kind is EntryKind.SYMLINK and entry.path in links:
                continue
            raise BuildError(f"{entry.path} is a directory of one package and a file of another")
        if entry.kind is EntryKind.SYMLINK:
            place.symlink_to(entry.target)
            continue
        if isinstance(entry.content, bytes):
            place.write_bytes(entry.content)
        else:
            shutil.copyfile(entry.content, place)
        place.chmod(entry.mode & 0o755 | 0o600)


def _make_parent(root: Path, parent: str, path: str, links: dict[str, str], made: set[str]) -> str:
    """Makes the directory ``parent`` and returns ``path``, or where it leads if ``parent`` is a symlink."""
    if parent in made or not path.startswith(parent + "/"):
        return path
    place = root / parent
    if place.is_symlink():
        links[parent] = str(place.readlink())
        path = resolve(path, links)
        for above in reversed(list(parents(path))):
            path = _make_parent(root, above, path, links, made)
        return path
    if place.exists() and not place.is_dir():
        raise BuildError(f"{parent} is a file of one package and a directory of another")
    place.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    made.add(parent)
    return path


def conda_closure(pins: Iterable[CondaPin], roots: Iterable[str]) -> list[CondaPin]:
    """The packages named ``roots`` and all that they depend on."""
    by_name = {pin.name: pin for pin in pins}
    todo, reached = list(roots), dict[str, CondaPin]()
    while todo:
        pin = by_name.get(todo.pop())
        if pin is None or pin.name in reached:
            continue
        reached[pin.name] = pin
        for text in pin.depends:
            match = _NAME.match(text)
            if match:
                todo.append(match.group().lower())
    return list(reached.values())
