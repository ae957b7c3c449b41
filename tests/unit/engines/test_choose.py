"""Which engine is chosen, and what is said where none can."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from envbuild.engines.base import Engine, choose_engine
from envbuild.errors import BuildError
from envbuild.oci.image import Image
from envbuild.plan.model import Plan
from tests.fakes.progress import Notes
from tests.unit.render.sample import LOCKS, plan_of

PLAN = plan_of(LOCKS["system-managed-python"])


@dataclass
class FakeEngine:
    name: str
    reasons: list[str] = field(default_factory=list)

    def unable(self, plan: Plan) -> list[str]:
        return self.reasons

    def identity(self, plan: Plan) -> str:
        raise AssertionError

    def build(self, plan: Plan) -> Image:
        raise AssertionError


def choose(name: str, notes: Notes, **reasons: list[str]) -> Engine:
    def engine(each: str) -> FakeEngine:
        return FakeEngine(each, reasons.get(each, []))

    engines = {
        "native": lambda: engine("native"),
        "buildx": lambda: engine("buildx"),
        "docker": lambda: engine("docker"),
    }
    return choose_engine(name, PLAN, engines, notes)


def test_the_usual_choice_is_not_worth_a_word_and_another_is_said_once(progress: Notes) -> None:
    assert choose("auto", progress).name == "native"
    assert progress.notes == []
    assert choose("auto", progress, native=["it runs steps"], buildx=["no builder"]).name == "docker"
    assert progress.notes == ["engine: docker, because native can't build this: it runs steps"]


def test_the_engine_that_was_asked_for_says_who_else_can() -> None:
    with pytest.raises(BuildError, match="the docker engine can't build this:\n  no socket") as caught:
        choose("docker", Notes(), docker=["no socket"])
    assert caught.value.hint == "--engine native can"


@pytest.mark.parametrize(
    ("native", "more"),
    [("a Dockerfile runs its own steps", False), ("byte code for linux/arm64 needs a python", True)],
)
def test_the_hint_names_what_would_help(native: str, more: bool) -> None:
    with pytest.raises(BuildError, match="no engine can build this:") as caught:
        choose("auto", Notes(), native=[native], buildx=["no builder"], docker=["no socket"])
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("start a Docker engine, or point DOCKER_HOST at one that runs")
    assert ("envbuild lock --no-bytecode" in caught.value.hint) is more
