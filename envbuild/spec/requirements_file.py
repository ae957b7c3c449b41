"""A requirements file as a spec of its own: pip requirements on the default base."""

from __future__ import annotations

from envbuild.spec import fields
from envbuild.spec.model import Spec
from envbuild.spec.problems import Problems
from envbuild.spec.requirements import RequirementsReader
from envbuild.spec.source import SourceFile


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
        return Spec(name=fields.default_name(file.path), source=file.path, pip=reader.result())
