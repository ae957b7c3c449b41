"""A directory as repo2docker (and Binder) reads it: its ``binder/`` or ``.binder/``, else itself.

``environment.yml``, whose channel is conda-forge where it names none, or ``Pipfile`` or its lock with what is
for development, or ``requirements.txt`` and ``runtime.txt``; ``apt.txt`` beside each; a ``Dockerfile`` before
all. What runs code of its own, or another language, is refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from envbuild.errors import SpecError
from envbuild.platforms import LINUX_AMD64
from envbuild.specs import fields
from envbuild.specs.importers.conda.environment import CondaFile, read_conda
from envbuild.specs.importers.dockerfile import user_managed
from envbuild.specs.importers.pip.pipfile import Pipfile, read_pipfile
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.model import DebianBaseSpec, PipSpec, Spec
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.text.document import parse_document
from envbuild.specs.text.source import YAML_LIMIT, SourceFile
from envbuild.specs.text.toml import TOML_LIMIT, parse_toml

_DIRECTORIES = ("binder", ".binder")
_REMEDY = "write what it does into a Dockerfile, which repo2docker takes before all else"
_REFUSED = {
    "postBuild": "runs code of its own in the image",
    "install.R": "installs packages of R",
    "DESCRIPTION": "describes a package of R",
    "Project.toml": "lists packages of Julia",
    "JuliaProject.toml": "lists packages of Julia",
    "REQUIRE": "lists packages of Julia",
    "default.nix": "is an environment of Nix",
}
_PIPFILES = ("Pipfile.lock", "Pipfile")
_CHANNEL = "conda-forge"
"""The one channel that repo2docker's images have set up."""
_SETUP_REMEDY = "list what it depends on in requirements.txt, or in a pyproject.toml"
_RUNTIME = re.compile(r"python(?:-([0-9]+(?:\.[0-9]+)*)?)?(?:-([0-9]{4}-[0-9]{2}-[0-9]{2}))?")
"""Language, version, date of a package archive, of which only R has any use."""
_READ = ("environment.yml", "requirements.txt", "apt.txt", "runtime.txt")
_KNOWN = (*_READ, *_REFUSED, *_PIPFILES, "start")


class Repo2dockerImporter:
    """Reads a directory with repo2docker's configuration files."""

    name = "repo2docker"
    markers: tuple[str, ...] = ("binder/", ".binder/", "apt.txt", "runtime.txt", "postBuild")

    def recognises(self, file: SourceFile) -> bool:
        if file.path.name in _DIRECTORIES:
            return file.path.is_dir()
        return file.path.name in self.markers

    def load(self, file: SourceFile) -> Spec:
        config = file.path if file.path.name in _DIRECTORIES else file.path.parent
        root = config.parent if config.name in _DIRECTORIES else config
        source = file.path if config == root else config
        place = file.beside(".") if config == file.path.parent else SourceFile(config, file.shown, file.reads)
        return _Repo2dockerReader(place, root, source).spec()


