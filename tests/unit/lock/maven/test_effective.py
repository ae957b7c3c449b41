"""What a module needs at run time: inheritance, properties, managed dependencies."""

from __future__ import annotations

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.maven.coordinate import Coordinate, Module, checked
from envbuild.lock.maven.effective import Effective, effective
from envbuild.lock.maven.pom import Pom, read_pom
from tests.fakes.maven import needs, pom


def found(coordinate: str, *poms: bytes) -> Effective:
    """The module among ``poms``, which are known by their own coordinates."""
    known: dict[str, Pom] = {}
    for data in poms:
        each = read_pom(data, "x.pom")
        known[f"{each.own.group}:{each.own.artifact}:{each.own.version}"] = each

    def load(wanted: Coordinate) -> Pom:
        return known[str(wanted)]

    group, artifact, version = coordinate.split(":")
    return effective(checked(group, artifact, version, "here"), load)


def names(module: Effective) -> list[str]:
    return [str(each.coordinate) for each in module.needs]


def test_run_time_needs_only() -> None:
    module = found(
        "g:a:1",
        pom(
            "g:a:1",
            "g:plain:1",
            needs("g:run:1", scope="runtime"),
            needs("g:compile:1", scope="compile"),
            needs("g:test:1", scope="test"),
            needs("g:provided:1", scope="provided"),
            needs("g:system:1", scope="system"),
            needs("g:optional:1", optional="true"),
        ),
    )
    assert names(module) == ["g:plain:1", "g:run:1", "g:compile:1"]


def test_properties_are_filled_from_the_nearest_pom_and_the_project() -> None:
    module = found(
        "g:a:5",
        pom(
            "g:a:5",
            needs("${project.groupId}:own:${project.version}"),
            needs("h:up:${project.parent.version}"),
            "h:mine:${v}",
            "h:theirs:${w}",
            parent="g:up:7",
            properties={"v": "child-${w}"},
        ),
        pom("g:up:7", "h:inherited:${v}", properties={"v": "parent", "w": "2"}),
    )
    assert names(module) == ["g:own:5", "h:up:7", "h:mine:child-2", "h:theirs:2", "h:inherited:child-2"]


def test_managed_versions_scopes_and_exclusions_fill_what_is_left_out() -> None:
    module = found(
        "g:a:1",
        pom(
            "g:a:1",
            "h:b",
            needs("h:c:9"),
            "h:test",
            "h:bom",
            "h:twice",
            managed=[
                needs("h:b:2", without=("x:y",)),
                "h:c:3",
                needs("h:test:1", scope="test"),
                needs("i:bom:1", type="pom", scope="import"),
                needs("i:second:1", type="pom", scope="import"),
            ],
        ),
        pom("i:bom:1", packaging="pom", managed=["h:bom:4", "h:b:99", "h:twice:first"]),
        pom("i:second:1", packaging="pom", managed=["h:twice:second"]),
    )
    assert names(module) == ["h:b:2", "h:c:9", "h:bom:4", "h:twice:first"]
    assert module.needs[0].exclusions == {Module(group="x", artifact="y")}


def test_a_bom_is_filled_with_its_own_properties_and_may_import_and_inherit() -> None:
    module = found(
        "g:a:1",
        pom(
            "g:a:1", "h:b", managed=[needs("i:bom:1", type="pom", scope="import")], properties={"v": "wrong"}
        ),
        pom(
            "i:bom:1",
            packaging="pom",
            parent="i:up:1",
            managed=[needs("i:inner:1", type="pom", scope="import")],
        ),
        pom("i:up:1", packaging="pom", properties={"v": "3"}),
        pom("i:inner:1", packaging="pom", managed=["h:b:${v}"], properties={"v": "4"}),
    )
    assert names(module) == ["h:b:4"]


def test_classifiers_types_and_packaging() -> None:
    module = found(
        "g:a:1",
        pom(
            "g:a:1",
            needs("h:native:1", classifier="linux-x86_64"),
            needs("h:list:1", type="pom"),
            needs("h:tests:1", type="test-jar"),
            packaging="bundle",
        ),
    )
    assert [each.classifier for each in module.needs] == ["linux-x86_64", None, "tests"]
    assert module.has_jar
    assert not found("g:a:1", pom("g:a:1", packaging="pom")).has_jar


def test_a_module_that_moved_is_the_one_it_moved_to() -> None:
    moved = "<distributionManagement><relocation><groupId>new</groupId></relocation></distributionManagement>"
    module = found("g:a:1", pom("g:a:1", "h:b:1", more=moved))
    assert (module.has_jar, names(module)) == (False, ["new:a:1"])


BOM = {"type": "pom", "scope": "import"}


@pytest.mark.parametrize(
    ("poms", "why"),
    [
        (
            [pom("g:a:1", "h:b:[1,2)")],
            "g:a:1 needs: 'h:b:[1,2)' is no exact version, and what it stands for changes",
        ),
        ([pom("g:a:1", "h:b:${no}")], "g:a:1 needs: 'h:b:${no}' is no Maven coordinate"),
        ([pom("g:a:1", "h:b")], "g:a:1 needs h:b, and nothing says which version"),
        ([pom("g:a:1", packaging="war")], "g:a:1 is packaged as 'war', which is no jar"),
        ([pom("g:a:1", needs("h:b:1", type="zip"))], "g:a:1 needs h:b:1 of type 'zip', which is no jar"),
        (
            [pom("g:a:1", needs("h:b:1", classifier="../../x"))],
            "g:a:1 needs: 'h:../../x:1' is no Maven coordinate",
        ),
        (
            [pom("g:a:1", "h:b:${x}", properties={"x": "${y}", "y": "${x}"})],
            "g:a:1: its properties refer to one another without an end",
        ),
        (
            [pom("g:a:1", "h:b:${x}", properties={"x": "${y}${y}" * 200, "y": "${z}" * 400, "z": "z" * 400})],
            "g:a:1: its properties refer to one another without an end",
        ),
        ([pom("g:a:1", parent="g:a:1")], "g:a:1: its parents are a circle, or too many"),
        (
            [pom("g:a:1", managed=[needs("g:b:1", **BOM)]), pom("g:b:1", managed=[needs("g:b:1", **BOM)])],
            "g:b:1 imports g:b:1, which leads back to itself",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(poms: list[bytes], why: str) -> None:
    with pytest.raises(ResolveError) as caught:
        found("g:a:1", *poms)
    assert caught.value.message == why
