"""The script for sbatch: the same for the same job, and values in it stay values."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import UsageError
from envbuild.targets.slurm.script import JobStart, script

DIGEST = f"sha256:{'a' * 64}"
HOSTILE = "a'b\"$(touch hacked)`touch hacked`\n#SBATCH --uid=0\nENVBUILD_REQUEST\n\\"

START = JobStart(
    name="demo-1",
    directory="/shared/runs/demo-1",
    rootfs="/shared/images/aa/rootfs",
    reference=f"registry.example.org:5000/team/demo:1-aa@{DIGEST}",
    command=("python", "train.py", "--name", "it's"),
    env=(("B", "2"), ("A", "a b")),
    image_env=(("PATH", "/opt/bin"), ("HOME", "/tmp"), ("odd.name", "1")),
    workdir="/workspace",
    user=(1000, 1001),
)


def test_a_rootfs_is_started_by_the_launcher() -> None:
    assert (
        script(START, "rootfs", ("--partition=main", "--mem=7630M"), gpus=False)
        == """\
#!/bin/bash
#SBATCH --job-name=demo-1
#SBATCH --chdir=/shared/runs/demo-1
#SBATCH --output=/shared/runs/demo-1/log
#SBATCH --export=NONE
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition=main
#SBATCH --mem=7630M

run=/shared/runs/demo-1
trap : TERM INT
for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 ''; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2> /dev/null && break
done
if [ -z "$python" ]; then
    echo "envbuild: there is no Python 3.9 or newer on $(hostname)" >&2
    exit 125
fi
request() {
    "$python" -I -S -c 'import json, os, sys
request = json.load(sys.stdin)
passed = {name: os.environ[name] for name in sys.argv[1:] if name in os.environ}
request["env"] = {**passed, **request["env"]}
json.dump(request, sys.stdout)' SLURM_JOB_ID SLURM_JOB_NAME SLURM_JOB_NODELIST SLURM_CPUS_ON_NODE \
SLURM_MEM_PER_NODE SLURM_GPUS_ON_NODE CUDA_VISIBLE_DEVICES << 'ENVBUILD_REQUEST'
{"command": ["python", "train.py", "--name", "it's"], "directory": "/workspace", "env": {"A": "a b", \
"B": "2", "HOME": "/tmp", "PATH": "/opt/bin", "odd.name": "1"}, "gid": 1001, "mounts": \
[{"read_only": false, "source": "/shared/runs/demo-1/outputs", "target": "/workspace/outputs"}], \
"network": true, "rootfs": "/shared/images/aa/rootfs", "stage": "/shared/runs/demo-1/stage", "uid": 1000}
ENVBUILD_REQUEST
}
"$python" -I -S "$run/launcher.py" 3 4 3< <(request) 4> "$run/report" < /dev/null
status=$?
if [ -s "$run/report" ]; then
    printf 'envbuild: the command was not started: %s\\n' "$(cat "$run/report")" >&2