@dataclass(slots=True)
class _Repo2dockerReader:
    config: SourceFile
    """The directory with the configuration files."""
    root: Path
    source: Path
    problems: Problems = field(default_factory=Problems)
    left_out: list[str] = field(default_factory=list)
    names: frozenset[str] = frozenset()

    def spec(self) -> Spec:
        names = self.config.names()
        # A link to nothing counts as absent.
        self.names = frozenset(name for name in names if self._file(name).is_there())
        if all((self.root / directory).is_dir() for directory in _DIRECTORIES):
            raise SpecError(
                f"{self.config.shown}: there are both binder and .binder",
                hint="repo2docker reads one of them",
            )
        if "Dockerfile" in self.names:
            return self._user_managed()
        for name, what in _REFUSED.items():
            if name in self.names:
                self.problems.add(Place(file=self._file(name).shown), what, _REMEDY)
        if "environment.yaml" in self.names and "environment.yml" not in self.names:
            self._leave("environment.yaml", "repo2docker reads environment.yml alone")
        if "start" in self.names:
            self._leave("start", "it runs when a container starts")
        conda = self._conda() if "environment.yml" in self.names else None
        pipfile = self._pipfile() if "environment.yml" not in self.names else None
        pip = conda.pip if conda else pipfile.pip if pipfile else self._pip()
        python = self._python() or self._project_python(beside=conda is not None)
        if pipfile is not None:
            python = self._minor(pipfile.python, "Pipfile") if pipfile.python else None
            self.left_out += pipfile.left_out
        base = self._base()
        self.left_out.append("what repo2docker adds by itself: Jupyter and what it needs")
        self.problems.raise_if_any()
        named = conda.name if conda else None
        return Spec(
            name=fields.fit_name(named or self.root.name),
            named=bool(named),
            source=self.source,
            platforms=(conda.platforms if conda else None) or (LINUX_AMD64,),
            python=python,
            base=base,
            conda=conda.conda if conda else None,
            pip=pip,
            environment_variables=conda.variables if conda else (),
            left_out=tuple(self.left_out),
        )

    def _user_managed(self) -> Spec:
        dockerfile = self.config.path / "Dockerfile"
        target = dockerfile.resolve()
        if dockerfile.is_symlink() and target.is_relative_to(self.root.resolve()):
            dockerfile = self.root / target.relative_to(self.root.resolve())
        spec = user_managed(dockerfile, self.root, source=self.source)
        for name in _KNOWN:
            if name in self.names:
                self._leave(name, "repo2docker reads nothing beside a Dockerfile")
        return replace(spec, left_out=tuple(self.left_out))

    def _conda(self) -> CondaFile | None:
        file = self._file("environment.yml")
        for name in ("requirements.txt", *_PIPFILES):
            if name in self.names:
                self._leave(name, "repo2docker doesn't read it beside an environment.yml")
        try:
            document = parse_document(file.read(YAML_LIMIT), file.shown)
        except SpecError as error:
            self.problems.include(error)
            return None
        return read_conda(document, file, self.source.parent, self.problems, default_channel=_CHANNEL)

    def _pipfile(self) -> Pipfile | None:
        """The lock where there is one, else the file; with what is for development, as repo2docker has it."""
        name = next((name for name in _PIPFILES if name in self.names), None)
        if name is None:
            return None
        for other in ("requirements.txt", *_PIPFILES):
            if other in self.names and other != name:
                self._leave(other, f"repo2docker doesn't read it beside a {name}")
        try:
            return read_pipfile(self._file(name), self.problems, self.source.parent, development=True)
        except SpecError as error:
            self.problems.include(error)
            return Pipfile(python=None, pip=PipSpec(), left_out=())

    def _pip(self) -> PipSpec:
        reader = RequirementsReader(self.source.parent, self.problems)
        if "requirements.txt" in self.names:
            reader.read_file(self._file("requirements.txt"))
        if "build-system" in self._project() and "project" in self._project():
            # Installed as ``pip install .`` does: what it depends on.
            reader.read_text(".", self._file("pyproject.toml"), line=1, key="build-system")
        elif "project" in self._project():
            self._leave("pyproject.toml", "repo2docker installs no project without a build-system")
        elif self.config.path == self.root and "setup.py" in self.names:
            what = "the project itself and what it depends on: it would have to be built"
            if "requirements.txt" in self.names:
                self._leave("setup.py", what)
            else:
                self.problems.add(Place(file=self._file("setup.py").shown), what, _SETUP_REMEDY)
        return reader.result()

    def _project(self) -> dict[str, object]:
        """The ``pyproject.toml`` of a directory that is itself the configuration."""
        if self.config.path != self.root or "pyproject.toml" not in self.names:
            return {}
        file = self._file("pyproject.toml")
        try:
            return parse_toml(file.read(TOML_LIMIT), file.shown)
        except SpecError as error:
            self.problems.include(error)
            return {}

    def _project_python(self, *, beside: bool) -> str | None:
        """What a project requires of Python, which repo2docker looks at where nothing else names one."""
        project = {} if beside else self._project().get("project")
        requires = project.get("requires-python") if isinstance(project, dict) else None
        try:
            return fields.python(requires) if isinstance(requires, str) and requires.strip() else None
        except Refused as refused:
            place = Place(file=self._file("pyproject.toml").shown, key="project.requires-python")
            self.problems.add(place, refused.what, refused.remedy)
            return None

    def _python(self) -> str | None:
        if "runtime.txt" not in self.names:
            return None
        file = self._file("runtime.txt")
        try:
            text = file.read(YAML_LIMIT).strip()
        except SpecError as error:
            self.problems.include(error)
            return None
        place = Place(file=file.shown, line=1)
        beside = next((name for name in ("environment.yml", *_PIPFILES) if name in self.names), None)
        runtime = _RUNTIME.fullmatch(text)
        if re.match(r"r(-|$)", text):
            self.problems.add(place, f"{text!r} asks for R", _REMEDY)
        elif beside is not None:
            article = "an" if beside == "environment.yml" else "a"
            self._leave("runtime.txt", f"repo2docker doesn't read it beside {article} {beside}")
        elif text and runtime is None:
            shown = text if len(text) <= 60 else f"{text[:57]}…"
            self.problems.add(place, f"{shown!r} is no runtime", "write python-3.12")
        elif runtime is not None and runtime[1]:
            if runtime[2]:
                self._leave("runtime.txt", f"{runtime[2]}: a date is for R alone")
            return self._minor(runtime[1], "runtime.txt")
        return None

    def _minor(self, version: str, name: str) -> str:
        """A version of Python without its patch, which repo2docker leaves to the channel."""
        minor = ".".join(version.split(".")[:2])
        if minor != version:
            self._leave(name, f"Python {version}: repo2docker takes {minor}, of any patch")
        return minor

    def _base(self) -> DebianBaseSpec | None:
        if "apt.txt" not in self.names:
            return None
        file = self._file("apt.txt")
        try:
            text = file.read(YAML_LIMIT)
        except SpecError as error:
            self.problems.include(error)
            return None
        packages = set()
        for number, line in enumerate(text.splitlines(), 1):
            for word in dict.fromkeys(line.split("#", 1)[0].split()):
                try:
                    packages.add(fields.debian_package(word))
                except Refused as refused:
                    self.problems.add(Place(file=file.shown, line=number), refused.what, refused.remedy)
        return DebianBaseSpec(packages=tuple(sorted(packages))) if packages else None

    def _file(self, name: str) -> SourceFile:
        return SourceFile(self.config.path / name, f"{self.config.shown}/{name}", self.config.reads)

    def _leave(self, name: str, why: str) -> None:
        shown = (self.config.path / name).relative_to(self.root).as_posix()
        self.left_out.append(f"{shown}: {why}")
