"""A directory of Azure ML's own curated environments: ``asset.yaml``, ``spec.yaml``, ``environment.yaml`` and
a build context, with templates that its publisher fills.

Without templates in the context it is an environment of that context. With them, what the context installs is
read: the image of its Dockerfile, and the conda file and requirements file that its steps install. Templates
that stand for a newest version become a requirement without a pin, which the lock decides. Variables of its
ENV steps are carried, but for those that say where the Dockerfile puts its conda environment. A step that may
bring anything else is refused; the rest of the Dockerfile is left out, step by step.

An image that the publisher names (``{{image.name}}``) is made from this context, so the context is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from envbuild.errors import SpecError
from envbuild.specs import fields
from envbuild.specs.importers.conda.environment import read_conda
from envbuild.specs.importers.dockerfile import InstalledFiles, Step, dockerfile_steps, variables_of
from envbuild.specs.importers.native.reader import read_native
from envbuild.specs.importers.pip.requirements import RequirementsReader
from envbuild.specs.model import EnvironmentType, PipSpec, Spec
from envbuild.specs.problems import Place, Problems
from envbuild.specs.text.document import (
    Document,
    Mapping,
    Node,
    Scalar,
    Sequence,
    parse_document,
    yaml_document,
)
from envbuild.specs.text.section import LeftOut, Section, mapping_node, text_node
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

_TEMPLATE = re.compile(r"\{\{\s*([a-z0-9._-]+)(?::.*?)?\s*\}\}(?!\})")
"""What stands behind the colon is an expression, which may have braces of its own."""
_NEWEST = re.compile(r"\s*(?:===?|~=|>=)\s*\{\{\s*latest-pypi-version(?::[^{}]*)?\s*\}\}")
_OWN_CONTEXT = re.compile(
    r"\{\{\s*asset\.repo\.url\s*\}\}#\{\{\s*asset\.repo\.commit_hash\s*\}\}"
    r":\{\{\s*asset\.repo\.build_context\.path\s*\}\}"
)
"""The context as the service fetches it from the repository that this directory is in."""
_PUBLIC = "mcr.microsoft.com"
_PUBLISHED_IMAGE = re.compile(r"\{\{\s*image\.name\s*\}\}")
_NEWEST_IMAGE = re.compile(r":\{\{\s*latest-image-tag\s*\}\}")
_CONDA_FILES = ("conda_dependencies.yaml", "conda_dependencies.yml", "conda.yaml", "conda.yml")
_PLACES = (
    *("AZUREML_CONDA_DEFAULT_ENVIRONMENT", "AZUREML_CONDA_ENVIRONMENT_PATH", "CONDA_DEFAULT_ENV"),
    *("CONDA_PREFIX", "LD_LIBRARY_PATH", "PATH"),
)
"""Variables that say where a Dockerfile's own conda environment is."""
_USER = "1000:1000"
_SHOWN = 5
"""How many steps of a Dockerfile are refused by name."""
_HINT = (
    "only a conda file or requirements.txt that the Dockerfile copies and installs can be carried; write "
    "what the templates of the context stand for, and the directory, or its context as the SPEC, is built by "
    "that Dockerfile as it is (user-managed)"
)


class AzureAssetsImporter:
    """Reads a directory by its ``asset.yaml``."""

    name = "azureml-assets"
    markers: tuple[str, ...] = ("asset.yaml",)

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "asset.yaml"

    def load(self, file: SourceFile) -> Spec:
        return _Asset(file).spec()


