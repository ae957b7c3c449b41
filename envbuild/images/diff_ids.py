"""Whether layers hold what their configs say, which their digests don't tell: found out once, remembered."""

from __future__ import annotations

from collections.abc import Iterable

from envbuild.errors import FetchError
from envbuild.images.sources.base import several
from envbuild.oci.digest import canonical_digest
from envbuild.oci.layer import check_diff_id
from envbuild.oci.manifest import Descriptor
from envbuild.store.content import Store
from envbuild.store.layers import LayerCache, LayerFile

_FORMAT = 1


def check_diff_ids(store: Store, layers: Iterable[tuple[Descriptor, str]], what: str) -> None:
    """Returns if every layer, all of which are in the store, has the diff_id beside it.

    Uncompresses a layer unless that was done before. Raises ``FetchError``."""
    cache = LayerCache(store)
    expected: dict[str, str] = {}
    unknown = []
    for layer, diff_id in layers:
        if expected.setdefault(layer.digest, diff_id) != diff_id:
            raise FetchError(f"{what}: the layer {layer.digest} is there twice, with two diff_ids")
        known = cache.get(_key(layer))
        if known is None or known.diff_id != diff_id:
            unknown.append(layer)

    def check(layer: Descriptor) -> None:
        diff_id = expected[layer.digest]
        check_diff_id(store.blob(layer.digest), layer.media_type, diff_id, what)
        with store.scratch() as scratch:
            cache.put(_key(layer), LayerFile(digest=layer.digest, diff_id=diff_id, size=layer.size), scratch)

    several(check, unknown)


def _key(layer: Descriptor) -> str:
    """The media type counts: the same bytes are another tar where they are read another way."""
    return canonical_digest("diff-id", _FORMAT, [layer.digest, layer.media_type]).removeprefix("sha256:")
