"""The code of a job as one small layer on top of its environment's image: same code, same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from envbuild.compose.base import Entry, EntryKind
from envbuild.compose.codec import BLOCK, Codec, codec
from envbuild.compose.image import image_json
from envbuild.compose.tar import END, entry_stream
from envbuild.errors import BuildError, SpecError
from envbuild.images.describe import CREATED_BY, ENVIRONMENT_LABEL
from envbuild.oci.image import Image, Layer
from envbuild.specs.context import ContextContents, ContextEntry, read_code
from envbuild.store.content import Store, commit_file
from envbuild.store.images import read_config, read_manifest
from envbuild.targets.base import CODE_DIRECTORY

CODE_LABEL = "dev.envbuild.code"
"""Label and annotation: digest of the code directory's paths, modes and contents."""
LAYER_NAME = "code"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeImage:
    """An image with code on top. ``size`` is the layer's, compressed, in bytes."""

    image: Image
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerContents:
    """What one layer holds: the files of a directory that were read, and files written for them."""

    name: str
    """Of the layer, for people."""
    contents: ContextContents
    copies: Path
    below: PurePosixPath
    written: tuple[Entry, ...] = ()
    """Beside ``below`` or in it."""


def code_image(
    image: Image, directory: Path, store: Store, *, below: PurePosixPath = CODE_DIRECTORY
) -> CodeImage:
    """``image`` with the files of ``directory`` under ``below``, which becomes the working directory.

    What ``.amlignore``, or the ``.gitignore`` files where there is none, name is left out. The directory
    belongs to the image's user, so that a job can write beside its code. Raises ``SpecError`` for what
    can't be read.
    """
    if not directory.is_dir():
        raise SpecError(f"{directory} is no directory of code", hint="name one with --code")
    with store.scratch() as scratch:
        copies = scratch / "code"
        copies.mkdir()
        contents = read_code(directory, copies=copies)
        made = add_layers(
            image,
            (LayerContents(name=LAYER_NAME, contents=contents, copies=copies, below=below),),
            {"WorkingDir": str(below)},
            {CODE_LABEL: contents.digest},
            store,
        )
    return CodeImage(image=made, digest=contents.digest, size=made.layers[-1].size)


def add_layers(
    image: Image,
    trees: Sequence[LayerContents],
    settings: Mapping[str, Any],
    labels: Mapping[str, str],
    store: Store,
) -> Image:
    """``image`` with a layer of each of ``trees`` on top, and ``settings`` in the place of its config's own
    (None: there is none any more), where variables and ports are added to what is there. ``labels`` are also
    annotations; the image below is always among them."""
    config = read_config(image, store).document
    owner = _owner(config)
    layers = []
    for tree in trees:
        with store.scratch() as scratch:
            entries = list(_entries(tree, owner))
            layers.append(_write_layer(entries, scratch, store, codec("gzip"), tree.name))
    return _write_image(image, config, layers, settings, {**labels, ENVIRONMENT_LABEL: image.digest}, store)


def _entries(tree: LayerContents, owner: tuple[int, int]) -> Iterator[Entry]:
    """All entries with their parents, sorted by path."""
    uid, gid = owner
    root, contents = str(tree.below).lstrip("/"), tree.contents
    directories = {str(parent) for parent in PurePosixPath(root).parents if parent.name}
    inside = {root} | {
        f"{root}/{parent}"
        for entry in contents.entries
        for parent in PurePosixPath(entry.path).parents
        if parent.name
    }
    entries = [Entry(path=directory, kind=EntryKind.DIRECTORY, mode=0o755) for directory in directories]
    entries += [
        Entry(path=path, kind=EntryKind.DIRECTORY, mode=0o755, uid=uid, gid=gid)
        for path in inside | {f"{root}/{entry.path}" for entry in contents.entries if entry.directory}
    ]
    entries += [_entry(entry, tree.copies, root, owner) for entry in contents.entries if not entry.directory]
    yield from sorted([*entries, *tree.written], key=lambda entry: entry.path)


