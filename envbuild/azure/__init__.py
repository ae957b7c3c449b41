"""Azure ML's first SDK onto envbuild: ``azureml.core`` in an import becomes ``envbuild.azure``, and the
script runs on this machine (docs/azure.md).

Names and signatures are those of azureml-core 1.61. What differs is what a cloud would have done; what has no
meaning here raises ``AzureOnlyError``, whose hint says what to use instead.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from envbuild._version import __version__
from envbuild.azure.unsupported import INSTEAD, azure_only

if TYPE_CHECKING:
    from envbuild.azure.container_registry import ContainerRegistry
    from envbuild.azure.environment import Environment
    from envbuild.azure.experiment import Experiment
    from envbuild.azure.model import Model
    from envbuild.azure.run import Run
    from envbuild.azure.runconfig import RunConfiguration
    from envbuild.azure.script_run_config import ScriptRunConfig
    from envbuild.azure.webservice import Webservice
    from envbuild.azure.workspace import Workspace

__all__ = [
    "VERSION",
    "ContainerRegistry",
    "Environment",
    "Experiment",
    "Model",
    "Run",
    "RunConfiguration",
    "ScriptRunConfig",
    "Webservice",
    "Workspace",
]

VERSION = __version__

_MODULES = {
    "ContainerRegistry": "container_registry",
    "Environment": "environment",
    "Experiment": "experiment",
    "Model": "model",
    "Run": "run",
    "RunConfiguration": "runconfig",
    "ScriptRunConfig": "script_run_config",
    "Webservice": "webservice",
    "Workspace": "workspace",
}


def __getattr__(name: str) -> object:
    """The names of ``azureml.core``, each imported when it is first used."""
    if name in _MODULES:
        return getattr(import_module(f"envbuild.azure.{_MODULES[name]}"), name)
    if name in INSTEAD:
        raise azure_only(name, INSTEAD[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
