"""Jobs on a real cluster of Slurm on this machine: controller, node and keys made for these tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import RunError, UsageError
from envbuild.oci.image import Image
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import Job, TargetRecord
from envbuild.targets.kinds import TargetContext
from envbuild.targets.slurm.job import SlurmExecution
from envbuild.targets.slurm.target import KIND, SlurmTarget
from tests.fakes.image import put_image, shell_image
from tests.fakes.progress import Notes
from tests.fakes.slurm_cluster import SlurmCluster, missing
from tests.integration.driver import LIMIT, Machine, a_world, demo, ended

_MISSING = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster() as made:
        yield made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def image(store: Store) -> Image:
    return shell_image(store)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


Open = Callable[..., SlurmTarget]


@pytest.fixture
def opened(cluster: SlurmCluster, store: Store, shared: Path, tmp_path: Path) -> Open:
    def make(
        progress: Silent | None = None, environ: dict[str, str] | None = None, **options: str
    ) -> SlurmTarget:
        given = {"directory": str(shared), **options}
        return KIND.open(
            TargetRecord(name="cluster", kind="slurm", options=tuple(sorted(given.items()))),
            TargetContext(
                store=store,
                progress=progress or Silent(),
                state=tmp_path / "state",
                environ={**os.environ, **cluster.env, **(environ or {})},
            ),
        )

    return make


def a_job(image: Image, script: str, *, name: str = "run-1", env: Sequence[tuple[str, str]] = ()) -> Job:
    return Job(
        name=name,
        reference=f"demo:1@{image.digest}",
        image=image,
        command=("sh", "-c", script),
        env=tuple(env),
    )


def to_the_end(execution: SlurmExecution) -> tuple[int, bytes]:
    """The exit status, and what was printed."""
    try:
        said = b"".join(execution.logs())
        return execution.wait(), said
    except BaseException:
        execution.stop()
        raise


def number(execution: SlurmExecution) -> str:
    return execution.identity.removeprefix("job ")


def printing(execution: SlurmExecution, words: bytes) -> Iterator[bytes]:
    """The log from behind the piece on that ``words`` came with."""
    logs, said = execution.logs(), b""
    for piece in logs:
        said += piece
        if words in said:
            return logs
    raise AssertionError(said)


def until(done: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


# --- a job --------------------------------------------------------------------------------------------


def test_a_job_runs_in_its_image_and_its_outputs_come_back(
    opened: Open, image: Image, store: Store, shared: Path, tmp_path: Path
) -> None:
    image = put_image(
        store,
        image.layers,
        {"Env": ["PATH=/usr/bin", "FROM_IMAGE=yes"], "User": "1000", "WorkingDir": "/home"},
    )
    script = (
        "pwd; cat /etc/image; id -u; echo $FROM_IMAGE $MINE ${SLURM_JOB_ID:+numbered} ${SLURM_CONF:-clean};"
        f"[ ! -e {shared} ] && touch /tmp/fresh && echo alone; echo result > /workspace/outputs/model"
    )
    target = opened()
    execution = target.submit(a_job(image, script, env=[("MINE", "a 'b' $c\nd")]))
    status, said = to_the_end(execution)
    assert (status, said.decode().splitlines()) == (
        0,
        ["/home", "made by a test", "1000", "yes a 'b' $c d numbered clean", "alone"],
    )
    place = tmp_path / "place"
    place.mkdir()
    assert execution.bring_outputs(place)
    assert (place / "model").read_text() == "result\n"
    execution.close()
    assert list((shared / "runs").iterdir()) == []
    assert [path.name for path in (shared / "images").iterdir()] == [image.digest[7:]]
    assert (shared / "images" / image.digest[7:] / "rootfs/etc/image").read_text() == "made by a test\n"


def test_the_exit_status_is_the_command_s(opened: Open, image: Image) -> None:
    scripts = {"exit 7": 7, "kill -9 $$": 137, "nosuch": 127, "exit 255": 255}
    target = opened()
    started = [target.submit(a_job(image, script, name=f"run-{n}")) for n, script in enumerate(scripts)]
    assert [to_the_end(each)[0] for each in started] == list(scripts.values())
    for each in started:
        each.close()


def test_a_job_that_writes_nothing_has_no_outputs(opened: Open, image: Image, tmp_path: Path) -> None:
    execution = opened().submit(a_job(image, "exit 0"))
    assert to_the_end(execution) == (0, b"")
    place = tmp_path / "place"
    place.mkdir()
    assert not execution.bring_outputs(place)
    execution.close()


def test_an_image_is_unpacked_once(opened: Open, image: Image, shared: Path) -> None:
    target = opened()
    assert target.bytes_to_pull(image) == sum(layer.size for layer in image.layers)
    to_the_end(target.submit(a_job(image, "exit 0")))
    assert target.bytes_to_pull(image) == 0
    kept = shared / "images" / image.digest[7:]
    used, inode = (kept / ".used").stat().st_mtime_ns, (kept / "rootfs").stat().st_ino
    os.utime(kept / ".used", ns=(0, 0))
    to_the_end(target.submit(a_job(image, "exit 0", name="run-2")))
    assert (kept / "rootfs").stat().st_ino == inode
    assert (kept / ".used").stat().st_mtime_ns > used


def test_two_jobs_at_once_share_an_image_unpacked_by_one_of_them(
    opened: Open, image: Image, shared: Path
) -> None:
    ends = {}

    def work(name: str) -> None:
        execution = opened().submit(a_job(image, f"echo {name}", name=name))
        ends[name] = to_the_end(execution)
        execution.close()

    threads = [threading.Thread(target=work, args=(f"run-{each}",)) for each in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert ends == {"run-a": (0, b"run-a\n"), "run-b": (0, b"run-b\n")}
    assert [path.name for path in (shared / "images").iterdir()] == [image.digest[7:]]


def test_nobody_else_can_read_what_a_job_was_given(opened: Open, image: Image, shared: Path) -> None:
    execution = opened().submit(a_job(image, "echo go; sleep 60", env=[("KEY", "hush-hush")]))
    try:
        printing(execution, b"go\n")
        run = shared / "runs" / "run-1"
        assert (run.stat().st_mode & 0o777, (run / "job.sbatch").stat().st_mode & 0o777) == (0o700, 0o700)
        assert "hush-hush" in (run / "job.sbatch").read_text()
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert not [line for line in lines if b"hush-hush" in line]
    finally:
        execution.stop()
        execution.close()


# --- how jobs end ---------------------------------------------------------------------------------------


def test_a_stopped_job_has_ended_with_all_its_processes(
    opened: Open, image: Image, cluster: SlurmCluster, shared: Path
) -> None:
    execution = opened().submit(a_job(image, "echo go; sleep 987; echo never"))
    printing(execution, b"go\n")
    execution.stop()
    assert cluster.job("%i") == [""]
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and b"\0987\0" in path.read_bytes()
    ]
    execution.close()
    assert list((shared / "runs").iterdir()) == []


def test_a_job_cancelled_by_somebody_says_so(opened: Open, image: Image, cluster: SlurmCluster) -> None:
    execution = opened().submit(a_job(image, "echo go; sleep 60"))
    rest = printing(execution, b"go\n")
    cluster.command("scancel", number(execution))
    said = b"".join(rest).decode().splitlines()
    assert said[-1] == f"envbuild: {execution.identity} was cancelled (CANCELLED)"
    assert execution.wait() == 143
    execution.close()


def test_a_job_cancelled_while_it_waits_says_why_it_waited_once(
    opened: Open, image: Image, cluster: SlurmCluster, progress: Notes
) -> None:
    holder = opened(cpus="4").submit(a_job(image, "echo go; sleep 60"))
    printing(holder, b"go\n")
    execution = opened(progress, cpus="4").submit(a_job(image, "echo never", name="run-2"))
    ends: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: ends.append(to_the_end(execution)))
    thread.start()
    until(lambda: progress.notes)
    cluster.command("scancel", number(execution))
    thread.join(LIMIT)
    holder.stop()
    assert ends == [(143, f"envbuild: {execution.identity} was cancelled (CANCELLED)\n".encode())]
    assert len(progress.notes) == len(set(progress.notes))
    assert re.fullmatch(rf"{execution.identity} waits .*\((Resources|Priority)\)", progress.notes[0])
    for each in (holder, execution):
        each.close()


def test_a_job_over_its_time_ends_with_124(opened: Open, image: Image, cluster: SlurmCluster) -> None:
    execution = opened(time="1").submit(a_job(image, "echo go; sleep 300"))
    rest = printing(execution, b"go\n")
    # Limits are whole minutes; their end can be brought nearer.
    cluster.command("scontrol", "update", f"JobId={number(execution)}", "EndTime=now+1")
    said = b"".join(rest).decode().splitlines()
    assert said[-1] == f"envbuild: {execution.identity} took longer than its time limit (TIMEOUT)"
    assert execution.wait() == 124
    execution.close()


def test_a_job_outlives_the_controller(
    opened: Open, image: Image, cluster: SlurmCluster, progress: Notes
) -> None:
    execution = opened(progress).submit(
        a_job(image, "echo go; while [ ! -e /workspace/outputs/end ]; do sleep 0.1; done; exit 3")
    )
    rest = printing(execution, b"go\n")
    cluster.stop_controller()
    try:
        ends: list[bytes] = []
        thread = threading.Thread(target=lambda: ends.extend(rest))
        thread.start()
        until(lambda: progress.notes)
    finally:
        cluster.start_controller()
    assert progress.notes[0].startswith(f"Slurm doesn't answer; {execution.identity} goes on: ")
    (execution_outputs(opened, "run-1") / "end").touch()
    thread.join(LIMIT)
    assert (ends, execution.wait()) == ([], 3)
    execution.close()


def execution_outputs(opened: Open, name: str) -> Path:
    return Path(opened()._files.run(name)) / "outputs"


def test_a_job_that_slurm_has_forgotten_leaves_its_own_status(
    opened: Open, image: Image, cluster: SlurmCluster, shared: Path
) -> None:
    execution = opened().submit(a_job(image, "echo all; exit 5"))
    until(lambda: cluster.job("%i") == [""])
    # As if it had ended long ago: no number of a job here is as high.
    execution._number = "900000"
    assert to_the_end(execution) == (5, b"all\n")
    (shared / "runs/run-1/status").unlink()
    other = SlurmExecution(execution._files, "run-1", "900000", Silent())
    with pytest.raises(RunError, match="knows nothing of job 900000 any more"):
        other.wait()
    other.close()
    assert (shared / "runs/run-1/log").read_bytes() == b"all\n"


# --- what is in the way ---------------------------------------------------------------------------------


def test_nothing_is_in_the_way_of_an_image_that_fits(opened: Open, image: Image) -> None:
    assert opened().findings(image) == []
    assert opened(partition="main").findings(image) == []


def test_findings_say_what_is_wrong_with_the_cluster(
    opened: Open, image: Image, store: Store, tmp_path: Path, cluster: SlurmCluster
) -> None:
    cluster.settle()
    (finding,) = opened(partition="gpu").findings(image)
    assert (finding.text, finding.hint, finding.error) == (
        "there is no partition gpu",
        "there are: closed, main",
        True,
    )
    (finding,) = opened(partition="closed").findings(image)
    assert (finding.text, finding.error) == ("the partition closed is down", False)
    other = LINUX_ARM64 if Platform.host() == LINUX_AMD64 else LINUX_AMD64
    foreign = put_image(store, image.layers, platform=other)
    (finding,) = opened(partition="main").findings(foreign)
    assert (
        finding.text == f"the nodes of partition main are {Platform.host().machine}, the image is for {other}"
    )
    (tmp_path / "file").touch()
    (finding,) = opened(directory=str(tmp_path / "file")).findings(image)
    assert finding.text.startswith(f"{tmp_path}/file of ")
    assert finding.text.endswith(" can't be written to")


def test_findings_say_where_slurm_isn_t(opened: Open, image: Image, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "sh").symlink_to("/bin/sh")
    (finding,) = opened(environ={"PATH": str(bare)}).findings(image)
    assert finding.text.endswith(" has no command sbatch, scontrol, scancel, sinfo of Slurm")


def test_a_refused_job_leaves_nothing(opened: Open, image: Image, shared: Path) -> None:
    with pytest.raises(RunError, match=r"Slurm refuses the job: .*[Pp]artition"):
        opened(partition="gpu").submit(a_job(image, "exit 0"))
    assert list((shared / "runs").iterdir()) == []


# --- over ssh -------------------------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path: Path) -> dict[str, str]:
    """A command ``ssh`` that goes nowhere: as the real one, it joins its words for a shell."""
    directory = tmp_path / "ssh"
    directory.mkdir()
    command = directory / "ssh"
    command.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n'
        '[ "$2" = me@login ] || { echo "ssh: no such host" >&2; exit 255; }\n'
        'shift 2; exec sh -c "$*"\n'
    )
    command.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}:/usr/sbin:/sbin"}


def test_a_job_over_ssh_is_as_one_from_here(
    opened: Open, image: Image, shared: Path, tmp_path: Path, ssh: dict[str, str]
) -> None:
    target = opened(environ=ssh, host="me@login")
    assert target.findings(image) == []
    script = "cat /etc/image; echo $MINE; echo result > /workspace/outputs/model; exit 4"
    execution = target.submit(a_job(image, script, env=[("MINE", "it's")]))
    assert to_the_end(execution) == (4, b"made by a test\nit's\n")
    place = tmp_path / "place"
    place.mkdir()
    assert execution.bring_outputs(place)
    assert (place / "model").read_text() == "result\n"
    execution.close()
    assert list((shared / "runs").iterdir()) == []
    assert [path.name for path in (shared / "images").iterdir()] == [image.digest[7:]]
    assert target.bytes_to_pull(image) == 0
    target.submit(replace(a_job(image, "exit 0"), name="run-2")).stop()


def test_a_login_node_that_can_t_be_reached_is_a_finding(
    opened: Open, image: Image, ssh: dict[str, str]
) -> None:
    (finding,) = opened(environ=ssh, host="nowhere").findings(image)
    assert (finding.text, finding.hint) == (
        "no way to nowhere: ssh: no such host",
        "try it by hand: ssh nowhere true",
    )


# --- the command line -----------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, cluster: SlurmCluster, shared: Path) -> Machine:
    """A user's machine with a target named cluster, a spec, and code that brings its own shell."""
    made = a_world(tmp_path / "world").machine
    made.env.update(cluster.env)
    made.write("spec.yaml", demo())
    code = made.project / "src"
    code.mkdir()
    for program in ("sh", "sleep"):
        path = Path(shutil.which(program) or program).resolve()
        listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            shutil.copy(library, code / Path(library).name)
        shutil.copy(path, code / program)
    (loader,) = code.glob("ld-linux*")
    loader.rename(code / "ld.so")
    assert made.run("target", "add", "cluster", "slurm", f"directory={shared}").status == 0
    return made