@dataclass(slots=True)
class _Asset:
    file: SourceFile
    problems: Problems = field(default_factory=Problems)
    left: LeftOut = field(default_factory=LeftOut)
    values: dict[str, str] = field(default_factory=dict)
    """What templates with a value of this directory stand for."""
    variables: dict[str, str] = field(default_factory=dict)
    """What the ENV steps of the Dockerfile set."""
    templates: tuple[SourceFile, ...] = ()
    """Files of the context that the publisher fills."""
    known: dict[str, str] = field(default_factory=dict)
    """The values of all variables that were set so far."""
    hint: str | None = None
    """What to do about its problems."""

    def spec(self) -> Spec:
        asset = self.section(self.file)
        kind = asset.text("type")
        if kind is not None and kind.text != "environment":
            raise SpecError(f"{self.file.shown}: the asset is a {kind.text}, not an environment")
        name, version = asset.text("name"), asset.text("version")
        self.values["asset.name"] = name.text if name is not None else self.file.path.parent.name
        if version is not None and version.text != "auto":
            self.values["asset.version"] = version.text
        described, image = asset.text("spec"), asset.text("extra_config")
        asset.rest(unrelated=True)
        context, dockerfile = self.context(image.text if image is not None else "environment.yaml")
        file = self.file.beside(described.text if described is not None else "spec.yaml")
        document = yaml_document(file)
        if not isinstance(document.root, Mapping):
            raise SpecError(f"{file.shown}: must be a mapping")
        root = self.filled(document.root, file)
        self.problems.raise_if_any()
        spec = self.read(root, document, file, context, dockerfile)
        self.problems.raise_if_any()
        return self.left.added_to(replace(spec, source=self.file.path))

    def section(self, file: SourceFile) -> Section:
        root = yaml_document(file).root
        if not isinstance(root, Mapping):
            raise SpecError(f"{file.shown}: must be a mapping")
        return Section(root, file, self.problems, self.left)

    def context(self, written: str) -> tuple[str, str]:
        """The build context and its Dockerfile, as ``environment.yaml`` says."""
        file = self.file.beside(written)
        directory, dockerfile = "context", "Dockerfile"
        if file.is_there():
            image = self.section(file).section("image")
            context = image.section("context")
            given, own = context.text("dir"), context.text("dockerfile")
            directory = given.text if given is not None else directory
            dockerfile = own.text if own is not None else dockerfile
            image.get("os")
            published, location = image.text("name"), image.section("publish").text("location")
            if published is not None:
                host = f"{_PUBLIC}/" if location is not None and location.text == "mcr" else ""
                reference = _NEWEST_IMAGE.sub(":latest", host + published.text)
                if _TEMPLATE.search(reference) is None:
                    self.values["image.name"] = reference
            for name in ("pin_version_files", "pin_source_files"):
                context.get(name)
            templates = context.get("template_files")
            if isinstance(templates, Sequence):
                texts = [item.text for item in templates.items if isinstance(item, Scalar)]
                self.templates = tuple(self.file.beside(f"{directory}/{text}") for text in texts)
            image.rest(unrelated=True)
        self.values["image.context.path"] = self.values["image.context.dir"] = directory
        self.values["image.dockerfile.path"] = dockerfile
        return directory, dockerfile

    def filled(self, root: Mapping, file: SourceFile) -> Mapping:
        """``spec.yaml`` with its templates filled; a version that the publisher counts is none."""
        counted = "asset.version" not in self.values
        kept = Mapping(
            tuple(
                (key, value)
                for key, value in root.entries
                if not (counted and key.text == "version" and _has_template(value))
            ),
            root.line,
        )
        published, dockerfile = kept.get("image"), self.values["image.dockerfile.path"]
        if isinstance(published, Scalar) and _PUBLISHED_IMAGE.match(published.text):
            context = self.values["image.context.path"]
            if self.file.beside(f"{context}/{dockerfile}").is_there():
                line = kept.key_line("image")
                kept = Mapping(tuple(entry for entry in kept.entries if entry[0].text != "image"), kept.line)
                build = {"path": text_node(context, line), "dockerfile_path": text_node(dockerfile, line)}
                own = (text_node("build", line), mapping_node({**build}, line))
                kept = Mapping((*kept.entries, own), kept.line)
        mapped = _mapped(kept, lambda node: self.fill(node, file))
        assert isinstance(mapped, Mapping)
        return mapped

    def fill(self, node: Scalar, file: SourceFile) -> Scalar:
        def value(match: re.Match[str]) -> str:
            if match[1] not in self.values:
                self.unknown(file, node.line, match[0])
            return self.values.get(match[1], "")

        text = _OWN_CONTEXT.sub(lambda _: self.values["image.context.path"], node.text)
        text = _TEMPLATE.sub(value, text)
        return node if text == node.text else text_node(text, node.line)

    def unknown(self, file: SourceFile, line: int, template: str) -> None:
        place = Place(file=file.shown, line=line)
        remedy = "write what it stands for: nothing is looked up here"
        self.problems.add(place, f"the template {template} can't be filled", remedy)

    def read(
        self, root: Mapping, document: Document, file: SourceFile, context: str, dockerfile: str
    ) -> Spec:
        own = self.file.beside(f"{context}/{dockerfile}")
        beside = (own.beside(name) for name in _CONDA_FILES)
        conda = next((file for file in beside if file.is_there()), None)
        build = root.get("build") is not None and own.is_there()
        listed = own.beside("requirements.txt")
        pip = listed if listed.is_there() else None
        files = dict.fromkeys(file for file in (own, conda, pip, *self.templates) if file is not None)
        texts = {file: file.read(YAML_LIMIT) for file in files if file.is_there()} if build else {}
        filled_in = [file for file, text in texts.items() if _TEMPLATE.search(text)]
        if not filled_in:
            return read_native(Document(root, document.lines), file)
        for template in filled_in:
            if template not in (own, conda, pip):
                place, remedy = Place(file=template.shown), "write what they stand for"
                self.problems.add(place, "has templates, and isn't read here", remedy)
        top = self.file.beside(context).path
        listing = {file.relative_to(top): file for file in (conda, pip) if file is not None}
        image, installed = self.image(own, texts[own], listing)
        self.problems.raise_if_any(hint=self.hint)
        conda, pip = (file if file in installed else None for file in (conda, pip))
        others = {key.text: value for key, value in root.entries if key.text != "build"}
        bare = mapping_node({**others, "image": text_node(image, root.key_line("build"))}, root.line)
        spec = read_native(Document(bare, document.lines), file)
        variables = {**self.variables, **dict(spec.environment_variables)}
        spec = replace(
            spec,
            type=EnvironmentType.SYSTEM_MANAGED,
            user=_USER,
            environment_variables=tuple(sorted(variables.items())),
        )
        reader = RequirementsReader(spec.directory, self.problems)
        for number, line in enumerate(texts[pip].splitlines() if pip is not None else (), 1):
            assert pip is not None
            filled = self.newest(text_node(line, number), pip)
            reader.read_text(filled.text, pip, line=number, key="")
        own_pip = reader.result()
        if conda is None:
            return replace(spec, pip=own_pip)
        conda_document = parse_document(texts[conda], conda.shown)
        plain = (
            _mapped(conda_document.root, lambda node: self.newest(node, conda))
            if conda_document.root
            else None
        )
        content = read_conda(Document(plain, conda_document.lines), conda, spec.directory, self.problems)
        both = PipSpec(
            requirements=tuple(dict.fromkeys((*content.pip.requirements, *own_pip.requirements))),
            constraints=tuple(dict.fromkeys((*content.pip.constraints, *own_pip.constraints))),
            options=tuple(dict.fromkeys((*content.pip.options, *own_pip.options))),
        )
        variables |= dict(content.variables)
        return replace(
            spec, conda=content.conda, pip=both, environment_variables=tuple(sorted(variables.items()))
        )

    def image(
        self, file: SourceFile, text: str, listing: dict[str, SourceFile]
    ) -> tuple[str, tuple[SourceFile, ...]]:
        """The image that the Dockerfile begins with, and the files of ``listing`` (by their paths in the
        context) that it installs; every other step is left out, or refused where it may install more."""
        reference = ""
        name = f"{file.path.parent.name}/{file.path.name}"
        files = InstalledFiles(frozenset(listing))
        refusals: list[tuple[Place, str]] = []
        for step in dockerfile_steps(text):
            place = Place(file=file.shown, line=step.line)
            if step.instruction == "ARG" and reference:
                # A variable of the same name wins over an argument's default.
                for argument, default in variables_of(step, self.known):
                    if default is not None:
                        self.known.setdefault(argument, default)
            if step.instruction == "ENV":
                self.set_variables(step, name)
            elif step.instruction != "FROM":
                if (refusal := files.refusal(step)) is not None:
                    refusals.append((place, refusal))
                copied = [
                    file.path.name
                    for file in listing.values()
                    if step.instruction in ("COPY", "ADD") and file.path.name in step.text
                ]
                why = f"{' and '.join(copied)} is read" if copied else ""
                self.left.say(f"{name}:{step.line}: {step.instruction}" + (f": {why}" if why else ""))
            elif reference:
                self.problems.add(place, "a second FROM", "only what one image has can be carried")
            else:
                words = [word for word in step.text.split(" ") if not word.startswith("--")]
                reference = _NEWEST_IMAGE.sub(":latest", words[0] if words else "")
                if words and reference != words[0]:
                    self.left.say(
                        f"{name}:{step.line}: {{{{latest-image-tag}}}}: 'latest', as the lock pins it"
                    )
                for match in _TEMPLATE.finditer(reference):
                    self.unknown(file, step.line, match[0])
        carried, lines = fields.carried(self.variables.items())
        self.variables = dict(carried)
        for line in lines:
            self.left.say(f"{name}: ENV: {line}")
        if not reference:
            self.problems.add(Place(file=file.shown), "begins with no image")
        for place, refusal in refusals[:_SHOWN]:
            self.problems.add(place, refusal)
        if len(refusals) > _SHOWN:
            more = len(refusals) - _SHOWN
            self.problems.add(
                Place(file=file.shown), f"so {'do' if more > 1 else 'does'} {more} more of its steps"
            )
        self.hint = _HINT if refusals else None
        for path, listed in listing.items():
            if path not in files.installed:
                self.left.say(f"{listed.path.parent.name}/{listed.path.name}: no step installs it")
        return reference, tuple(listing[path] for path in listing if path in files.installed)

    def set_variables(self, step: Step, name: str) -> None:
        """Carries what an ENV step sets."""
        for variable, value in variables_of(step, self.known):
            if value is not None:
                self.known[variable] = value
            why = None
            if variable in _PLACES or any(place in (value or "") for place in self.places()):
                why = "where its environment stands; here it is in /opt/env"
            elif value is None:
                why = "its value is what another variable says"
            if why is None and value is not None:
                self.variables[variable] = value
            else:
                self.variables.pop(variable, None)
                self.left.say(f"{name}:{step.line}: ENV {variable}: {why}", unrelated=variable in _PLACES)

    def places(self) -> tuple[str, ...]:
        """The directories of the Dockerfile's own environment, as far as it has named them."""
        values = (self.known.get(name, "") for name in _PLACES if "CONDA" in name)
        return tuple(value for value in values if value.startswith("/") and len(value) > 1)

    def newest(self, node: Scalar, file: SourceFile) -> Scalar:
        """A requirement whose version is the newest one: the lock decides it."""
        text = _NEWEST.sub("", node.text)
        if text != node.text:
            name = f"{file.path.parent.name}/{file.path.name}"
            self.left.say(f"{name}:{node.line}: {{{{latest-pypi-version}}}}: the lock decides that of {text}")
        for match in _TEMPLATE.finditer(text):
            self.unknown(file, node.line, match[0])
        return node if text == node.text else text_node(text, node.line)


def _mapped(node: Node, change: Callable[[Scalar], Scalar]) -> Node:
    """``node`` with every text in it changed."""
    if isinstance(node, Scalar):
        return change(node)
    if isinstance(node, Sequence):
        return Sequence(tuple(_mapped(item, change) for item in node.items), node.line)
    return Mapping(tuple((key, _mapped(value, change)) for key, value in node.entries), node.line)


def _has_template(node: Node) -> bool:
    return isinstance(node, Scalar) and _TEMPLATE.search(node.text) is not None
