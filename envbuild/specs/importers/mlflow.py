"""What a model of MLflow needs: ``MLmodel`` with its ``python_env.yaml`` or ``conda.yaml``; and what a
project of MLflow names: ``MLproject``.

MLflow installs a model from either file; they differ where someone gave conda packages, which only
``conda.yaml`` can name. So ``python_env.yaml``, which is MLflow's default, counts unless ``conda.yaml`` has
such packages. A project has one environment, under ``python_env``, ``conda_env`` or ``docker_env``; without
such a key MLflow looks for ``python_env.yaml``, then for ``conda.yaml`` (``mlflow.projects._project_spec``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from envbuild.errors import SpecError
from envbuild.platforms import LINUX_AMD64
from envbuild.specs import fields
from envbuild.specs.importers.conda.environment import KEYS, CondaFile, read_conda
from envbuild.specs.importers.native.reader import read_native
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.match import split_match
from envbuild.specs.model import PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Scalar,
    Sequence,
    describe,
    is_null,
    parse_document,
    yaml_document,
)
from envbuild.specs.text.section import LeftOut, Section, mapping_node, says_something, text_node
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

_MODEL = "MLmodel"
_PROJECTS = ("MLproject", "mlproject", "MLProject")
"""MLflow finds the file in any case."""
_ENVIRONMENT_KEYS = ("python_env", "conda_env", "docker_env")
_PYTHON_ENV = ("python_env.yaml", "python_env.yml")
_PYTHON_KEYS = frozenset({"python", "build_dependencies", "dependencies"})
_PYTHON_ITSELF = frozenset({"python", "pip", "setuptools", "wheel"})


class MlflowImporter:
    """Reads ``MLmodel``, ``MLproject`` and ``python_env.yaml``."""

    name = "mlflow"
    markers: tuple[str, ...] = (_MODEL, *_PROJECTS, *_PYTHON_ENV)

    def recognises(self, file: SourceFile) -> bool:
        if file.path.name in self.markers or file.path.name.lower() == "mlproject":
            return True
        if file.path.suffix.lower() not in (".yaml", ".yml"):
            return False
        root = yaml_document(file).root
        if not isinstance(root, Mapping):
            return False
        keys = {key.text for key, _ in root.entries}
        return "build_dependencies" in keys and keys <= _PYTHON_KEYS

    def load(self, file: SourceFile) -> Spec:
        reader = _MlflowReader(file)
        if file.path.name.lower() == "mlproject":
            return reader.project()
        return reader.model() if file.path.name == _MODEL else reader.python_env()


@dataclass(frozen=True, kw_only=True, slots=True)
class _PythonEnv:
    python: str | None
    pip: PipSpec


@dataclass(slots=True)
class _MlflowReader:
    file: SourceFile
    problems: Problems = field(default_factory=Problems)
    left_out: list[str] = field(default_factory=list)

    def python_env(self) -> Spec:
        python_env = self._python_env(self.file)
        self.problems.raise_if_any()
        assert python_env is not None
        stem = self.file.path.stem
        own = self.file.path.parent.name if stem == "python_env" else stem
        return Spec(
            name=fields.fit_name(own), source=self.file.path, python=python_env.python, pip=python_env.pip
        )

    def model(self) -> Spec:
        root = parse_document(self.file.read(YAML_LIMIT), self.file.shown).root
        function = _at(root, "flavors", "python_function")
        conda_file, python_file = self._files(function)
        self.problems.raise_if_any()
        unrelated = [f"{_MODEL}: the model itself: only what it needs is installed"]
        if isinstance(code := _at(function, "code"), Scalar) and not is_null(code):
            unrelated.append(f"{_MODEL}: flavors.python_function.code: {code.text}")
        self.left_out += unrelated
        if self.file.beside("environment_variables.txt").is_there():
            self.left_out.append(
                "environment_variables.txt: the variables the model reads have no values there"
            )
        trial = Problems()
        conda = self._conda(conda_file, trial) if conda_file else None
        if conda_file is not None and (python_file is None or _has_packages(conda)):
            self._include(trial)
            python, pip = None, conda.pip if conda else PipSpec()
            if python_file is not None:
                self.left_out.append(
                    f"{python_file.path.name}: {conda_file.path.name} counts, it has packages of conda"
                )
        elif python_file is not None:
            python_env = self._python_env(python_file)
            python, pip = (python_env.python, python_env.pip) if python_env else (None, PipSpec())
            if conda is not None and conda_file is not None:
                known = {requirement.text for requirement in pip.requirements}
                more = [
                    requirement.text
                    for requirement in conda.pip.requirements
                    if requirement.text not in known
                ]
                self.left_out += [
                    f"{conda_file.path.name}: {further}: {python_file.path.name} counts" for further in more
                ]
            conda = None
        else:
            python, pip = self._requirements(function)
        self.problems.raise_if_any()
        return Spec(
            name=fields.fit_name(self.file.path.parent.name),
            source=self.file.path,
            platforms=(conda.platforms if conda else None) or (LINUX_AMD64,),
            python=python,
            conda=conda.conda if conda else None,
            pip=pip,
            environment_variables=conda.variables if conda else (),
            left_out=tuple(self.left_out),
            unrelated=tuple(unrelated),
        )

    def project(self) -> Spec:
        document = yaml_document(self.file)
        if not isinstance(document.root, Mapping):
            what = "is empty" if document.root is None else f"must be a mapping, is {describe(document.root)}"
            raise SpecError(f"{self.file.shown}: {what}")
        left = LeftOut()
        top = Section(document.root, self.file, self.problems, left)
        given = top.text("name")
        name = fields.fit_name(given.text if given is not None else self.file.path.parent.name)
        keys = [
            key.text
            for key, value in document.root.entries
            if key.text in _ENVIRONMENT_KEYS and says_something(value)
        ]
        if len(keys) > 1:
            top.problem(keys[1], f"is there beside {keys[0]}", "a project has one environment")
        if top.get("databricks_spark_job") is not None:
            top.problem(
                "databricks_spark_job", "runs in an environment of Databricks, which isn't known here"
            )
        top.leave("entry_points", "what runs in the environment", unrelated=True)
        self.problems.raise_if_any()
        if top.get("docker_env") is not None:
            spec = self._project_image(top, document, name)
        else:
            spec = self._project_packages(top, name)
        top.rest()
        self.problems.raise_if_any()
        left_out = (*self.left_out, *spec.left_out)
        return left.added_to(replace(spec, named=given is not None, left_out=left_out))

    def _project_image(self, top: Section, document: Document, name: str) -> Spec:
        """The image of a project's ``docker_env``, as it is."""
        docker = top.section("docker_env")
        image = docker.text("image")
        for key in ("volumes", "environment"):
            docker.leave(key, "given to the container when it runs", unrelated=True)
        docker.rest()
        if image is None and isinstance(docker.node, Mapping):
            docker.problem("image", "is missing")
        self.problems.raise_if_any()
        line = docker.mapping.line
        entries: dict[str, Node | None] = {
            "name": text_node(name, line),
            "type": text_node("user-managed", line),
            "image": image,
        }
        root = mapping_node(entries, line)
        return read_native(
            Document(root, document.lines),
            self.file,
            rename=lambda key: docker.path(key) if key == "image" else key,
        )

    def _project_packages(self, top: Section, name: str) -> Spec:
        """What a project's ``python_env`` or ``conda_env`` lists."""
        key, file = self._project_file(top)
        self.problems.raise_if_any()
        assert file is not None, "all else is a problem"
        if key == "python_env":
            python_env = self._python_env(file)
            conda, pip = None, python_env.pip if python_env else PipSpec()
        else:
            python_env = None
            conda = self._conda(file, self.problems)
            pip = conda.pip if conda else PipSpec()
        return Spec(
            name=name,
            source=self.file.path,
            platforms=(conda.platforms if conda else None) or (LINUX_AMD64,),
            python=python_env.python if python_env else None,
            conda=conda.conda if conda else None,
            pip=pip,
            environment_variables=conda.variables if conda else (),
        )

    def _project_file(self, top: Section) -> tuple[str, SourceFile | None]:
        """The key that counts, and the file that it names or that MLflow looks for without one."""
        usual = {"python_env": "python_env.yaml", "conda_env": "conda.yaml"}
        for key in usual:
            written = top.text(key)
            if written is None:
                continue
            if not _inside(written.text):
                top.problem(key, f"{describe(written)} is no file of the project")
                return key, None
            file = self.file.beside(written.text)
            if not file.is_there():
                top.problem(key, f"{file.shown}: no such file")
            return key, file
        if not self.problems:
            for key, written_name in usual.items():
                file = self.file.beside(written_name)
                if file.is_there():
                    return key, file
            remedy = "name a file with python_env or conda_env, or an image with docker_env"
            self.problems.add(Place(file=self.file.shown), "the project doesn't say what it needs", remedy)
        return "", None

    def _files(self, function: Node | None) -> tuple[SourceFile | None, SourceFile | None]:
        """The conda file and the python_env file, as ``MLmodel`` names them, else under their usual names."""
        named = _at(function, "env")
        if isinstance(named, Mapping):
            conda, python = named.get("conda"), named.get("virtualenv")
        else:
            conda, python = named, None
        return self._named(conda, ("conda.yaml", "conda.yml")), self._named(python, _PYTHON_ENV)

    def _named(self, node: Node | None, usual: tuple[str, ...]) -> SourceFile | None:
        if not is_null(node) and node is not None:
            if not isinstance(node, Scalar) or not _inside(node.text):
                place = Place(file=self.file.shown, line=node.line, key="flavors.python_function.env")
                self.problems.add(place, f"{describe(node)} is no file of the model")
                return None
            return self.file.beside(node.text)
        candidates = (self.file.beside(name) for name in usual)
        return next((file for file in candidates if file.is_there()), None)

    def _conda(self, file: SourceFile, problems: Problems) -> CondaFile | None:
        try:
            document = yaml_document(file)
        except SpecError as error:
            problems.include(error)
            return None
        root = document.root
        if isinstance(root, Mapping):
            for key, _ in root.entries:
                if key.text not in KEYS:
                    self.left_out.append(f"{file.path.name}:{key.line}: {key.text}: no key of conda's")
            kept = tuple((key, value) for key, value in root.entries if key.text in KEYS)
            document = Document(Mapping(kept, root.line), document.lines)
        return read_conda(document, file, self.file.path.parent, problems)

    def _include(self, problems: Problems) -> None:
        try:
            problems.raise_if_any()
        except SpecError as error:
            self.problems.include(error)

    def _python_env(self, file: SourceFile) -> _PythonEnv | None:
        try:
            root = yaml_document(file).root
        except SpecError as error:
            self.problems.include(error)
            return None
        if not isinstance(root, Mapping):
            what = "is empty" if root is None else f"must be a mapping, is {describe(root)}"
            self.problems.add(Place(file=file.shown), what)
            return None
        reader = RequirementsReader(self.file.path.parent, self.problems)
        # MLflow installs from the directory of the project or model: that is what its lines are relative to.
        lines = SourceFile(self.file.path.parent / file.path.name, file.shown, file.reads)
        for key, value in root.entries:
            if key.text not in _PYTHON_KEYS:
                self._problem(
                    file, key, key.text, "unknown key", f"known keys: {', '.join(sorted(_PYTHON_KEYS))}"
                )
            elif key.text != "python" and not is_null(value):
                self._lines(lines, key.text, value, reader)
        return _PythonEnv(python=self._python(file, root.get("python"), "python"), pip=reader.result())

    def _lines(self, file: SourceFile, key: str, node: Node, reader: RequirementsReader) -> None:
        if not isinstance(node, Sequence):
            self._problem(file, node, key, f"must be a list, is {describe(node)}")
            return
        for index, item in enumerate(node.items):
            place = f"{key}[{index}]"
            if not isinstance(item, Scalar) or is_null(item):
                self._problem(file, item, place, f"must be text, is {describe(item)}")
            else:
                reader.read_text(item.text, file, line=item.line, key=place)

    def _requirements(self, function: Node | None) -> tuple[str | None, PipSpec]:
        """Of a model that has neither file."""
        file = self.file.beside("requirements.txt")
        if not file.is_there():
            place = Place(file=self.file.shown)
            self.problems.add(
                place, "the model doesn't say what it needs", "it has no python_env.yaml or conda.yaml"
            )
            return None, PipSpec()
        reader = RequirementsReader(self.file.path.parent, self.problems)
        reader.read_file(file)
        key = "flavors.python_function.python_version"
        return self._python(self.file, _at(function, "python_version"), key), reader.result()

    def _python(self, file: SourceFile, node: Node | None, key: str) -> str | None:
        if node is None or is_null(node):
            return None
        try:
            if not isinstance(node, Scalar):
                raise Refused(f"must be text, is {describe(node)}")
            return fields.python(node.text)
        except Refused as refused:
            self._problem(file, node, key, refused.what, refused.remedy)
            return None

    def _problem(self, file: SourceFile, node: Node, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.add(Place(file=file.shown, line=node.line, key=key), what, remedy)


def _at(node: Node | None, *keys: str) -> Node | None:
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path


def _has_packages(conda: CondaFile | None) -> bool:
    """Whether there are conda packages besides python and its installers."""
    if conda is None or conda.conda is None:
        return False
    return any(split_match(dependency).name not in _PYTHON_ITSELF for dependency in conda.conda.dependencies)
