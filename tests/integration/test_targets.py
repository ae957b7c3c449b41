"""Jobs in a user namespace, as people start them: what they print and leave, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import postgres
from tests.integration.driver import LIMIT, Ended, Machine, ended, needs_user_namespaces, shell_machine, tmpfs

pytestmark = [needs_user_namespaces()]

FOREVER = "while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a spec whose image, a shell and a few programs, was built."""
    with shell_machine(tmp_path_factory.mktemp("site")) as machine:
        done = machine.run("build", "--no-record")
        assert done.status == 0, done.stderr
        yield machine


@dataclass(kw_only=True)
class Jobs:
    """A user with a workspace of their own, who starts jobs of that image."""

    machine: Machine

    @property
    def state(self) -> Path:
        return self.machine.home / ".local" / "share" / "envbuild" / "runs"

    def arguments(self, script: str, *options: str) -> list[str]:
        # Without code, a command starts where the image says.
        script = f"cd /workspace; {script}"
        return ["run", ".", "--target", "local", *options, "--", "sh", "-c", script]

    def run(self, script: str, *options: str) -> Ended:
        return self.machine.run(*self.arguments(script, *options))

    def started(self, script: str, *options: str) -> subprocess.Popen[str]:
        """A job that has printed ``ready``."""
        process = self.machine.start(*self.arguments(script, *options))
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "ready\n":
            process.kill()
            raise AssertionError(f"{line}{process.communicate()}")
        return process

    def record(self) -> dict[str, Any]:
        """The only run."""
        done = self.machine.run("runs", "list", "--json")
        assert done.status == 0, done.stderr
        (found,) = json.loads(done.stdout)["runs"]
        assert isinstance(found, dict)
        return found

    def log(self, name: str) -> str:
        done = self.machine.run("runs", "logs", name)
        assert done.status == 0, done.stderr
        return done.stdout


@pytest.fixture
def jobs(site: Machine, tmp_path: Path) -> Jobs:
    machine = Machine(root=tmp_path, env={**site.env, "ENVBUILD_CACHE_DIR": str(site.cache)})
    shutil.copytree(site.project, tmp_path / "project")
    return Jobs(machine=machine)


def code(jobs: Jobs, **files: str) -> str:
    for name, text in files.items():
        jobs.machine.write(f"src/{name}", text)
    return "src"


def test_job_runs_its_code_and_leads_back_to_all_it_was_made_of(jobs: Jobs) -> None:
    directory = code(jobs, data="of the code")
    done = jobs.run(
        "pwd; cat data; echo; echo $DEPTH; echo x > outputs/model", "--code", directory, "-e", "DEPTH=3"
    )
    assert (done.status, done.stdout) == (0, "/workspace\nof the code\n3\n"), done.stderr
    found = jobs.record()
    version = f"{found['environment']}:{found['version']}"
    assert f"run {found['name']} of {version} on local\n" in done.stderr
    assert f"{found['name']} ended with the exit status 0\n" in done.stderr
    outputs = jobs.state / found["name"]
    assert f"outputs: {outputs}\n" in done.stderr
    assert (outputs / "model").read_text() == "x\n"
    assert (found["status"], found["exit_status"], found["target"]) == ("succeeded", 0, "local")
    assert (found["variables"], found["watched"]) == (["DEPTH"], None)
    assert found["command"][:2] == ["sh", "-c"]
    assert found["image"] != found["base_image"]
    shown = jobs.machine.run("env", "show", found["base_image"], "--json")
    assert found["definition"] in shown.stdout, shown.stderr
    # It has a name of its own, so that its run has registered it.
    assert found["version"] == "1"
    history = jobs.machine.run("env", "history", "--json").stdout
    assert found["name"] in history
    assert jobs.log(found["name"]) == done.stdout
    assert sorted(path.name for path in jobs.state.iterdir()) == [found["name"], f"{found['name']}.log"]
    assert not jobs.machine.leftovers()


