"""Azure ML's environments of the first SDK: a directory, and the same mapping inside other files.

``azureml_environment.json`` holds all of it; ``conda_dependencies.yml`` and ``BaseDockerfile`` beside it win
over what it says. Its keys are read into those of envbuild's own YAML, so that one reader checks both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from envbuild.errors import SpecError
from envbuild.specs import fields
from envbuild.specs.importers.native.reader import read_native
from envbuild.specs.model import Spec
from envbuild.specs.problems import Problems
from envbuild.specs.serving import served
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Scalar,
    Sequence,
    parse_json,
    unnamed_mapping,
)
from envbuild.specs.text.section import LeftOut, Section, mapping_node, says_something, text_node
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

DIRECTORY = "azureml_environment.json"
CONDA_FILE = "conda_dependencies.yml"
DOCKERFILE = "BaseDockerfile"
EXAMPLE = ("EXAMPLE_ENV_VAR", "EXAMPLE_VALUE")
"""What every new object of the SDK carries; nobody wrote it."""

_KEYS = {
    "image": "docker.baseImage",
    "build": "docker.buildContext",
    "conda_file": "python.condaDependencies",
    "environment_variables": "environmentVariables",
    "platforms": "docker.platform",
}
_OF_A_RUN = ("arguments", "sharedVolumes", "shmSize")
"""Of ``docker``: how a container is started."""
OLD_SPARK = "com.microsoft.ml.spark:mmlspark_2.11:0.12"
"""The package that the SDK's early objects carried, as the example variable above."""
_PATH = re.compile(r"[^\s:]+")
"""A ``baseDockerfile`` of one word: its text would have a step at least."""
_FROM = re.compile(r"FROM\s+([^\s$]+)", re.IGNORECASE)
_CREDENTIAL = "log in with 'docker login': no credential is kept in an environment"


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureV1Parts:
    """What belongs to an environment beside its mapping."""

    conda_file: SourceFile | None = None
    """Wins over the mapping, as ``dockerfile`` does."""
    dockerfile: SourceFile | None = None
    places: tuple[SourceFile, ...] = ()
    """Files of the directories that paths may be relative to, the first that counts first; by default the
    environment's own file."""
    spark: bool | None = None
    """Whether the environment is for Spark; None: its packages say so."""
    serving: Node | None = None
    """An ``inference_config``."""


class AzureDirectoryImporter:
    """Reads what ``Environment.save_to_directory`` writes."""

    name = "azure-v1"
    markers: tuple[str, ...] = (DIRECTORY,)

    def recognises(self, file: SourceFile) -> bool:
        if file.path.name == DIRECTORY:
            return True
        root = unnamed_mapping(file)
        return root is not None and is_azure_v1(root) and root.get("environment") is None

    def load(self, file: SourceFile) -> Spec:
        left = LeftOut()
        document = parse_json(file.read(YAML_LIMIT), file.shown)
        conda, dockerfile = file.beside(CONDA_FILE), file.beside(DOCKERFILE)
        return read_azure_v1(
            document,
            file,
            left,
            beside=AzureV1Parts(
                conda_file=conda if conda.is_there() else None,
                dockerfile=dockerfile if dockerfile.is_there() else None,
            ),
        )


def read_azure_v1(
    document: Document,
    file: SourceFile,
    left: LeftOut,
    *,
    key: str = "",
    beside: AzureV1Parts = AzureV1Parts(),
) -> Spec:
    """The spec that the mapping in ``document`` means; it stands in ``file`` under the key path ``key``. What
    can't be carried goes to ``left``.

    Raises ``SpecError`` with every problem.
    """
    return _AzureV1Reader(document, file, left, key, beside.places or (file,)).spec(beside)


def named_file(places: Iterable[SourceFile], written: str) -> SourceFile:
    """The file that a relative path means: the first that is there, else that of the first place."""
    candidates = [place.beside(written) for place in places]
    return next((file for file in candidates if file.is_there()), candidates[0])