def _entry(file: ContextEntry, copies: Path, root: str, owner: tuple[int, int]) -> Entry:
    path, (uid, gid) = f"{root}/{file.path}", owner
    if file.target is not None:
        return Entry(path=path, kind=EntryKind.SYMLINK, target=file.target, uid=uid, gid=gid)
    return Entry(path=path, mode=file.mode, content=copies / file.sha256, uid=uid, gid=gid)


def _owner(config: Mapping[str, Any]) -> tuple[int, int]:
    """The numeric user and group that the image starts as; root where it names them by words."""
    user, _, group = str((config.get("config") or {}).get("User") or "").partition(":")
    if user.isascii() and user.isdigit() and len(user) < 10:
        return int(user), int(group) if group.isascii() and group.isdigit() and len(group) < 10 else int(user)
    return 0, 0


def _write_layer(entries: Sequence[Entry], scratch: Path, store: Store, packing: Codec, name: str) -> Layer:
    part, inner, outer = scratch / "layer", hashlib.sha256(), hashlib.sha256()
    size = 0

    def write_block(file: BinaryIO, block: bytes) -> int:
        inner.update(block)
        member = packing.compress(block)
        outer.update(member)
        file.write(member)
        return len(member)

    try:
        with part.open("wb") as file:
            waiting = bytearray()
            for entry in entries:
                for piece in entry_stream(entry):
                    waiting += piece
                    while len(waiting) >= BLOCK:
                        size += write_block(file, bytes(waiting[:BLOCK]))
                        del waiting[:BLOCK]
            size += write_block(file, bytes(waiting + END[: BLOCK - len(waiting)]))
            if len(waiting) + len(END) > BLOCK:
                size += write_block(file, END[BLOCK - len(waiting) :])
    except OSError as error:
        raise BuildError(f"can't write the code's layer: {error.strerror}") from error
    digest = f"sha256:{outer.hexdigest()}"
    commit_file(part, store.blob(digest))
    return Layer(
        digest=digest,
        diff_id=f"sha256:{inner.hexdigest()}",
        size=size,
        media_type=packing.media_type,
        name=name,
    )


def _write_image(
    image: Image,
    config: Mapping[str, Any],
    layers: Sequence[Layer],
    settings: Mapping[str, Any],
    labels: Mapping[str, str],
    store: Store,
) -> Image:
    before = dict(config.get("config") or {})
    given = {name: value for name, value in {**before, **settings}.items() if value is not None}
    changed = {**given, "Labels": {**(before.get("Labels") or {}), **labels}}
    if "Env" in settings:
        names = {line.partition("=")[0] for line in settings["Env"]}
        kept = [line for line in before.get("Env") or () if str(line).partition("=")[0] not in names]
        changed["Env"] = [*kept, *settings["Env"]]
    if "ExposedPorts" in settings:
        changed["ExposedPorts"] = {**(before.get("ExposedPorts") or {}), **settings["ExposedPorts"]}
    rootfs = dict(config["rootfs"])
    rootfs["diff_ids"] = [*rootfs["diff_ids"], *(layer.diff_id for layer in layers)]
    history = list(config.get("history") or ())
    for layer in layers:
        entry = {"created_by": CREATED_BY, "comment": layer.name}
        if config.get("created"):
            entry["created"] = config["created"]
        history.append(entry)
    content = image_json({**config, "config": changed, "rootfs": rootfs, "history": history})
    config_digest = store.add_blob(content)
    manifest = read_manifest(image, store)
    manifest["config"] = {**manifest["config"], "digest": config_digest, "size": len(content)}
    manifest["layers"] = [
        *manifest["layers"],
        *({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers),
    ]
    manifest["annotations"] = {**(manifest.get("annotations") or {}), **labels}
    own = image_json(manifest)
    return replace(
        image,
        digest=store.add_blob(own),
        size=len(own),
        config_digest=config_digest,
        layers=(*image.layers, *layers),
    )
