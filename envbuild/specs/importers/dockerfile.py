"""A Dockerfile and its build context: a user-managed environment.

The context is the directory that the Dockerfile stands in; where its steps copy what only a directory above
has, as with ``docker build -f docker/Dockerfile .``, it is that one.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.errors import SpecError
from envbuild.lazy import lazy
from envbuild.specs import fields
from envbuild.specs.model import BuildContextSpec, EnvironmentType, Spec
from envbuild.specs.text.source import SourceFile

if TYPE_CHECKING:
    from envbuild.specs import context as spec_context
else:
    spec_context = lazy("envbuild.specs.context")

_log = logging.getLogger(__name__)

DOCKERFILE_LIMIT = 1 << 20
"""Bytes."""
_NAME = re.compile(r"(?:docker|container)file(?:[._-].+)?|.+[._-](?:docker|container)file", re.IGNORECASE)
_OTHER_SUFFIXES = frozenset(
    {".in", ".json", ".lock", ".md", ".py", ".rst", ".sh", ".toml", ".txt", ".yaml", ".yml"}
)
_SHOWN = 3
"""Missing files that are named."""
_LEVELS = 3
"""Directories above a Dockerfile's own that may be its context; none above that of a repository."""


class DockerfileImporter:
    """Takes a ``Dockerfile`` as it is."""

    name = "dockerfile"
    markers: tuple[str, ...] = ("Dockerfile", "Containerfile")

    def recognises(self, file: SourceFile) -> bool:
        name = file.path.name.lower()
        if name.endswith(".dockerignore") or not file.path.is_file():
            return False
        if name.startswith("dockerfile.") or (
            is_dockerfile_name(name) and file.path.suffix not in _OTHER_SUFFIXES
        ):
            return True
        return not file.path.suffix and _begins_with_an_image(file)

    def load(self, file: SourceFile) -> Spec:
        context = _context(file)
        return user_managed(file.path, context, source=file.path)


def is_dockerfile_name(name: str) -> bool:
    """Whether a file of that name is a Dockerfile, as far as names go: ``Dockerfile-gpu``."""
    return _NAME.fullmatch(name) is not None and not name.lower().endswith(".dockerignore")


def _begins_with_an_image(file: SourceFile) -> bool:
    """Whether the first step is FROM, which only ARG may precede."""
    try:
        steps = dockerfile_steps(file.read(DOCKERFILE_LIMIT))
    except SpecError:
        return False
    first = next((step for step in steps if step.instruction != "ARG"), None)
    return first is not None and first.instruction == "FROM" and re.match(r"\S", first.text) is not None


def _context(file: SourceFile) -> Path:
    """The directory that has what the steps of a Dockerfile copy: its own, or the next one above; its own
    where none has. Which one was taken, or what is missing, is said."""
    own = file.path.parent
    sources = context_sources(file.read(DOCKERFILE_LIMIT))
    missing = absent_sources(sources, file)
    if not missing:
        if WHOLE_CONTEXT in sources and all(map(_is_of_docker, file.beside(".").names())):
            _log.warning(
                "%s: copies its directory, which has nothing else; where it is built from another one, name "
                "that in a spec: build: {path: .., dockerfile_path: %s/%s}",
                file.shown,
                own.resolve().name,
                file.path.name,
            )
        return own
    above = file
    for _ in range(_LEVELS):
        if SourceFile(above.path.with_name(".git"), ".git").is_there():
            break
        above = above.beside("../x")
        if above.path.parent == above.path.parent.parent:
            break
        if not absent_sources(sources, above):
            _log.warning(
                "%s: copies %s, which %s has: that is the build context, as with build: {path: %s, "
                "dockerfile_path: %s}",
                file.shown,
                ", ".join(missing[:_SHOWN]),
                Path(above.shown).parent.as_posix(),
                os.path.relpath(above.path.parent, own),
                file.relative_to(above.path.parent),
            )
            return above.path.parent
    _log.warning(
        "%s: copies %s, which its directory hasn't; name the build context in a spec: "
        "build: {path: DIRECTORY, dockerfile_path: %s}",
        file.shown,
        ", ".join(missing[:_SHOWN]),
        file.path.name,
    )
    return own


