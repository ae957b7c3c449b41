"""The merged file system of an image."""

from __future__ import annotations

import pytest

from envbuild.compose.filesystem import (
    BaseTree,
    Contribution,
    PathClash,
    layer_directories,
    merge_contributions,
    resolve,
)
from envbuild.errors import BuildError
from envbuild.store.segments import DirectoryRow, Segment


def segment(
    *paths: str, links: tuple[tuple[str, str], ...] = (), directories: tuple[DirectoryRow, ...] = ()
) -> Segment:
    every = [*paths, *(link for link, _ in links)]
    return Segment(
        key="0" * 64,
        members=((1, 512 * len(every)),),
        paths=tuple((path, 512 * place) for place, path in enumerate(every)),
        links=links,
        directories=directories,
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("bin/sh", "usr/bin/sh"),
        ("bin", "bin"),
        ("var/run/x", "run/x"),
        ("lib64/ld.so", "usr/lib/ld.so"),
        ("up/x", "x"),
        ("usr/bin/sh", "usr/bin/sh"),
    ],
)
def test_parents_that_are_links_are_followed(path: str, expected: str) -> None:
    links = {"bin": "usr/bin", "var/run": "/run", "lib64": "lib", "lib": "usr/lib", "up": "../../.."}
    assert resolve(path, links) == expected


def test_a_directory_is_resolved_to_its_last_part() -> None:
    assert resolve("bin", {"bin": "usr/bin"}, whole=True) == "usr/bin"


def test_a_loop_of_links_is_an_error() -> None:
    with pytest.raises(BuildError, match="too many symbolic links"):
        resolve("a/x", {"a": "b", "b": "a"})


def test_paths_through_links_of_artifacts_and_base_are_reported() -> None:
    owners = [
        Contribution(name="one", segment=segment("bin/sh", "etc/x")),
        Contribution(name="two", segment=segment("opt/l/x", links=(("bin", "usr/bin"),))),
    ]
    found = merge_contributions(owners, BaseTree(links={"opt": "/srv/opt"}))
    assert found.through == {0: frozenset({("bin", "usr/bin")}), 1: frozenset({("opt", "/srv/opt")})}


def test_clashes_and_files_in_the_way_are_reported_once() -> None:
    owners = [
        Contribution(name="one", segment=segment("a/x", "d")),
        Contribution(name="two", segment=segment("a/x", "d/y", "d/z")),
    ]
    found = merge_contributions(owners, BaseTree())
    assert found.clashes == (PathClash(path="a/x", first=0, second=1),)
    assert found.blocked == (PathClash(path="d", first=0, second=1),)


def test_directory_metadata_of_our_own_files_wins_then_the_first_artifact_then_the_base() -> None:
    owners = [
        Contribution(name="one", segment=segment(directories=(("tmp", 0o755, 0, 0), ("mail", 0o2775, 0, 8)))),
        Contribution(name="two", segment=segment(directories=(("tmp", 0o700, 0, 0), ("mail", 0o700, 0, 0)))),
        Contribution(name="own", segment=segment(directories=(("tmp", 0o1777, 0, 0),)), decides=True),
    ]
    table = merge_contributions(
        owners, BaseTree(directories={"root": (0o700, 0, 0), "mail": (0o711, 0, 0)})
    ).directories
    assert table == {"root": (0o700, 0, 0), "tmp": (0o1777, 0, 0), "mail": (0o2775, 0, 8)}


def test_a_layer_carries_every_parent_with_the_same_metadata() -> None:
    rows = layer_directories(
        [segment("a/b/c/x", "a/b/y"), segment(directories=(("a/e", 0o755, 0, 0), ("f", 0o755, 0, 0)))],
        {"a/b": (0o711, 1, 2)},
    )
    assert rows == (
        ("a", 0o755, 0, 0),
        ("a/b", 0o711, 1, 2),
        ("a/b/c", 0o755, 0, 0),
        ("a/e", 0o755, 0, 0),
        ("f", 0o755, 0, 0),
    )
