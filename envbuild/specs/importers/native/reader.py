"""envbuild's own YAML and Azure ML's v2 environment YAML, read into a :class:`Spec`.

``type`` left out: ``build`` is user-managed, and so is an ``image`` with nothing to install on it; all
else is system-managed. The file's ``platforms`` and variables win over those of its conda file.
"""

from __future__ import annotations

import logging
import posixpath
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from envbuild.errors import SpecError, suggestion
from envbuild.lazy import lazy
from envbuild.platforms import LINUX_AMD64, Platform
from envbuild.resources import is_curated
from envbuild.specs import fields
from envbuild.specs.importers.conda.environment import CondaFile, is_conda, read_conda
from envbuild.specs.importers.pip.requirement import extra_build_dependencies, name_of
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.model import (
    SYSTEM_REQUIREMENTS,
    ActivationScripts,
    BaseSpec,
    BuildContextSpec,
    BuildDependencies,
    Bytecode,
    Clashes,
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    ImageBaseSpec,
    InferenceConfig,
    MavenPackage,
    PipSpec,
    PythonProvider,
    Route,
    Runtime,
    SparkSpec,
    Spec,
    SystemRequirement,
)
from envbuild.specs.problems import Place, Problems, Refused
from envbuild.specs.serving import WANTED, promises
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Sequence,
    describe,
    parse_document,
    unnamed_mapping,
    yaml_document,
)
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

if TYPE_CHECKING:
    import pydantic
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from envbuild.specs import context as spec_context
    from envbuild.specs.importers.native import model as native_model
    from envbuild.specs.importers.native.model import BuildModel, NativeModel
else:
    spec_context = lazy("envbuild.specs.context")
    native_model = lazy("envbuild.specs.importers.native.model")
    pydantic = lazy("pydantic")

_log = logging.getLogger(__name__)

_USER = "1000:1000"
_SCHEMA_HINT = "'envbuild schema' prints every key; editors complete the file with it"


_SHOWN_BY_AZURE = ("id", "creation_context", "resourceGroup")
"""What ``az ml environment show`` adds to an environment; nobody writes it."""
_SOFTWARE = frozenset({"base", "build", "conda_file", "image", "requirements"})
_PLATFORM = frozenset({"os_type", "platforms"})
"""A file of another name is a spec where it has a key of both: ours and Azure's always have."""
_IN_DOCKERFILE = {
    "conda_file": "install it in the Dockerfile",
    "environment_variables": "set them with ENV in the Dockerfile",
    "user": "set it with USER in the Dockerfile",
}
"""What a build context can't have beside it, as a Dockerfile is taken as it is; and where it goes."""


class NativeImporter:
    """Reads envbuild's own YAML and Azure ML's v2 environment YAML."""

    name = "native"
    markers: tuple[str, ...] = ("envbuild.yaml", "envbuild.yml", "environment.yaml", "environment.yml")

    def recognises(self, file: SourceFile) -> bool:
        if file.path.suffix.lower() not in (".yaml", ".yml"):
            unnamed = unnamed_mapping(file)
            keys = {key.text for key, _ in unnamed.entries} if unnamed is not None else set()
            return bool(keys & _SOFTWARE and keys & _PLATFORM)
        root = yaml_document(file).root
        return not (isinstance(root, Mapping) and is_conda(root))

    def load(self, file: SourceFile) -> Spec:
        return read_native(yaml_document(file), file, hint=_SCHEMA_HINT)


def read_native(
    document: Document,
    file: SourceFile,
    *,
    rename: Callable[[str], str] = str,
    hint: str | None = None,
) -> Spec:
    """The spec that ``document`` holds, which stands in ``file``, whole or as a part.

    ``rename`` gives the key path that a top-level key has in the file, for messages: formats that say the
    same in other words are read through here. Raises ``SpecError`` with every problem, and ``hint``.
    """
    return _NativeReader(file, document, rename, hint).spec()