def test_registered_version_is_what_a_run_is_of(jobs: Jobs) -> None:
    registered = jobs.machine.run("env", "register", ".")
    assert registered.status == 0, registered.stderr
    assert jobs.run("exit 0").status == 0
    found = jobs.record()
    assert (found["environment"], found["version"]) == ("demo", "1")
    assert found["code"] is None
    assert found["image"] == found["base_image"]


@pytest.mark.parametrize(
    ("script", "status", "state"),
    [
        ("exit 7", 7, "failed"),
        ("kill -9 $$", 137, "failed"),
        ("kill -15 $$", 143, "failed"),
        ("exec nosuch", 127, "failed"),
    ],
)
def test_status_of_a_job_is_passed_on_and_recorded(jobs: Jobs, script: str, status: int, state: str) -> None:
    done = jobs.run(f"echo kept > outputs/x; {script}")
    assert done.status == status, done.stderr
    found = jobs.record()
    assert (found["status"], found["exit_status"]) == (state, status)
    assert (jobs.state / found["name"] / "x").read_text() == "kept\n"
    assert f"{state} ({status})" in jobs.machine.run("runs", "list").stdout


def test_dry_run_starts_and_records_nothing(jobs: Jobs) -> None:
    done = jobs.run("echo no", "--dry-run")
    assert done.status == 0, done.stderr
    assert done.stdout.startswith("name: demo-")
    assert json.loads(jobs.machine.run("runs", "list", "--json").stdout) == {"runs": []}
    assert not jobs.state.exists()


def test_nothing_is_recorded_where_that_is_asked(jobs: Jobs) -> None:
    done = jobs.run("echo hello; echo x > outputs/x", "--no-record", "--outputs", "out")
    assert (done.status, done.stdout) == (0, "hello\n"), done.stderr
    assert (jobs.machine.project / "out" / "x").read_text() == "x\n"
    assert "runs show" not in done.stderr
    assert json.loads(jobs.machine.run("runs", "list", "--json").stdout) == {"runs": []}


@pytest.mark.parametrize(
    ("number", "status", "whole_group"),
    [(signal.SIGINT, 130, False), (signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)],
)
def test_signal_stops_the_job_which_may_still_speak_and_write(
    jobs: Jobs, number: signal.Signals, status: int, whole_group: bool
) -> None:
    process = jobs.started(
        f"trap 'echo last words; echo saved > outputs/checkpoint; exit 3' TERM; echo ready; {FOREVER}"
    )
    (os.killpg if whole_group else os.kill)(process.pid, number)
    done = ended(process)
    assert done.status == status, done.stderr
    assert done.stdout == "last words\n"
    assert "Traceback" not in done.stderr
    found = jobs.record()
    assert (found["status"], found["exit_status"]) == ("stopped", None)
    assert (jobs.state / found["name"] / "checkpoint").read_text() == "saved\n"
    assert jobs.log(found["name"]) == "ready\nlast words\n"
    assert not jobs.machine.leftovers()


def test_second_interrupt_does_not_wait_for_the_job(jobs: Jobs) -> None:
    process = jobs.started(f"trap '' TERM; echo ready; {FOREVER}")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.status == 130
    assert time.monotonic() - began < 5
    assert jobs.record()["watched"] is False


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)


