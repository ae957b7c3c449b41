"""What a Slurm target is given, and what every value may look like.

The values stand in lines of a script that ``sbatch`` reads and in commands of a shell, so each is held to
letters that mean nothing to either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envbuild.errors import UsageError
from envbuild.targets.base import Option
from envbuild.targets.options import size, whole

RUNTIMES = ("rootfs", "apptainer", "pyxis")
_DIRECTORY = re.compile(r"(?:/[A-Za-z0-9_.@+=-]+)+")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,252}")
_TIME = re.compile(r"[0-9]{1,6}(?::[0-5]?[0-9]){0,2}|[0-9]{1,4}-[0-9]{1,2}(?::[0-5]?[0-9]){0,2}")
_GPUS = re.compile(r"(?:[A-Za-z0-9_.-]{1,64}:)?[1-9][0-9]{0,4}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}")
_NAMES = re.compile(rf"{_NAME.pattern}(?:,{_NAME.pattern})*")
_CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.:,&|*()\[\]-]{0,255}")


def _matching(pattern: re.Pattern[str], words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {words}")
        return text

    return check


def _directory(text: str) -> str:
    if not _DIRECTORY.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError("must be an absolute path of letters, digits and the signs _.@+=-")
    return text


def _runtime(text: str) -> str:
    if text not in RUNTIMES:
        raise ValueError(f"must be {', '.join(RUNTIMES[:-1])} or {RUNTIMES[-1]}")
    return text


OPTIONS: Sequence[Option] = (
    Option(
        name="directory",
        help="a directory that login and compute nodes share: images and runs are kept there",
        check=_directory,
    ),
    Option(
        name="runtime",
        help="what starts the image: rootfs (a user namespace), apptainer or pyxis [rootfs; apptainer "
        "without a directory]",
        check=_runtime,
    ),
    Option(
        name="host",
        help="the login node, over ssh as you use it; without it sbatch is run here",
        check=_matching(_HOST, "a host, or user@host, of ssh"),
    ),
    Option(name="partition", help="where jobs go", check=_matching(_NAMES, "names of partitions")),
    Option(name="account", help="whom jobs are charged to", check=_matching(_NAME, "a name")),
    Option(name="qos", help="quality of service", check=_matching(_NAME, "a name")),
    Option(
        name="time", help="the longest a job may run, like 2:00:00", check=_matching(_TIME, "like 2:00:00")
    ),
    Option(name="gpus", help="of a job, like 2 or a100:2", check=_matching(_GPUS, "like 2 or a100:2")),
    Option(name="cpus", help="of a job", check=whole),
    Option(name="memory", help="of a job, like 8GB", check=size),
    Option(
        name="constraint",
        help="features that its node must have, like icelake&ib",
        check=_matching(_CONSTRAINT, "features, like icelake&ib"),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions:
    """Checked options. ``directory`` is None where only files are written."""

    runtime: str
    directory: str | None
    registry: str | None
    host: str | None
    partition: str | None
    directives: tuple[str, ...]
    """What the job is to be given, as ``sbatch`` takes it: ``--time=60``."""

    @classmethod
    def of(cls, name: str, options: Mapping[str, str]) -> SlurmOptions:
        """The options of the target ``name``, each already checked alone. Raises ``UsageError`` where they
        don't go together."""
        directory = options.get("directory")
        runtime = options.get("runtime") or ("apptainer" if directory is None else "rootfs")
        if runtime == "rootfs" and directory is None:
            raise UsageError(
                f"target {name}: images run from their root file systems need the option directory",
                hint="name a directory that login and compute nodes share: directory=/shared/envbuild",
            )
        if runtime == "rootfs" and "gpus" in options:
            raise UsageError(
                f"target {name}: in a plain user namespace there are no GPUs",
                hint="use runtime=apptainer or runtime=pyxis",
            )
        if runtime == "pyxis" and "registry" not in options and directory is not None:
            raise UsageError(
                f"target {name}: Pyxis takes images from a registry",
                hint="name one that you can push to and the nodes can pull from: registry=HOST/PATH",
            )
        return cls(
            runtime=runtime,
            directory=directory,
            registry=options.get("registry"),
            host=options.get("host"),
            partition=options.get("partition"),
            directives=_directives(options),
        )

    @property
    def unpacks(self) -> bool:
        """Whether images are unpacked into ``directory``, once each."""
        return self.runtime == "rootfs" or (self.runtime == "apptainer" and self.registry is None)


def _directives(options: Mapping[str, str]) -> tuple[str, ...]:
    found = [
        f"--{name}={options[name]}"
        for name in ("partition", "account", "qos", "time", "gpus", "constraint")
        if name in options
    ]
    if "cpus" in options:
        found.append(f"--cpus-per-task={whole(options['cpus'])}")
    if "memory" in options:
        # Slurm's M are 1024 * 1024 bytes; 0 would mean all that the node has.
        found.append(f"--mem={max(1, -(-size(options['memory']) // (1 << 20)))}M")
    return tuple(found)
