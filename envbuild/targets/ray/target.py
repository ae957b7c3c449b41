"""A Ray cluster: jobs go to its dashboard; files are written for KubeRay and ``ray up``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NoReturn
from urllib.parse import urlsplit

from envbuild.errors import RunError, UsageError
from envbuild.lock.model import PlatformLock
from envbuild.oci.image import Image
from envbuild.targets.base import Job, PreflightFinding, Service, TargetFile
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget
from envbuild.targets.polling import ServiceUnreachable
from envbuild.targets.ray.client import RayDashboard
from envbuild.targets.ray.code import package_address, upload_package
from envbuild.targets.ray.files import job_files, job_request
from envbuild.targets.ray.job import POLLING, RayExecution
from envbuild.targets.ray.options import RayOptions

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class RayTarget(ConfiguredTarget[RayOptions]):
    """Jobs by Ray's Jobs API."""

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return self.findings_of_pins(image, None)

    def findings_of_pins(self, image: Image, pins: PlatformLock | None) -> Sequence[PreflightFinding]:
        """``findings``, with what the versions in ``pins`` add; see ``ReadsPins``."""
        return list(self._check(pins))

    def _check(self, pins: PlatformLock | None) -> Iterator[PreflightFinding]:
        options = self._options
        if options.token_env is not None and options.address is not None:
            parts = urlsplit(options.address)
            if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
                yield PreflightFinding(f"the token goes to {options.address} in the clear", error=False)
        own = next((package.version for package in pins.pip if package.name == "ray"), None) if pins else None
        # Of an image that was made elsewhere nothing is known.
        if pins is not None and pins.pip and options.in_image and own is None:
            yield PreflightFinding(
                "the environment has no ray, and Ray's workers run in its image",
                hint="add ray[default] to its requirements",
            )
        try:
            with contextlib.closing(self._dashboard()) as dashboard:
                version = dashboard.version()
        except RunError as error:
            yield PreflightFinding.of(error)
            return
        if version is not None and own is not None and own.partition("+")[0] != version:
            yield PreflightFinding(
                f"the environment has ray {own}, the cluster runs {version}; they must be the same",
                hint=f"pin it: ray[default]=={version}",
            )

    def bytes_to_pull(self, image: Image) -> int | None:
        return None if self._options.in_image else 0

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return job_files(self._options, job, package_address(job))

    def service_files(self, service: Service) -> NoReturn:
        """Raises ``UsageError``: a scoring script is no Ray Serve application."""
        raise UsageError(
            "Ray targets run jobs and serve nothing", hint="serve the image on a docker or kubernetes target"
        )

    def submit(self, job: Job) -> RayExecution:
        with contextlib.closing(self._dashboard()) as dashboard:
            if not self._options.in_image:
                upload_package(job, self._context.store, dashboard)
            try:
                dashboard.submit(job_request(self._options, job, package_address(job)))
            except BaseException as error:
                if isinstance(error, ServiceUnreachable) or not isinstance(error, Exception):
                    # It may have been taken all the same; its name is nobody else's.
                    with contextlib.suppress(RunError):
                        dashboard.stop(job.name)
                raise
        polling = replace(POLLING, patience=self._options.patience)
        return RayExecution(self._dashboard, job.name, self._context.progress, polling)

    def _dashboard(self) -> RayDashboard:
        options = self._options
        if options.address is None:
            raise RunError(
                f"target {self.record.name} has no dashboard that takes jobs",
                hint="give it one: address=http://HOST:8265",
            )
        token = None
        if options.token_env is not None:
            token = self._context.environ.get(options.token_env)
            if not token or not (token.isascii() and token.isprintable()):
                raise RunError(
                    f"the variable {options.token_env} holds no token for {options.address}",
                    hint="set it where envbuild runs",
                )
        return RayDashboard(options.address, token)


KIND = ConfiguredKind("ray", RayOptions, RayTarget)