class _NativeReader:
    def __init__(
        self, file: SourceFile, document: Document, rename: Callable[[str], str], hint: str | None
    ) -> None:
        self.file = file
        self.document = document
        self.rename = rename
        self.hint = hint
        self.root = document.root
        self.problems = Problems()
        self.broken: set[str] = set()
        """Top-level keys with a problem of their own: no second problem is derived from them."""

    def spec(self) -> Spec:
        if not isinstance(self.root, Mapping):
            what = "is empty" if self.root is None else f"must be a mapping, is {describe(self.root)}"
            self.problems.add(Place(file=self.file.shown), what)
            self.problems.raise_if_any(hint=self.hint)
        model = self._model()
        platforms = self._platforms(model)
        conda = self._conda(model, platforms)
        pip = self._pip(model, conda)
        kind = self._type(model)
        self._check(model, kind)
        self._check_serving(model, kind, pip)
        base = self._base(model)
        self.problems.raise_if_any(hint=self.hint)
        variables = {**dict(conda.variables if conda else ()), **model.environment_variables}
        return Spec(
            name=model.name or fields.default_name(self.file.path),
            named=bool(model.name),
            source=self.file.path,
            version=model.version,
            description=model.description,
            tags=tuple(sorted(model.tags.items())),
            type=kind,
            runtime=Runtime(model.runtime),
            platforms=platforms or (conda.platforms if conda else None) or (LINUX_AMD64,),
            python=model.python,
            python_provider=PythonProvider(model.python_provider) if model.python_provider else None,
            base=base,
            conda=_with_pip(model, conda.conda) if conda else None,
            pip=pip,
            environment_variables=tuple(sorted(variables.items())),
            spark=_spark(model),
            inference_config=_inference(model),
            user=model.user or ("" if kind is EnvironmentType.USER_MANAGED else _USER),
            as_of=model.as_of,
            clashes=Clashes(model.clashes),
            system_requirements=_system_requirements(model),
            activation=ActivationScripts(model.activation),
            bytecode=Bytecode(model.bytecode),
            left_out=(left_out := self._left_out(model)),
            unrelated=left_out,
        )

    def _model(self) -> native_model.NativeModel:
        """The file as a model. Keys with problems are noted, taken out, and the rest is read all the same."""

        data = _plain(self.root)
        assert isinstance(data, dict)
        for key in _SHOWN_BY_AZURE:
            data.pop(key, None)
        try:
            return native_model.NativeModel.model_validate(data)
        except pydantic.ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            for detail in sorted(details, key=lambda detail: _line_of(self.root, detail["loc"]) or 0):
                self._detail(detail, native_model.NativeModel)
                self.broken.add(str(detail["loc"][0]) if detail["loc"] else "")
        return native_model.NativeModel.model_validate(
            {k: v for k, v in data.items() if k not in self.broken}
        )

    def _detail(self, detail: ErrorDetails, model: type[BaseModel]) -> None:
        path = detail["loc"]
        what, remedy = detail["msg"], None
        if detail["type"] == "extra_forbidden":
            what, remedy = "unknown key", self._nearest(path, model)
        elif detail["type"] == "missing":
            what = "is missing"
        elif detail["type"] == "literal_error":
            value = _node_at(self.root, path)
            shown = describe(value) if value is not None else "it"
            what = f"must be {detail['ctx']['expected']}, is {shown}"
        elif detail["type"] in ("greater_than_equal", "less_than_equal"):
            what = "must be from 1 to 65535"
        elif detail["type"] in ("list_type", "dict_type"):
            value = _node_at(self.root, path)
            kind = "a list" if detail["type"] == "list_type" else "a mapping"
            what = f"must be {kind}" + (f", is {describe(value)}" if value is not None else "")
        self._problem(path, what, remedy)

    def _nearest(self, path: tuple[int | str, ...], model: type[BaseModel]) -> str:
        key, at_top = str(path[-1]), len(path) == 1
        if at_top and key in ("channels", "dependencies"):
            return "a conda file's content stands under conda_file"
        if at_top and key == "variables":
            return "did you mean 'environment_variables'?"
        known = native_model.known_keys(_model_at(model, path[:-1]))
        return suggestion(key, known, cutoff=0.5, quoted=True) or f"known keys: {', '.join(known)}"

    def _platforms(self, model: NativeModel) -> tuple[Platform, ...] | None:
        if "platforms" not in model.model_fields_set:
            return None
        try:
            return fields.platforms(model.platforms)
        except Refused as refused:
            self._problem(("platforms",), refused.what, refused.remedy)
            return None

    def _conda(self, model: NativeModel, platforms: tuple[Platform, ...] | None) -> CondaFile | None:
        if model.conda_file is None:
            return None
        directory = self.file.path.parent
        if not isinstance(model.conda_file, str):
            node = self.root.get("conda_file") if isinstance(self.root, Mapping) else None
            inline = Document(node, self.document.lines)
            key = self.rename("conda_file")
            return read_conda(inline, self.file, directory, self.problems, key=key, platforms=platforms)
        other = self._beside(model.conda_file, "conda_file")
        if other is None:
            return None

        try:
            document = parse_document(other.read(YAML_LIMIT), other.shown)
        except SpecError as error:
            self._included(error, "conda_file", other)
            return None
        return read_conda(document, other, directory, self.problems, platforms=platforms)

    def _pip(self, model: NativeModel, conda: CondaFile | None) -> PipSpec:
        reader = RequirementsReader(self.file.path.parent, self.problems)
        self._lines(model.requirements, "requirements", reader)
        self._lines(model.constraints, "constraints", reader)
        for index, entry in enumerate(model.indexes):
            try:
                reader.read_index(entry.url, entry.packages, entry.name or "")
                if not entry.packages and not reader.names(entry.url):
                    reader.read_text(
                        f"--extra-index-url {shlex.quote(entry.url)}", self.file, line=1, key="indexes"
                    )
            except Refused as refused:
                self._problem(("indexes", index), refused.what, refused.remedy)
        own = replace(
            reader.result(),
            complete=model.requirements_complete,
            index_strategy=model.index_strategy,
            build=self._build_dependencies(model),
        )
        if conda is not None:
            own = replace(
                own,
                requirements=_unique(*conda.pip.requirements, *own.requirements),
                constraints=_unique(*conda.pip.constraints, *own.constraints),
                options=_unique(*_without_index(conda.pip.options, own.options), *own.options),
            )
        self._check_indexes(own)
        return own

    def _check_indexes(self, pip: PipSpec) -> None:
        """Refuses an index for what isn't required: what only another package asks for is looked for
        everywhere."""
        asked = {name_of(requirement.text) for requirement in pip.requirements}
        for name in (name_of(package) for index in pip.indexes for package in index.packages):
            if not self.broken and name not in asked:
                what = f"{name} is to come from an index of its own, and isn't required"
                self._problem(("indexes",), what, f"add {name} to requirements")

    def _build_dependencies(self, model: NativeModel) -> BuildDependencies:
        reader = RequirementsReader(self.file.path.parent, self.problems)
        self._lines(model.build_constraints, "build_constraints", reader)
        try:
            extra = extra_build_dependencies(model.extra_build_dependencies)
        except Refused as refused:
            self._problem(("extra_build_dependencies",), refused.what, refused.remedy)
            extra = ()
        return BuildDependencies(constraints=reader.result().constraints, extra=extra)

    def _lines(self, value: object, key: str, reader: RequirementsReader) -> None:
        """Reads a list of lines, or the file of that name, as requirements or as constraints."""
        constraint = key != "requirements"
        if isinstance(value, list):
            node = self.root.get(key) if isinstance(self.root, Mapping) else None
            items = node.items if isinstance(node, Sequence) else ()
            for index, (text, item) in enumerate(zip(value, items, strict=True)):
                path = f"{self.rename(key)}[{index}]"
                reader.read_text(text, self.file, line=item.line, key=path, constraint=constraint)
        elif isinstance(value, str):
            other = self._beside(value, key)
            if other is not None:
                if other.path.exists():
                    reader.read_file(other, constraint=constraint)
                else:
                    self._problem((key,), f"{other.shown}: no such file")

    def _beside(self, written: str, key: str) -> SourceFile | None:
        if "://" in written or written.startswith("azureml:") or "\0" in written or not written.strip():
            self._problem((key,), f"{written!r} is not a local file", "download it beside the spec")
            return None
        return self.file.beside(written)

    def _included(self, error: Any, key: str, other: SourceFile) -> None:
        if other.path.is_file():
            self.problems.include(error)
        else:
            self._problem((key,), str(error))

    def _type(self, model: NativeModel) -> EnvironmentType:
        if model.type is not None:
            return EnvironmentType(model.type)
        software = model.conda_file, model.requirements, model.python, model.python_provider, model.spark
        broken = self.broken & {"conda_file", "requirements", "python", "python_provider", "spark"}
        if model.build is not None or (model.image is not None and not broken and not any(software)):
            return EnvironmentType.USER_MANAGED
        return EnvironmentType.SYSTEM_MANAGED

    def _check(self, model: NativeModel, kind: EnvironmentType) -> None:
        keys = ("image", "base", "build")
        bases = [key for key in keys if getattr(model, key) is not None or self._written(key)]
        if len(bases) > 1:
            self._problem((bases[1],), f"excludes {bases[0]!r}", "an environment stands on one base")
        if "azuremlschemas" in (model.schema_ or "") and not bases and model.conda_file is None:
            remedy = "'az ml environment show' writes what the service has of it" if model.name else None
            self._problem(("$schema",), "an environment without image, build and conda_file", remedy)
        if model.os_type.lower() != "linux":
            self._problem(("os_type",), f"{model.os_type!r} can't be built", "images are of Linux")
        if model.conda_file is not None and model.python_provider not in (None, "conda"):
            remedy = "leave python_provider out: the packages of conda need conda's python"
            self._problem(("python_provider",), f"{model.python_provider!r} excludes 'conda_file'", remedy)
        if model.system_requirements is not None and model.conda_file is None:
            self._problem(("system_requirements",), "has no effect: only packages of conda ask for them")
        spark = model.runtime == "spark" or "runtime" in self.broken
        if model.spark is not None and not spark and kind is EnvironmentType.SYSTEM_MANAGED:
            self._problem(("spark",), "has no effect without 'runtime: spark'")
        if kind is EnvironmentType.CURATED and not is_curated(self.file.path):
            remedy = "leave type out, or start from a curated one with 'envbuild curated list'"
            self._problem(("type",), "curated environments come with envbuild", remedy)
        elif kind is EnvironmentType.USER_MANAGED:
            if not {"image", "build"} & set(bases):
                self._problem(
                    ("type",), "user-managed needs an image or a build context", "add image: or build:"
                )
            for key in ("python", "python_provider", "spark"):
                if getattr(model, key) is not None:
                    self._problem((key,), "has no effect: nothing is installed in a user-managed environment")
            if model.build is not None:
                for key, remedy in _IN_DOCKERFILE.items():
                    if key in model.model_fields_set and getattr(model, key):
                        self._problem((key,), "has no effect beside 'build'", remedy)
        elif "build" in bases:
            self._problem(
                ("type",), "a build context is user-managed", "write type: user-managed or leave it out"
            )
        if model.build is not None:
            context = self.file.beside(model.build.path)
            dockerfile = context.path / model.build.dockerfile_path
            if not context.path.is_dir():
                self._problem(("build", "path"), f"{context.shown}: no such directory")
            elif not dockerfile.is_file():
                what = f"{(context.shown)}/{model.build.dockerfile_path}: no such file"
                self._problem(("build", "dockerfile_path"), what)

    def _check_serving(self, model: NativeModel, kind: EnvironmentType, pip: PipSpec) -> None:
        """What is listed must bring the server. Where nothing is, as in Azure's own files of an image, only
        what is inside the image says whether it can serve, and that is looked at in every case."""
        listed = [requirement.text for requirement in pip.requirements]
        if kind is not EnvironmentType.USER_MANAGED or model.inference_config is None or not listed:
            return
        if not self.broken & {"conda_file", "requirements"} and not promises(listed):
            self._problem(
                ("inference_config",),
                f"needs {WANTED}, and no pip dependency lists it",
                "list what the image has, or leave inference_config out",
            )

    def _written(self, key: str) -> bool:
        return key in self.broken and isinstance(self.root, Mapping) and self.root.get(key) is not None

    def _base(self, model: NativeModel) -> BaseSpec | None:
        if model.image is not None:
            return ImageBaseSpec(reference=model.image)
        if model.base is not None:
            packages = tuple(sorted(set(model.base.packages)))
            return DebianBaseSpec(suite=model.base.debian, packages=packages)
        return self._context(model.build) if model.build is not None else None

    def _context(self, model: BuildModel) -> BuildContextSpec:
        """The build context with its digest; one that has a problem already isn't read."""

        build_context_spec = BuildContextSpec(
            path=Path(model.path), dockerfile_path=posixpath.normpath(model.dockerfile_path)
        )
        if self.problems:
            return build_context_spec
        try:
            return spec_context.with_digest(build_context_spec, self.file.path.parent)
        except SpecError as error:
            for problem in error.problems:
                self._problem(("build", "path"), problem, error.hint)
            return build_context_spec

    def _left_out(self, model: NativeModel) -> tuple[str, ...]:
        """What is Azure ML's own: it belongs to the service that holds the environment."""
        keys = [key for key in ("properties", "datastore") if getattr(model, key)]
        shown = self.root if isinstance(self.root, Mapping) else Mapping((), 1)
        keys += [key for key in _SHOWN_BY_AZURE if shown.get(key) is not None]
        name = self.file.path.name
        return tuple(f"{name}:{_line_of(self.root, (key,))}: {self.rename(key)}" for key in keys)

    def _place(self, path: tuple[int | str, ...]) -> Place:
        top = (self.rename(str(path[0])), *path[1:]) if path else ()
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in top).lstrip(".")
        return Place(file=self.file.shown, line=_line_of(self.root, path), key=key)

    def _problem(self, path: tuple[int | str, ...], what: str, remedy: str | None = None) -> None:
        self.problems.add(self._place(path), what, remedy)


