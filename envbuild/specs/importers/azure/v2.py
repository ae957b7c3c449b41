"""The environment inside Azure ML's v2 files: jobs, components, pipelines, online and batch deployments.

One file gives one environment: steps of a pipeline that need different ones are several specs. An
environment that only the service knows (``azureml:name@latest``) is refused by its name, with the command
that writes it as a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.errors import SpecError
from envbuild.specs.definition import definition_digest
from envbuild.specs.importers.azure.v1 import is_component_environment
from envbuild.specs.importers.native.reader import NativeImporter, read_native
from envbuild.specs.model import Spec
from envbuild.specs.problems import Place, Problems
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Scalar,
    Sequence,
    describe,
    yaml_document,
)
from envbuild.specs.text.section import LeftOut, Section, mapping_node, text_node
from envbuild.specs.text.source import SourceFile

_USERS = frozenset(
    {
        *(
            "auth_mode",
            "command",
            "code",
            "code_configuration",
            "component",
            "compute",
            "endpoint_name",
            "entry",
        ),
        *("experiment_name", "inputs", "instance_type", "jobs", "model", "outputs", "task", "trial"),
    }
)
"""Keys of what uses an environment; none of them is one of an environment itself."""
_COMMON = frozenset({"entry", "inputs", "model", "outputs", "task"})
"""Those of them that files of other tools have too."""
_SOFTWARE = frozenset({"base", "build", "conda_file", "dependencies", "image", "python", "requirements"})
"""Keys of an environment itself."""
_REFERENCE = frozenset({"name", "version"})
"""Keys that say which environment, and nothing of it."""
_STEPS = ("trial", "task", "component", "job", "create_job")
"""Keys of what another one runs: a mapping, or the path of a file."""
_KINDS = {
    "automl": "a job",
    "command": "a job",
    "distillation": "a job",
    "finetuning": "a job",
    "parallel": "a job",
    "pipeline": "a pipeline",
    "spark": "a job",
    "sweep": "a job",
}
"""Values of ``type`` that no environment has."""
_SCHEMA = re.compile(
    r"azuremlschemas\S*/([A-Za-z]+)\.schema\.json|azureml/sdk-2-0/(\w+)\.json", re.IGNORECASE
)
"""That of today, and of components before there was one (``azure-ai-ml`` calls them internal)."""
_OLD_KEYS = {"image": "docker.image", "build": "docker.build", "conda_file": "conda"}
"""What an environment in one of those components says in other words."""
_OLD_PYTHON = "3.8.5"
"""What such a component gets that has nothing but requirements."""
_ENVIRONMENT_SCHEMA = "environment"
_SERVICE_NAME = re.compile(
    r"azureml:(?://registries/(?P<registry>[\w.-]+)/environments/)?(?P<name>[\w.-]+)"
    r"(?:(?::|/versions/)(?P<version>[\w.-]+)|(?:@|/labels/)(?P<label>[\w.-]+))?"
)
_BUILD_REMEDY = (
    "write build: {path: DIRECTORY, dockerfile_path: NAME} into a file, and name it as environment: file:NAME"
)
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
    schema = _schema(root)
    if schema is not None:
        return schema != _ENVIRONMENT_SCHEMA
    kind = root.get("type")
    if keys & {"auth_mode", "create_job"} or (
        isinstance(kind, Scalar) and kind.text in _KINDS and keys & _USERS
    ):
        return True
    if len(keys & _USERS - _COMMON) > 1 and not keys & _SOFTWARE:
        return True
    steps = any(isinstance(root.get(key), Mapping) for key in ("jobs", "trial", "task"))
    return bool(keys & _USERS) and ("environment" in keys or steps or "endpoint_name" in keys)


def _schema(root: Mapping) -> str | None:
    """What the file's ``$schema`` says it is, in lower case: ``pipelinejob``."""
    written = root.get("$schema")
    match = _SCHEMA.search(written.text) if isinstance(written, Scalar) else None
    return (match[1] or match[2]).lower() if match is not None else None


