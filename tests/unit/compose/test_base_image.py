"""What a base image has where an environment's software goes, as its layers leave it."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.compose.base_image import read_tree
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, put_layer, symlink

STALE = Item(name="opt/env/lib/stale.py", content=b"1")


@pytest.mark.parametrize(
    ("layers", "prefix"),
    [
        ([[]], ()),
        ([[directory("opt"), directory("opt/env"), directory("opt/env/lib")]], ()),
        ([[Item(name="opt/environment/x"), Item(name="opt/env.sh"), Item(name="srv/opt/env/x")]], ()),
        ([[STALE]], ("opt/env/lib/stale.py",)),
        ([[Item(name="opt/env")]], ("opt/env",)),
        ([[symlink("opt/env/bin", "../elsewhere")]], ("opt/env/bin",)),
        ([[Item(name=f"opt/env/{name}") for name in "dcba"]], ("opt/env/a", "opt/env/b", "opt/env/c")),
        # Where links lead the prefix.
        ([[symlink("opt", "srv/opt")], [Item(name="srv/opt/env/x")]], ("srv/opt/env/x",)),
        ([[Item(name="conda/x"), symlink("opt/env", "/conda")]], ("conda/x",)),
        ([[Item(name="opt/env/x")], [symlink("opt", "srv")]], ()),
        # What upper layers hide isn't there; what they put in its place is.
        ([[STALE], [Item(name="opt/env/lib/.wh.stale.py")]], ()),
        ([[STALE], [Item(name="opt/.wh.env")]], ()),
        ([[STALE], [Item(name=".wh.opt")]], ()),
        ([[STALE], [Item(name="opt/env/.wh..wh..opq"), directory("opt/env")]], ()),
        ([[STALE], [Item(name=".wh..wh..opq")]], ()),
        ([[STALE], [Item(name="opt/.wh.env"), Item(name="opt/env/new")]], ("opt/env/new",)),
        ([[STALE], [Item(name="opt/env/new"), Item(name="opt/env/.wh..wh..opq")]], ("opt/env/new",)),
        ([[STALE], [directory("opt/env/lib/stale.py")]], ()),
        ([[directory("opt/env/lib"), STALE], [Item(name="opt/env/lib")]], ("opt/env/lib",)),
        ([[STALE], [Item(name="opt/env/lib/.wh.stale")]], ("opt/env/lib/stale.py",)),
    ],
)
def test_files_in_the_prefix(tmp_path: Path, layers: list[list[Item]], prefix: tuple[str, ...]) -> None:
    store = Store(tmp_path)
    records = [put_layer(store, items) for items in layers]
    tree = read_tree([(store.blob(record.digest), record.media_type) for record in records])
    assert tree.prefix == prefix
