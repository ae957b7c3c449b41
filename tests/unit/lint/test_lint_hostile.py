"""Specs that a program made of anything: no rule ever raises, and no line tells a credential."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from envbuild.specs.model import (
    CondaSpec,
    ImageBaseSpec,
    Origin,
    PipRequirement,
    PipSpec,
    SparkSpec,
    Spec,
)
from tests.unit.lint.conftest import look

_ANY = st.text(max_size=40) | st.text("abn1.0>=<!~*|,;@[] \n$\x1b{}:/-_'\"()", max_size=40)
_PYTHON = st.none() | _ANY | st.text("0123456789.><=!~|,* ", max_size=12)


@given(
    texts=st.lists(_ANY, min_size=8, max_size=8),
    python=_PYTHON,
    pip=st.lists(st.tuples(_ANY, _ANY), max_size=4),
    conda=st.lists(_ANY | _PYTHON.map(lambda each: f"python{each}"), max_size=4),
)
def test_any_spec_is_looked_at(
    texts: list[str], python: str | None, pip: list[tuple[str, str]], conda: list[str]
) -> None:
    lines = tuple(
        PipRequirement(text=text, origin=Origin(file=where, where=where[::-1])) for text, where in pip
    )
    look(
        Spec(
            name=texts[0],
            source=Path("/nowhere/envbuild.yaml"),
            description=texts[1],
            python=python,
            base=ImageBaseSpec(reference=texts[2]),
            user=texts[3],
            as_of=date(2030, 1, 1),
            conda=CondaSpec(channels=(texts[4],), dependencies=tuple(conda)),
            pip=PipSpec(requirements=lines, constraints=lines[:2], options=(texts[5],)),
            environment_variables=((texts[6], texts[7]),),
            left_out=(texts[5], f"a:1: {texts[6]}"),
        )
    )


@given(before=st.text("abc =/'-", max_size=5), after=st.sampled_from(["", "/simple", "?a=b", " x"]))
def test_a_password_in_an_address_is_never_shown(before: str, after: str) -> None:
    text = f"{before} https://me:hunter2@host.example{after}"
    line = PipRequirement(text=text, origin=Origin(file="r.txt", where="1"))
    result = look(
        Spec(
            name="x",
            source=Path("/nowhere/envbuild.yaml"),
            description=text,
            conda=CondaSpec(channels=(text,), dependencies=(text,)),
            pip=PipSpec(requirements=(line, line), options=(text,)),
            spark=SparkSpec(repositories=(text,)),
            environment_variables=(("A_TOKEN", text),),
            left_out=(text,),
        )
    )
    assert "EB301" in result.codes
    assert "hunter2" not in repr(result)
