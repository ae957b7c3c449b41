"""A base taken by digest: its layers and config, as they are. Nothing of it is compressed again."""

from __future__ import annotations

import json
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from envbuild.compose.base import ComposeContext
from envbuild.compose.filesystem import BaseTree, parents, resolve
from envbuild.compose.unpack import unpack_layers
from envbuild.errors import BuildError, FetchError
from envbuild.images.contents import ImageContents, image_source, read_image
from envbuild.lock.model import ImageBase
from envbuild.oci.image import Layer
from envbuild.oci.layer import open_layer
from envbuild.oci.manifest import LAYERS
from envbuild.platforms import Platform
from envbuild.registry.base import Remote
from envbuild.specs.model import PREFIX
from envbuild.store.content import Store

_TREE_FORMAT = 2
_PREFIX = str(PREFIX).lstrip("/")
_NAMED = 3
"""Files in the prefix that are named."""


@dataclass(frozen=True, kw_only=True)
class BaseContents:
    """What an image is composed onto. Its layers are read when its tree is first asked for: an image that is
    taken as it is doesn't need it."""

    layers: tuple[Layer, ...]
    """Lowest first. Media types are OCI's (the bytes of Docker's are the same), digests the base's."""
    config: Mapping[str, Any]
    """The base's whole config document."""
    load_tree: Callable[[], BaseTree] = field(repr=False, compare=False)
    """Reads the tree from the layers. Raises ``BuildError``."""

    @cached_property
    def tree(self) -> BaseTree:
        return self.load_tree()


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseImages:
    """Reads image bases from wherever their references say. ``directory`` is where a relative ``oci:DIR``
    stands."""

    store: Store
    registry: Callable[[], Remote]
    directory: Path = Path()

    def load(self, base: ImageBase, platform: Platform | None) -> BaseContents:
        """The base by the lock's digest, its layers in the store afterwards. Raises ``BuildError``: it can't
        be had, or it isn't what the lock says (platform, layers, diff_ids)."""
        contents = self._read(base, platform)
        layers = tuple(
            Layer(
                digest=layer.digest,
                diff_id=diff_id,
                size=layer.size,
                media_type=LAYERS[layer.media_type],
                name="base",
            )
            for layer, diff_id in zip(contents.layers, contents.diff_ids, strict=True)
        )
        load_tree = partial(_cached_tree, base, layers, self.store)
        return BaseContents(layers=layers, config=contents.config.document, load_tree=load_tree)

    def unpack(self, base: ImageBase, root: Path) -> None:
        """Unpacks the base into the empty directory ``root``. Raises ``BuildError``."""
        layers = self._read(base, None).layers
        unpack_layers([(self.store.blob(layer.digest), layer.media_type) for layer in layers], root)

    def _read(self, base: ImageBase, platform: Platform | None) -> ImageContents:
        try:
            source = image_source(base.reference, self.store, self.registry(), self.directory)
            return read_image(source, base.digest, self.store, platform=platform, expected=base.diff_ids)
        except FetchError as error:
            raise BuildError(f"base image {error.message}", hint=error.hint) from error


def base_images(context: ComposeContext) -> BaseImages:
    return BaseImages(store=context.store, registry=context.registry, directory=context.inputs.directory)


def _cached_tree(base: ImageBase, layers: Sequence[Layer], store: Store) -> BaseTree:
    """The tree after all layers; kept by the manifest's digest, since reading takes a while."""
    file = store.directory("metadata/images") / f"{base.digest.removeprefix('sha256:')}.tree.json"
    try:
        document = json.loads(file.read_bytes())
        if document["format"] == _TREE_FORMAT:
            return BaseTree(
                directories={
                    str(path): (int(mode), int(uid), int(gid))
                    for path, (mode, uid, gid) in document["directories"].items()
                },
                links={str(path): str(target) for path, target in document["links"].items()},
                prefix=tuple(map(str, document["prefix"])),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # Not there or damaged: it is made again from the layers.
    tree = read_tree([(store.blob(layer.digest), layer.media_type) for layer in layers])
    with store.scratch() as scratch:
        part = scratch / "tree"
        part.write_text(json.dumps({"format": _TREE_FORMAT, **asdict(tree)}, sort_keys=True))
        part.replace(file)
    return tree


def read_tree(layers: Sequence[tuple[Path, str]]) -> BaseTree:
    """The tree as layers (blob and media type, lowest first) leave it, whiteouts obeyed. Raises
    ``BuildError``."""
    directories: dict[str, tuple[int, int, int]] = {}
    links: dict[str, str] = {}
    files: set[str] = set()
    for blob, media_type in layers:
        try:
            files = _read_layer(blob, media_type, directories, links, files)
        except (FetchError, tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            raise BuildError(f"the base's layer {blob.name} can't be read: {error}") from error
    return BaseTree(directories=directories, links=links, prefix=_in_prefix(files, links))


def _in_prefix(files: set[str], links: Mapping[str, str]) -> tuple[str, ...]:
    """What of ``files`` and ``links`` lies in the prefix, or in the directory that it leads to."""
    place = resolve(_PREFIX, links, whole=True)
    inside = [path for path in (*files, *links) if path == place or path.startswith(f"{place}/")]
    return tuple(sorted(inside)[:_NAMED])


def _read_layer(
    blob: Path,
    media_type: str,
    directories: dict[str, tuple[int, int, int]],
    links: dict[str, str],
    below: set[str],
) -> set[str]:
    """Changes ``directories`` and ``links`` as the layer does. Returns the files after it, of which ``below``
    are those before it."""
    added: set[str] = set()
    files: set[str] = set()
    # Paths of the layers below that are hidden, with all that lies in them; and emptied directories.
    hidden: set[str] = set()
    emptied: set[str] = set()

    def remove(path: str, *, itself: bool) -> None:
        (hidden if itself else emptied).add(path)
        prefix = f"{path}/" if path else ""
        for table in (directories, links):
            for victim in [name for name in table if name.startswith(prefix) or (itself and name == path)]:
                if victim not in added:
                    del table[victim]

    with open_layer(blob, media_type) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]
            path = posixpath.normpath("/" + member.name).lstrip("/")
            parent, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                remove(parent, itself=False)
            elif name.startswith(".wh."):
                remove(posixpath.join(parent, name.removeprefix(".wh.")), itself=True)
            elif not path:
                continue
            elif member.isdir():
                links.pop(path, None)
                files.discard(path)
                hidden.update({path} & below)
                directories[path] = (member.mode & 0o7777, member.uid, member.gid)
                added.add(path)
            else:
                if path in directories:
                    added.discard(path)
                    remove(path, itself=True)
                links.pop(path, None)
                files.discard(path)
                if member.issym():
                    hidden.update({path} & below)
                    links[path] = member.linkname
                    added.add(path)
                else:
                    files.add(path)
    if hidden or emptied:
        below = {
            path
            for path in below
            if path not in hidden
            and "" not in emptied
            and not any(parent in hidden or parent in emptied for parent in parents(path))
        }
    return below | files