def _with_pip(model: NativeModel, conda: CondaSpec | None) -> CondaSpec | None:
    """``conda`` as ``model`` has it; nothing is added to an explicit list."""
    if conda is None or conda.explicit:
        return conda
    return replace(conda, add_pip=model.add_pip_as_python_dependency)


def _system_requirements(model: NativeModel) -> tuple[SystemRequirement, ...]:
    stated = model.system_requirements
    values = ((name, getattr(stated, name)) for name in SYSTEM_REQUIREMENTS) if stated else ()
    return tuple(
        sorted(
            SystemRequirement(name=name, version=version, platform=platform)
            for name, versions in values
            for platform, version in (versions or {}).items()
        )
    )


def _spark(model: NativeModel) -> SparkSpec | None:
    if model.spark is None:
        return None
    packages = (
        MavenPackage(group=package.group, artifact=package.artifact, version=package.version)
        for package in model.spark.packages
    )
    return SparkSpec(
        packages=tuple(packages),
        repositories=tuple(model.spark.repositories),
        precache_packages=model.spark.precache_packages,
    )


def _inference(model: NativeModel) -> InferenceConfig | None:
    config = model.inference_config
    if config is None:
        return None
    live, ready, score = config.liveness_route, config.readiness_route, config.scoring_route
    return InferenceConfig(
        liveness_route=Route(path=live.path, port=live.port),
        readiness_route=Route(path=ready.path, port=ready.port),
        scoring_route=Route(path=score.path, port=score.port),
    )


