"""Export of what the spec cases hold, and what each format says it can't carry."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import UsageError
from envbuild.spec.definition import definition_digest
from envbuild.spec.export import dump_native, export, portable_problems
from envbuild.spec.load import load_spec
from envbuild.spec.model import BuildContextSpec
from tests.unit.spec.test_spec_cases import spec_of

CASES = Path(__file__).parents[2] / "cases" / "spec"
GOOD = sorted(each.parent.name for each in CASES.glob("*/expected.json"))


@pytest.mark.parametrize("case", GOOD)
def test_every_case_loads_again_from_its_native_yaml(case: str, tmp_path: Path) -> None:
    spec = load_spec(spec_of(CASES / case))
    shutil.copytree(CASES / case, tmp_path / "copy")
    place = tmp_path / "copy" / spec.source.relative_to(CASES / case).parent
    written = spec
    if isinstance(spec.base, BuildContextSpec):
        # Not into the context itself: what is added there is another context.
        base = replace(spec.base, path=place.relative_to(tmp_path) / spec.base.path)
        place, written = tmp_path, replace(spec, base=base)
    path = place / "exported.yaml"
    path.write_text(dump_native(written), encoding="utf-8")
    assert definition_digest(load_spec(path)) == definition_digest(spec)
    if not portable_problems(spec):
        alone = tmp_path / "envbuild.yaml"
        path.rename(alone)
        assert definition_digest(load_spec(alone)) == definition_digest(spec)


def test_an_unknown_format_names_the_known_ones() -> None:
    spec = load_spec(CASES / "native-minimal")
    with pytest.raises(UsageError) as raised:
        export(spec, "docker")
    assert raised.value.message == "unknown format 'docker'"
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("known: native")
