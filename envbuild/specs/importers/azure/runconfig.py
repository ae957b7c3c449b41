"""Azure ML's files of the first SDK that hold an environment among other things.

A run configuration (``.azureml/<name>.runconfig``, ``aml_config/<name>.runconfig``) has it inline or by path;
an ``inferenceconfig.json`` has it inline, or names a conda file and an image.
"""

from __future__ import annotations

from dataclasses import replace

from envbuild.errors import SpecError
from envbuild.specs.importers.azure.v1 import AzureV1Parts, is_azure_v1, named_file, read_azure_v1
from envbuild.specs.model import InferenceConfig, Route, Spec
from envbuild.specs.problems import Problems
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Scalar,
    parse_document,
    parse_json,
    unnamed_mapping,
    yaml_document,
)
from envbuild.specs.text.section import LeftOut, Section, mapping_node, says_something
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

DIRECTORIES = (".azureml", "aml_config")
_LEVELS = 5
"""Directories that are looked at, from a file's own upwards."""
INFERENCE = "inferenceconfig.json"
_ROUTES = InferenceConfig(
    liveness_route=Route(path="/", port=5001),
    readiness_route=Route(path="/", port=5001),
    scoring_route=Route(path="/score", port=5001),
)
"""Where the service of that time looked for a model's server."""


class RunConfigImporter:
    """Reads ``*.runconfig``, and YAML files that hold the same."""

    name = "azure-runconfig"
    markers: tuple[str, ...] = ()

    def recognises(self, file: SourceFile) -> bool:
        suffix = file.path.suffix.lower()
        if suffix == ".runconfig" or (not suffix and file.path.parent.name in DIRECTORIES):
            return True
        if suffix not in (".yaml", ".yml"):
            return False
        root = yaml_document(file).root
        return isinstance(root, Mapping) and is_azure_v1(root.get("environment"))

    def load(self, file: SourceFile) -> Spec:
        left, problems = LeftOut(), Problems()
        document = yaml_document(file)
        if not isinstance(document.root, Mapping):
            raise SpecError(f"{file.shown}: a run configuration is a mapping with an 'environment'")
        top = Section(document.root, file, problems, left)
        framework = top.text("framework")
        spark = framework is not None and framework.text.lower() == "pyspark"
        if framework is not None and framework.text.lower() not in ("python", "pyspark"):
            top.leave("framework", unrelated=True)
        communicator = top.text("communicator")
        if communicator is not None and communicator.text.lower() != "none":
            top.leave("communicator", unrelated=True)
        nodes = top.text("nodeCount")
        if nodes is not None and nodes.text != "1":
            top.leave("nodeCount", unrelated=True)
        node = top.get("environment")
        top.rest(unrelated=True)
        problems.raise_if_any()
        places = _places(file)
        if isinstance(node, Scalar):
            return _other(named_file(places, node.text), left, places, spark)
        inner = Document(node, document.lines)
        return read_azure_v1(
            inner, file, left, key="environment", beside=AzureV1Parts(places=places, spark=spark)
        )


class InferenceConfigImporter:
    """Reads ``inferenceconfig.json``. What it describes serves, on the routes of that time."""

    name = "azure-inferenceconfig"
    markers: tuple[str, ...] = (INFERENCE,)

    def recognises(self, file: SourceFile) -> bool:
        if file.path.name.lower() == INFERENCE:
            return True
        root = unnamed_mapping(file) if file.path.suffix.lower() == ".json" else None
        return root is not None and root.get("entryScript") is not None

    def load(self, file: SourceFile) -> Spec:
        left, problems = LeftOut(), Problems()
        document = parse_json(file.read(YAML_LIMIT), file.shown)
        if not isinstance(document.root, Mapping):
            raise SpecError(f"{file.shown}: an inference configuration is a mapping")
        top = Section(document.root, file, problems, left)
        runtime = top.text("runtime")
        spark = runtime is not None and runtime.text.lower() == "spark-py"
        if runtime is not None and runtime.text.lower() not in ("python", "spark-py"):
            top.problem("runtime", f"{runtime.text!r} is unknown", "known are python and spark-py")
        if top.flag("enableGpu"):
            top.leave("enableGpu", "name an image that has CUDA")
        inline, places = top.get("environment"), _places(file)
        source = document.root.get("sourceDirectory")
        if isinstance(source, Scalar) and says_something(source):
            places = tuple(
                place for own in places for place in (own.beside(f"{source.text}/{own.path.name}"), own)
            )
        old = {name: top.get(name) for name in ("condaFile", "baseImage", "baseImageRegistry")}
        top.leave("extraDockerfileSteps", "build the image with them, and name it as the base image")
        top.rest(unrelated=True)
        problems.raise_if_any()
        if isinstance(inline, Scalar):
            spec = _other(named_file(places, inline.text), left, places, spark)
        else:
            if inline is None:
                inline = _environment(old, document.root.line)
                key = ""
            else:
                key = "environment"
                for name in old:
                    top.leave(name, "the environment is used")
            inner = Document(inline, document.lines)
            spec = read_azure_v1(
                inner, file, left, key=key, beside=AzureV1Parts(places=places, spark=spark or None)
            )
        return replace(spec, inference_config=spec.inference_config or _ROUTES)


def _environment(old: dict[str, Node | None], line: int) -> Mapping:
    """The environment that the older keys describe."""
    docker = {"baseImage": old["baseImage"], "baseImageRegistry": old["baseImageRegistry"]}
    python = {"condaDependenciesFile": old["condaFile"]}
    return mapping_node({"docker": mapping_node(docker, line), "python": mapping_node(python, line)}, line)


def _places(file: SourceFile) -> tuple[SourceFile, ...]:
    """A file of each directory that a path may be relative to: the project, as Azure has it, where ``file``
    stands in its settings; else its own directory, then the one above with such settings or a repository."""
    above = file
    for _ in range(_LEVELS):
        if above.path.parent.name in DIRECTORIES:
            return (above.beside("../x"), file)
        if above is not file and any(above.beside(name).is_there() for name in (*DIRECTORIES, ".git")):
            return (file, above)
        above = above.beside("../x")
    return (file,)


def _other(file: SourceFile, left: LeftOut, places: tuple[SourceFile, ...], spark: bool) -> Spec:
    """An environment in a file of its own."""
    text = file.read(YAML_LIMIT)
    parse = parse_json if file.path.suffix.lower() == ".json" else parse_document
    return read_azure_v1(
        parse(text, file.shown), file, left, beside=AzureV1Parts(places=(*places, file), spark=spark or None)
    )