def processes(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if word.encode() in line:
            found.append(path.parent.name)
    return found


def test_killed_envbuild_takes_its_job_along_and_the_run_is_told_as_unfinished(jobs: Jobs) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    process = jobs.started(f"echo half > outputs/{marker}; echo ready; {FOREVER}")
    assert jobs.record()["watched"] is True
    process.kill()
    process.communicate()
    until(lambda: not processes(marker))
    found = jobs.record()
    assert (found["status"], found["watched"]) == ("running", False)
    assert " unfinished " in jobs.machine.run("runs", "list").stdout
    shown = jobs.machine.run("runs", "show", found["name"]).stdout
    assert "running when it was last seen: envbuild ended without it" in shown
    assert (jobs.state / f"{found['name']}.outputs" / marker).read_text() == "half\n"


def test_megabytes_without_a_newline_and_any_bytes_come_through(jobs: Jobs) -> None:
    blob = os.urandom(1 << 20)
    (jobs.machine.project / "src").mkdir()
    (jobs.machine.project / "src" / "blob").write_bytes(blob)
    process = subprocess.run(
        [sys.executable, "-m", "envbuild", *jobs.arguments("cat blob blob blob", "--code", "src")],
        env=jobs.machine.environment(),
        cwd=jobs.machine.project,
        capture_output=True,
        timeout=LIMIT,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == blob * 3
    (log,) = jobs.state.glob("*.log")
    assert log.read_bytes() == blob * 3


def test_both_streams_come_in_their_order(jobs: Jobs) -> None:
    done = jobs.run("echo 1; echo 2 >&2; echo 3; echo 4 >&2")
    assert done.stdout == "1\n2\n3\n4\n"


def test_closed_pipe_ends_no_job(jobs: Jobs) -> None:
    process = jobs.started("echo ready; for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; exit 5")
    with process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(LIMIT) == 5, said
    assert "nobody takes what the job prints (Broken pipe); it goes on, and its log is " in said
    found = jobs.record()
    assert (found["status"], found["exit_status"]) == ("failed", 5)
    assert jobs.log(found["name"]) == "ready\n1\n2\n3\n4\n5\n6\n"


def test_running_job_is_followed_from_elsewhere_until_it_ends(jobs: Jobs) -> None:
    process = jobs.started("echo ready; while [ ! -e outputs/go ]; do sleep 0.05; done; echo more")
    name = jobs.record()["name"]
    assert jobs.log(name) == "ready\n"
    following = jobs.machine.start("runs", "logs", "-f", name)
    assert following.stdout is not None
    assert following.stdout.readline() == "ready\n"
    assert following.poll() is None
    (jobs.state / f"{name}.outputs" / "go").touch()
    assert ended(process).status == 0
    done = ended(following)
    assert (done.status, done.stdout) == (0, "more\n"), done.stderr


def test_workspace_that_is_away_at_the_end_changes_no_status(jobs: Jobs) -> None:
    process = jobs.started("echo ready; while [ ! -e outputs/go ]; do sleep 0.05; done; exit 4")
    name = jobs.record()["name"]
    database = jobs.state.parent / "workspace.db"
    for path in database.parent.glob("workspace.db*"):
        path.unlink()
    database.write_bytes(b"no database" * 1000)
    (jobs.state / f"{name}.outputs" / "go").touch()
    done = ended(process)
    assert done.status == 4, done.stderr
    assert f"the end of the run {name} (failed) isn't recorded" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk_ends_no_job(jobs: Jobs) -> None:
    code(jobs, blob="x" * (1 << 20))
    with tmpfs(jobs.machine.home / ".local", "3M"):
        done = jobs.run("for i in 1 2 3 4 5 6 7 8; do cat blob; done; exit 6", "--code", "src")
    assert done.status == 6, done.stderr
    assert len(done.stdout) == 8 << 20
    assert done.stderr.count("is not complete: No space left on device") == 1


def test_only_files_and_directories_come_out(jobs: Jobs, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    script = (
        "import os\n"
        f"os.symlink({str(secret)!r}, 'outputs/link'); os.symlink('/', 'outputs/root')\n"
        "os.mkfifo('outputs/pipe'); os.mkdir('outputs/d'); os.mkdir('outputs/d/closed', 0)\n"
        "open('outputs/d/file', 'w').write('1'); os.chmod('outputs/d/file', 0o6777)\n"
    )
    # The image has no Python: the same is made from outside, where the job's directory is.
    process = jobs.started(
        "echo ready; while [ ! -e outputs/go ]; do sleep 0.05; done; rm outputs/go", "--outputs", "out"
    )
    place = jobs.state / f"{jobs.record()['name']}.outputs"
    subprocess.run([sys.executable, "-c", script.replace("'outputs/", f"'{place}/")], check=True)
    (place / "go").touch()
    assert ended(process).status == 0
    out = jobs.machine.project / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        ".envbuild-run.json",
        "d",
        "d/closed",
        "d/file",
    ]
    assert stat.S_IMODE((out / "d" / "file").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "d" / "closed").stat().st_mode) == 0o755
    assert secret.read_text() == "mine"


def test_place_for_outputs_is_looked_at_before_the_job_starts(jobs: Jobs) -> None:
    jobs.machine.write("full/x", "x")
    jobs.machine.write("file", "x")
    full, file = jobs.machine.project / "full", jobs.machine.project / "file"
    jobs.run("echo started", "--outputs", "full").failed(2, f"{full} is not empty")
    jobs.machine.run(*jobs.arguments("echo started", "--outputs", "file/below")).failed(
        2, f"outputs can't be written to {file}/below: Not a directory"
    )
    assert json.loads(jobs.machine.run("runs", "list", "--json").stdout) == {"runs": []}


def test_two_jobs_at_once_are_two_runs(jobs: Jobs) -> None:
    processes = [jobs.machine.start(*jobs.arguments(f"echo {each} > outputs/x")) for each in (1, 2)]
    assert [ended(process).status for process in processes] == [0, 0]
    found = json.loads(jobs.machine.run("runs", "list", "--json").stdout)["runs"]
    texts = {(jobs.state / each["name"] / "x").read_text() for each in found}
    assert texts == {"1\n", "2\n"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--target", "lokal"), 8, "there is no target 'lokal'"),
        (("--target", "local", "--mount", "/tmp:/x"), 2, "--mount"),
        (("--target", "local", "--workdir", "."), 2, "--workdir"),
        (("--target", "local", "--backend", "userns"), 2, "--backend"),
        (("--target", "local", "--platform", "linux/arm64"), 2, "local runs linux/amd64, not linux/arm64"),
        (("--code", "."), 2, "--code, --outputs and --dry-run are for targets"),
        (("--dry-run",), 2, "--code, --outputs and --dry-run are for targets"),
    ],
)
def test_what_does_not_fit_a_job_is_refused(
    jobs: Jobs, arguments: tuple[str, ...], status: int, message: str
) -> None:
    jobs.machine.run("run", ".", *arguments, "--", "sh").failed(status, message)


