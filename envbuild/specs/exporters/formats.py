"""A spec in the formats people take elsewhere, by name. Each says what it can't carry."""

from __future__ import annotations

from collections.abc import Mapping

from envbuild.errors import UsageError
from envbuild.specs.base import Exported, Exporter
from envbuild.specs.exporters.azure_v1 import export_azure_v1
from envbuild.specs.exporters.azure_v2 import export_azure_v2
from envbuild.specs.exporters.conda import export_conda
from envbuild.specs.exporters.native import dump_native, export_native, portable_problems
from envbuild.specs.exporters.requirements import export_requirements
from envbuild.specs.model import Spec

__all__ = ["EXPORTS", "dump_native", "export", "portable_problems"]

EXPORTS: Mapping[str, Exporter] = {
    "native": export_native,
    "conda": export_conda,
    "requirements": export_requirements,
    "azure-v2": export_azure_v2,
    "azure-v1": export_azure_v1,
}
"""The formats, the fullest first."""


def export(spec: Spec, format: str) -> Exported:
    """``spec`` in a format of :data:`EXPORTS`. Raises ``UsageError`` for an unknown one."""
    found = EXPORTS.get(format)
    if found is None:
        raise UsageError(f"unknown format {format!r}", hint=f"known: {', '.join(EXPORTS)}")
    return found(spec)
