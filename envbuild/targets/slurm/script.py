"""The script of a job that ``sbatch`` is given: the same for the same job, and nothing in it is taken for
anything but what it is.

The job's variables stand in the script, which only its owner may read, and not in a command line, which all
users of a node see.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from envbuild.errors import UsageError
from envbuild.oci.reference import DEFAULT_REGISTRY, Reference
from envbuild.targets.base import OUTPUTS

SCRIPT = "job.sbatch"
LAUNCHER = "launcher.py"
LOG = "log"
STATUS = "status"
"""The command's exit status, for when Slurm has forgotten the job."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PASSED = (
    *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE"),
    *("SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"),
)
"""What programs learn of the node from; nothing else of its environment gets in."""
_DOCKER_HUB = "registry-1.docker.io"
_END = "ENVBUILD_REQUEST"
_PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStart:
    """How a job's process is started in its image."""

    name: str
    """Of the run."""
    directory: str | None
    """Of the run, on the nodes; None: where the script is handed in."""
    rootfs: str | None
    """The image, unpacked; None: it is pulled by ``reference``."""
    reference: str
    command: tuple[str, ...]
    """With the image's entry point."""
    env: tuple[tuple[str, str], ...]
    """The job's own."""
    image_env: tuple[tuple[str, str], ...]
    """The image's own and the defaults, for what doesn't take them from the image."""
    workdir: str
    user: tuple[int, int] = (0, 0)


def script(start: JobStart, runtime: str, directives: Sequence[str], *, gpus: bool) -> str:
    """The text for ``sbatch``. Raises ``UsageError`` where the runtime can't take a variable."""
    assert _RUN_NAME.fullmatch(start.name), "names of runs fit everywhere"
    lines = ["#!/bin/bash", f"#SBATCH --job-name={start.name}"]
    if start.directory is not None:
        lines += [
            f"#SBATCH --chdir={start.directory}",
            f"#SBATCH --output={start.directory}/{LOG}",
        ]
    lines += ["#SBATCH --export=NONE", "#SBATCH --no-requeue", "#SBATCH --nodes=1", "#SBATCH --ntasks=1"]
    lines += [f"#SBATCH {directive}" for directive in directives]
    lines += ["", f"run={shlex.quote(start.directory)}" if start.directory else 'run="$PWD"']
    if start.directory is None:
        lines.append('mkdir -p "$run/outputs"')
    # The script outlives signals, to tell how the command ended.
    lines.append("trap : TERM INT")
    if runtime == "rootfs":
        lines += _rootfs(start)
    elif runtime == "apptainer":
        lines += _apptainer(start, gpus=gpus)
    else:
        lines += _pyxis(start)
    lines.append("status=$?")
    if runtime == "rootfs":
        lines += [
            'if [ -s "$run/report" ]; then',
            '    printf \'envbuild: the command was not started: %s\\n\' "$(cat "$run/report")" >&2',
            "fi",
        ]
    if start.directory is not None:
        lines.append(f'echo "$status" > "$run/{STATUS}"')
    return "\n".join([*lines, 'exit "$status"', ""])


def _rootfs(start: JobStart) -> list[str]:
    assert start.rootfs is not None
    assert start.directory is not None
    request = {
        "rootfs": start.rootfs,
        "stage": f"{start.directory}/stage",
        "uid": start.user[0],
        "gid": start.user[1],
        "network": True,
        "command": list(start.command),
        "env": dict((*start.image_env, *start.env)),
        "directory": start.workdir,
        "mounts": [
            {"source": f"{start.directory}/outputs", "target": str(OUTPUTS), "read_only": False},
        ],
    }
    return [
        f"for python in {' '.join(_PYTHONS)} ''; do",
        "    \"$python\" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2> /dev/null && break",
        "done",
        'if [ -z "$python" ]; then',
        '    echo "envbuild: there is no Python 3.9 or newer on $(hostname)" >&2',
        "    exit 125",
        "fi",
        "request() {",
        '    "$python" -I -S -c \'import json, os, sys',
        "request = json.load(sys.stdin)",
        "passed = {name: os.environ[name] for name in sys.argv[1:] if name in os.environ}",
        'request["env"] = {**passed, **request["env"]}',
        f"json.dump(request, sys.stdout)' {' '.join(_PASSED)} << '{_END}'",
        # One line without a line's end in it, so that nothing in it can end it.
        json.dumps(request, sort_keys=True),
        _END,
        "}",
        f'"$python" -I -S "$run/{LAUNCHER}" 3 4 3< <(request) 4> "$run/report" < /dev/null',
    ]


def _apptainer(start: JobStart, *, gpus: bool) -> list[str]:
    image = f"docker://{_by_digest(start.reference)}" if start.rootfs is None else start.rootfs
    own = [(name, value) for name, value in start.image_env if _VARIABLE.fullmatch(name) and name != "HOME"]
    variables = {**(dict(own) if start.rootfs is not None else {}), **_checked(start.env, "Apptainer")}
    words = [
        "apptainer",
        "exec",
        "--containall",
        "--no-eval",
        "--writable-tmpfs",
        *(["--nv"] if gpus else []),
    ]
    words += ["--pwd", shlex.quote(start.workdir), "--bind", f'"$run/outputs:{OUTPUTS}"']
    words += [shlex.quote(word) for word in (image, *start.command)]
    return [
        f"for name in {' '.join(_PASSED)}; do",
        '    [ -n "${!name+x}" ] && export "APPTAINERENV_$name=${!name}"',
        "done",
        *(f"export APPTAINERENV_{name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
        f"{' '.join(words)} < /dev/null",
    ]


def _pyxis(start: JobStart) -> list[str]:
    variables = _checked(start.env, "Pyxis")
    # --export=ALL hands on the script's own environment, which --export=NONE has kept small.
    words = [
        '"$srun"',
        "--export=ALL",
        "--ntasks=1",
        shlex.quote(f"--container-image={_enroot(start.reference)}"),
    ]
    words += [
        f'"--container-mounts=$run/outputs:{OUTPUTS}"',
        shlex.quote(f"--container-workdir={start.workdir}"),
    ]
    words += ["--container-writable", "--no-container-mount-home", "--no-container-entrypoint"]
    if variables:
        words.append(f"--container-env={','.join(sorted(variables))}")
    words += ["--", *(shlex.quote(word) for word in start.command)]
    return [
        # Found before the job's variables are set, PATH among them.
        "srun=$(command -v srun)",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
        f"{' '.join(words)} < /dev/null",
    ]


def _checked(env: Sequence[tuple[str, str]], runtime: str) -> dict[str, str]:
    wrong = sorted({name for name, _ in env if not _VARIABLE.fullmatch(name)})
    if wrong:
        raise UsageError(f"{runtime} takes no variable named {wrong[0]!r}", hint="use letters, digits and _")
    return dict(env)


def _by_digest(reference: str) -> str:
    """The image's repository and digest: tag and digest together are refused."""
    parsed = Reference.parse(reference)
    return f"{parsed.name}@{parsed.digest}" if parsed.digest else parsed.tagged


def _enroot(reference: str) -> str:
    """``HOST#REPOSITORY:sha256:…``: what enroot has in the tag's place it asks the registry for, as it is."""
    parsed = Reference.parse(reference)
    host = _DOCKER_HUB if parsed.registry == DEFAULT_REGISTRY else parsed.registry
    return f"{host}#{parsed.repository}:{parsed.target}"
