"""An existing virtual environment: its python, and exactly what is installed in it.

The pins are all there is: nothing is added to them, so that a package that was left out isn't replaced by
another of its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from envbuild.errors import SpecError, UsageError
from envbuild.specs import fields
from envbuild.specs.importers.pip.installed import exact_requirements, read_site, site_packages
from envbuild.specs.model import PipSpec, Spec
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

_MARKER = "pyvenv.cfg"
_GENERIC = frozenset({".venv", "venv", ".env", "env", ".virtualenv", "virtualenv"})
_VERSION = re.compile(r"[0-9]+\.[0-9]+(?:\.[0-9]+)?(?:(?:a|b|rc)[0-9]+)?")


class VirtualenvImporter:
    """Reads a virtual environment by its ``pyvenv.cfg``."""

    name = "virtualenv"
    markers: tuple[str, ...] = (_MARKER,)

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == _MARKER

    def load(self, file: SourceFile) -> Spec:
        config = _config(file.read(YAML_LIMIT))
        implementation = config.get("implementation", "CPython")
        if implementation.lower() not in ("cpython", "python"):
            raise SpecError(f"{file.shown}: is an environment of {implementation[:60]}, not of CPython")
        prefix = file.beside(".")
        stated = _VERSION.match(config.get("version_info") or config.get("version") or "")
        sites = site_packages(prefix)
        if stated is not None:
            short = ".".join(stated[0].split(".")[:2])
            sites = tuple(site for site in sites if site.path.parent.name.rstrip("t") == f"python{short}")
        if not sites:
            raise SpecError(
                f"{prefix.shown}: there is no lib/python3.*/site-packages in this virtual environment"
            )
        left_out: list[str] = []
        distributions = [
            distribution
            for site in sites[:1]
            for distribution in read_site(site, prefix.path.parent, left_out)
        ]
        pins, lines = exact_requirements(distributions)
        if config.get("include-system-site-packages", "").lower() == "true":
            left_out.append(f"{_MARKER}: include-system-site-packages: what the system's python has")
        return Spec(
            name=environment_name(prefix.path),
            source=prefix.path,
            python=stated[0] if stated else sites[0].path.parent.name.removeprefix("python").rstrip("t"),
            pip=PipSpec(requirements=pins, complete=True),
            left_out=(*lines, *left_out),
        )


def current_environment(environ: Mapping[str, str]) -> Path:
    """The virtual environment, else the conda environment, that is active. Raises ``UsageError``."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environ.get(variable):
            return Path(environ[variable])
    raise UsageError(
        "no virtual or conda environment is active", hint="activate one, or name its directory instead"
    )


def environment_name(prefix: Path) -> str:
    """The name of an environment's directory, or of the project around it where that says nothing."""
    named = prefix.parent if prefix.name.lower() in _GENERIC else prefix
    return fields.fit_name(named.name)


def _config(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}