def context_sources(text: str) -> tuple[str, ...]:
    """The paths of the build context that the steps of a Dockerfile copy or mount, in their order, each once.
    Variables have the values that its ARG and ENV steps give them; without those that nothing gives one."""
    sources: dict[str, None] = {}
    values: dict[str, str] = {}
    for step in dockerfile_steps(text):
        if step.instruction in ("ARG", "ENV"):
            values |= {name: value for name, value in variables_of(step, values) if value is not None}
        for source in _copied(step):
            filled = _fill(source, values)
            path = posixpath.normpath("/" + filled).lstrip("/")
            if "$" not in filled and "\0" not in filled:
                sources.setdefault(path or WHOLE_CONTEXT)
    return tuple(sources)


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], match[0]), text)


def _is_of_docker(name: str) -> bool:
    return is_dockerfile_name(name) or name.lower().endswith(".dockerignore")


def variables_of(step: Step, known: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """What an ENV step sets, with the values that ``known`` variables give it; None where one isn't known."""
    name, separator, rest = step.text.partition(" ")
    if "=" not in name:
        pairs = [(name, " ".join(_words(rest) or [rest]))] if separator else []
    else:
        words = (word.partition("=") for word in _words(step.text) or [])
        pairs = [(name, value) for name, _, value in words]
    # What a shell would leave alone can't be told from the words.
    quoted = "'" in step.text or "\\$" in step.text
    values = dict(known)
    for name, text in pairs:
        unknown = [
            match for match in _VARIABLE.finditer(text) if quoted or (match[1] or match[2]) not in values
        ]
        filled = _VARIABLE.sub(lambda match: values.get(match[1] or match[2], ""), text)
        yield name, None if unknown or "$" in filled else filled


def _copied(step: Step) -> Iterator[str]:
    if step.instruction == "RUN":
        for mount in re.findall(r"--mount=(\S+)", step.text):
            options = dict(option.partition("=")[::2] for option in mount.split(","))
            if options.get("type", "bind") == "bind" and "from" not in options:
                yield options.get("source") or options.get("src") or "."
    elif step.instruction in ("COPY", "ADD") and not step.heredoc:
        words = _words(step.text) or []
        flags = [word for word in words if word.startswith("--")]
        if not any(flag.startswith("--from") for flag in flags):
            paths = [word for word in words if not word.startswith("--")]
            yield from (path for path in paths[:-1] if not _ADDRESS.search(path))


WHOLE_CONTEXT = "."
"""A source that every context has."""


def absent_sources(sources: Iterable[str], beside: SourceFile) -> tuple[str, ...]:
    """Those of ``sources`` that the directory of ``beside`` hasn't."""
    return tuple(source for source in sources if not _is_there(source, beside))


def _is_there(source: str, beside: SourceFile) -> bool:
    directory, _, name = source.rpartition("/")
    if not re.search(r"[*?[]", source):
        return beside.beside(source).is_there()
    if re.search(r"[*?[]", directory):
        return True  # Rare, and a build says it.
    try:
        return any(fnmatch(entry, name) for entry in beside.beside(directory or ".").names())
    except SpecError:
        return False


def user_managed(dockerfile: Path, context: Path, *, source: Path) -> Spec:
    """The environment that ``dockerfile`` makes from ``context``, as ``source`` says.

    Raises ``SpecError`` where the context can't be read.
    """
    path = Path(os.path.relpath(context, source.parent))
    base = BuildContextSpec(path=path, dockerfile_path=dockerfile.relative_to(context).as_posix())
    return Spec(
        name=fields.fit_name(context.name),
        source=source,
        type=EnvironmentType.USER_MANAGED,
        base=spec_context.with_digest(base, source.parent),
        user="",
    )


_INSTRUCTIONS = frozenset(
    {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
        *("MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ADDRESS = re.compile(r"://|^git@")
_HEREDOC = re.compile(r"(?<!<)<<(?!<)-?\s*[\"']?([A-Za-z0-9_.-]+)[\"']?")
_BRINGS_NOTHING = frozenset(
    {
        *(
            ":",
            "cd",
            "chgrp",
            "chmod",
            "chown",
            "echo",
            "groupadd",
            "ln",
            "mkdir",
            "rm",
            "rmdir",
            "sed",
            "set",
        ),
        *("touch", "true", "useradd", "usermod"),
    }
)
_INSTALLERS = frozenset({"apt", "apt-get", "conda", "curl", "dpkg", "git", "pip", "uv", "wget"})
_EDITORS = frozenset({"echo", "ln", "sed"})
_SUBCOMMANDS_BRING_NOTHING = {
    "apt-get": frozenset({"autoclean", "clean", "update"}),
    "conda": frozenset({"clean", "info", "list", "tos"}),
    "pip": frozenset({"cache", "check", "freeze", "list", "show"}),
}
_PIP_FLAGS = frozenset(
    {
        *("--break-system-packages", "--disable-pip-version-check", "--no-cache-dir", "--no-input"),
        *("--no-warn-script-location", "--quiet", "--upgrade", "--user", "--verbose", "-U", "-q", "-v"),
        "--root-user-action=ignore",
    }
)
"""Options of pip that don't change what a requirements file means."""
_CONDA_FLAGS = frozenset({"--force", "--json", "--quiet", "--verbose", "--yes", "-q", "-v", "-y"})
_CONDA_PLACES = ("-p", "--prefix", "-n", "--name")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One instruction: its 1-based line, its name in capitals, and the rest with continued lines joined."""

    line: int
    instruction: str
    text: str
    heredoc: bool = False
    """It is given text that stands in the lines behind it."""


def dockerfile_steps(text: str) -> tuple[Step, ...]:
    """The steps in their order. Never raises: what is no instruction is a step of that name."""
    steps: list[Step] = []
    parts: list[str] = []
    start = 0
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        start = start if parts else number
        parts.append(stripped.removesuffix("\\"))
        if stripped.endswith("\\"):
            continue
        step = _step(start, parts)
        parts = []
        if step.heredoc:
            # The last one ends the step.
            for word in _HEREDOC.findall(step.text):
                for _, body in lines:
                    if body.strip() == word:
                        break
        steps.append(step)
    return (*steps, _step(start, parts)) if parts else tuple(steps)


def _step(line: int, parts: Sequence[str]) -> Step:
    word, _, rest = " ".join(" ".join(parts).split()).partition(" ")
    instruction = word.upper()
    heredoc = instruction in ("RUN", "COPY", "ADD") and _HEREDOC.search(rest) is not None
    return Step(line=line, instruction=instruction, text=rest, heredoc=heredoc)


@dataclass(slots=True)
class InstalledFiles:
    """Follows the steps of a Dockerfile and learns which of ``files`` they copy and install.

    ``files`` are paths inside the context; ``installed`` grows with each step that is looked at.
    """

    files: frozenset[str]
    installed: set[str] = field(default_factory=set)
    _copied: dict[str, str] = field(default_factory=dict)
    """The name that a file has in the image, and the file."""

    def refusal(self, step: Step) -> str | None:
        """Why ``step`` may bring something that no file says; None where it doesn't. No value of the step is
        shown: it may be secret."""
        if step.instruction not in _INSTRUCTIONS:
            return "is no instruction of a Dockerfile"
        if step.heredoc:
            return f"{step.instruction} with text of its own brings what isn't carried"
        if step.instruction in ("COPY", "ADD"):
            return self._copy(step)
        return self._run(step) if step.instruction == "RUN" else None

    def _copy(self, step: Step) -> str | None:
        words = _words(step.text)
        if words is None:
            return f"{step.instruction} brings what isn't carried"
        flags = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")] or [""]
        if any(flag.startswith("--from") for flag in flags):
            return f"{step.instruction} --from brings what another image has"
        for source in sources:
            if step.instruction == "ADD" and re.search(r"://|^git@|\.(tar|tgz|tbz2|txz|tar\.\w+)$", source):
                return "ADD of an address or an archive brings what isn't carried"
            self._place(source, target if len(sources) == 1 else "")
        return None

    def _place(self, source: str, target: str) -> None:
        path = posixpath.normpath(source.lstrip("/") or ".")
        renamed = posixpath.basename(target)
        matching = [
            file
            for file in self.files
            if path in (".", file) or file.startswith(f"{path}/") or fnmatch(file, path)
        ]
        for name in (posixpath.basename(path), renamed):
            self._copied.pop(name, None)
        for file in matching:
            self._copied[posixpath.basename(file)] = file
            if path == file and renamed:
                self._copied[renamed] = file

    def _run(self, step: Step) -> str | None:
        text, flags = step.text, []
        while text.startswith("--"):
            flag, _, text = text.partition(" ")
            flags.append(flag)
        commands = _commands(text)
        if commands is None or any(not flag.startswith("--mount=type=cache") for flag in flags):
            return "RUN of a script brings what isn't carried"
        refused = [_program(words) for words in commands if not self._is_carried(words)]
        shown = next((words for words in refused if words[0] in _INSTALLERS), refused[0]) if refused else []
        return f"{_shown(shown)} brings what isn't carried" if shown else None

    def _is_carried(self, words: Sequence[str]) -> bool:
        """Whether one command of a shell installs files that are read, or nothing."""
        if any("$(" in word or "`" in word for word in words):
            return False
        program, *arguments = _program(words)
        if program == "pip" and arguments[:1] == ["install"]:
            return self._install(_pip_files(arguments[1:]))
        if program == "conda" and arguments[:2] in (["env", "create"], ["env", "update"]):
            return self._install(_conda_files(arguments[2:]))
        if program in _SUBCOMMANDS_BRING_NOTHING:
            return bool(arguments) and arguments[0] in _SUBCOMMANDS_BRING_NOTHING[program]
        if program not in _BRINGS_NOTHING:
            return False
        # What edits one of the files changes what is installed.
        edits = program in _EDITORS or any(word.startswith(">") for word in arguments)
        named = [posixpath.basename(word) for word in arguments]
        return not edits or not any(fnmatch(name, word) for word in named for name in self._copied)

    def _install(self, names: Iterable[str] | None) -> bool:
        files = [self._copied.get(posixpath.basename(name)) for name in names or ()]
        known = {file for file in files if file is not None}
        self.installed |= known
        return bool(files) and None not in files


def _words(text: str) -> list[str] | None:
    """The words of an instruction, in either of Docker's forms; None where they can't be told apart."""
    try:
        words = json.loads(text) if text.startswith("[") else None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    except (ValueError, RecursionError):
        pass  # Docker takes it for the other form then.
    try:
        return shlex.split(text)
    except ValueError:
        return None


def _commands(text: str) -> list[list[str]] | None:
    """The commands of a RUN step as words; None for what only a shell can read."""
    if text.startswith("["):
        words = _words(text)
        return [words] if words else None
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word and set(word) <= set("();<>|&"):
                if set(word) & set("()"):
                    return None
                if not set(word) & set("<>"):
                    commands.append([])
                    continue
            commands[-1].append(word)
    except ValueError:
        return None
    return [words for words in commands if words] or None


def _program(words: Sequence[str]) -> list[str]:
    """A command with the plain name of its program, without what only runs it in an environment of conda."""
    name, *arguments = words
    name = posixpath.basename(name)
    if re.fullmatch(r"python[0-9.]*", name) and arguments[:2] == ["-m", "pip"]:
        return ["pip", *arguments[2:]]
    if re.fullmatch(r"pip[0-9.]*", name):
        return ["pip", *arguments]
    if name in ("mamba", "micromamba"):
        name = "conda"
    if name == "conda" and arguments[:1] == ["run"]:
        rest = arguments[1:]
        while rest and rest[0].startswith("-"):
            rest = rest[2:] if rest[0] in _CONDA_PLACES else rest[1:]
        return _program(rest) if rest else [name, *arguments]
    return [name, *arguments]


def _pip_files(arguments: Sequence[str]) -> list[str] | None:
    """The requirements files that ``pip install`` is given; None where it is given anything else."""
    files = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-r", "--requirement") and rest:
            files.append(rest.pop(0))
        elif match := re.fullmatch(r"(?:--requirement=|-r)(.+)", word):
            files.append(match[1])
        elif word not in _PIP_FLAGS:
            return None
    return files


def _conda_files(arguments: Sequence[str]) -> list[str] | None:
    """The files that ``conda env`` is given; None where it is given anything else."""
    files = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-f", "--file") and rest:
            files.append(rest.pop(0))
        elif match := re.fullmatch(r"--file=(.+)", word):
            files.append(match[1])
        elif word in _CONDA_PLACES and rest:
            rest.pop(0)
        elif word not in _CONDA_FLAGS and not re.match(r"--(prefix|name)=", word):
            return None
    return files


def _shown(words: Sequence[str]) -> str:
    """A RUN step by its program, and what an installer is told to do; without any value."""
    program, verb = words[0], words[1] if len(words) > 1 else ""
    if program in _INSTALLERS and re.fullmatch("[a-z][a-z-]{1,30}", verb):
        return f"RUN {program} {verb}"
    return f"RUN {program}" if re.fullmatch(r"[\w.+-]{1,60}", program) else "RUN"