def test_unknown_target_is_told_with_the_nearest(jobs: Jobs) -> None:
    jobs.machine.run("target", "add", "cluster", "local", "backend=userns")
    jobs.machine.run("run", ".", "--target", "clutser", "--", "sh").failed(8, "did you mean cluster?")


def test_image_that_does_not_fit_is_not_started(jobs: Jobs) -> None:
    added = jobs.machine.run("target", "add", "small", "local", "backend=userns", "layers=1", "size=10k")
    assert added.status == 0, added.stderr
    done = jobs.machine.run("run", ".", "--target", "small", "--", "sh", "-c", "echo no")
    done.failed(
        9, "this can't run on small:", "the image has 2 layers, small takes at most 1", "takes at most 10000"
    )
    assert json.loads(jobs.machine.run("runs", "list", "--json").stdout) == {"runs": []}


def test_records_on_a_server_leave_logs_with_the_user(jobs: Jobs) -> None:
    reason = postgres.absent()
    if reason is not None:
        pytest.skip(reason)
    with postgres.server() as server:
        jobs.machine.env["ENVBUILD_WORKSPACE"] = server.database()
        done = jobs.run("echo over there")
        assert done.status == 0, done.stderr
        found = jobs.record()
        assert jobs.log(found["name"]) == "over there\n"
        assert (jobs.state / f"{found['name']}.log").is_file()


def test_code_that_can_not_be_read_is_told(jobs: Jobs) -> None:
    directory = jobs.machine.project / "src"
    directory.mkdir()
    os.mkfifo(directory / "pipe")
    done = jobs.run("echo no", "--code", "src")
    done.failed(3, "pipe")
