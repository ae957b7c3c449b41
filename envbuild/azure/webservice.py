"""Services: the SDK's ``LocalWebservice`` is what is served here; Azure's own say what to use instead."""

from __future__ import annotations

import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from envbuild.api import Environment
from envbuild.app.jobs import log_file
from envbuild.app.services import Serving
from envbuild.azure.environment import AnyWorkspace, records_of
from envbuild.azure.unsupported import PartlyThere, azure_only
from envbuild.errors import RunError, UsageError

__all__ = ["AciWebservice", "AksWebservice", "LocalWebservice", "Webservice"]

_ELSEWHERE = (
    "LocalWebservice.deploy_configuration(port=…) serves on this machine; on a cluster it is "
    "'envbuild serve --target NAME', or Environment.own.publish(…, serve=…)"
)
_INSTEAD = {
    "get_keys": "the service listens on this machine alone, and takes no key",
    "get_token": "the service listens on this machine alone, and takes no key",
    "regen_key": "the service listens on this machine alone, and takes no key",
    "reload": "delete it, and deploy it again: nothing is built twice",
    "update": "delete it, and deploy it again: nothing is built twice",
    "deploy_to_cloud": _ELSEWHERE,
    "swagger_uri": "the service answers at scoring_uri",
}
_LIMIT = 64 << 20
"""Bytes of an answer."""


@dataclass(frozen=True, slots=True)
class LocalWebserviceDeploymentConfiguration:
    """The port of this machine; None: the one that the environment names."""

    port: int | None = None


class Webservice(PartlyThere):
    """A service. Only ``LocalWebservice`` is one here."""

    _instead = _INSTEAD


class LocalWebservice(Webservice):
    """A service on this machine, which answers from ``start`` until ``delete`` or this process's end."""

    def __init__(self, workspace: AnyWorkspace, name: str) -> None:
        self.workspace = workspace
        self.name = name
        self.compute_type = "LOCAL"
        self._stack = ExitStack()
        self._serving: Serving | None = None

    @staticmethod
    def deploy_configuration(port: int | None = None) -> LocalWebserviceDeploymentConfiguration:
        """Where it listens."""
        return LocalWebserviceDeploymentConfiguration(port)

    def start(
        self,
        environment: Environment,
        entry_script: Path,
        *,
        code: Path | None,
        model: Path | None,
        port: int | None,
    ) -> None:
        """Builds it where need be, and returns once it answers. Raises an ``EnvbuildError``."""
        context = environment.serve(
            entry_script, records_of(self.workspace), code=code, model=model, port=port
        )
        self._serving = self._stack.enter_context(context)

    @property
    def state(self) -> str:
        """``Healthy`` while it answers, else ``Deleted``."""
        return "Healthy" if self._serving is not None else "Deleted"

    @property
    def scoring_uri(self) -> str:
        """Where data is posted to. Raises ``UsageError`` once it is deleted."""
        return self._running.scoring_url

    @property
    def port(self) -> int:
        """Of this machine."""
        return int(self._running.url.rpartition(":")[2])

    def wait_for_deployment(self, show_output: bool = False) -> None:
        """Returns at once: it answers already."""

    def run(self, input_data: str | bytes) -> str:
        """What it answers to JSON. Raises ``RunError`` for an answer that is an error."""
        data = input_data.encode() if isinstance(input_data, str) else input_data
        request = urllib.request.Request(self.scoring_uri, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                answer: bytes = response.read(_LIMIT)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(1 << 16).decode("utf-8", "replace")
            raise RunError(f"{self.name} answers {error.code}: {said.strip()}") from error
        except OSError as error:
            raise RunError(f"{self.name} doesn't answer: {error}") from error
        return answer.decode("utf-8", "replace")

    def get_logs(self, num_lines: int = 5000, raw: bool = False) -> str:
        """The last lines of what it printed."""
        file = log_file(records_of(self.workspace), self._running.name)
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return "".join(lines[-num_lines:])

    def delete(
        self, delete_cache: bool = True, delete_image: bool = False, delete_volume: bool = True
    ) -> None:
        """Stops it, after it has answered what it has begun; the record of it stays."""
        self._serving = None
        self._stack.close()

    @property
    def _running(self) -> Serving:
        if self._serving is None:
            raise UsageError(f"{self.name} isn't running", hint="Model.deploy starts it")
        return self._serving


class AciWebservice(Webservice):
    """Azure's container instances; there are none here."""

    @staticmethod
    def deploy_configuration(*_: object, **__: object) -> NoReturn:
        """Raises ``AzureOnlyError``."""
        raise azure_only("AciWebservice", _ELSEWHERE)


class AksWebservice(Webservice):
    """Azure's Kubernetes service; a cluster of one's own is a target."""

    @staticmethod
    def deploy_configuration(*_: object, **__: object) -> NoReturn:
        """Raises ``AzureOnlyError``."""
        raise azure_only("AksWebservice", _ELSEWHERE)
