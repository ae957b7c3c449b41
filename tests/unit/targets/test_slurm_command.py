"""What Slurm's commands answer, and how they are reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import RunError
from envbuild.targets.slurm.command import JobState, SlurmLogin, job_number, state_of

LINE = (
    "JobId=1 JobName=j UserId=root(0) GroupId=root(0) Priority=1 Nice=0 Account=(null) QOS=(null) "
    "JobState={} Reason={} Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={} RunTime=0"
)


@pytest.mark.parametrize(
    ("name", "code", "status", "words"),
    [
        ("COMPLETED", "0:0", 0, None),
        ("FAILED", "3:0", 3, None),
        ("FAILED", "0:9", 137, None),
        ("FAILED", "0:0", 1, None),
        ("CANCELLED", "0:15", 143, "was cancelled"),
        ("CANCELLED", "0:0", 143, "was cancelled"),
        ("PREEMPTED", "0:0", 143, "made way for another job"),
        ("TIMEOUT", "0:15", 124, "took longer than its time limit"),
        ("DEADLINE", "0:0", 124, "missed its deadline"),
        ("OUT_OF_MEMORY", "0:125", 137, "took more memory than it was given"),
    ],
)
def test_an_end_has_a_status_and_words(name: str, code: str, status: int, words: str | None) -> None:
    state = state_of(LINE.format(name, "None", code))
    assert state is not None
    assert (state.ended, state.lost, state.status, state.words) == (True, False, status, words)
    assert state_of(f"{name}|{code}\n") == JobState(
        name=name, exit_status=state.exit_status, signal=state.signal
    )


@pytest.mark.parametrize("name", ["NODE_FAIL", "BOOT_FAIL", "REVOKED"])
def test_a_job_whose_node_is_gone_is_lost(name: str) -> None:
    state = state_of(LINE.format(name, "NodeDown", "1:0"))
    assert state is not None
    assert (state.ended, state.lost) == (True, True)


@pytest.mark.parametrize("name", ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"])
def test_a_job_under_way_hasn_t_ended(name: str) -> None:
    state = state_of(LINE.format(name, "Resources", "0:0"))
    assert state == JobState(name=name, reason="Resources")
    assert not state.ended


def test_who_cancelled_a_job_is_no_part_of_its_state() -> None:
    state = state_of("CANCELLED by 1000|0:15\n")
    assert state == JobState(name="CANCELLED", signal=15)


@pytest.mark.parametrize("text", ["", "\n", "Slurm accounting storage is disabled", "JobState=", "x|1:0"])
def test_what_is_no_state_is_none(text: str) -> None:
    assert state_of(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("17\n", "17"),
        ("17;cluster\n", "17"),
        ("welcome\n17\n", "17"),
        ("", None),
        ("17x", None),
        ("17 && rm", None),
        ("-1", None),
    ],
)
def test_a_job_s_number_is_a_number(text: str, found: str | None) -> None:
    assert job_number(text) == found


def test_variables_of_sbatch_don_t_change_a_job() -> None:
    said = SlurmLogin({"PATH": "/usr/bin:/bin", "SBATCH_PARTITION": "x", "SLURM_CONF": "y"}, None).run("env")
    names = {line.split("=")[0] for line in said.out.decode().splitlines()}
    assert "SLURM_CONF" in names
    assert "SBATCH_PARTITION" not in names


def test_the_last_line_is_the_complaint() -> None:
    said = SlurmLogin({"PATH": "/usr/bin:/bin"}, None).run(
        "echo first >&2; echo 'sbatch: error: bad' >&2; exit 3"
    )
    assert (said.status, said.complaint) == (3, "sbatch: error: bad")
    assert SlurmLogin({"PATH": "/usr/bin:/bin"}, None).run("exit 3").complaint == "exit status 3"


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(RunError, match=r"doesn't answer within 0 s"):
        SlurmLogin({"PATH": "/usr/bin:/bin"}, None).run("exec sleep 60", seconds=0.2)


def test_ssh_gets_one_word_that_its_shell_takes_apart() -> None:
    words = SlurmLogin({}, "me@login").words("echo 'a b' && exit 1")
    assert words == [
        *("ssh", "-T", "-o", "BatchMode=yes", "--", "me@login"),
        "sh -c 'echo '\"'\"'a b'\"'\"' && exit 1'",
    ]


def test_without_ssh_there_is_no_way(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="can't start ssh: No such file or directory"):
        SlurmLogin({"PATH": str(tmp_path)}, "login").run("true")
