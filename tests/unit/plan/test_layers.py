"""Which artifacts share a layer."""

from __future__ import annotations

import random

from envbuild.plan.layers import group_layers
from envbuild.plan.model import Artifact, ArtifactKind
from tests.fakes.source import PYTHON, artifact


def some(count: int, size: int = 1000) -> list[Artifact]:
    return [artifact(f"p{number}", size=size) for number in range(count)]


def shape(*args: Artifact, budget: int = 40, base_layers: int = 0) -> dict[str, list[str]]:
    settings = artifact("settings", kind=ArtifactKind.GENERATED)
    layers = group_layers(args, settings=settings, python=PYTHON, budget=budget, base_layers=base_layers)
    return {layer.name: [each.name for each in layer.artifacts] for layer in layers}


def test_base_then_python_then_large_then_buckets_then_settings() -> None:
    found = shape(
        artifact("numpy", size=9 << 20),
        artifact("attrs"),
        artifact("system", kind=ArtifactKind.GENERATED),
        artifact("python3.13", kind=ArtifactKind.DEBIAN),
        artifact("libpython3.13-stdlib", kind=ArtifactKind.DEBIAN),
        artifact("libc6", kind=ArtifactKind.DEBIAN),
    )
    assert found == {
        "base": ["libc6", "system"],
        "python": ["libpython3.13-stdlib", "python3.13"],
        "numpy": ["numpy"],
        "bucket-00": ["attrs"],
        "settings": ["settings"],
    }


def test_order_of_the_artifacts_does_not_matter() -> None:
    artifacts = [*some(50), *(artifact(f"large{n}", size=n << 20) for n in range(1, 60))]
    expected = group_layers(artifacts, python=PYTHON)
    for seed in range(3):
        random.Random(seed).shuffle(artifacts)
        assert group_layers(artifacts, python=PYTHON) == expected


def test_a_changed_version_changes_one_layer() -> None:
    artifacts = some(60)
    before = group_layers(artifacts)
    artifacts[7] = artifact("p7", version="2.0", size=1010)
    after = group_layers(artifacts)
    assert [layer.name for layer in before] == [layer.name for layer in after]
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_budget_and_the_layers_below_are_kept() -> None:
    artifacts = [*some(100, size=2 << 20), *some(0), *(artifact(f"s{n}") for n in range(40))]
    assert len(group_layers(artifacts)) == 40
    assert len(group_layers(artifacts, budget=500)) == 108, "100 alone and 8 buckets, below the cap of 120"
    assert len(group_layers(artifacts, budget=500, base_layers=100)) == 20
    for budget in (1, 2, 3, 4, 5, 6, 9):
        settings = artifact("settings", kind=ArtifactKind.GENERATED)
        base = artifact("libc6", kind=ArtifactKind.DEBIAN)
        layers = group_layers([*artifacts, base], settings=settings, budget=budget)
        assert len(layers) <= budget
        assert sum(len(layer.artifacts) for layer in layers) == 142


def test_nothing_gives_no_layer() -> None:
    assert group_layers([]) == ()
