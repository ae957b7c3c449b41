"""Where in people's files something stands that a :class:`Spec` no longer knows the line of.

The file is read again when the first line is asked for. A spec that was made by a program, or a file that
changed since, has no lines; that is never an error here.
"""

from __future__ import annotations

import re
from functools import cached_property

from envbuild.errors import SpecError
from envbuild.specs.importers.conda.environment import is_conda
from envbuild.specs.match import canonical_match
from envbuild.specs.model import Origin, Spec
from envbuild.specs.problems import Place, Refused
from envbuild.specs.text.document import Document, Mapping, Node, Scalar, Sequence, parse_document
from envbuild.specs.text.section import says_something
from envbuild.specs.text.source import YAML_LIMIT, SourceFile

_LINE = re.compile(r"([0-9]+)(?:: (.*))?", re.DOTALL)


class Places:
    """Finds the places of one spec. Files in them are relative to the spec's directory."""

    def __init__(self, spec: Spec) -> None:
        self._file = SourceFile.at(spec.source)
        self._name = spec.source.name or "spec"

    @property
    def whole(self) -> Place:
        """The spec's file, without a line."""
        return Place(file=self._name)

    def origin(self, origin: Origin) -> Place:
        """The place that an importer wrote down: a line, a line and a key, or a key alone."""
        match = _LINE.fullmatch(origin.where)
        if match is None:
            return Place(file=origin.file, key=origin.where)
        return Place(file=origin.file, line=int(match[1]), key=match[2] or "")

    def key(self, *path: str) -> Place:
        """The place of a key of the spec itself."""
        return _place(self._name, self._source.root if self._source else None, path, "")

    def conda(self, *path: str) -> Place:
        """The place of a key of the conda file, which may be the spec itself or stand inside it."""
        return _place(self._conda.file, self._conda.root, path, self._conda.key)

    def says_channels(self) -> bool | None:
        """Whether the conda file has channels; None where that can't be known."""
        root = self._conda.root
        return None if root is None else says_something(root.get("channels"))

    def variable(self, name: str) -> Place:
        """The place of an environment variable: the spec's own wins over the conda file's."""
        for keys in ("environment_variables", "variables"):
            place = self.key(keys, name) if keys != "variables" else self.conda(keys, name)
            if place.key.endswith(f".{name}"):
                return place
        return self.whole

    def dependency(self, text: str) -> Place:
        """The place of a conda dependency by its canonical text."""
        line = self._dependencies.get(text)
        return Place(file=self._conda.file, line=line) if line is not None else self.conda("dependencies")

    @cached_property
    def _source(self) -> Document | None:
        return _read(self._file)

    @cached_property
    def _conda(self) -> _Conda:
        top = self._source.root if self._source else None
        if not isinstance(top, Mapping):
            return _Conda(self._name, None, "")
        if is_conda(top):
            return _Conda(self._name, top, "")
        written = top.get("conda_file")
        if isinstance(written, Mapping):
            return _Conda(self._name, written, "conda_file")
        if not isinstance(written, Scalar) or "\0" in written.text:
            return _Conda(self._name, None, "")
        other = self._file.beside(written.text)
        document = _read(other)
        root = document.root if document else None
        return _Conda(
            other.relative_to(self._file.path.parent), root if isinstance(root, Mapping) else None, ""
        )

    @cached_property
    def _dependencies(self) -> dict[str, int]:
        lines: dict[str, int] = {}
        items = self._conda.root.get("dependencies") if self._conda.root else None
        for item in items.items if isinstance(items, Sequence) else ():
            if isinstance(item, Scalar):
                try:
                    lines.setdefault(canonical_match(item.text), item.line)
                except Refused:
                    continue
        return lines


class _Conda:
    """A conda file: its name, its top, and the key path it stands under."""

    def __init__(self, file: str, root: Mapping | None, key: str) -> None:
        self.file = file
        self.root = root
        self.key = key


def _read(file: SourceFile) -> Document | None:
    if file.path.suffix.lower() not in (".yaml", ".yml"):
        return None
    try:
        return parse_document(file.read(YAML_LIMIT), file.shown)
    except SpecError:
        return None


def _place(file: str, root: Node | None, path: tuple[str, ...], prefix: str) -> Place:
    """As much of ``path`` as is there."""
    line, keys, node = None, [prefix] if prefix else [], root
    for part in path:
        if not isinstance(node, Mapping) or node.get(part) is None:
            break
        line, node = node.key_line(part), node.get(part)
        keys.append(part)
    return Place(file=file, line=line, key=".".join(keys))