def train(machine: Machine, script: str) -> tuple[str, ...]:
    """The words that run ``script`` as a job's code."""
    start = "/workspace/ld.so --library-path /workspace /workspace"
    machine.write("src/train.sh", f"sleep() {{ {start}/sleep $1; }}\n{script}\n")
    options = ("spec.yaml", "--target", "cluster", "--code", "src")
    return ("run", *options, "--", *f"{start}/sh train.sh".split())


def runs(machine: Machine) -> list[dict[str, object]]:
    listed = machine.run("runs", "list", "--json")
    assert listed.status == 0, listed.stderr
    found = json.loads(listed.stdout)["runs"]
    assert isinstance(found, list)
    return found


def test_a_job_from_the_command_line(machine: Machine, shared: Path) -> None:
    done = machine.run(*train(machine, "echo trained; echo model > outputs/model; exit 0"))
    assert (done.status, done.stdout) == (0, "trained\n"), done.stderr
    (outputs,) = re.findall(r"^outputs: (.*)$", done.stderr, re.MULTILINE)
    assert (Path(outputs) / "model").read_text() == "model\n"
    (run,) = runs(machine)
    assert (run["status"], run["exit_status"], run["target"]) == ("succeeded", 0, "cluster")
    assert str(run["identity"]).startswith("job ")
    failed = machine.run(*train(machine, "echo bad >&2; exit 6"))
    assert (failed.status, failed.stdout) == (6, "bad\n")
    assert [run["status"] for run in runs(machine)].count("failed") == 1
    assert list((shared / "runs").iterdir()) == []


