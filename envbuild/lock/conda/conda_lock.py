"""The conda resolver that runs conda-lock with the user's own conda, mamba or micromamba.

conda-lock's lockfile has no sizes, constraints or time stamps; they are taken from the channels' metadata
through rattler where it can be read, so that both engines give the same pins. Where it can't be read the
size is 0, which means unknown.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from envbuild.errors import LockError, ResolveError
from envbuild.lock.base import CondaRequest, CondaTarget
from envbuild.lock.conda.channels import hide_credentials, split_channel
from envbuild.lock.conda.lockfile import load_conda_lock
from envbuild.lock.conda.rattler import RattlerResolver
from envbuild.lock.conda.records import split_depend
from envbuild.lock.conda.satisfied import unsatisfied_conda
from envbuild.lock.model import CondaPin
from envbuild.platforms import Platform
from envbuild.specs.model import CondaSpec

CANDIDATES = ("micromamba", "mamba", "conda")
"""Executables looked for on PATH, the quickest solver first."""
_log = logging.getLogger(__name__)


@dataclass
class CondaLockResolver:
    """A :class:`envbuild.lock.base.CondaResolver`. ``executable`` is the conda to use; None: the first of
    ``CANDIDATES`` on PATH. ``timeout`` is in seconds, for one platform. ``env``
    is the environment conda runs in; None: this process's."""

    metadata: RattlerResolver
    executable: str | None = None
    timeout: float = 3600
    env: Mapping[str, str] | None = None
    name: str = "conda-lock"

    def version(self) -> str:
        return version("conda-lock")

    def channels(self, spec: CondaSpec) -> tuple[str, ...]:
        return self.metadata.channels(spec)

    def resolve(self, request: CondaRequest) -> dict[Platform, tuple[CondaPin, ...]]:
        """Pins of every target, sorted by name.

        Pins that answer the spec and that no upgrade names are asked for exactly; if nothing fits them,
        the spec alone is. Raises ``ResolveError`` with conda's own reason. A list of packages isn't solved,
        so no conda is asked."""
        if request.spec.explicit:
            return self.metadata.resolve(request)
        if request.as_of is not None:
            raise ResolveError(
                "conda-lock can't leave out packages newer than a date",
                hint="use --conda-engine rattler with --as-of",
            )
        executable = self._executable()
        return {
            target.platform: self._solve(
                executable, request.spec, target, request.kept(target.platform), request.offline
            )
            for target in request.targets
        }

    def _executable(self) -> str:
        names = (self.executable,) if self.executable else CANDIDATES
        for name in names:
            executable = shutil.which(name, path=self._environ().get("PATH"))
            if executable:
                return executable
        raise ResolveError(
            f"conda-lock needs conda, mamba or micromamba: {', '.join(names)} is not there",
            hint="install one, or use --conda-engine rattler, which needs none",
        )

    def _environ(self) -> dict[str, str]:
        return dict(os.environ if self.env is None else self.env)

    def _solve(
        self, executable: str, spec: CondaSpec, target: CondaTarget, kept: Sequence[CondaPin], offline: bool
    ) -> tuple[CondaPin, ...]:
        kept = [pin for pin in kept if _fits(spec, pin)]
        if kept and not unsatisfied_conda(spec, kept, target):
            return _needed(spec, kept)
        if kept:
            exact = tuple(f"{pin.name}={pin.version}={pin.build}" for pin in kept)
            loose = tuple(
                dependency
                for dependency in spec.dependencies
                if split_depend(split_channel(dependency)[1])[0].lower() not in {pin.name for pin in kept}
            )
            pinned = CondaSpec(channels=spec.channels, dependencies=loose + exact)
            try:
                pins = self._run(executable, pinned, target, offline)
            except ResolveError as error:
                _log.debug("the present pins don't fit: %s", error)
            else:
                return _needed(spec, self._completed(spec, target, pins, offline))
        pins = self._run(executable, spec, target, offline)
        return self._completed(spec, target, pins, offline)

    def _run(
        self, executable: str, spec: CondaSpec, target: CondaTarget, offline: bool
    ) -> tuple[CondaPin, ...]:
        subdir = target.platform.subdir
        names = self.metadata.channel_names
        channels = [
            address
            for channel in spec.channels
            if channel != "nodefaults"
            for address in (names.addresses(channel) if channel.startswith(("/", "file:")) else (channel,))
        ] or ["defaults"]
        environment = {"channels": channels, "dependencies": list(spec.dependencies)}
        virtual = {name: version.replace("=", " ") for name, version in target.virtual_packages.items()}
        with tempfile.TemporaryDirectory(prefix="envbuild-conda-lock-") as name:
            directory = Path(name)
            # JSON is YAML; conda-lock reads both files as YAML.
            (directory / "environment.yml").write_text(json.dumps(environment))
            (directory / "virtual.yml").write_text(json.dumps({"subdirs": {subdir: {"packages": virtual}}}))
            # Without a mapping of its own it would download one to name pip packages, which aren't here.
            (directory / "mapping.json").write_text("{}")
            command = [sys.executable, "-m", "conda_lock", "lock", "--conda", executable]
            command += ["--platform", subdir, "--file", "environment.yml", "--lockfile", "conda-lock.yml"]
            command += ["--virtual-package-spec", "virtual.yml"]
            command += ["--pypi_to_conda_lookup_file", (directory / "mapping.json").as_uri()]
            environ = self._environ()
            if offline:
                environ |= {"CONDA_OFFLINE": "true", "MAMBA_OFFLINE": "true"}
            try:
                done = subprocess.run(
                    command,
                    cwd=directory,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise ResolveError(
                    f"conda-lock found no solution for {subdir} in {self.timeout:.0f} s",
                    hint="use --conda-engine rattler",
                ) from error
            lockfile = directory / "conda-lock.yml"
            if done.returncode or not lockfile.is_file():
                reason = hide_credentials(_reason(done.stderr or done.stdout), channels)
                raise ResolveError(
                    f"conda-lock with {Path(executable).name} found no packages for {subdir}:\n{reason}",
                    hint="loosen one of the named requirements, or compare with --conda-engine rattler",
                )
            try:
                return load_conda_lock(lockfile.read_text()).get(target.platform, ())
            except LockError as error:
                raise ResolveError(f"conda-lock's answer can't be used: {error}") from error

    def _completed(
        self, spec: CondaSpec, target: CondaTarget, pins: Sequence[CondaPin], offline: bool
    ) -> tuple[CondaPin, ...]:
        try:
            records = self.metadata.records(
                spec, target.platform, [pin.name for pin in pins], offline=offline
            )
        except ResolveError as error:
            _log.warning("sizes of conda packages stay unknown: %s", error)
            records = {}
        completed = []
        for pin in pins:
            record = records.get(pin.sha256)
            completed.append(replace(record, url=pin.url, channel=pin.channel) if record else pin)
        return tuple(sorted(completed, key=lambda pin: pin.name))


def _fits(spec: CondaSpec, pin: CondaPin) -> bool:
    """Whether no requirement of the spec speaks against the pin."""
    own = tuple(
        dependency
        for dependency in spec.dependencies
        if split_depend(split_channel(dependency)[1])[0].lower() == pin.name
    )
    alone = replace(pin, depends=(), constrains=())
    return not unsatisfied_conda(CondaSpec(channels=spec.channels, dependencies=own), [alone])


def _needed(spec: CondaSpec, pins: Iterable[CondaPin]) -> tuple[CondaPin, ...]:
    """Those pins that the spec's requirements lead to, sorted by name."""
    by_name = {pin.name: pin for pin in pins}
    todo = [split_depend(split_channel(dependency)[1])[0].lower() for dependency in spec.dependencies]
    needed: dict[str, CondaPin] = {}
    while todo:
        name = todo.pop()
        if name in by_name and name not in needed:
            needed[name] = by_name[name]
            todo += [split_depend(depend)[0] for depend in by_name[name].depends]
    return tuple(pin for _, pin in sorted(needed.items()))


def _reason(output: str) -> str:
    """What conda said, without conda-lock's own traceback."""
    text = output.partition("Could not lock the environment for platform")[2].partition("\n")[2]
    text = text.partition("    Command: ")[0].strip()
    return text or "\n".join(output.strip().splitlines()[-10:]) or "no output"
