"""Merged views of layers, and what differs between two."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

import pytest

from envbuild.errors import BuildError
from envbuild.inspect.tree import Node, differences, layer_entries, merged
from envbuild.store.content import Store
from tests.fakes.image import Item, directory, hardlink, put_layer, symlink


def seen(store: Store, *layers: Sequence[Item]) -> dict[str, Node]:
    return merged([put_layer(store, items) for items in layers], store)


BELOW = [directory("a"), Item(name="a/x", content=b"1"), directory("a/b"), Item(name="a/b/y")]


@pytest.mark.parametrize(
    ("above", "left"),
    [
        ([Item(name="a/.wh.x")], {"a", "a/b", "a/b/y"}),
        ([Item(name="a/.wh.b")], {"a", "a/x"}),
        ([Item(name=".wh.a")], set()),
        ([Item(name="a/.wh..wh..opq"), Item(name="a/new")], {"a", "a/new"}),
        ([Item(name=".wh..wh..opq"), Item(name="new")], {"new"}),
        ([symlink("a", "elsewhere")], {"a"}),
        ([Item(name="./a//x", content=b"2")], {"a", "a/x", "a/b", "a/b/y"}),
    ],
    ids=["file", "directory", "top", "opaque", "opaque root", "link", "replaced"],
)
def test_what_a_container_sees(store: Store, above: Sequence[Item], left: set[str]) -> None:
    assert set(seen(store, BELOW, above)) == left


def test_a_hard_link_is_the_file_that_it_leads_to(store: Store) -> None:
    one = seen(store, [Item(name="x", content=b"1"), hardlink("y", "x")])
    other = seen(store, [Item(name="y", content=b"1"), hardlink("x", "/y")])
    assert one == other
    assert one["x"].kind == tarfile.REGTYPE


def test_hard_links_in_a_circle_end(store: Store) -> None:
    assert set(seen(store, [hardlink("x", "y"), hardlink("y", "x")])) == {"x", "y"}


def found(
    before: dict[str, Node], after: dict[str, Node], limit: int = 9
) -> list[tuple[str, tuple[str, ...]]]:
    paths, _ = differences(before, after, gone="removed", new="added", times=False, limit=limit)
    return [(each.path, each.reasons) for each in paths]


def test_reasons(store: Store) -> None:
    before = [Item(name="a", content=b"1"), Item(name="b"), symlink("c", "x"), Item(name="d"), Item(name="e")]
    after = [
        Item(name="a", content=b"2", mode=0o755),
        symlink("c", "y"),
        directory("d"),
        Item(name="e"),
        Item(name="f"),
    ]
    assert found(seen(store, before), seen(store, after)) == [
        ("a", ("content", "mode")),
        ("b", ("removed",)),
        ("c", ("link",)),
        ("d", ("kind",)),
        ("f", ("added",)),
    ]


def test_only_so_many_paths_are_named_and_the_rest_is_counted(store: Store) -> None:
    many = seen(store, [Item(name=f"{number:03}") for number in range(100)])
    paths, more = differences({}, many, gone="removed", new="added", times=False, limit=3)
    assert [each.path for each in paths] == ["000", "001", "002"]
    assert more == 97


def test_times_count_only_where_they_are_asked_for() -> None:
    before = {"x": Node(tarfile.REGTYPE, 0o644, 0, 0, 0, b"")}
    after = {"x": Node(tarfile.REGTYPE, 0o644, 0, 0, 1, b"")}
    assert found(before, after) == []
    paths, _ = differences(before, after, gone="", new="", times=True, limit=1)
    assert paths[0].reasons == ("mtime",)


def test_a_damaged_layer_is_an_error(store: Store) -> None:
    layer = put_layer(store, BELOW)
    store.blob(layer.digest).write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(BuildError, match=layer.digest):
        layer_entries(layer, store)
