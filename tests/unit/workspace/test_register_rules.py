"""The rules of registration against a model in a few lines, over histories that hypothesis makes up."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from envbuild.errors import WorkspaceError
from envbuild.workspace.base import NewVersion
from tests.unit.workspace.stores import digest, new_version, open_store

NAMES = st.sampled_from(["a", "b"])
DEFINITIONS = st.integers(1, 6)
VERSIONS = st.sampled_from(["1", "2", "3", "07", "10", "x"])
LABELS = st.sampled_from(["prod", "test"])


@dataclass
class Model:
    """One environment: ``[definition, version, anonymous, archived]`` in the order of registration."""

    rows: list[list[object]] = field(default_factory=list)
    labels: dict[str, object] = field(default_factory=dict)

    def by_definition(self, definition: int) -> list[object] | None:
        return next((row for row in self.rows if row[0] == definition), None)

    def by_version(self, version: object) -> list[object] | None:
        return next((row for row in self.rows if row[1] == version), None)

    def following(self) -> str:
        numbers = [int(str(row[1])) for row in self.rows if not row[2] and str(row[1]).isdigit()]
        return str(max(numbers, default=0) + 1)

    def latest(self) -> object:
        normal = [row[1] for row in self.rows if not row[2] and not row[3]]
        return normal[-1] if normal else None


class Registrations(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="envbuild-rules-")
        self.ws = open_store(Path(self.directory.name) / "workspace.db")
        self.models = {"a": Model(), "b": Model()}
        self.events = 0

    def teardown(self) -> None:
        self.ws.close()
        self.directory.cleanup()

    @rule(name=NAMES, definition=DEFINITIONS, version=st.none() | VERSIONS)
    def register(self, name: str, definition: int, version: str | None) -> None:
        model = self.models[name]
        there = model.by_definition(definition)
        if there is not None and not there[2]:
            if version not in (None, there[1]):
                self.refused(name, definition, version)
                return
            expected, created = there[1], False
        else:
            taken = model.by_version(version) if version is not None else None
            if taken is not None:
                self.refused(name, definition, version)
                return
            expected, created = version or model.following(), True
            if there is not None:
                model.rows.remove(there)
            model.rows.append([definition, expected, False, False])
            self.events += 1
        done = self.ws.register(new_version(name, definition, content=str(definition), version=version))
        assert (done.version.version, done.created) == (expected, created)
        assert done.version.content == str(definition)

    def refused(self, name: str, definition: int, version: str | None) -> None:
        with pytest.raises(WorkspaceError):
            self.ws.register(new_version(name, definition, content="", version=version))

    @rule(name=NAMES, definition=DEFINITIONS)
    def record(self, name: str, definition: int) -> None:
        model = self.models[name]
        there = model.by_definition(definition)
        done = self.ws.register(new_version(name, definition, content=str(definition), anonymous=True))
        if there is None:
            there = [definition, digest(definition)[7:19], True, False]
            model.rows.append(there)
            self.events += 1
            assert done.created
        else:
            assert not done.created
        assert (done.version.version, done.version.anonymous) == (there[1], there[2])

    @rule(name=NAMES, definition=DEFINITIONS, archived=st.booleans())
    def archive(self, name: str, definition: int, archived: bool) -> None:
        row = self.models[name].by_definition(definition)
        if row is None:
            return
        self.events += row[3] != archived
        row[3] = archived
        (self.ws.archive if archived else self.ws.restore)(name, str(row[1]))

    @rule(name=NAMES, definition=DEFINITIONS, label=LABELS)
    def label(self, name: str, definition: int, label: str) -> None:
        model = self.models[name]
        row = model.by_definition(definition)
        if row is None or row[2]:
            return
        self.events += model.labels.get(label) != row[1]
        model.labels[label] = row[1]
        assert label in self.ws.label(name, str(row[1]), [label]).labels

    @invariant()
    def both_say_the_same(self) -> None:
        for name, model in self.models.items():
            if not model.rows:
                continue
            found = self.ws.versions(name, include_archived=True, include_anonymous=True)
            assert [
                [each.definition, each.version, each.anonymous, each.archived] for each in reversed(found)
            ] == [[digest(int(str(row[0]))), *row[1:]] for row in model.rows]
            assert {label: each.version for each in found for label in each.labels} == model.labels
            (summary,) = self.ws.list(prefix=name, include_anonymous=True)
            assert summary.latest == model.latest()
            assert summary.count == sum(not row[2] for row in model.rows)
            if model.latest() is None:
                with pytest.raises(WorkspaceError):
                    self.ws.get(name)
            else:
                assert self.ws.get(name).version == model.latest()
        assert len(self.ws.history()) == self.events


TestRegistrations = Registrations.TestCase
TestRegistrations.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


@given(text=TEXT)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_kept_exactly_or_refused(tmp_path: Path, text: str) -> None:
    ws = open_store(tmp_path / "workspace.db")
    ws.register(new_version("train", 1, content=""))
    try:
        found = ws.update("train", "1", description=text, tags=[(text, text)])
    except WorkspaceError:
        assert any(each == "\0" or "\ud800" <= each <= "\udfff" for each in text)
        return
    assert (found.description, found.tags) == (text, ((text, text),))


@given(name=TEXT, version=TEXT, label=TEXT)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_raises_nothing_else(tmp_path: Path, name: str, version: str, label: str) -> None:
    ws = open_store(tmp_path / "workspace.db")
    for what in (
        lambda: ws.register(new_version(name, 1, content="", version=version, labels=(label,))),
        lambda: ws.get(name, version),
        lambda: ws.get(name, label=label),
        lambda: ws.register(NewVersion(environment="train", definition=name, content="")),
        lambda: ws.lock_by_digest(name),
        lambda: ws.context(name),
        lambda: ws.list(prefix=name, after=name),
        lambda: ws.add_lock(digest(1), [name], {name: b"", "envbuild.lock": b""}),
    ):
        with contextlib.suppress(WorkspaceError):
            what()
