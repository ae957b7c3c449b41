"""Options of a Slurm target, and how a job is watched; the rest is tested on a real cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import RunError, UsageError
from envbuild.platforms import LINUX_ARM64
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import Job, Service, TargetRecord
from envbuild.targets.kinds import TargetContext, kind
from envbuild.targets.slurm.command import CommandResult, SlurmLogin
from envbuild.targets.slurm.files import SharedDirectory
from envbuild.targets.slurm.job import POLLING, SlurmExecution
from envbuild.targets.slurm.target import KIND, SlurmTarget
from tests.fakes.image import Item, put_image, put_layer
from tests.fakes.progress import Notes


def opened(tmp_path: Path, **options: str) -> SlurmTarget:
    return KIND.open(
        TargetRecord(name="hpc", kind="slurm", options=tuple(sorted(options.items()))),
        TargetContext(
            store=Store(tmp_path / "store"), progress=Silent(), state=tmp_path, environ={"PATH": "/none"}
        ),
    )


def a_job(store: Store) -> Job:
    image = put_image(
        store,
        [put_layer(store, [Item(name="f")])],
        {"Entrypoint": ["/entry"], "Env": ["PATH=/opt/bin"], "WorkingDir": "/workspace", "User": "7:8"},
    )
    return Job(
        name="demo-1",
        reference=f"registry.example.org/team/demo:1@{image.digest}",
        image=image,
        command=("train",),
        env=(("A", "1"),),
    )


def the_script(target: SlurmTarget, tmp_path: Path) -> str:
    (file,) = target.job_files(a_job(Store(tmp_path / "store")))
    assert (file.name, file.executable) == ("job.sbatch", True)
    return file.content


def test_resources_are_lines_of_the_script(tmp_path: Path) -> None:
    target = opened(
        tmp_path,
        directory="/shared/eb",
        runtime="apptainer",
        partition="a,b",
        account="team.1",
        qos="high",
        time="1-02:30:00",
        gpus="a100:2",
        cpus="8",
        memory="8GB",
        constraint="[rack1|rack2]&ib",
    )
    lines = [line for line in the_script(target, tmp_path).splitlines() if line.startswith("#SBATCH")]
    assert lines == [
        "#SBATCH --job-name=demo-1",
        "#SBATCH --chdir=/shared/eb/runs/demo-1",
        "#SBATCH --output=/shared/eb/runs/demo-1/log",
        "#SBATCH --export=NONE",
        "#SBATCH --no-requeue",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --partition=a,b",
        "#SBATCH --account=team.1",
        "#SBATCH --qos=high",
        "#SBATCH --time=1-02:30:00",
        "#SBATCH --gpus=a100:2",
        "#SBATCH --constraint=[rack1|rack2]&ib",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=7630M",
    ]
    assert " --nv " in the_script(target, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("directory", "relative"),
        ("directory", "/a b"),
        ("directory", "/a/../b"),
        ("directory", "/a$x"),
        ("directory", "/%j"),
        ("directory", "/a:b"),
        ("directory", "/a,b"),
        ("directory", "/"),
        ("runtime", "docker"),
        ("host", "-oProxyCommand=x"),
        ("host", "a b"),
        ("host", "a;b"),
        ("partition", "a b"),
        ("partition", "a #SBATCH"),
        ("partition", "-x"),
        ("account", "a'b"),
        ("qos", "a#b"),
        ("time", "1h"),
        ("time", "1:2:3:4"),
        ("gpus", "0"),
        ("gpus", "a100:2 --uid=0"),
        ("cpus", "0"),
        ("memory", "8 gigs"),
        ("constraint", "a b"),
        ("constraint", "a$(b)"),
        ("constraint", "-a"),
    ],
)
def test_a_value_that_could_be_more_than_a_value_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, **{"directory": "/shared", name: value})
    assert caught.value.message.startswith(f"target hpc:\n{name}={value}: must be ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"runtime": "rootfs"},
            "target hpc: images run from their root file systems need the option directory",
        ),
        ({"directory": "/s", "gpus": "1"}, "target hpc: in a plain user namespace there are no GPUs"),
        ({"directory": "/s", "runtime": "pyxis"}, "target hpc: Pyxis takes images from a registry"),
    ],
)
def test_options_that_don_t_go_together_are_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, **options)
    assert caught.value.message == message


def test_the_entry_point_is_part_of_the_command(tmp_path: Path) -> None:
    text = the_script(opened(tmp_path, directory="/shared"), tmp_path)
    assert '"command": ["/entry", "train"]' in text
    assert '"env": {"A": "1", "HOME": "/tmp", "PATH": "/opt/bin"}, "gid": 8,' in text


def test_files_can_be_written_without_options_and_nothing_more(tmp_path: Path) -> None:
    target = opened(tmp_path)
    job = a_job(Store(tmp_path / "store"))
    assert f"docker://registry.example.org/team/demo@{job.image.digest} " in the_script(target, tmp_path)
    for call in (lambda: target.submit(job), lambda: target.findings(job.image)):
        with pytest.raises(UsageError, match="jobs need the option directory"):
            call()


def test_slurm_serves_nothing(tmp_path: Path) -> None:
    job = a_job(Store(tmp_path / "store"))
    service = Service(
        name="s", reference="r", image=job.image, port=1, liveness="/", readiness="/", scoring="/score"
    )
    with pytest.raises(UsageError, match="serves nothing"):
        opened(tmp_path).service_files(service)


def test_images_that_nodes_pull_have_no_known_size_there(tmp_path: Path) -> None:
    target = opened(tmp_path, directory="/s", runtime="pyxis", registry="registry.example.org/team")
    assert target.bytes_to_pull(a_job(Store(tmp_path / "store")).image) is None
    assert target.registry == "registry.example.org/team"


def test_the_kind_is_known_and_limits_are_taken(tmp_path: Path) -> None:
    assert kind("slurm") is KIND
    assert opened(tmp_path, platform="linux/arm64").limits.platform == LINUX_ARM64


def test_an_image_is_in_the_shared_directory_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    shared = SharedDirectory(str(tmp_path / "shared"), SlurmLogin({"PATH": "/usr/bin:/bin"}, None))
    layer = put_layer(store, [Item(name="f", content=b"1")])
    bad = put_image(store, [layer, put_layer(store, [Item(name="../f")])])
    with pytest.raises(RunError, match="an entry of the image leaves it"):
        shared.unpack(bad, store, Silent())
    assert not shared.has_image(bad)
    assert list((tmp_path / "shared/images").iterdir()) == []
    old = tmp_path / "shared/images/.part-0"
    (old / "rootfs").mkdir(parents=True)
    os.utime(old, (0, 0))
    young = tmp_path / "shared/images/.part-1"
    young.mkdir()
    good = put_image(store, [layer])
    shared.unpack(good, store, Silent())
    assert shared.has_image(good)
    assert sorted(path.name for path in young.parent.iterdir()) == [".part-1", good.digest[7:]]
    assert (Path(shared.rootfs(good)) / "f").read_bytes() == b"1"


# --- a job, with a cluster that says what it is told to ---------------------------------------------------


class Scripted(SlurmLogin):
    """Answers of ``scontrol``, one after the other, the last for ever; every other command says nothing."""

    def __init__(self, *answers: CommandResult) -> None:
        super().__init__({}, None)
        self._answers = list(answers)
        self.asked: list[str] = []

    def run(self, script: str, *, data: bytes = b"", seconds: float = 1) -> CommandResult:
        self.asked.append(script)
        if "scontrol" not in script:
            return CommandResult(status=0, out=b"", error="")
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def said(state: str, reason: str = "None", code: str = "0:0") -> CommandResult:
    line = f"JobId=7 JobState={state} Reason={reason} Dependency=(null) ExitCode={code} RunTime=0"
    return CommandResult(status=0, out=line.encode(), error="")


AWAY = CommandResult(status=1, out=b"", error="slurm_load_jobs error: Unable to contact slurm controller\n")


def execution(login: SlurmLogin, notes: Notes, patience: float = 10) -> tuple[SlurmExecution, list[float]]:
    pauses: list[float] = []
    seconds = iter(range(10_000))

    def clock(counter: Iterator[int] = seconds) -> float:
        return float(next(counter))

    files = SharedDirectory("/shared", login)
    return (
        SlurmExecution(
            files,
            "demo-1",
            "7",
            notes,
            replace(POLLING, patience=patience, sleep=pauses.append, clock=clock),
        ),
        pauses,
    )


def test_a_reason_to_wait_is_told_once(progress: Notes) -> None:
    waits = [said("PENDING"), *[said("PENDING", "Priority")] * 3, said("PENDING", "Resources")]
    job, pauses = execution(Scripted(*waits, said("PENDING", "Priority"), said("COMPLETED")), progress)
    assert job.wait() == 0
    assert progress.notes == [
        "job 7 waits behind jobs of higher priority (Priority)",
        "job 7 waits for nodes to become free (Resources)",
    ]
    assert pauses == sorted(pauses)
    assert len(pauses) == 6


def test_a_controller_that_comes_back_is_told_of_once(progress: Notes) -> None:
    job, _ = execution(Scripted(said("RUNNING"), AWAY, AWAY, said("FAILED", code="5:0")), progress)
    assert job.wait() == 5
    assert progress.notes == [
        "Slurm doesn't answer; job 7 goes on: slurm_load_jobs error: Unable to contact slurm controller"
    ]


def test_a_controller_that_stays_away_loses_the_job_but_not_its_files() -> None:
    login = Scripted(said("RUNNING"), AWAY)
    job, _ = execution(login, Notes(), patience=5)
    with pytest.raises(RunError) as caught:
        list(job.logs())
    assert caught.value.message.startswith("Slurm hasn't answered for 5 s: slurm_load_jobs error")
    assert caught.value.hint == "job 7 may still run; its files are in /shared/runs/demo-1"
    job.close()
    assert not [each for each in login.asked if "rm -rf" in each]


def test_a_job_whose_node_failed_is_lost() -> None:
    job, _ = execution(Scripted(said("NODE_FAIL", "NodeDown", "1:0")), Notes())
    assert list(job.logs()) == [b"envbuild: job 7 is gone: its node failed (NODE_FAIL)\n"]
    with pytest.raises(RunError, match=r"job 7 is gone: its node failed \(NODE_FAIL\)"):
        job.wait()


def test_a_job_that_doesn_t_end_after_scancel_is_said_to_run() -> None:
    login = Scripted(said("COMPLETING"))
    job, _ = execution(login, Notes())
    with pytest.raises(RunError, match="job 7 hasn't ended 120 s after scancel"):
        job.stop()
    assert login.asked[0] == "scancel 7"
