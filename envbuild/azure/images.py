"""A build that has ended, and the image it made, as the SDK shows them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from envbuild.azure.unsupported import azure_only
from envbuild.specs.model import PREFIX

if TYPE_CHECKING:
    from envbuild.app.requests import BuildResult
    from envbuild.workspace.base import ImageRecord

DEFAULT_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20251130.v1"
DEFAULT_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04"
"""Images that the SDK names; none is a new environment's base here."""

_log = logging.getLogger(__name__)


class ImageBuildDetails:
    """A build that has ended."""

    def __init__(self, result: BuildResult) -> None:
        self.result = result
        """What envbuild's own ``Environment.build`` returns."""
        self.log_url: str | None = None

    @property
    def status(self) -> str:
        """``Succeeded``: what fails raises where it is started."""
        return "Succeeded"

    def get_log(self) -> str:
        """What was built, in a line."""
        how = "found" if self.result.cached else f"built by {self.result.engine}"
        return f"{self.result.reference} ({how} in {self.result.seconds:.1f} s)\n"

    def wait_for_completion(self, show_output: bool = True) -> ImageBuildDetails:
        """Itself, at once: the build has ended; ``show_output`` logs what was built."""
        if show_output:
            _log.info("%s", self.get_log().rstrip())
        return self


class DockerImageDetails(dict[str, Any]):
    """An image as Azure ML describes it; empty where none was built."""

    def __init__(self, image: ImageRecord | None) -> None:
        super().__init__()
        self._image = image
        if image is not None:
            name = next(iter(image.references), "")
            self.update(
                dockerImage={"name": f"{name}@{image.digest}" if name else image.digest},
                pythonEnvironment={
                    "interpreterPath": self.interpreter_path,
                    "condaEnvironmentPath": self.environment_path,
                },
            )
        self["imageExistsInRegistry"] = image is not None

    @property
    def image_exist(self) -> bool:
        """Whether an image was built of the environment as it is."""
        return self._image is not None

    @property
    def image(self) -> str | None:
        """The image by digest."""
        return str(self["dockerImage"]["name"]) if self._image is not None else None

    @property
    def repository(self) -> str | None:
        """The image's name without a tag."""
        return self.image.partition("@")[0].rpartition(":")[0] or None if self.image is not None else None

    @property
    def registry(self) -> str | None:
        """The registry's host; None where the image has only a name of this machine's."""
        host, slash, _ = (self.repository or "").partition("/")
        return host if slash and any(mark in host for mark in ".:") else None

    @property
    def interpreter_path(self) -> str:
        return f"{PREFIX}/bin/python"

    @property
    def environment_path(self) -> str:
        return str(PREFIX)

    @property
    def dockerfile(self) -> str:
        """Raises ``AzureOnlyError``."""
        raise azure_only("DockerImageDetails.dockerfile", "'envbuild render SPEC -o DIRECTORY' writes one")
