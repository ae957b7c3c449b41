"""A requirements file as a spec of its own: pip requirements on the default base.

What pip-compile, uv or poetry wrote with hashes is a lock: nothing is added to it."""

from __future__ import annotations

import re
from dataclasses import replace

from envbuild.specs import fields
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.model import PipSpec, Spec
from envbuild.specs.problems import Problems
from envbuild.specs.text.source import SourceFile

_EXACT = re.compile(r"[^\s;,]+===?[^\s;,*]+(?:;|\Z)")


class RequirementsImporter:
    """Reads ``*.txt`` and ``*.in``."""

    name = "requirements"
    markers: tuple[str, ...] = ("requirements.in", "requirements.txt")

    def recognises(self, file: SourceFile) -> bool:
        return file.path.suffix.lower() in (".txt", ".in")

    def load(self, file: SourceFile) -> Spec:
        problems = Problems()
        reader = RequirementsReader(file.path.parent, problems)
        reader.read_file(file)
        problems.raise_if_any()
        pip = reader.result()
        compiled = file.path.suffix.lower() == ".txt" and is_locked(pip)
        return Spec(
            name=fields.default_name(file.path), source=file.path, pip=replace(pip, complete=compiled)
        )


def is_locked(pip: PipSpec) -> bool:
    """Whether every requirement is an exact pin with a hash. By pip's own rule (``--require-hashes``) such a
    file is all there is: pip refuses to install what it would have to add."""
    return bool(pip.requirements) and all(
        requirement.hashes and (" @ " in requirement.text or _EXACT.match(requirement.text))
        for requirement in pip.requirements
    )
