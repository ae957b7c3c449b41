"""The lock that an image of ours carries: the one it was made from, reduced to its own platform."""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from envbuild.errors import FetchError, LockError
from envbuild.lock.files import LOCK_FILE, SELF_DESCRIPTION, parse_lock
from envbuild.lock.model import Lock
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image, Layer
from envbuild.oci.layer_scan import ScannedEntry, scan_layer
from envbuild.store.content import Store

_ABOVE = ("usr", "usr/share", SELF_DESCRIPTION)
_SIZE = 64 << 20
"""Bytes of each of its files."""
_FILES = 8
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


def embedded_lock(
    image: Image, store: Store, *, bring: Callable[[Layer], object] | None = None
) -> Lock | None:
    """The lock inside ``image``; None where there is none. Nothing of it is believed unchecked: it is read
    as a lock directory is, and is of the image's own platform.

    Layers are read from the uppermost down to the first that has it, and are in the store; ``bring`` is
    called with each before it is read. Raises ``LockError``."""
    files = embedded_files(image, store, bring=bring)
    return _checked_lock(files, image) if files else None


def embedded_files(
    image: Image, store: Store, *, bring: Callable[[Layer], object] | None = None
) -> Mapping[str, bytes]:
    """The files of the lock inside ``image`` by name, not looked into; empty where there is none. As
    ``embedded_lock``."""
    view = _LockView()
    for layer in reversed(image.layers):
        if bring is not None:
            bring(layer)
        view.add(_read_layer(layer, store))
        if LOCK_FILE in view.files:
            return view.files
        if view.closed:
            break
    return {}


@dataclass(kw_only=True, slots=True)
class _LockLayer:
    """What one layer says of the directory: its files, and what of lower layers isn't seen any more."""

    files: dict[str, bytes] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    closes: bool = False


@dataclass(kw_only=True, slots=True)
class _LockView:
    """The directory as the layers read so far, from above, show it."""

    files: dict[str, bytes] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    closed: bool = False

    def add(self, layer: _LockLayer) -> None:
        for name, data in layer.files.items():
            if name not in self.removed:
                self.files.setdefault(name, data)
        self.removed |= layer.removed
        self.closed = layer.closes


def _read_layer(layer: Layer, store: Store) -> _LockLayer:
    lock_layer = _LockLayer()
    try:
        with scan_layer(store.blob(layer.digest), layer.media_type) as scan:
            for entry in scan:
                _note_entry(lock_layer, entry, scan.read)
    except FetchError as error:
        raise LockError(error.message, hint=error.hint) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise LockError(f"the layer {layer.digest} can't be read: {error}") from error
    return lock_layer


def _note_entry(lock_layer: _LockLayer, entry: ScannedEntry, read: Callable[[int], bytes]) -> None:
    # Most entries of an image lie elsewhere, and normalising takes time.
    if "usr" not in entry.name and _WHITEOUT not in entry.name:
        return
    path = posixpath.normpath("/" + entry.name).lstrip("/")
    directory, _, name = path.rpartition("/")
    if name == _OPAQUE:
        lock_layer.closes |= not directory or directory in _ABOVE
    elif name.startswith(_WHITEOUT):
        hidden = posixpath.join(directory, name.removeprefix(_WHITEOUT))
        lock_layer.closes |= hidden in _ABOVE
        if directory == SELF_DESCRIPTION:
            lock_layer.removed.add(name.removeprefix(_WHITEOUT))
    elif path in _ABOVE:
        lock_layer.closes |= not entry.is_directory
    elif directory == SELF_DESCRIPTION and not entry.is_directory:
        if not entry.is_regular:
            raise LockError(f"/{path} of the image is no plain file")
        if entry.size > _SIZE or len(lock_layer.files) >= _FILES:
            raise LockError(f"/{SELF_DESCRIPTION} of the image is larger than any lock")
        lock_layer.files[name] = read(entry.size)


def _checked_lock(files: Mapping[str, bytes], image: Image) -> Lock:
    where = f"/{SELF_DESCRIPTION}/{LOCK_FILE} of the image"
    lock, named = parse_lock(files[LOCK_FILE], where)
    for name, digest in named.items():
        if name not in files:
            raise LockError(f"{where} names {name}, and there is none beside it")
        if digest_bytes(files[name]) != digest:
            raise LockError(f"{where} isn't of the {name} beside it")
    platforms = [pins.platform for pins in lock.platforms]
    if platforms != [image.platform]:
        stated = ", ".join(map(str, platforms))
        raise LockError(f"{where} is of {stated}, and the image of {image.platform}")
    return lock
