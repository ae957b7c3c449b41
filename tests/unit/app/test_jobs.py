"""Runs from start to end over a target of the test's own: what is brought, recorded, and said."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.api import Environment, ScriptRun
from envbuild.app import jobs as runs
from envbuild.app.environments import Workspace
from envbuild.app.jobs import JobRequest, run_slug
from envbuild.app.run_files import RunLog, is_watched, log_pieces
from envbuild.app.session import Session
from envbuild.app.specs import find_spec
from envbuild.errors import RunError, UsageError, WorkspaceError
from envbuild.oci.image import Image
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.load import load_spec
from envbuild.store.leases import in_use
from envbuild.targets.base import Job, PreflightFinding, Service, TargetFile, TargetLimits, TargetRecord
from tests.unit.app.conftest import SPEC, write

pytestmark = pytest.mark.usefixtures("built")


@dataclass
class Execution:
    """A job that prints ``pieces`` and ends with ``status``; a fault is raised where it is set."""

    pieces: Sequence[bytes] = (b"hello\n",)
    status: int = 0
    log_fault: BaseException | None = None
    stop_fault: RunError | None = None
    outputs_fault: Exception | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    identity: str = "process 1"

    def logs(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.log_fault is not None:
            raise self.log_fault

    def wait(self) -> int:
        return self.status

    def stop(self) -> None:
        self.calls.append("stop")
        if self.stop_fault is not None:
            raise self.stop_fault

    def bring_outputs(self, directory: Path) -> bool:
        assert list(directory.iterdir()) == []
        if self.outputs_fault is not None:
            raise self.outputs_fault
        for name, text in self.outputs.items():
            (directory / name).write_text(text)
        return bool(self.outputs)

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class Place:
    execution: Execution = field(default_factory=Execution)
    fault: BaseException | None = None
    files_fault: UsageError | None = None
    found: tuple[PreflightFinding, ...] = ()
    record: TargetRecord = field(default_factory=lambda: TargetRecord(name="place", kind="test"))
    limits: TargetLimits = field(default_factory=TargetLimits)
    registry: str | None = None
    submitted: list[Job] = field(default_factory=list)
    seen: Callable[[], None] = lambda: None
    """Called while a job is handed over."""

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return self.found

    def bytes_to_pull(self, image: Image) -> int | None:
        return 17

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        if self.files_fault is not None:
            raise self.files_fault
        return (TargetFile(name="job", content=job.reference),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        raise NotImplementedError

    def submit(self, job: Job) -> Execution:
        self.submitted.append(job)
        self.seen()
        if self.fault is not None:
            raise self.fault
        return self.execution


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place()
    monkeypatch.setattr("envbuild.app.jobs.open_job_target", lambda session, name: found)
    return found


@pytest.fixture
def session(settings: Settings) -> Iterator[Session]:
    with Session(settings, Silent(), environ={"USER": "ann"}) as found:
        yield found


@dataclass
class Started:
    """Runs one job, and keeps what it printed."""

    session: Session
    spec: Path
    printed: list[bytes] = field(default_factory=list)

    def __call__(
        self,
        *,
        code: Path | None = None,
        outputs: Path | None = None,
        out: Callable[[bytes], None] | None = None,
    ) -> runs.JobOutcome:
        request = JobRequest(target="place", command=("a", "b"), code=code, env=(("TOKEN", "hunter2"),))
        with runs.prepare_job(self.session, find_spec(self.session, str(self.spec)), request) as prepared:
            return runs.run_job(self.session, prepared, out or self.printed.append, outputs=outputs)


@pytest.fixture
def run(session: Session, tmp_path: Path) -> Started:
    return Started(session, write(tmp_path / "spec"))


def test_run_is_recorded_from_all_it_was_made_of(run: Started, place: Place, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("")
    place.execution.outputs = {"model": "x"}
    outcome = run(code=tmp_path / "code")
    (job,) = place.submitted
    found = outcome.record
    assert found is not None
    assert (found.status, found.exit_status, found.identity) == ("succeeded", 0, "process 1")
    assert (found.image, found.code) == (job.image.digest, job.code_digest)
    assert found.image != found.base_image
    assert (found.command, found.variables) == (("a", "b"), ("TOKEN",))
    registry = run.session.workspace.environments
    version = registry.get(found.environment, found.version, None)
    assert version.definition == found.definition
    actions = [(each.action, each.detail.get("run")) for each in registry.history()]
    assert ("run", outcome.name) in actions
    assert ("ended", outcome.name) in actions
    assert "hunter2" not in json.dumps([dict(each.detail) for each in registry.history()], default=str)
    assert outcome.outputs == runs.state_directory(run.session.workspace) / outcome.name
    assert (outcome.outputs / "model").read_text() == "x"
    assert outcome.log.read_bytes() == b"hello\n" == b"".join(run.printed)
    assert place.execution.calls == ["close"]
    assert is_watched(outcome.log) is False


def test_the_image_is_held_until_the_target_has_it_and_nothing_else_ever(
    run: Started, place: Place, tmp_path: Path
) -> None:
    store = run.session.store
    said: list[tuple[frozenset[str], float | None]] = []

    def look() -> None:
        with in_use(store) as busy:
            said.append((busy.names, busy.since))

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("")
    place.seen = look
    run(code=tmp_path / "code", out=lambda piece: look())
    (job,) = place.submitted
    names = frozenset(f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in job.image.blobs)
    assert len(names) == 4
    # Who only waits for what it prints needs nothing of the store.
    assert said == [(names, None), (frozenset(), None)]


def test_no_outputs_leave_no_directory(run: Started, place: Place) -> None:
    outcome = run()
    assert outcome.outputs is None
    assert [path.name for path in outcome.log.parent.iterdir()] == [outcome.log.name]


def test_job_is_watched_while_it_runs(run: Started, place: Place) -> None:
    seen: list[bool | None] = []

    def out(piece: bytes) -> None:
        (record,) = run.session.workspace.environments.runs()
        assert record.status == "running"
        seen.append(is_watched(runs.log_file(run.session.workspace, record.name)))

    run(out=out)
    assert seen == [True]


@pytest.mark.parametrize(
    ("fault", "state"),
    [(RunError("refused"), "failed"), (KeyboardInterrupt(), "stopped"), (SystemExit(143), "stopped")],
)
def test_job_that_does_not_start_is_recorded(
    run: Started, place: Place, fault: BaseException, state: str
) -> None:
    place.fault = fault
    with pytest.raises(type(fault)):
        run()
    (found,) = run.session.workspace.environments.runs()
    assert (found.status, found.exit_status, found.identity) == (state, None, "")


def test_target_that_goes_away_is_a_lost_run(run: Started, place: Place) -> None:
    place.execution.log_fault = RunError("went away")
    with pytest.raises(RunError, match="went away"):
        run()
    (found,) = run.session.workspace.environments.runs()
    assert (found.status, place.execution.calls) == ("lost", ["close"])


def test_interrupt_stops_the_job_and_keeps_its_outputs(
    run: Started, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.execution.log_fault = KeyboardInterrupt()
    place.execution.outputs = {"checkpoint": "1"}
    with pytest.raises(KeyboardInterrupt):
        run()
    (found,) = run.session.workspace.environments.runs()
    assert (found.status, found.exit_status) == ("stopped", None)
    assert place.execution.calls == ["stop", "close"]
    kept = runs.state_directory(run.session.workspace) / found.name / "checkpoint"
    assert kept.read_text() == "1"
    assert f"what it had written is in {kept.parent}" in caplog.text


def test_job_that_can_not_be_stopped_is_told(
    run: Started, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.execution.log_fault = KeyboardInterrupt()
    place.execution.stop_fault = RunError("no way")
    with pytest.raises(KeyboardInterrupt):
        run()
    (found,) = run.session.workspace.environments.runs()
    assert found.status == "lost"
    assert "the job may still run as process 1: no way" in caplog.text


def test_outputs_that_can_not_be_brought_are_left_where_they_are(run: Started, place: Place) -> None:
    place.execution.outputs_fault = OSError(28, "No space left on device")
    with pytest.raises(
        RunError, match="ended with the exit status 0, but its outputs can't be brought"
    ) as raised:
        run()
    assert raised.value.hint == "they may still be on place, in process 1"
    (found,) = run.session.workspace.environments.runs()
    assert (found.status, found.exit_status) == ("succeeded", 0)
    assert place.execution.calls == []


def test_reader_that_goes_away_ends_no_job(
    run: Started, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def out(piece: bytes) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    place.execution.pieces = (b"1", b"2")
    outcome = run(out=out)
    assert outcome.exit_status == 0
    assert outcome.log.read_bytes() == b"12"
    assert caplog.text.count("nobody takes what the job prints (Broken pipe)") == 1


def test_workspace_that_is_away_does_not_change_the_end(
    run: Started, place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise WorkspaceError("gone")

    monkeypatch.setattr(run.session.workspace.environments, "update_run", away)
    place.execution.status = 3
    outcome = run()
    assert outcome.exit_status == 3
    assert f"the end of the run {outcome.name} (failed) isn't recorded: gone" in caplog.text


def test_findings_that_are_errors_start_nothing(run: Started, place: Place) -> None:
    place.found = (
        PreflightFinding(text="one", hint="do"),
        PreflightFinding(text="note", error=False),
        PreflightFinding(text="two"),
    )
    with pytest.raises(RunError) as raised:
        run()
    assert (raised.value.message, raised.value.hint) == ("this can't run on place:\none\ntwo", "do")
    assert place.submitted == []
    assert run.session.workspace.environments.runs() == ()


def test_job_that_a_target_can_not_be_handed_is_refused_before_the_push(
    run: Started, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[object] = []
    monkeypatch.setattr(runs, "bring_image", lambda session, prepared: pushed.append(prepared))
    place.files_fault = UsageError("no such command")
    with pytest.raises(UsageError, match="no such command"):
        run()
    assert (pushed, place.submitted) == ([], [])
    assert run.session.workspace.environments.runs() == ()
    place.files_fault = None
    run()
    assert len(pushed) == len(place.submitted) == 1


def test_place_of_outputs_must_be_empty_before_anything_starts(
    run: Started, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(UsageError, match="is not empty"):
        run(outputs=tmp_path / "out")
    with pytest.raises(UsageError, match=r"outputs can't be written to .*Not a directory"):
        run(outputs=tmp_path / "out" / "x" / "y")
    assert place.submitted == []


@given(st.text(max_size=255))
def test_names_of_runs_fit_every_target(environment: str) -> None:
    name = f"{run_slug(environment)}-20260101-000000-abcd"
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 63


# --- logs ---------------------------------------------------------------------------------------------


def test_log_is_followed_while_it_is_held(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "a.log"
    assert is_watched(file) is None
    turns: list[float] = []
    with RunLog(file) as log:
        log.write(b"1")

        def sleep(seconds: float) -> None:
            turns.append(seconds)
            if len(turns) == 1:
                log.write(b"2")
            else:
                log.write(b"3")
                log.__exit__(None, None, None)

        assert list(log_pieces(file, follow=True, sleep=sleep)) == [b"1", b"2", b"3"]
    assert len(turns) == 2
    assert list(log_pieces(file)) == [b"123"]


def test_log_that_can_not_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "runs").touch()
    with RunLog(tmp_path / "runs" / "a.log") as log:
        log.write(b"1")
        log.write(b"2")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "is not complete: " in caplog.text


# --- from Python --------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)\n")
    return tmp_path / "src"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(load_spec(write(tmp_path / "spec")))


def test_script_run_is_submitted(
    workspace: Workspace, place: Place, script: Path, environment: Environment
) -> None:
    printed: list[bytes] = []
    run = ScriptRun(
        script,
        "train.py",
        ["--depth", 3],
        environment=environment,
        target="place",
        environment_variables={"B": "2", "A": "1"},
    )
    place.execution.status = 4
    outcome = run.submit(workspace, out=printed.append)
    assert outcome.exit_status == 4
    assert printed == [b"hello\n"]
    (job,) = place.submitted
    assert job.command == ("python", "train.py", "--depth", "3")
    assert job.env == (("A", "1"), ("B", "2"))
    assert job.code_digest is not None
    assert outcome.record is not None
    assert workspace.environments.run(outcome.name) == outcome.record


def test_script_run_shows_its_files_and_starts_nothing(
    workspace: Workspace, place: Place, script: Path, environment: Environment
) -> None:
    (file,) = ScriptRun(script, "train.py", environment=environment, target="place").files(workspace)
    assert file.name == "job"
    assert place.submitted == []
    assert workspace.environments.runs() == ()


def test_characters_are_written_whole(
    workspace: Workspace, place: Place, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    place.execution.pieces = (b"caf\xc3", b"\xa9 \xff\n")
    ScriptRun(command="echo 'a b'", environment=environment, target="place").submit(workspace)
    assert capsys.readouterr().out == "caf\u00e9 \ufffd\n"
    assert place.submitted[0].command == ("echo", "a b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a run needs a script or a command, and not both"),
        ({"script": "train.py", "command": "x"}, "a run needs a script or a command, and not both"),
        ({"script": "other.py"}, "there is no script other.py in "),
        ({"command": "x", "arguments": ["y"]}, "arguments belong to a script, a command has its own"),
    ],
)
def test_script_run_that_is_none(
    script: Path, environment: Environment, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ScriptRun(script, environment=environment, **options)  # type: ignore[arg-type]


# --- what a run is of ---------------------------------------------------------------------------------


def test_a_run_registers_an_environment_that_has_a_name_and_only_that(
    workspace: Workspace, place: Place, tmp_path: Path
) -> None:
    def submitted(environment: Environment) -> tuple[str, str]:
        record = ScriptRun(command="x", environment=environment, target="place").submit(workspace).record
        assert record is not None
        return record.environment, record.version

    named = Environment(load_spec(write(tmp_path / "spec")))
    assert submitted(named) == ("train", "1")
    assert submitted(named) == ("train", "1")
    named.environment_variables["A"] = "1"
    assert submitted(named) == ("train", "2")
    text = f"{SPEC}version: '7'\nas_of: 2026-01-01\n"
    versioned = Environment.from_file(write(tmp_path / "versioned", text))
    assert submitted(versioned) == ("train", "7")
    versioned.environment_variables["A"] = "2"
    # Another definition has that version, so it gets the next one.
    assert submitted(versioned) == ("train", "8")
    unnamed = Environment.from_file(write(tmp_path / "other", "six\n", "requirements.txt"))
    name, version = submitted(unnamed)
    assert (name, len(version)) == ("other", 12)
    unnamed.name = "mine"
    assert submitted(unnamed) == ("mine", "1")
    listed = [(summary.name, summary.latest) for summary in workspace.environments.list()]
    assert listed == [("mine", "1"), ("train", "8")]


def test_what_is_only_looked_at_registers_nothing(
    workspace: Workspace, place: Place, environment: Environment
) -> None:
    ScriptRun(command="x", environment=environment, target="place").files(workspace)
    assert workspace.environments.list() == ()


def test_the_version_that_a_run_would_get_is_known_before(
    workspace: Workspace, environment: Environment, tmp_path: Path
) -> None:
    def predicted(environment: Environment) -> str:
        return workspace.record_run(environment.spec, keep=False).reference

    assert predicted(environment) == "train:1"
    assert workspace.environments.list() == ()
    assert workspace.record_run(environment.spec).reference == "train:1"
    assert predicted(environment) == "train:1"
    environment.environment_variables["A"] = "1"
    assert predicted(environment) == "train:2"
    text = f"{SPEC}version: '7'\nas_of: 2026-01-01\n"
    assert predicted(Environment.from_file(write(tmp_path / "versioned", text))) == "train:7"
    assert [version.version for version in workspace.environments.versions("train")] == ["1"]


def test_a_run_of_what_can_not_be_registered_is_told_and_goes_on(
    run: Started, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise WorkspaceError("it is archived")

    notes: list[str] = []
    monkeypatch.setattr(run.session.workspace, "register", refused)
    monkeypatch.setattr(run.session.progress, "note", notes.append)
    outcome = run()
    assert outcome.record is not None
    assert (outcome.record.environment, len(outcome.record.version)) == ("train", 12)
    assert notes == ["the environment isn't registered: it is archived"]