def _kind(root: Mapping) -> str:
    """What a file is, in Azure's words."""
    schema, written = _schema(root) or "", root.get("type")
    for word in ("deployment", "component", "endpoint", "schedule", "pipeline", "job"):
        if word in schema:
            return f"an {word}" if word == "endpoint" else f"a {word}"
    if schema:
        return f"Azure ML's {schema}"
    keys = {name.text for name, _ in root.entries}
    if "endpoint_name" in keys:
        return "a deployment"
    if "auth_mode" in keys:
        return "an endpoint"
    return _KINDS.get(written.text, "a job") if isinstance(written, Scalar) else "a job"


def _remedy(reference: str) -> str | None:
    """The command that writes an environment of the service as a file."""
    match = _SERVICE_NAME.fullmatch(reference)
    if match is None:
        return None
    options = [f"--name {match['name']}"]
    options.append(
        f"--version {match['version']}" if match["version"] else f"--label {match['label'] or 'latest'}"
    )
    if match["registry"]:
        options.append(f"--registry-name {match['registry']}")
    return (
        f"'az ml environment show {' '.join(options)} -o yaml > {match['name']}.yml' writes it, "
        f"then name it as environment: file:{match['name']}.yml"
    )


@dataclass(slots=True)
class _Search:
    """Every environment that a file and the files it names use."""

    problems: Problems = field(default_factory=Problems)
    left: LeftOut = field(default_factory=LeftOut)
    found: list[tuple[str, Spec]] = field(default_factory=list)
    """Each with the place that asks for it."""
    elsewhere: dict[str, None] = field(default_factory=dict)
    """Where environments are that can't be read, each once."""
    files: set[Path] = field(default_factory=set)

    def result(self, file: SourceFile) -> Spec:
        if not self.found:
            raise self.nothing(file)
        spec = self.found[0][1]
        different = {definition_digest(other): where for where, other in reversed(self.found)}
        if len(different) > 1:
            where = ", ".join(reversed(different.values()))
            raise SpecError(
                f"{file.shown}: has {len(different)} different environments: {where}",
                hint="save each in a file of its own, and give that one",
            )
        return self.left.added_to(spec)

    def nothing(self, file: SourceFile) -> SpecError:
        """What is said of a file without an environment: who has it."""
        root = yaml_document(file).root
        assert isinstance(root, Mapping)
        kind = _kind(root)
        if kind.startswith(("an endpoint", "Azure")):
            what = f"{kind}, which has no environment: give the job or deployment that uses it"
            return SpecError(f"{file.shown}: {what}")
        what = f"{kind} without an environment of its own"
        if self.elsewhere:
            return SpecError(f"{file.shown}: {what}: {'; '.join(self.elsewhere)}", hint=_HINT)
        model = root.get("model")
        path = model.get("path") if isinstance(model, Mapping) else model
        written = model.get("type") if isinstance(model, Mapping) else None
        if not isinstance(path, Scalar):
            return SpecError(f"{file.shown}: {what}", hint=_HINT)
        if isinstance(written, Scalar) and written.text != "mlflow_model":
            return SpecError(f"{file.shown}: {what}, and a {written.text} brings none", hint=_HINT)
        if path.text.startswith("azureml:") or "://" in path.text:
            hint = "download the model, and import its directory"
        else:
            hint = f"envbuild import {file.beside(path.text).shown}"
        return SpecError(f"{file.shown}: {what}: its MLflow model brings it", hint=hint)

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
        section.rest(_SILENT, unrelated=True)

    def user(self, section: Section, document: Document, asked_at: str) -> None:
        """What one job, step, component or deployment uses."""
        where = ":".join(filter(None, (asked_at, section.path("environment"))))
        environment = section.get("environment")
        if environment is not None:
            self.environment(environment, section, document, where)
        for name in _STEPS:
            node = section.mapping.get(name)
            if isinstance(node, Mapping):
                inner = section.section(name)
                self.user(inner, document, asked_at)
                inner.rest(_SILENT, unrelated=True)
            elif name != "task" and isinstance(node, Scalar) and environment is None:
                self.component(section, name)
        if isinstance(section.mapping.get("jobs"), Mapping):
            jobs = section.section("jobs")
            for key, value in jobs.mapping.entries:
                if isinstance(value, Mapping):
                    step = jobs.section(key.text)
                    self.user(step, document, asked_at)
                    step.rest(_SILENT, unrelated=True)

    def component(self, section: Section, name: str) -> None:
        """A component in a file of its own; one that only the service has is said."""
        node = section.text(name)
        if node is None:
            return
        path = node.text.removeprefix("file:")
        if node.text.startswith("azureml:") or not path.lower().endswith((".yaml", ".yml")):
            why = "its environment is known to the service only"
            self.left.add(section.file, node.line, section.path(name), why)
            self.elsewhere.setdefault(f"that of {node.text} is known to the service only")
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
                spec = self.inline(node, section, document)
        except SpecError as error:
            self.problems.include(error)
            return
        if spec is not None:
            self.found.append((where, spec))

    def inline(self, node: Node, section: Section, document: Document) -> Spec | None:
        """An environment that is written out; None where that is a problem."""
        prefix, keys = section.path("environment"), dict[str, str]()
        if is_component_environment(node):
            node, keys = self.old(Section(node, section.file, self.problems, self.left, prefix)), _OLD_KEYS
        elif isinstance(node, Mapping) and {key.text for key, _ in node.entries} <= _REFERENCE:
            name, version = node.get("name"), node.get("version")
            tail = f":{version.text}" if isinstance(version, Scalar) else "@latest"
            remedy = _remedy(f"azureml:{name.text}{tail}") if isinstance(name, Scalar) else None
            section.problem("environment", "names no software: only the service knows it", remedy)
            return None
        inner = Document(node, document.lines)
        return read_native(inner, section.file, rename=lambda key: f"{prefix}.{keys.get(key, key)}")

    def old(self, section: Section) -> Mapping:
        """What an environment of a component of ``azureml/sdk-2-0`` says, in the words of today."""
        docker, conda = section.section("docker"), section.section("conda")
        image, line = docker.text("image"), section.mapping.line
        if docker.get("build") is not None:
            docker.problem("build", "a Dockerfile can't be carried from here", _BUILD_REMEDY)
        dependencies, file = conda.get("conda_dependencies"), conda.text("conda_dependencies_file")
        requirements = conda.text("pip_requirements_file")
        # As Azure ML has it, the first of them counts.
        if dependencies is None and file is None and requirements is not None:
            python = text_node(f"python={_OLD_PYTHON}", requirements.line)
            lines = Sequence((text_node(f"-r {requirements.text}", requirements.line),), requirements.line)
            pip = mapping_node({"pip": lines}, requirements.line)
            dependencies = mapping_node({"dependencies": Sequence((python, pip), line)}, line)
        for part in (docker, conda):
            part.rest()
        section.leave("os", unrelated=True)
        section.rest(("name", "version"))
        return mapping_node({"image": image, "conda_file": dependencies or file}, line)

    def named(self, node: Scalar, section: Section) -> Spec | None:
        """An environment that is named: by its file, or as the service knows it."""
        path = node.text.removeprefix("file:")
        if node.text.startswith(("azureml:", "azureml://")) or "://" in path:
            what = f"{node.text!r} is known to the service only"
            section.problem("environment", what, _remedy(node.text))
            return None
        if not path.lower().endswith((".yaml", ".yml")) or "\0" in path:
            section.problem("environment", f"{node.text!r} is neither an environment nor its file")
            return None
        other = section.file.beside(path)
        if not other.is_there():
            section.problem("environment", f"{other.shown}: no such file")
            return None
        return NativeImporter().load(other)
