"""A spec from whatever people have: a file of any known format, or a directory that holds one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import SpecError
from envbuild.lazy import lazy
from envbuild.specs.model import Spec
from envbuild.specs.plugins import Importer
from envbuild.specs.text.source import SourceFile

if TYPE_CHECKING:
    from envbuild.specs import plugins
    from envbuild.specs.importers import dockerfile
else:
    dockerfile = lazy("envbuild.specs.importers.dockerfile")
    plugins = lazy("envbuild.specs.plugins")

_log = logging.getLogger(__name__)

NAMES = (
    # Written for envbuild: whoever has one means it.
    "envbuild.yaml",
    "envbuild.yml",
    # An environment that is installed there.
    "conda-meta/",
    "pyvenv.cfg",
    # A directory with one of these is that format as a whole, whatever else lies in it.
    "azureml_environment.json",
    "asset.yaml",
    "MLmodel",
    "MLproject",
    "mlproject",
    "MLProject",
    "binder/",
    ".binder/",
    "postBuild",
    "apt.txt",
    "runtime.txt",
    # A file beside others that say less. ``environment.*`` leads ``conda.*``, because Azure ML's environment
    # files name a ``conda.yaml`` beside them.
    "environment.yaml",
    "environment.yml",
    "conda.yaml",
    "conda.yml",
    # Names the ``requirements.txt`` beside it.
    "python_env.yaml",
    "python_env.yml",
    # Locks of other tools, which say more than what they were made from.
    "conda-lock.yml",
    "conda-lock.yaml",
    "pixi.lock",
    "uv.lock",
    "pylock.toml",
    "pixi.toml",
    # Leads the ``requirements.txt`` that was compiled from it.
    "requirements.in",
    "requirements.txt",
    # Behind the requirements that are often written from it.
    "Pipfile.lock",
    "Pipfile",
    "poetry.lock",
    # What a project needs to be used, where nothing says what it is used with.
    "pyproject.toml",
    # Says how an environment is used; it names one of the above.
    "inferenceconfig.json",
    # Takes all as it is: only where nothing else says what is wanted.
    "Dockerfile",
    "Containerfile",
)
"""What is looked for in a directory; the first one there is the spec. Markers of importers that aren't
listed here come last, in the order of the importers."""

_KNOWN = (
    "known are envbuild's and Azure ML's YAML, environment.yml, requirements.txt, pyproject.toml, scripts "
    "with their requirements (PEP 723), Pipfile, locks of pip, uv, pipenv, Poetry, conda-lock and pixi, "
    "models and projects of MLflow, directories with a Dockerfile or repo2docker's files, and directories of "
    "conda and virtual environments"
)


IMPORTERS = (
    # They know their files by the whole name, before others look at its end.
    "azure.v1:AzureDirectoryImporter",
    "azure.assets:AzureAssetsImporter",
    "azure.runconfig:InferenceConfigImporter",
    "conda.prefix:CondaPrefixImporter",
    "pip.virtualenv:VirtualenvImporter",
    # Looks into YAML files for keys that lead a line; before those that read such a file as a whole.
    "conda.lock_file:CondaLockImporter",
    "mlflow:MlflowImporter",
    "repo2docker:Repo2dockerImporter",
    "dockerfile:DockerfileImporter",
    "pixi.lock:PixiLockImporter",
    "uv.lock:UvLockImporter",
    "pip.pylock:PylockImporter",
    "poetry.lock:PoetryLockImporter",
    "pip.pipfile:PipfileImporter",
    # Before those who take every file of that kind: these look into it.
    "conda.explicit:ExplicitListImporter",
    "pixi.manifest:PixiImporter",
    "pip.requirements:RequirementsImporter",
    "pip.pyproject:PyprojectImporter",
    "pip.script:ScriptImporter",
    # These look into YAML files: what holds an environment, then what is one.
    "azure.runconfig:RunConfigImporter",
    "azure.v2:AzureJobImporter",
    "conda.environment:CondaImporter",
    "native.reader:NativeImporter",
)
"""The formats in the order they are asked, each by its module below ``specs.importers`` and its class."""


def importers() -> tuple[Importer, ...]:
    """The formats, in the order they are asked."""
    return tuple(_importer(name) for name in IMPORTERS)


def _importer(name: str) -> Importer:
    module, _, kind = name.partition(":")
    importer: Importer = getattr(import_module(f"envbuild.specs.importers.{module}"), kind)()
    return importer


def markers(formats: Sequence[Importer]) -> tuple[str, ...]:
    """The file names that make a directory a spec, in the order they are looked for."""
    known = dict.fromkeys(name for importer in formats for name in importer.markers)
    return (*(name for name in NAMES if name in known), *(name for name in known if name not in NAMES))


def load_spec(
    path: Path, *, formats: Sequence[Importer] | None = None, reads: dict[Path, str] | None = None
) -> Spec:
    """The spec at ``path``: a file, or the first of :func:`markers` in a directory. What follows a ``#``
    names parts of it, for importers that are ``selective``: ``pyproject.toml#plot,group:test``.

    ``Spec.source`` is absolute; relative paths inside the spec are relative to its directory. ``reads``
    is given the absolute path and digest of every file that was read.

    Raises ``SpecError`` with every problem of every file it reads.
    """
    file = spec_file(path, formats=formats, reads=reads)
    for importer in _asked(formats):
        if importer.recognises(file):
            if file.fragment and not getattr(importer, "selective", False):
                raise SpecError(f"{file.shown}: has no parts that '#{file.fragment}' could choose")
            return importer.load(file)
    raise SpecError(f"{file.shown}: its format isn't known by its name", hint=_KNOWN)


def _asked(formats: Sequence[Importer] | None) -> Iterator[Importer]:
    """Those that are asked, in turn: by default ours, and only then those of other packages."""
    if formats is not None:
        yield from formats
        return
    yield from importers()

    yield from plugins.other_importers()


def spec_file(
    path: Path, *, formats: Sequence[Importer] | None = None, reads: dict[Path, str] | None = None
) -> SourceFile:
    """The file that is the spec at ``path``. Raises ``SpecError`` where there is none."""
    path, fragment = _split(path)
    if path.is_dir():
        # Our own are all among the names: to find the file of a spec that is remembered, none is imported.
        path = _file_in(path, formats)
    file = SourceFile.at(path, reads, fragment)
    if not file.is_there():
        raise SpecError(f"{file.shown}: no such file or directory", hint=_KNOWN)
    return file


def _split(path: Path) -> tuple[Path, str]:
    """A path and the fragment behind its ``#``, which a path that is there may have in its own name."""
    name, hash_sign, fragment = path.name.rpartition("#")
    try:
        if not name or not fragment or path.exists():
            return path, ""
    except (OSError, ValueError):
        pass  # It can't be there.
    return path.with_name(name) if hash_sign else path, fragment if hash_sign else ""


def _file_in(directory: Path, formats: Sequence[Importer] | None) -> Path:
    names = NAMES if formats is None else markers(formats)
    present = [path for path in map(partial(_marked, directory), names) if path is not None]
    if not present and formats is None:
        more = markers(tuple(plugins.other_importers()))
        names = (*names, *more)
        present = [path for path in map(partial(_marked, directory), more) if path is not None]
    if not present:
        hint = "looked for " + ", ".join(names)
        files = SourceFile.at(directory).names()
        if named := [name for name in files if dockerfile.is_dockerfile_name(name)]:
            hint = f"a file of another name is given by itself: {(directory / named[0]).as_posix()}"
        raise SpecError(f"{directory.as_posix()}: no spec in this directory", hint=hint)
    if len(present) > 1:
        others = ", ".join(path.name for path in present[1:])
        _log.info("%s is the spec; not read by itself: %s", present[0].as_posix(), others)
    return present[0]


def _marked(directory: Path, name: str) -> Path | None:
    """The marker ``name`` of ``directory``; one that ends with a slash is a directory itself."""
    path = directory / name
    return path if (path.is_dir() if name.endswith("/") else path.is_file()) else None