def _plain(node: Node | None) -> object:
    """Nodes as dictionaries and lists, with :class:`Scalar` as leaves."""
    if isinstance(node, Mapping):
        return {key.text: _plain(value) for key, value in node.entries}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return node


def _node_at(node: Node | None, path: tuple[int | str, ...]) -> Node | None:
    for part in path:
        if isinstance(node, Mapping):
            node = node.get(str(part))
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node


def _line_of(node: Node | None, path: tuple[int | str, ...]) -> int | None:
    """The line of the last key of ``path`` that is there."""
    line = node.line if node is not None else None
    for part in path:
        if isinstance(node, Mapping):
            if node.get(str(part)) is None:
                return line
            line, node = node.key_line(str(part)), node.get(str(part))
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            line = node.line
    return line


def _model_at(model: type[pydantic.BaseModel], path: tuple[int | str, ...]) -> type[pydantic.BaseModel]:
    """The model that the mapping at ``path`` is read with."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation: Any = next(
            (field.annotation for name, field in model.model_fields.items() if (field.alias or name) == part),
            None,
        )
        pending = [annotation]
        while pending:
            hint = pending.pop()
            if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel):
                model = hint
                break
            pending.extend(get_args(hint))
    return model


def _without_index(options: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """The first ``options`` without their main index where ``others`` name one: the last one counts."""
    if not any(other.startswith("--index-url ") for other in others):
        return options
    return tuple(option for option in options if not option.startswith("--index-url "))


def _unique(*items: Any) -> tuple[Any, ...]:
    seen: dict[Any, Any] = {}
    for item in items:
        seen.setdefault(getattr(item, "canonical", item), item)
    return tuple(seen.values())
