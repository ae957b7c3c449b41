"""A spec in the formats people take elsewhere, by name. Each says what it can't carry."""

from __future__ import annotations

from collections.abc import Mapping

from envbuild.errors import SpecError, UsageError
from envbuild.specs.exporters.azure import export_azure_v1, export_azure_v2
from envbuild.specs.exporters.conda import export_conda
from envbuild.specs.exporters.native import (
    dump_native,
    export_native,
    pip_line,
    pip_options,
    portable_problems,
)
from envbuild.specs.exporters.unsupported_fields import beyond
from envbuild.specs.importers.pip.requirements import is_locked
from envbuild.specs.model import Spec
from envbuild.specs.plugins import Exported, Exporter

__all__ = ["EXPORTS", "dump_native", "export", "portable_problems"]

CONSTRAINTS = "constraints.txt"


def export_requirements(spec: Spec) -> Exported:
    """``requirements.txt``, and ``constraints.txt`` where there are any.

    Raises ``SpecError`` where there is no requirement: the file would hold nothing of the spec.
    """
    pip = spec.pip
    if not pip.requirements:
        raise SpecError(
            f"{spec.name}: has no pip requirements", hint="a conda file or envbuild's own YAML can hold it"
        )
    lines = [*pip_options(pip.options), *([f"-c {CONSTRAINTS}"] if pip.constraints else [])]
    lines += [pip_line(requirement) for requirement in pip.requirements]
    files = {"requirements.txt": _text(lines)}
    if pip.constraints:
        files[CONSTRAINTS] = _text([pip_line(constraint) for constraint in pip.constraints])
    more = spec.conda.dependencies if spec.conda is not None else ()
    conda = tuple(f"conda_file: {further}" for further in more)
    carried = {"requirements", "constraints", *(["conda_file"] if conda else [])}
    told: tuple[str, ...] = ()
    if is_locked(pip):
        carried.add("requirements_complete")
        if not pip.complete:
            told = ("requirements: pip adds nothing to a list where each pin has its hash",)
    return Exported(files=tuple(files.items()), left_out=(*conda, *told, *beyond(spec, carried)))


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


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
    exporter = EXPORTS.get(format)
    if exporter is None:
        raise UsageError(f"unknown format {format!r}", hint=f"known: {', '.join(EXPORTS)}")
    return exporter(spec)