fi
echo "$status" > "$run/status"
exit "$status"
"""
    )


def body(text: str) -> list[str]:
    """The lines between what all scripts begin and end with."""
    lines = text.splitlines()
    return lines[lines.index("trap : TERM INT") + 1 : lines.index("status=$?")]


PASSED = [
    "for name in SLURM_JOB_ID SLURM_JOB_NAME SLURM_JOB_NODELIST SLURM_CPUS_ON_NODE SLURM_MEM_PER_NODE "
    "SLURM_GPUS_ON_NODE CUDA_VISIBLE_DEVICES; do",
    '    [ -n "${!name+x}" ] && export "APPTAINERENV_$name=${!name}"',
    "done",
]


def test_apptainer_takes_the_unpacked_image_and_is_told_its_variables() -> None:
    assert body(script(START, "apptainer", (), gpus=True)) == [
        *PASSED,
        "export APPTAINERENV_A='a b'",
        "export APPTAINERENV_B=2",
        "export APPTAINERENV_PATH=/opt/bin",
        "apptainer exec --containall --no-eval --writable-tmpfs --nv --pwd /workspace --bind "
        "\"$run/outputs:/workspace/outputs\" /shared/images/aa/rootfs python train.py --name 'it'\"'\"'s' "
        "< /dev/null",
    ]


def test_apptainer_pulls_by_digest_where_there_is_a_registry() -> None:
    lines = body(script(replace(START, rootfs=None), "apptainer", (), gpus=False))
    assert lines == [
        *PASSED,
        "export APPTAINERENV_A='a b'",
        "export APPTAINERENV_B=2",
        "apptainer exec --containall --no-eval --writable-tmpfs --pwd /workspace --bind "
        f'"$run/outputs:/workspace/outputs" docker://registry.example.org:5000/team/demo@{DIGEST} '
        "python train.py --name 'it'\"'\"'s' < /dev/null",
    ]


def test_pyxis_pulls_by_digest_and_keeps_the_job_s_variables() -> None:
    assert body(script(replace(START, rootfs=None), "pyxis", (), gpus=True)) == [
        "srun=$(command -v srun)",
        "export A='a b'",
        "export B=2",
        '"$srun" --export=ALL --ntasks=1 '
        f"'--container-image=registry.example.org:5000#team/demo:{DIGEST}' "
        '"--container-mounts=$run/outputs:/workspace/outputs" --container-workdir=/workspace '
        "--container-writable --no-container-mount-home --no-container-entrypoint --container-env=A,B -- "
        "python train.py --name 'it'\"'\"'s' < /dev/null",
    ]


def test_docker_hub_is_named_by_its_registry_s_host() -> None:
    start = replace(START, rootfs=None, reference=f"debian@{DIGEST}")
    assert f"--container-image=registry-1.docker.io#library/debian:{DIGEST}" in script(
        start, "pyxis", (), gpus=False
    )


@pytest.mark.parametrize("runtime", ["rootfs", "apptainer", "pyxis"])
def test_no_value_is_taken_for_a_part_of_the_script(runtime: str, tmp_path: Path) -> None:
    """The script is run by a real shell, with commands in place of the runtimes that tell their words."""
    (tmp_path / "bin").mkdir()
    for name, body in (
        ("apptainer", 'env -0 > env; printf "%s\\0" "$@" > words'),
        ("srun", 'env -0 > env; printf "%s\\0" "$@" > words'),
    ):
        command = tmp_path / "bin" / name
        command.write_text(f"#!/bin/sh\n{body}\n")
        command.chmod(0o755)
    (tmp_path / "launcher.py").write_text(
        "import os\nopen('request', 'wb').write(os.fdopen(3, 'rb').read())\nraise SystemExit(3)\n"
    )
    text = script(
        replace(
            START,
            directory=str(tmp_path),
            rootfs=None if runtime == "pyxis" else "/r",
            command=("c", HOSTILE),
            env=(("KEY", HOSTILE),),
            workdir=HOSTILE,
        ),
        runtime,
        (),
        gpus=False,
    )
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin:/usr/local/bin:/usr/bin:/bin", "SLURM_JOB_ID": "17"},
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert not (tmp_path / "hacked").exists()
    if runtime == "rootfs":
        assert done.returncode == 3
        assert (tmp_path / "status").read_text() == "3\n"
        request = json.loads((tmp_path / "request").read_bytes())
        assert (request["command"], request["directory"]) == (["c", HOSTILE], HOSTILE)
        assert (request["env"]["KEY"], request["env"]["SLURM_JOB_ID"]) == (HOSTILE, "17")
        # sbatch reads its lines up to the first command only.
        header = text.partition("\n\n")[0]
        assert "--uid" not in header
        return
    words = (tmp_path / "words").read_bytes().decode().split("\0")[:-1]
    assert words[-2:] == ["c", HOSTILE]
    pairs = dict(pair.split("=", 1) for pair in (tmp_path / "env").read_bytes().decode().split("\0") if pair)
    assert pairs["APPTAINERENV_KEY" if runtime == "apptainer" else "KEY"] == HOSTILE
    assert runtime == "pyxis" or pairs["APPTAINERENV_SLURM_JOB_ID"] == "17"
    assert (tmp_path / "status").read_text() == "0\n"


def test_without_a_directory_the_script_works_where_it_is_handed_in() -> None:
    lines = script(replace(START, directory=None, rootfs=None), "apptainer", (), gpus=False).splitlines()
    assert [line for line in lines if "chdir" in line or "output=" in line or 'status"' in line][:-1] == []
    assert lines[lines.index('run="$PWD"') + 1] == 'mkdir -p "$run/outputs"'


@pytest.mark.parametrize("name", ["a.b", "", "A B", "A;touch hacked", "1A", "É"])
@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_a_variable_that_a_shell_can_t_set_is_refused(runtime: str, name: str) -> None:
    with pytest.raises(UsageError, match="takes no variable named"):
        script(replace(START, env=((name, "1"),)), runtime, (), gpus=False)


def test_the_same_job_has_the_same_script() -> None:
    turned = replace(START, env=START.env[::-1], image_env=START.image_env[::-1])
    for runtime in ("rootfs", "apptainer", "pyxis"):
        text = script(START, runtime, (), gpus=False)
        assert script(turned, runtime, (), gpus=False) == text
        assert shlex.split(text.splitlines()[-1]) == ["exit", "$status"]
