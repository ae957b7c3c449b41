"""Spark: in the environment's image here, on a standalone cluster, or in pods of Kubernetes."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from envbuild.errors import UsageError
from envbuild.lazy import lazy
from envbuild.lock.model import PlatformLock
from envbuild.oci.image import Image
from envbuild.run.command import image_config
from envbuild.targets.base import Execution, Job, PreflightFinding, Service, Target, TargetFile, TargetRecord
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget, TargetContext
from envbuild.targets.local import LocalOptions, NamespaceTarget, open_local
from envbuild.targets.spark.files import DEFAULTS, job_files, submit_arguments
from envbuild.targets.spark.options import SparkOptions
from envbuild.targets.spark.submit import submit

if TYPE_CHECKING:
    import httpx
else:
    httpx = lazy("httpx")

_REACH_SECONDS = 5.0
_PAGE = 1 << 20
"""Bytes of a master's page that are read."""
_VARIABLE = "ENVBUILD_SPARK_DEFAULTS"
_START = (
    "umask 077; directory=$(mktemp -d) || exit; "
    f'printf %s "${_VARIABLE}" > "$directory/{DEFAULTS}" || exit; unset {_VARIABLE}; '
    f'submit=$1; shift; exec "$submit" --properties-file "$directory/{DEFAULTS}" "$@"'
)
"""Brings the settings into the image. They don't stand on a command line, that everyone here may read: a
variable of the job's may be among them."""
_SHOWN_VERSION = re.compile(r'class="version\b[^"]*"[^>]*>\s*v?([0-9]+\.[0-9]+(?:\.[0-9]+)?)')


class SparkTarget(ConfiguredTarget[SparkOptions]):
    """Jobs by ``spark-submit``. The driver runs in the image on this machine, but for Kubernetes, where it
    runs in a pod of that image."""

    def __init__(self, record: TargetRecord, options: SparkOptions, context: TargetContext) -> None:
        super().__init__(record, options, context)
        self.registry = options.registry if options.place == "kubernetes" else None

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return self.findings_of_pins(image, None)

    def findings_of_pins(self, image: Image, pins: PlatformLock | None) -> Sequence[PreflightFinding]:
        """``findings``, with what the versions in ``pins`` add; see ``ReadsPins``."""
        return list(self._check(image, pins))

    def _check(self, image: Image, pins: PlatformLock | None) -> Iterator[PreflightFinding]:
        version = _version(pins) if pins is not None else None
        # Of an image that was made elsewhere nothing is known.
        lacks = pins is not None and bool(pins.pip or pins.conda) and version is None
        if lacks:
            yield PreflightFinding("the environment has no pyspark", hint="add runtime: spark to the spec")
        if self._options.place == "kubernetes":
            yield from self._check_command()
            return
        of_machine = self._here.findings(image)
        yield from of_machine
        if self._options.place == "standalone" and not lacks and not of_machine:
            unreachable = self._check_masters()
            if unreachable is not None:
                yield unreachable
            elif version is not None and self._options.master_ui is not None:
                yield from self._compare_with_page(version, self._options.master_ui)
            else:
                yield PreflightFinding(
                    f"the workers need Spark {version or 'of the environment'} and, as "
                    f"{self._options.python}, the environment's Python; whether they have them isn't known",
                    error=False,
                    hint="master-ui=http://HOST:8080 lets the master be asked",
                )

    def bytes_to_pull(self, image: Image) -> int | None:
        return None if self._options.place == "kubernetes" else self._here.bytes_to_pull(image)

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return job_files(self._options, job, self._directory(job))

    def service_files(self, service: Service) -> NoReturn:
        """Raises ``UsageError``: Spark runs jobs."""
        raise UsageError(
            "Spark runs jobs and serves nothing", hint="serve the image on a docker or kubernetes target"
        )

    def submit(self, job: Job) -> Execution:
        files = self.job_files(job)
        if self._options.place == "kubernetes":
            arguments = submit_arguments(self._options, job, self._directory(job))
            return submit(self._options, job.name, files, arguments, self._context)
        (defaults,) = (file for file in files if file.name == DEFAULTS)
        inside = replace(
            job,
            command=(
                "/bin/sh",
                "-c",
                _START,
                "envbuild",
                self._options.spark_submit,
                *submit_arguments(self._options, job, self._directory(job)),
            ),
            env=(*job.env, (_VARIABLE, defaults.content)),
        )
        return self._here.submit(inside)

    @property
    def _here(self) -> Target:
        """This machine, where the driver runs. Workers of a cluster must reach it: it has this machine's
        network then."""
        record, options = TargetRecord(name=self.record.name, kind="local"), LocalOptions()
        if self._options.place == "standalone":
            return NamespaceTarget(record, options, self._context)
        return open_local(record, options, self._context)

    def _directory(self, job: Job) -> str:
        return str(image_config(job.image, self._context.store).get("WorkingDir") or "/")

    def _check_command(self) -> Iterator[PreflightFinding]:
        command, environ = self._options.spark_submit, self._context.environ
        if shutil.which(command, path=environ.get("PATH", os.defpath)) is None:
            yield PreflightFinding(
                f"there is no command {command} on this machine: it starts the driver's pod",
                hint="install pyspark of the environment's version, or name one: spark-submit=PATH",
            )

    def _check_masters(self) -> PreflightFinding | None:
        """None where one of the masters can be reached."""
        complaint = ""
        for place in self._options.masters:
            try:
                socket.create_connection(place, _REACH_SECONDS).close()
            except (OSError, UnicodeError, OverflowError) as error:
                complaint = str(error)
            else:
                return None
        return PreflightFinding(
            f"no master answers at {self._options.master}: {complaint}",
            hint="start it, or give the target another: master=spark://HOST:PORT",
        )

    def _compare_with_page(self, version: str, page: str) -> Iterator[PreflightFinding]:
        """What the Spark of the environment and that of the cluster have against each other."""
        text = b""
        try:
            with (
                httpx.Client(timeout=_REACH_SECONDS, trust_env=False) as client,
                client.stream("GET", f"{page}/") as answer,
            ):
                for piece in answer.iter_bytes():
                    text += piece
                    if len(text) > _PAGE:
                        break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            yield PreflightFinding(f"the master's page {page} doesn't answer: {error}", error=False)
            return
        match = _SHOWN_VERSION.search(text.decode(errors="replace"))
        if match is None:
            yield PreflightFinding(f"{page} doesn't tell the version of its Spark", error=False)
        elif match[1] != version:
            yield PreflightFinding(
                f"the environment has Spark {version}, the cluster {match[1]}",
                # Within a feature release Spark's protocols fit, but for accidents.
                error=match[1].split(".")[:2] != version.split(".")[:2],
                hint=f"pin it in the spec: pyspark=={match[1]}",
            )


def _version(pins: PlatformLock) -> str | None:
    """Of pyspark in the environment; None: it has none."""
    names = [(package.name, package.version) for package in pins.pip]
    names += [(package.name, package.version) for package in pins.conda]
    return next((version for name, version in names if name == "pyspark"), None)


KIND = ConfiguredKind("spark", SparkOptions, SparkTarget)
