"""The environment inside Azure ML's v2 files: jobs, components, pipelines, online and batch deployments.

One file gives one environment: steps of a pipeline that need different ones are several specs. An
environment that only the service knows (``azureml:name@latest``) is refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from envbuild.errors import SpecError
from envbuild.specs.definition import definition_digest
from envbuild.specs.importers.native.reader import NativeImporter, read_native
from envbuild.specs.model import Spec
from envbuild.specs.problems import Place, Problems
from envbuild.specs.text.document import Document, Mapping, Node, Scalar, describe, yaml_document
from envbuild.specs.text.section import LeftOut, Section
from envbuild.specs.text.source import SourceFile

_USERS = frozenset(
    {
        *("command", "code", "code_configuration", "component", "compute", "endpoint_name", "entry"),
        *("experiment_name", "inputs", "instance_type", "jobs", "model", "outputs", "task", "trial"),
    }
)
"""Keys of what uses an environment; none of them is one of an environment itself."""
_FILES = 50
"""Files that one pipeline may lead to."""
_HINT = "write the environment into this file, or name its own file: environment: file:environment.yaml"
_SILENT = ("$schema", "type")


class AzureJobImporter:
    """Reads the environment of a v2 job, component or deployment."""

    name = "azure-v2-job"
    markers: tuple[str, ...] = ()

    def recognises(self, file: SourceFile) -> bool:
        if file.path.suffix.lower() not in (".yaml", ".yml"):
            return False
        root = yaml_document(file).root
        return isinstance(root, Mapping) and _is_user(root)

    def load(self, file: SourceFile) -> Spec:
        search = _Search()
        search.read(file, "")
        search.problems.raise_if_any(hint=_HINT)
        return search.result(file)


def _is_user(root: Mapping) -> bool:
    keys = {name.text for name, _ in root.entries}
    steps = any(isinstance(root.get(key), Mapping) for key in ("jobs", "trial", "task"))
    return bool(keys & _USERS) and ("environment" in keys or steps)


@dataclass(slots=True)
class _Search:
    """Every environment that a file and the files it names use."""

    problems: Problems = field(default_factory=Problems)
    left: LeftOut = field(default_factory=LeftOut)
    found: list[tuple[str, Spec]] = field(default_factory=list)
    """Each with the place that asks for it."""
    files: set[Path] = field(default_factory=set)

    def result(self, file: SourceFile) -> Spec:
        if not self.found:
            raise SpecError(f"{file.shown}: nothing in it has an environment of its own", hint=_HINT)
        spec = self.found[0][1]
        different = {definition_digest(other): where for where, other in reversed(self.found)}
        if len(different) > 1:
            where = ", ".join(reversed(different.values()))
            raise SpecError(
                f"{file.shown}: has {len(different)} different environments: {where}",
                hint="save each in a file of its own, and give that one",
            )
        lines = dict.fromkeys((*self.left.lines, *spec.left_out))
        return replace(spec, left_out=tuple(lines))

    def read(self, file: SourceFile, asked_at: str) -> None:
        """Reads a file of a job or component."""
        if file.path in self.files:
            return
        self.files.add(file.path)
        if len(self.files) > _FILES:
            raise SpecError(f"{file.shown}: leads to more than {_FILES} files")
        try:
            document = yaml_document(file)
        except SpecError as error:
            self.problems.include(error)
            return
        if not isinstance(document.root, Mapping):
            what = "is empty" if document.root is None else f"is {describe(document.root)}"
            self.problems.add(Place(file=file.shown), what)
            return
        section = Section(document.root, file, self.problems, self.left)
        self.user(section, document, asked_at)
        section.rest(_SILENT)

    def user(self, section: Section, document: Document, asked_at: str) -> None:
        """What one job, step, component or deployment uses."""
        where = ":".join(filter(None, (asked_at, section.path("environment"))))
        environment = section.get("environment")
        if environment is not None:
            self.environment(environment, section, document, where)
        for name in ("trial", "task", "component"):
            node = section.mapping.get(name)
            if isinstance(node, Mapping):
                inner = section.section(name)
                self.user(inner, document, asked_at)
                inner.rest(_SILENT)
            elif name != "task" and isinstance(node, Scalar) and environment is None:
                self.component(section, name)
        if isinstance(section.mapping.get("jobs"), Mapping):
            jobs = section.section("jobs")
            for key, value in jobs.mapping.entries:
                if isinstance(value, Mapping):
                    step = jobs.section(key.text)
                    self.user(step, document, asked_at)
                    step.rest(_SILENT)

    def component(self, section: Section, name: str) -> None:
        """A component in a file of its own; one that only the service has is said."""
        node = section.text(name)
        if node is None:
            return
        path = node.text.removeprefix("file:")
        if node.text.startswith("azureml:") or not path.lower().endswith((".yaml", ".yml")):
            why = "its environment is known to the service only"
            self.left.add(section.file, node.line, section.path(name), why)
            return
        other = section.file.beside(path)
        if not other.is_there():
            section.problem(name, f"{other.shown}: no such file")
            return
        self.read(other, section.path(name))

    def environment(self, node: Node, section: Section, document: Document, where: str) -> None:
        try:
            if isinstance(node, Scalar):
                spec = self.named(node, section)
            else:
                inner = Document(node, document.lines)
                prefix = section.path("environment")
                spec = read_native(inner, section.file, rename=lambda key: f"{prefix}.{key}")
        except SpecError as error:
            self.problems.include(error)
            return
        if spec is not None:
            self.found.append((where, spec))

    def named(self, node: Scalar, section: Section) -> Spec | None:
        """An environment that is named: by its file, or as the service knows it."""
        path = node.text.removeprefix("file:")
        if node.text.startswith(("azureml:", "azureml://")) or "://" in path:
            section.problem("environment", f"{node.text!r} is known to the service only")
            return None
        if not path.lower().endswith((".yaml", ".yml")) or "\0" in path:
            section.problem("environment", f"{node.text!r} is neither an environment nor its file")
            return None
        other = section.file.beside(path)
        if not other.is_there():
            section.problem("environment", f"{other.shown}: no such file")
            return None
        return NativeImporter().load(other)
