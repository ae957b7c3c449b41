"""What a Slurm target is given, and what every value may look like.

The values stand in lines of a script that ``sbatch`` reads and in commands of a shell, so each is held to
letters that mean nothing to either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from envbuild.errors import UsageError
from envbuild.targets.options import TargetOptions, byte_size, matching, one_of, option, whole

_DIRECTORY = re.compile(r"(?:/[A-Za-z0-9_.@+=-]+)+")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,252}")
_TIME = re.compile(r"[0-9]{1,6}(?::[0-5]?[0-9]){0,2}|[0-9]{1,4}-[0-9]{1,2}(?::[0-5]?[0-9]){0,2}")
_GPUS = re.compile(r"(?:[A-Za-z0-9_.-]{1,64}:)?[1-9][0-9]{0,4}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}")
_NAMES = re.compile(rf"{_NAME.pattern}(?:,{_NAME.pattern})*")
_CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.:,&|*()\[\]-]{0,255}")


def _directory(text: str) -> str:
    if not _DIRECTORY.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError("must be an absolute path of letters, digits and the signs _.@+=-")
    return text


_name = matching(_NAME, "a name")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions(TargetOptions):
    directory: str | None = option(
        "a directory that login and compute nodes share: images and runs are kept there", _directory
    )
    """None where only files are written."""
    runtime: str = option(
        "what starts the image: rootfs (a user namespace), apptainer or pyxis [rootfs; apptainer without a "
        "directory]",
        one_of("rootfs", "apptainer", "pyxis"),
        absent="",
    )
    host: str | None = option(
        "the login node, over ssh as you use it; without it sbatch is run here",
        matching(_HOST, "a host, or user@host, of ssh"),
    )
    partition: str | None = option("where jobs go", matching(_NAMES, "names of partitions"))
    account: str | None = option("whom jobs are charged to", _name)
    qos: str | None = option("quality of service", _name)
    time: str | None = option("the longest a job may run, like 2:00:00", matching(_TIME, "like 2:00:00"))
    gpus: str | None = option("of a job, like 2 or a100:2", matching(_GPUS, "like 2 or a100:2"))
    cpus: int | None = option("of a job", whole)
    memory: int | None = option("of a job, like 8GB", byte_size)
    constraint: str | None = option(
        "features that its node must have, like icelake&ib",
        matching(_CONSTRAINT, "features, like icelake&ib"),
    )

    def checked(self, target: str) -> SlurmOptions:
        runtime = self.runtime or ("apptainer" if self.directory is None else "rootfs")
        if runtime == "rootfs" and self.directory is None:
            raise UsageError(
                f"target {target}: images run from their root file systems need the option directory",
                hint="name a directory that login and compute nodes share: directory=/shared/envbuild",
            )
        if runtime == "rootfs" and self.gpus is not None:
            raise UsageError(
                f"target {target}: in a plain user namespace there are no GPUs",
                hint="use runtime=apptainer or runtime=pyxis",
            )
        if runtime == "pyxis" and self.registry is None and self.directory is not None:
            raise UsageError(
                f"target {target}: Pyxis takes images from a registry",
                hint="name one that you can push to and the nodes can pull from: registry=HOST/PATH",
            )
        return replace(self, runtime=runtime)

    @property
    def unpacks(self) -> bool:
        """Whether images are unpacked into ``directory``, once each."""
        return self.runtime == "rootfs" or (self.runtime == "apptainer" and self.registry is None)

    @property
    def directives(self) -> tuple[str, ...]:
        """What the job is to be given, as ``sbatch`` takes it: ``--time=60``."""
        values: dict[str, object] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.time,
            "gpus": self.gpus,
            "constraint": self.constraint,
            "cpus-per-task": self.cpus,
        }
        if self.memory is not None:
            # Slurm's M are 1024 * 1024 bytes; 0 would mean all that the node has.
            values["mem"] = f"{max(1, -(-self.memory // (1 << 20)))}M"
        return tuple(f"--{name}={value}" for name, value in values.items() if value is not None)