class _AzureV1Reader:
    def __init__(
        self,
        document: Document,
        file: SourceFile,
        left: LeftOut,
        key: str,
        places: tuple[SourceFile, ...],
    ) -> None:
        self.document = document
        self.file = file
        self.left = left
        self.problems = Problems()
        self.top = Section(document.root, file, self.problems, left, key)
        self.places = places

    def spec(
        self,
        beside: AzureV1Parts,
    ) -> Spec:
        conda_file, dockerfile = beside.conda_file, beside.dockerfile
        spark, serving = beside.spark, beside.serving
        if not isinstance(self.document.root, Mapping):
            raise SpecError(f"{self.file.shown}: {self.top.key or 'the environment'} must be a mapping")
        top = self.top
        python, docker = top.section("python"), top.section("docker")
        managed = not python.flag("userManagedDependencies")
        conda = self._conda(python, conda_file, managed=managed)
        image, build = self._base(docker, dockerfile)
        if build is not None and managed and conda is not None:
            docker.problem(
                "baseDockerfile" if dockerfile or docker.get("baseDockerfile") else "buildContext",
                "can't have packages installed on it",
                "install them in the Dockerfile and set python.userManagedDependencies, or build the "
                "Dockerfile first and name its image as docker.baseImage",
            )
        managed = managed and build is None
        line = top.mapping.line
        given = top.text("name")
        name = None if given is None else fields.fit_name(given.text)
        if given is not None and name != given.text:
            self.left.add(self.file, given.line, top.path("name"), f"becomes {name!r}", unrelated=True)
        variables = self._variables(top, build=build is not None)
        packages = self._spark(top.section("spark"), spark)
        of_spark = spark or packages is not None
        platforms = self._platform(docker.section("platform"))
        root = mapping_node(
            {
                "name": text_node(name, given.line) if name is not None and given is not None else None,
                "version": self._version(top),
                "type": text_node("system-managed" if managed else "user-managed", line),
                "runtime": text_node("spark", line) if of_spark and managed else None,
                "platforms": platforms,
                "image": image,
                "build": build,
                "conda_file": conda if managed else None,
                "environment_variables": variables,
                "spark": packages if managed else None,
                "inference_config": serving,
            },
            line,
        )
        if docker.flag("enabled") is False:
            docker.leave("enabled", "an environment is always an image", unrelated=True)
        if docker.flag("gpuSupport"):
            docker.leave("gpuSupport", "name an image that has CUDA")
        for name in _OF_A_RUN:
            docker.leave(name, unrelated=True)
        top.leave("assetId", unrelated=True)
        server = top.text("inferencingStackVersion")
        if server is not None and server.text != "latest":
            top.leave("inferencingStackVersion", "pin azureml-inference-server-http among the packages")
        python.rest()
        docker.rest()
        top.rest()
        spec = self._read(root)
        if server is None or server.text != "latest":
            return spec
        return replace(served(spec), name=spec.name, version=spec.version)

    def _read(self, root: Mapping) -> Spec:
        def rename(key: str) -> str:
            return self.top.path(_KEYS.get(key, key))

        try:
            spec = read_native(Document(root, self.document.lines), self.file, rename=rename)
        except SpecError as error:
            self.problems.include(error)
            self.problems.raise_if_any()
            raise
        self.problems.raise_if_any()
        return self.left.added_to(spec)

    def _version(self, top: Section) -> Node | None:
        version = top.text("version")
        if version is not None and re.fullmatch(fields.VERSION_PATTERN, version.text) is None:
            # What the service calls ``Autosave_<time>_<hash>`` was never registered.
            top.leave("version", unrelated=True)
            return None
        return version

    def _conda(self, python: Section, file: SourceFile | None, *, managed: bool) -> Node | None:
        """What is installed: a mapping, or the path of a file. Of a user-managed one it is left out."""
        inline, path = python.get("condaDependencies"), python.text("condaDependenciesFile")
        interpreter = python.text("interpreterPath")
        if interpreter is not None and interpreter.text != "python":
            python.leave("interpreterPath")
        if not managed:
            for name in ("condaDependencies", "condaDependenciesFile"):
                python.leave(name, "nothing is installed, as userManagedDependencies says")
            if file is not None:
                self.left.say(f"{file.path.name}: nothing is installed, as userManagedDependencies says")
            return None
        if file is not None:
            return text_node(file.path.name, python.mapping.line)
        if inline is not None or path is None:
            return inline
        return self._relative(path)

    def _relative(self, path: Scalar) -> Scalar:
        """A path as seen from the environment's own file."""
        if "\0" in path.text or "://" in path.text:
            return path
        return text_node(named_file(self.places, path.text).relative_to(self.file.path.parent), path.line)

    def _base(self, docker: Section, file: SourceFile | None) -> tuple[Node | None, Node | None]:
        """An image, or a build context."""
        image, text = self._image(docker), docker.text("baseDockerfile")
        context = docker.section("buildContext")
        if file is not None:
            return self._dockerfile(docker, file.read(YAML_LIMIT), docker.mapping.line, image, file)
        if text is not None and _PATH.fullmatch(text.text):
            other = named_file(self.places, text.text)
            if not other.is_there():
                docker.problem("baseDockerfile", f"{other.shown}: no such file")
                return image, None
            return self._dockerfile(docker, other.read(YAML_LIMIT), text.line, image, other)
        if text is not None:
            return self._dockerfile(docker, text.text, text.line, image, None)
        if context.node is None:
            return image, None
        kind, location = context.text("locationType"), context.text("location")
        dockerfile = context.text("dockerfilePath")
        context.rest()
        if location is None or (kind is not None and kind.text.lower() not in ("localfile", "local")):
            what = "is not a local directory" if location is not None else "is missing"
            context.problem("location", what, "download the context beside this file")
            return image, None
        entries: dict[str, Node | None] = {"path": self._relative(location), "dockerfile_path": dockerfile}
        if image is not None:
            docker.leave("baseImage", "the build context is used")
        return None, mapping_node(entries, location.line)

    def _dockerfile(
        self, docker: Section, text: str, line: int, image: Node | None, file: SourceFile | None
    ) -> tuple[Node | None, Node | None]:
        """A Dockerfile that only names an image is that image."""
        if image is not None:
            docker.leave("baseImage", "the Dockerfile is used")
        lines = [line.strip() for line in text.splitlines()]
        steps = [line for line in lines if line and not line.startswith("#")]
        only = _FROM.fullmatch(steps[0]) if len(steps) == 1 else None
        if only is not None:
            return text_node(only[1], line), None
        if file is None:
            whole = self.file.path.name == DIRECTORY
            other = "in a directory, and name that in a spec as 'build: {path: DIRECTORY}'"
            remedy = f"save its text {f'beside this file as {DOCKERFILE}' if whole else other}"
            docker.problem("baseDockerfile", "a Dockerfile's text can't be carried inside a spec", remedy)
            return None, None
        directory = os.path.relpath(file.path.parent, self.file.path.parent)
        path, name = text_node(directory, line), text_node(file.path.name, line)
        return None, mapping_node({"path": path, "dockerfile_path": name}, line)

    def _image(self, docker: Section) -> Scalar | None:
        image, registry = docker.text("baseImage"), docker.section("baseImageRegistry")
        address = registry.text("address")
        if registry.get("password") is not None:
            registry.problem("password", "a credential stands here", _CREDENTIAL)
        registry.rest()
        if image is None or address is None:
            return image
        host = re.sub(r"^[a-z]+://", "", address.text).rstrip("/")
        if image.text.startswith(f"{host}/"):
            return image
        return text_node(f"{host}/{image.text}", image.line)

    def _variables(self, top: Section, *, build: bool) -> Node | None:
        node = top.get("environmentVariables")
        if not isinstance(node, Mapping):
            return node
        kept = []
        for name, value in node.entries:
            path = f"{top.path('environmentVariables')}.{name.text}"
            if isinstance(value, Scalar) and (name.text, value.text) == EXAMPLE:
                self.left.add(self.file, name.line, path, "the SDK's example", unrelated=True)
            elif build:
                self.left.add(self.file, name.line, path, "set it with ENV in the Dockerfile")
            elif not (isinstance(value, Scalar) and value.kind == "null"):
                kept.append((name, value))
        return Mapping(tuple(kept), node.line) if kept else None

    def _platform(self, platform: Section) -> Sequence | None:
        system, machine = platform.text("os"), platform.text("architecture")
        platform.rest()
        if system is None and machine is None:
            return None
        line = (system or machine or text_node("", 1)).line
        parts = (system.text if system else "linux", machine.text if machine else "amd64")
        return Sequence((text_node("/".join(parts).lower(), line),), line)

    def _spark(self, spark: Section, wanted: bool | None) -> Node | None:
        """The packages, where they are for Spark; every object of the SDK has this section."""
        packages, repositories = spark.get("packages"), spark.get("repositories")
        precache = spark.text("precachePackages")
        spark.rest()
        coordinates = [_coordinate(item) for item in packages.items] if isinstance(packages, Sequence) else []
        if packages is None and (repositories is None or wanted is False):
            return None
        if wanted is False or (wanted is None and coordinates == [OLD_SPARK]):
            for name in ("packages", "repositories"):
                spark.leave(name, "the environment is not for Spark")
            return None
        section = {"packages": packages, "repositories": repositories, "precache_packages": precache}
        return mapping_node(section, spark.mapping.line)


def _coordinate(node: Node) -> str:
    if not isinstance(node, Mapping):
        return ""
    parts = (node.get(name) for name in ("group", "artifact", "version"))
    return ":".join(part.text for part in parts if isinstance(part, Scalar))


def is_azure_v1(node: Node | None) -> bool:
    """Whether a mapping is an environment of the first SDK."""
    return (
        isinstance(node, Mapping)
        and not is_component_environment(node)
        and any(
            says_something(node.get(key)) for key in ("python", "docker", "environmentVariables", "spark")
        )
    )


def is_component_environment(node: Node | None) -> bool:
    """Whether a mapping is an environment as components of ``azureml/sdk-2-0`` have it."""
    docker = node.get("docker") if isinstance(node, Mapping) else None
    inside = isinstance(docker, Mapping) and any(docker.get(key) is not None for key in ("image", "build"))
    return inside or (isinstance(node, Mapping) and isinstance(node.get("conda"), Mapping))
