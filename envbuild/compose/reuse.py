"""Layers that another image of the same software has already: when they may be taken as they are.

A layer's bytes depend on its artifacts, and on the rest of the image only by what lies in the same
directories: whose metadata they have, and which links lead elsewhere. So a layer that keeps to the prefix
is the same above any base that leaves the prefix alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from envbuild.compose.filesystem import DIRECTORY_MODE, BaseTree, MergeResult, parents
from envbuild.errors import BuildError
from envbuild.oci.image import Layer
from envbuild.specs.model import PREFIX
from envbuild.store.segments import Segment

INSIDE = f"{str(PREFIX).lstrip('/')}/"
"""What every path begins with that lies in the prefix."""
ABOVE = ("opt", INSIDE.rstrip("/"))
_PLAIN = (DIRECTORY_MODE, 0, 0)


class NotReusable(BuildError):
    """Layers can't be taken as they are: base and software share directories or links."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReusedLayers:
    """``layers`` by their place in the plan. Nothing of them lies outside the prefix."""

    layers: Mapping[int, Layer] = field(default_factory=dict)
    directories: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Of the prefix, as they have them."""
    links: frozenset[str] = frozenset()
    """Paths of their symbolic links."""
    own: frozenset[str] = frozenset()
    """The paths in the prefix that envbuild's own files have, the same ones as below the reused layers."""

    def merge(self, tree: BaseTree) -> BaseTree:
        """``tree`` with the prefix's directories, whose metadata the layers made anew state too."""
        if not self.layers:
            return tree
        if any(path.startswith(INSIDE) or path in ABOVE for path in tree.links) or any(
            path.startswith(INSIDE) for path in tree.directories
        ):
            raise NotReusable(f"the base has files in {PREFIX} itself")
        return replace(tree, directories={**tree.directories, **self.directories})

    def check(self, segments: Sequence[Segment], tree: BaseTree, merged: MergeResult) -> None:
        """Returns if the reused layers are what composing them with the others gives. Raises
        ``NotReusable``."""
        if not self.layers:
            return
        for segment in segments:
            paths = [path for path, _ in segment.paths]
            stated = [row[0] for row in segment.directories]
            inside = {path for path in (*paths, *stated) if path.startswith(INSIDE)}
            if not inside <= self.own or any(path in ABOVE for path in paths):
                raise NotReusable(f"the base has files in {PREFIX} itself")
            for path in inside:
                if not self.links.isdisjoint(parents(path)):
                    raise NotReusable(f"a link of the software leads to /{path}")
        for path in ABOVE:
            if merged.directories.get(path, _PLAIN) != _PLAIN:
                raise NotReusable(f"the base gives /{path} an owner or a mode of its own")
