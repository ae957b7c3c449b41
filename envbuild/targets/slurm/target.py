"""A cluster of Slurm: images run from an unpacked root file system, by Apptainer, or by Pyxis."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NoReturn

from envbuild.errors import EnvbuildError, RunError, UsageError
from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.run.command import Command, argv, environment, image_config, numeric_user
from envbuild.targets.base import Job, PreflightFinding, Service, TargetFile
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget
from envbuild.targets.slurm.command import SlurmLogin
from envbuild.targets.slurm.files import SharedDirectory
from envbuild.targets.slurm.job import SlurmExecution, submit_job
from envbuild.targets.slurm.options import SlurmOptions
from envbuild.targets.slurm.script import SCRIPT, JobStart, script

_COMMANDS = ("sbatch", "scontrol", "scancel", "sinfo")
_NODES = 64
"""Nodes of a partition whose architecture is looked at."""
_NODE = re.compile(r"^NodeName=(\S+) Arch=(\S+)", re.MULTILINE)
_NAMED = 20


class SlurmTarget(ConfiguredTarget[SlurmOptions]):
    """Jobs by ``sbatch``, here or on a login node over ssh."""

    @property
    def _login(self) -> SlurmLogin:
        return SlurmLogin(self._context.environ, self._options.host)

    @property
    def _files(self) -> SharedDirectory:
        if self._options.directory is None:
            raise UsageError(
                f"target {self.record.name}: jobs need the option directory",
                hint="name a directory that login and compute nodes share: directory=/shared/envbuild",
            )
        return SharedDirectory(self._options.directory, self._login)

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        files = self._files
        try:
            self._check_commands()
            return [
                *self._check_partitions(),
                *self._check_directory(files),
                *self._check_nodes(image),
            ]
        except RunError as error:
            return [PreflightFinding.of(error)]

    def bytes_to_pull(self, image: Image) -> int | None:
        if not self._options.unpacks:
            return None
        try:
            there = self._files.has_image(image)
        except RunError:
            return None
        return 0 if there else sum(layer.size for layer in image.layers)

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        options = self._options
        files = self._files if options.directory is not None else None
        config = image_config(job.image, self._context.store)
        own = Command(image=job.image, arguments=job.command)
        start = JobStart(
            name=job.name,
            directory=files.run(job.name) if files is not None else None,
            rootfs=files.rootfs(job.image) if files is not None and options.unpacks else None,
            reference=job.reference,
            command=tuple(argv(config, own)),
            env=job.env,
            image_env=tuple(environment(config, own).items()),
            workdir=str(config.get("WorkingDir") or "/"),
            user=numeric_user(config),
        )
        content = script(start, options.runtime, options.directives, gpus=options.gpus is not None)
        return (TargetFile(name=SCRIPT, content=content, executable=True),)

    def service_files(self, service: Service) -> NoReturn:
        """Raises ``UsageError``: a batch system serves nothing."""
        raise UsageError(
            "Slurm runs jobs and serves nothing", hint="serve the image on a docker or kubernetes target"
        )

    def submit(self, job: Job) -> SlurmExecution:
        files = self._files
        (file,) = self.job_files(job)
        progress = self._context.progress
        try:
            if self._options.unpacks:
                files.unpack(job.image, self._context.store, progress)
            return submit_job(files, job.name, file.content, progress)
        except EnvbuildError as error:
            raise RunError(error.message, hint=error.hint) from error

    # --- findings ---------------------------------------------------------------------------------------

    def _check_commands(self) -> None:
        script = "; ".join(f"command -v {command} > /dev/null || echo {command}" for command in _COMMANDS)
        missing = self._login.run(script).out.decode(errors="replace").split()
        if missing:
            # Without its commands nothing more can be found out.
            raise RunError(
                f"{self._login.place} has no command {', '.join(missing)} of Slurm",
                hint="run envbuild on a login node, or name one: host=LOGIN",
            )

    def _check_partitions(self) -> Iterator[PreflightFinding]:
        answer = self._login.run("exec sinfo -h -o '%R|%a'")
        if answer.status != 0:
            raise RunError(f"Slurm doesn't answer: {answer.complaint}", hint="see whether sinfo works")
        lines = answer.out.decode(errors="replace").splitlines()
        known = dict(line.split("|", 1) for line in lines if "|" in line)
        for name in filter(None, (self._options.partition or "").split(",")):
            if name not in known:
                listed = ", ".join(sorted(known)[:_NAMED]) or "none"
                yield PreflightFinding(f"there is no partition {name}", hint=f"there are: {listed}")
            elif known[name] != "up":
                yield PreflightFinding(f"the partition {name} is {known[name]}", error=False)

    def _check_directory(self, files: SharedDirectory) -> Iterator[PreflightFinding]:
        path = shlex.quote(str(files.path))
        if self._login.run(f"mkdir -p {path} && test -w {path} && test -x {path}").status != 0:
            yield PreflightFinding(
                f"{files.path} of {self._login.place} can't be written to",
                hint="give the target another directory: directory=/shared/you/envbuild",
            )
        if self._options.runtime == "rootfs":
            allowed = self._login.run("unshare --user --map-root-user true")
            if allowed.status != 0:
                yield PreflightFinding(
                    f"{self._login.place} allows no user namespaces ({allowed.complaint}); jobs need them on "
                    "their nodes",
                    error=False,
                    hint="use runtime=apptainer or runtime=pyxis",
                )

    def _check_nodes(self, image: Image) -> Iterator[PreflightFinding]:
        partition = self._options.partition
        where = f"-p {shlex.quote(partition)} " if partition else ""
        answer = self._login.run(
            f"nodes=$(sinfo -h {where}-N -o %N | sort -u | head -n {_NODES} | paste -s -d , -) && "
            '[ -n "$nodes" ] && exec scontrol show node -o "$nodes"'
        )
        machines = {machine for _, machine in _NODE.findall(answer.out.decode(errors="replace"))}
        fitting = {machine for machine in machines if _platform(machine) == str(image.platform)}
        others = ", ".join(sorted(machines - fitting))
        where = f"partition {partition}" if partition else self.record.name
        if others and fitting:
            yield PreflightFinding(
                f"some nodes of {where} are {others}, the image is for {image.platform}",
                error=False,
                hint="keep to those that fit by constraint=FEATURE",
            )
        elif others:
            yield PreflightFinding(
                f"the nodes of {where} are {others}, the image is for {image.platform}",
                hint="set the target's platform to what its nodes are",
            )


def _platform(machine: str) -> str:
    try:
        return str(Platform.parse(f"linux/{machine}"))
    except UsageError:
        return machine


KIND = ConfiguredKind("slurm", SlurmOptions, SlurmTarget)
