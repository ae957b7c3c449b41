"""Conda and pip packages in one value that is edited in place: the SDK's ``CondaDependencies``.

What it holds is a conda ``environment.yml``. A new one pins the Python that Azure ML's does; what Azure ML
adds of its own (``azureml-defaults``, the channel ``anaconda``) is not added here.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from envbuild.app.edit import CHANNEL, requirement_name
from envbuild.app.save import write_file
from envbuild.azure.unsupported import azure_only
from envbuild.errors import PublishError, SpecError, UsageError
from envbuild.specs.importers.conda.environment import KEYS
from envbuild.specs.text.source import YAML_LIMIT, SourceFile
from envbuild.specs.text.yaml import dump_yaml, parse_values

PYTHON_DEFAULT_VERSION = "3.10.18"
"""What ``create`` pins, and a conda file without a Python gets."""
NEW_PYTHON = "3.8.13"
"""What ``CondaDependencies()`` pins, as Azure ML's does."""
CPU, GPU = "cpu", "gpu"
CNTK_DEFAULT_VERSION = "2.7"
TENSORFLOW_DEFAULT_VERSION = "2.2.0"

_FILE = Path(".azureml") / "conda_dependencies.yml"


class CondaDependencies:
    """What conda and pip install: ``channels`` and ``dependencies``, with pip's own list among them.

    >>> dependencies = CondaDependencies.create(python_version="3.11", conda_packages=["numpy"])
    >>> dependencies.add_pip_package("six==1.17.0")
    """

    def __init__(
        self,
        conda_dependencies_file_path: str | os.PathLike[str] | None = None,
        _underlying_structure: Mapping[str, Any] | None = None,
    ) -> None:
        """Those of a conda file; by default a Python alone. Raises ``SpecError`` for a file that is none."""
        self.directory: Path | None = None
        """What local paths in it are relative to; None: the environment's own directory."""
        if conda_dependencies_file_path is not None:
            path = Path(conda_dependencies_file_path)
            content, self.directory = _conda_content(path), path.absolute().parent
        elif _underlying_structure is not None:
            content = copy.deepcopy(dict(_underlying_structure))
        else:
            content = {
                "name": "project_environment",
                "channels": [CHANNEL],
                "dependencies": [f"python={NEW_PYTHON}"],
            }
        self._content: dict[str, Any] = content

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Iterable[str] | None = None,
        conda_packages: Iterable[str] | None = None,
        python_version: str = PYTHON_DEFAULT_VERSION,
        pin_sdk_version: bool = True,
    ) -> CondaDependencies:
        """Those packages on that Python. ``pip_indexurl`` is asked besides the usual index.

        ``pin_sdk_version`` changes nothing: no version is rewritten, the SDK's own packages' neither."""
        dependencies = CondaDependencies()
        dependencies.set_python_version(python_version)
        if pip_indexurl:
            dependencies.set_pip_option(f"--extra-index-url {pip_indexurl}")
        for package in pip_packages or ():
            dependencies.add_pip_package(package)
        for package in conda_packages or ():
            dependencies.add_conda_package(package)
        return dependencies

    @staticmethod
    def merge_requirements(requirements: Iterable[str]) -> list[str]:
        """One requirement for each package, with all its constraints: ``a>=1``, ``a<2`` are ``a>=1,<2``."""
        merged: dict[str, list[str]] = {}
        for requirement in requirements:
            name = requirement_name(requirement)
            constraint = requirement[len(name) :].strip()
            merged.setdefault(name, []).extend([constraint] if constraint else [])
        return [name + ",".join(constraints) for name, constraints in merged.items()]

    @staticmethod
    def sdk_origin_url() -> str:
        """Raises ``AzureOnlyError``: no SDK came from anywhere."""
        raise azure_only(
            "CondaDependencies.sdk_origin_url", "name an index with set_pip_option('--index-url ADDRESS')"
        )

    # --- what it says ---------------------------------------------------------------------------------

    @property
    def conda_channels(self) -> Iterator[str]:
        """The channels, in order of priority."""
        return iter(tuple(self._content.get("channels") or ()))

    @property
    def conda_packages(self) -> Iterator[str]:
        """Conda's packages as they are written, Python among them."""
        return (item for item in tuple(self._dependencies) if isinstance(item, str))

    @property
    def pip_packages(self) -> Iterator[str]:
        """Pip's packages, as they are written."""
        return (item for item in tuple(self._pip) if not item.startswith("-"))

    @property
    def pip_options(self) -> Iterator[str]:
        """Pip's options, one with its value each."""
        return (item for item in tuple(self._pip) if item.startswith("-"))

    def get_default_number_of_packages(self) -> tuple[int, int]:
        """How many packages of conda's and of pip's a new value has."""
        new = CondaDependencies()
        return len(list(new.conda_packages)), len(list(new.pip_packages))

    def get_python_version(self) -> str | None:
        """The version that Python is pinned to, without its operator; None where none is named."""
        for package in self.conda_packages:
            if requirement_name(package) == "python":
                return package[len("python") :].strip().lstrip("=").strip() or None
        return None

    # --- conda ----------------------------------------------------------------------------------------

    def set_python_version(self, version: str) -> None:
        """Pins Python: ``3.11``, ``3.11.4``."""
        pinned, dependencies = f"python={version}", self._dependencies
        for index, package in enumerate(dependencies):
            if isinstance(package, str) and requirement_name(package) == "python":
                dependencies[index] = pinned
                return
        dependencies.append(pinned)

    def add_channel(self, channel: str) -> None:
        """Adds a channel, behind those that are there."""
        channels = self._list("channels")
        if channel not in channels:
            channels.append(channel)

    def remove_channel(self, channel: str) -> None:
        """Takes a channel away, where it is there."""
        if channel in self._list("channels"):
            self._list("channels").remove(channel)

    def add_conda_package(self, conda_package: str) -> None:
        """Adds a package of conda's, as conda writes it; a Python replaces the one that is there."""
        dependencies = self._dependencies
        if requirement_name(conda_package) == "python":
            self._replace_python(conda_package)
        elif conda_package not in dependencies:
            dependencies.append(conda_package)

    def _replace_python(self, written: str) -> None:
        dependencies = self._dependencies
        for index, package in enumerate(dependencies):
            if isinstance(package, str) and requirement_name(package) == "python":
                # As it was written: no constraint becomes a pin.
                dependencies[index] = written
                return
        dependencies.append(written)

    def remove_conda_package(self, conda_package: str) -> None:
        """Takes away a package, named as it is written. Raises ``UsageError`` for Python, which has to be
        there."""
        if conda_package not in self._dependencies:
            return
        if requirement_name(conda_package) == "python":
            raise UsageError("python can't be removed", hint="set_python_version names another one")
        self._dependencies.remove(conda_package)

    # --- pip ------------------------------------------------------------------------------------------

    def add_pip_package(self, pip_package: str) -> None:
        """Adds a requirement of pip's, in place of another one of that package. Raises ``UsageError`` for an
        option."""
        self.remove_pip_package(pip_package)
        self._pip_list().append(pip_package)

    def remove_pip_package(self, pip_package: str) -> None:
        """Takes away what is required of that package, whatever its version. Raises ``UsageError``."""
        if pip_package.startswith("-"):
            raise UsageError(f"{pip_package!r} is an option of pip, no package", hint="use set_pip_option")
        name = _distribution(pip_package)
        pip = self._pip
        pip[:] = [item for item in pip if item.startswith("-") or _distribution(item) != name]

    def set_pip_option(self, pip_option: str) -> None:
        """Sets an option, in place of another value of it. Raises ``UsageError`` for what is none."""
        index = self.remove_pip_option(pip_option)
        pip = self._pip_list()
        pip.insert(len(pip) if index is None else index, pip_option)

    def remove_pip_option(self, pip_option: str) -> int | None:
        """Takes an option away, whatever its value; returns where it stood. Raises ``UsageError``."""
        if not pip_option.startswith("-"):
            raise UsageError(f"{pip_option!r} is no option of pip", hint="options start with a dash")
        name = _option_name(pip_option)
        for index, item in enumerate(self._pip):
            if item.startswith("-") and _option_name(item) == name:
                del self._pip[index]
                return index
        return None

    def set_pip_index_url(self, index_url: str) -> None:
        """Names the index: an address, or a whole option."""
        self.set_pip_option(index_url if index_url.startswith("-") else f"--index-url {index_url}")

    def set_pip_requirements(self, pip_requirements: Sequence[str]) -> None:
        """All that pip is told, as lines of a requirements file, in place of what was there."""
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in pip_requirements)
        self._pip_list()[:] = [line for line in lines if line]

    def add_cntk_package(self, core_type: str = CPU) -> None:
        """Adds ``cntk``."""
        self._add_pip_variant("cntk", core_type, CNTK_DEFAULT_VERSION)

    def add_tensorflow_pip_package(self, core_type: str = CPU, version: str | None = None) -> None:
        """Adds ``tensorflow``, by default the version that Azure ML's does."""
        self._add_pip_variant("tensorflow", core_type, version or TENSORFLOW_DEFAULT_VERSION)

    def add_tensorflow_conda_package(self, core_type: str = CPU, version: str | None = None) -> None:
        """Adds conda's ``tensorflow``, by default the version that Azure ML's does."""
        name = _variant("tensorflow", core_type)
        dependencies = self._dependencies
        dependencies[:] = [
            item for item in dependencies if not (isinstance(item, str) and item.startswith("tensorflow"))
        ]
        dependencies.append(f"{name}={version or TENSORFLOW_DEFAULT_VERSION}")

    def _add_pip_variant(self, name: str, core_type: str, version: str) -> None:
        variant = _variant(name, core_type)
        pip = self._pip_list()
        pip[:] = [item for item in pip if not item.startswith(name)]
        pip.append(f"{variant}=={version}")

    # --- as a file ------------------------------------------------------------------------------------

    def save_to_file(
        self, base_directory: str | os.PathLike[str], conda_file_path: str | os.PathLike[str] | None = None
    ) -> str:
        """Writes it below ``base_directory``; returns the path in there. Raises ``PublishError``."""
        written = Path(conda_file_path) if conda_file_path is not None else _FILE
        self._write(Path(base_directory) / written)
        return written.as_posix()

    def save(self, path: str | os.PathLike[str] | None = None) -> str:
        """Writes it as a conda file; returns its path. Raises ``UsageError`` for a directory."""
        if path is None or Path(path).is_dir():
            raise UsageError("a conda file is saved to a file, not to a directory", hint="add a file's name")
        self._write(Path(path))
        return Path(path).as_posix()

    def _write(self, path: Path) -> None:
        if not any(requirement_name(package) == "python" for package in self.conda_packages):
            raise UsageError("no python is named", hint="set_python_version names one")
        try:
            write_file(path, self.serialize_to_string().encode())
        except OSError as error:
            raise PublishError(f"can't write {path}: {error.strerror}") from error

    def serialize_to_string(self) -> str:
        """A conda file's text."""
        return dump_yaml(self._content)

    def as_dict(self) -> dict[str, Any]:
        """A copy of what the file says, as dictionaries and lists."""
        return copy.deepcopy(self._content)

    # --- its parts ------------------------------------------------------------------------------------

    def _list(self, key: str) -> list[Any]:
        values = self._content.get(key)
        if not isinstance(values, list):
            values = self._content[key] = []
        return values

    @property
    def _dependencies(self) -> list[Any]:
        return self._list("dependencies")

    @property
    def _pip(self) -> list[str]:
        """Pip's list; an empty one of its own where there is none."""
        for item in self._dependencies:
            if isinstance(item, dict) and isinstance(item.get("pip"), list):
                pip: list[str] = item["pip"]
                return pip
        return []

    def _pip_list(self) -> list[str]:
        """Pip's list, made where there is none."""
        for index, item in enumerate(self._dependencies):
            if isinstance(item, dict) and "pip" in item:
                if not isinstance(item["pip"], list):
                    self._dependencies[index] = {"pip": []}
                return self._pip
        self._dependencies.append({"pip": []})
        return self._pip


def _conda_content(path: Path) -> dict[str, Any]:
    """What a conda file says."""
    file = SourceFile.at(path)
    content = parse_values(file.read(YAML_LIMIT), file.shown)
    if not isinstance(content, dict):
        raise SpecError(f"{file.shown}: is no conda file", hint="it has channels and dependencies")
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise SpecError(f"{file.shown}: {unknown[0]}: unknown key", hint=f"known keys: {', '.join(KEYS)}")
    for key in ("channels", "dependencies"):
        if content.get(key) is not None and not isinstance(content[key], list):
            raise SpecError(f"{file.shown}: {key} must be a list")
    return content


def _distribution(text: str) -> str:
    return canonicalize_name(requirement_name(text))


def _option_name(text: str) -> str:
    return re.split(r"[\s=]", text, maxsplit=1)[0]


def _variant(name: str, core_type: str) -> str:
    if core_type not in (CPU, GPU):
        raise UsageError(f"{core_type!r} is no core type", hint="it is cpu or gpu")
    return f"{name}-gpu" if core_type == GPU else name
