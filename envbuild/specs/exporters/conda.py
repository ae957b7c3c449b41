"""A spec as conda's ``environment.yml``."""

from __future__ import annotations

import re

from envbuild.specs.exporters.native import pip_line, pip_options
from envbuild.specs.exporters.unsupported_fields import beyond
from envbuild.specs.match import explicit_match
from envbuild.specs.model import Spec
from envbuild.specs.plugins import Exported
from envbuild.specs.text.yaml import dump_yaml

CHANNEL = "conda-forge"
"""For specs that need conda only for their python."""
CONSTRAINTS = "constraints.txt"


def export_conda(spec: Spec) -> Exported:
    """``environment.yml``, and ``constraints.txt`` where there are any."""
    constraints = "".join(f"{pip_line(constraint)}\n" for constraint in spec.pip.constraints)
    content, lines = conda_mapping(spec, constraints=bool(constraints))
    files = {"environment.yml": dump_yaml(content).encode()}
    if constraints:
        files[CONSTRAINTS] = constraints.encode()
    carried = {"name", "python", "conda_file", "requirements", "constraints", "environment_variables"}
    return Exported(files=tuple(files.items()), left_out=(*lines, *beyond(spec, carried)))


def conda_mapping(
    spec: Spec, *, constraints: bool = False, variables: bool = True
) -> tuple[dict[str, object], list[str]]:
    """The content of a conda file, and what of the conda packages it can't carry.

    ``constraints`` says that pip's stand in a file beside it. Exact packages become names, versions and
    builds, those of the first platform: a conda file knows no other.
    """
    conda, pip = spec.conda, spec.pip
    lines: list[str] = []
    channels = list(conda.channels) if conda is not None else [CHANNEL]
    dependencies: list[object] = list(conda.dependencies) if conda is not None else []
    if conda is not None and conda.explicit:
        first = conda.explicit[0].platform
        dependencies += [explicit_match(package) for package in conda.explicit if package.platform == first]
        if len({package.platform for package in conda.explicit}) > 1:
            lines.append(f"conda_file.explicit: packages of platforms other than {first}")
    if spec.python is not None and not (conda is not None and conda.explicit):
        dependencies.insert(0, _python(spec.python))
    elif conda is None:
        dependencies.append("python")
        lines.append("python: none is pinned, so conda takes its newest")
    installed = [*pip_options(pip.options), *(["-c " + CONSTRAINTS] if constraints else [])]
    installed += [pip_line(requirement) for requirement in pip.requirements]
    if installed:
        if not _has(dependencies, "pip") and conda is None:
            dependencies.append("pip")
        dependencies.append({"pip": installed})
    document: dict[str, object] = {"name": spec.name, "channels": channels, "dependencies": dependencies}
    if variables and spec.environment_variables:
        document["variables"] = dict(spec.environment_variables)
    return document, lines


def _has(dependencies: list[object], name: str) -> bool:
    return any(
        re.match(rf"{name}(?![\w.-])", dependency)
        for dependency in dependencies
        if isinstance(dependency, str)
    )


def _python(wanted: str) -> str:
    """A conda requirement of the python that a spec asks for."""
    bare = wanted.replace(" ", "")
    if re.fullmatch(r"[0-9.]+", bare):
        return f"python={bare}.*" if bare.count(".") < 2 else f"python=={bare}"
    return f"python{bare}" if bare[0] in "<>=!~" else f"python={bare}"
