"""Specs from all an environment can be made from: files, images, Dockerfiles, what is installed here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import SpecError, UsageError, suggestion
from envbuild.specs.exporters.formats import dump_native
from envbuild.specs.importers.conda.environment import CondaImporter
from envbuild.specs.importers.native.reader import read_native
from envbuild.specs.importers.pip.requirements import RequirementsImporter
from envbuild.specs.importers.pip.virtualenv import current_environment
from envbuild.specs.load import load_spec
from envbuild.specs.model import ImageBaseSpec, Spec
from envbuild.specs.text.document import parse_document
from envbuild.specs.text.source import SourceFile
from envbuild.specs.text.yaml import dump_yaml

if TYPE_CHECKING:
    from envbuild.specs.plugins import Importer

_LISTED = Path(".conda/environments.txt")
"""Where conda notes every environment it makes, below the home directory."""
_LIMIT = 1 << 20
"""Bytes of that list."""


def file(path: Path) -> Spec:
    """What ``load_spec`` reads there. Raises ``SpecError``."""
    return load_spec(path)


def empty(name: str) -> Spec:
    """An environment of which nothing but its name is said. Raises ``SpecError`` for what is no name."""
    return _native({"name": name}, Path.cwd() / f"{name}.yaml")


def conda_file(name: str, path: Path) -> Spec:
    """A file that is read as conda's, whatever it is called. Raises ``SpecError``."""
    return _named(_read(CondaImporter(), path), name)


def requirements_file(name: str, path: Path) -> Spec:
    """A file that is read as pip's, whatever it is called. Raises ``SpecError``."""
    return _named(_read(RequirementsImporter(), path), name)


def image(name: str, reference: str, *, conda: Path | None = None, pip: Path | None = None) -> Spec:
    """An image, and what is installed on it. Raises ``SpecError``."""
    if conda is not None and pip is not None:
        raise UsageError(
            "conda_specification and pip_requirements exclude each other",
            hint="a conda specification has a pip section",
        )
    if conda is not None:
        spec = conda_file(name, conda)
    elif pip is not None:
        spec = requirements_file(name, pip)
    else:
        return _native({"name": name, "image": reference}, Path.cwd() / f"{name}.yaml")
    return checked(replace(spec, base=ImageBaseSpec(reference=reference)))


def build_context(name: str, context: Path, dockerfile: str) -> Spec:
    """A build context, taken as it is. Raises ``SpecError``."""
    directory = Path(os.path.normpath(context.absolute()))
    if not (directory / dockerfile).is_file():
        raise SpecError(f"{context / dockerfile}: no such file")
    fields = {"name": name, "build": {"path": ".", "dockerfile_path": dockerfile}}
    return _native(fields, directory / f"{name}.yaml")


def conda_prefix(given: str | os.PathLike[str], environ: Mapping[str, str]) -> Path:
    """The directory of a conda environment that is named by it or by its last part, as conda does.

    Raises ``SpecError`` where there is none."""
    path = Path(given)
    if (path / "conda-meta").is_dir():
        return path
    known = sorted(set(_conda_environments(environ)))
    named = [prefix for prefix in known if prefix.name == str(given)]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise SpecError(
            f"{len(named)} conda environments are called {given}",
            hint="name its directory: " + " or ".join(map(str, named)),
        )

    near = suggestion(str(given), [prefix.name for prefix in known], most=3)
    raise SpecError(
        f"{os.fspath(given)}: no conda environment of this name or in this directory",
        hint=near or "conda env list shows their directories",
    )


def _conda_environments(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("CONDA_PREFIX"):
        prefix = Path(environ["CONDA_PREFIX"])
        yield prefix
        if (prefix / "envs").is_dir():
            yield from (prefix / "envs").iterdir()
    if environ.get("HOME"):
        try:
            with (Path(environ["HOME"]) / _LISTED).open(encoding="utf-8") as listed:
                yield from (Path(line) for line in listed.read(_LIMIT).splitlines() if line)
        except (OSError, ValueError):
            pass  # Not there, or not ours to read: conda makes it with its first environment.


def virtual_environment(environ: Mapping[str, str]) -> Path:
    """The directory of the virtual or conda environment that is active. Raises ``UsageError``."""
    return current_environment(environ)


def moved(spec: Spec, name: str) -> Spec:
    """``spec`` under another name, as if it were written where this process stands: nothing is to be put
    into the environment it was read from."""
    return checked(replace(spec, name=name, named=True, source=Path.cwd() / f"{name}.yaml"))


def checked(spec: Spec) -> Spec:
    """``spec`` as it reads from its own YAML: programs may say no more than files may. Raises ``SpecError``.

    A curated one becomes system-managed, as any copy of it."""
    read = _read_text(dump_native(spec), spec.source)
    return replace(read, left_out=spec.left_out, unrelated=spec.unrelated, named=spec.named)


def _named(spec: Spec, name: str) -> Spec:
    return checked(replace(spec, name=name, named=True))


def _read(importer: Importer, path: Path) -> Spec:
    return importer.load(SourceFile.at(path))


def _native(fields: Mapping[str, object], source: Path) -> Spec:
    return _read_text(dump_yaml(fields), source)


def _read_text(text: str, source: Path) -> Spec:
    shown = source.stem
    return read_native(parse_document(text, shown), SourceFile(source, shown))