def test_ctrl_c_cancels_the_job(machine: Machine, cluster: SlurmCluster, shared: Path) -> None:
    process = machine.start(*train(machine, "echo go; sleep 600"))
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.status == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.job("%i") == [""]
    (run,) = runs(machine)
    assert run["status"] == "stopped"
    assert list((shared / "runs").iterdir()) == []


def test_a_partition_that_isn_t_there_keeps_a_job_from_starting(machine: Machine, shared: Path) -> None:
    words = ("target", "add", "cluster", "slurm", f"directory={shared}", "partition=gpu", "--replace")
    assert machine.run(*words).status == 0
    machine.run(*train(machine, "exit 0")).failed(9, "there is no partition gpu", "there are: closed, main")
    assert runs(machine) == []
    assert not (shared / "images").exists()


def test_a_dry_run_prints_the_script_and_starts_nothing(
    machine: Machine, cluster: SlurmCluster, shared: Path
) -> None:
    words = train(machine, "exit 0")
    done = machine.run("run", "--dry-run", *words[1:])
    assert done.status == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=demo-")
    assert cluster.job("%i") == [""]
    assert not (shared / "images").exists()


def test_options_that_don_t_go_together_are_refused(opened: Open) -> None:
    with pytest.raises(UsageError, match="no GPUs"):
        opened(gpus="1")
