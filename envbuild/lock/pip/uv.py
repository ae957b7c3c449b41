"""Resolves with ``uv pip compile``: for the target's platform, python and glibc, not this machine's."""

from __future__ import annotations

import json
import re
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuild.errors import ResolveError
from envbuild.lock.base import PipRequest, PipTarget
from envbuild.lock.model import PipPin
from envbuild.lock.pip.choice import FileChoice
from envbuild.lock.pip.command import (
    INDEXES,
    NO_GIT_HINT,
    expand,
    find_uv,
    index_options,
    option_name,
    own_project,
    python_options,
    secrets,
    uv_environment,
    uv_platform,
    write_provided,
)
from envbuild.lock.pip.package_index import PROJECT, own_indexes, write_project
from envbuild.lock.pip.pylock import Resolved, dump_preferences, load_pylock
from envbuild.lock.pip.requirements import load_via
from envbuild.lock.pip.runner import Completed, Runner, SubprocessRunner
from envbuild.lock.pip.satisfied import marker_environment
from envbuild.redact import clean
from envbuild.specs.importers.pip.requirement import name_of
from envbuild.specs.model import PipRequirement, PipSpec

_EXACT = re.compile(r"^([^\s;@=<>!~]+)==(?=[^=*;,\s]+(?:;|$))")
"""Where ``===`` may stand, so that another index's 2.9.0+cpu isn't taken for the 2.9.0 that is pinned."""
_FORMATS = {"--no-binary", "--only-binary"}
BUILD_HINT = (
    "where its build needs older tools, say so in the spec: build_constraints: [setuptools<80]; where it "
    "needs what it doesn't state: extra_build_dependencies: {NAME: [setuptools]}; or take a version "
    "that has a wheel"
)


class UvResolver:
    """A ``PipResolver``. ``env`` is the environment of this process: uv's own settings are read from it."""

    name = "uv"
    remembers = True

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        runner: Runner | None = None,
        executable: str | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        self._env = env
        self._extra = tuple(extra)
        self._runner = runner or SubprocessRunner()
        # Several platforms are resolved at once, and until Python 3.12 threads that are the first to ask for
        # these see them half made: uv then isn't found, or worse.
        sysconfig.get_config_vars()
        self._executable = executable

    def version(self) -> str:
        return version("uv")

    def resolve(self, request: PipRequest) -> tuple[PipPin, ...]:
        """See ``PipResolver``. Takes as long as two runs of uv, the second from its cache. To a complete
        list nothing is added."""
        spec, upgrade, kept, offline = request.spec, request.upgrade, request.kept, request.offline
        if not spec.requirements:
            return ()
        by_conda: dict[str, str] = {
            canonicalize_name(name): version for name, version in request.provided.items()
        }
        with tempfile.TemporaryDirectory(prefix="envbuild-uv-") as scratch:
            job = _Job(
                spec=spec,
                target=request.target,
                directory=Path(scratch),
                env=self._env,
                provided=by_conda,
                as_of=request.as_of,
            )
            job.write(kept)
            # A lock that must move has to see the index as it is now, not as uv remembers it.
            fresh = ["--refresh"] if not offline and (upgrade.everything or upgrade.packages) else []
            answer = self._run(job, [*fresh, "--format", "pylock.toml", "-o", "pylock.toml"], offline)
            if answer.status != 0:
                raise job.failure(answer, offline)
            resolved = load_pylock((job.directory / "pylock.toml").read_text(encoding="utf-8"))
            # In a complete list nothing asks for anything else.
            listed = {name: (source,) for name, source in job.sources.items()}
            via = listed if spec.complete else self._via(job, resolved, offline)
        pins = job.pins(resolved, {pin.name: pin for pin in kept}, via)
        return tuple(sorted(pins, key=lambda pin: pin.name))

    def _via(self, job: _Job, resolved: Sequence[Resolved], offline: bool) -> dict[str, tuple[str, ...]]:
        """Who asked for each, from a second run that has everything in its cache."""
        (job.directory / "chosen.txt").write_text(
            "".join(f"{locked.name}=={locked.version}\n" for locked in resolved if not locked.direct)
        )
        options = ["-c", "chosen.txt", "--annotation-style", "split", "--no-strip-extras"]
        answer = self._run(job, options, True)
        if answer.status != 0 and not offline:
            answer = self._run(job, options, False)
        if answer.status != 0:
            raise job.failure(answer, offline)
        return load_via(answer.stdout, job.sources)

    def _run(self, job: _Job, options: Sequence[str], offline: bool) -> Completed:
        argv = [
            self._executable or find_uv(),
            *("pip", "compile", *job.files, "--quiet", "--no-header"),
            *python_options(),
            *("--python-version", job.target.python),
            *("--python-platform", uv_platform(job.target.platform, job.target.glibc)),
            *job.options(),
            *(["--no-deps"] if job.spec.complete and "--no-deps" not in self._extra else []),
            *self._extra,
            *options,
            *(["--offline"] if offline else []),
        ]
        return self._runner.run(
            argv, env=uv_environment(self._env, job.spec.options), cwd=own_project(job.directory)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One resolution: its files in a directory that only this user can read, and what comes of it."""

    spec: PipSpec
    target: PipTarget
    directory: Path
    env: Mapping[str, str]
    provided: Mapping[str, str]
    as_of: date | None

    @property
    def sources(self) -> dict[str, str]:
        """The ``-r`` origin of each requirement; uv knows only our own file, so it goes by name."""
        return {
            canonicalize_name(requirement.name): f"-r {Path(line.origin.file).name}"
            for line, requirement in self._parsed(self.spec.requirements)
        }

    @property
    def files(self) -> tuple[str, ...]:
        """Where uv reads what is asked."""
        return ("options.in", PROJECT) if (self.directory / PROJECT).exists() else ("options.in",)

    def write(self, kept: Sequence[PipPin]) -> None:
        own = own_indexes(self.spec.indexes, self.target)
        indexed: dict[str, list[str]] = {}
        others: list[str] = []
        for line in self.spec.requirements:
            name = name_of(line.text)
            text = expand(_EXACT.sub(r"\1===", line.text) if self.spec.complete else line.text, self.env)
            (indexed.setdefault(name, []) if name in own and " @ " not in text else others).append(text)
        self._write("requirements.in", others)
        write_project(self.directory, indexed, own, self.env)
        constraints = [expand(constraint.text, self.env) for constraint in self.spec.constraints]
        stubs, absent = write_provided(self.directory / "provided", self.provided)
        self._write("constraints.in", constraints + stubs)
        if absent:
            self._write("excludes.in", absent)
        build = self.spec.build
        self._write("build-constraints.in", [expand(line.text, self.env) for line in build.constraints])
        if build.extra:
            # Of a project's own settings: no option of uv says it.
            lines = (f"{json.dumps(name)} = {json.dumps(texts)}" for name, texts in build.extra)
            self._write("uv.toml", ["[extra-build-dependencies]", *lines])
        # Addresses may hold a credential, which the list of processes would show on a command line.
        self._write("options.in", [*self._index_options(), "-r requirements.in"])
        (self.directory / "pylock.toml").write_text(dump_preferences(kept))

    def options(self) -> list[str]:
        strategy = self.spec.index_strategy or "unsafe-best-match"
        if self.spec.complete and all(
            requirement.hashes or " @ " in requirement.text for requirement in self.spec.requirements
        ):
            # Another tool found each on its own index; hashes say which file it is, so any index may have it.
            strategy = "unsafe-best-match"
        options = ["-c", "constraints.in", "--index-strategy", strategy]
        options += ["--build-constraints", "build-constraints.in"] if self.spec.build.constraints else []
        if (self.directory / "excludes.in").exists():
            # Newer than other options of uv, so it is given only where it is needed.
            options += ["--excludes", "excludes.in"]
        for option in self.spec.options:
            name = option_name(option)
            if name == "--pre":
                options += ["--prerelease", "allow"]
            elif name in ("--prefer-binary", "--trusted-host"):
                continue
            elif name not in INDEXES | _FORMATS:
                raise ResolveError(
                    f"the option {name} can't be passed to uv",
                    hint="remove it, or use --pip-engine pip-tools",
                )
        if self.as_of is not None:
            # The day counts to its end; uv takes files that are older than the moment given.
            options += ["--exclude-newer", f"{self.as_of + timedelta(days=1)}T00:00:00Z"]
        return options

    def _index_options(self) -> list[str]:
        formats = [option for option in self.spec.options if option_name(option) in _FORMATS]
        return [*index_options(self.spec.named_options, self.env), *formats]

    def pins(
        self, resolved: Sequence[Resolved], kept: Mapping[str, PipPin], via: Mapping[str, tuple[str, ...]]
    ) -> list[PipPin]:
        choice = FileChoice(self.target)
        hashes = self._hashes()
        addresses = self._addresses()
        pins, problems = [], self._unlisted(resolved)
        for locked in resolved:
            if locked.name in self.provided:
                continue
            before = kept.get(locked.name)
            same = before is not None and before.version == locked.version
            allowed = hashes.get(locked.name, frozenset())
            if locked.direct:
                fitting = [file for file in locked.files if not allowed or f"sha256:{file.sha256}" in allowed]
                file = fitting[0] if fitting else None
            else:
                file = choice.choose(
                    locked.files,
                    keep=before.sha256 if before is not None and same else None,
                    hashes=allowed,
                )
            if file is None:
                problems.append(self._why_none(locked, allowed))
                continue
            size = file.size
            if size is None and before is not None and before.sha256 == file.sha256:
                size = before.size
            pins.append(
                PipPin(
                    name=locked.name,
                    version=locked.version,
                    file=file.file,
                    size=size or 0,
                    sha256=file.sha256,
                    url=(addresses.get(locked.name) or clean(file.url or "") or None)
                    if locked.direct
                    else None,
                    via=via.get(locked.name, ()),
                )
            )
        if problems:
            raise ResolveError("\n".join(problems), hint="allow another version, or correct the hashes")
        return pins

    def _unlisted(self, resolved: Sequence[Resolved]) -> list[str]:
        """How the answer differs from a complete list; uv has no reason to, but a lock would lie then."""
        if not self.spec.complete:
            return []
        listed, names = set(self.sources), {locked.name for locked in resolved}
        return [f"{name}: is in the list, but was not found" for name in sorted(listed - names)] + [
            f"{name}: was found, but isn't in the list" for name in sorted(names - listed)
        ]

    def _why_none(self, resolved: Resolved, allowed: frozenset[str]) -> str:
        if allowed:
            return f"{resolved.name} {resolved.version}: none of its files has a hash of the spec"
        return (
            f"{resolved.name} {resolved.version}: no file with a SHA-256 for {self.target.platform}, "
            f"python {self.target.python}, glibc {self.target.glibc}"
        )

    def _hashes(self) -> dict[str, frozenset[str]]:
        by_name: dict[str, frozenset[str]] = {}
        for line, requirement in self._parsed((*self.spec.requirements, *self.spec.constraints)):
            if line.hashes:
                name = canonicalize_name(requirement.name)
                allowed = frozenset(line.hashes)
                by_name[name] = by_name[name] & allowed if name in by_name else allowed
        return by_name

    def _addresses(self) -> dict[str, str]:
        """Addresses as the spec writes them, so that no variable's value ever gets into a pin."""
        return {
            canonicalize_name(requirement.name): requirement.url
            for _, requirement in self._parsed((*self.spec.constraints, *self.spec.requirements))
            if requirement.url is not None
        }

    def _parsed(self, lines: Sequence[PipRequirement]) -> list[tuple[PipRequirement, Requirement]]:
        parsed = []
        for line in lines:
            try:
                requirement = Requirement(line.text)
            except InvalidRequirement as error:
                reason = str(error).splitlines()[0]
                raise ResolveError(f"{line.origin}: {line.text}: {reason}") from error
            if requirement.marker is None or requirement.marker.evaluate(_environment(self.target)):
                parsed.append((line, requirement))
        return parsed

    def failure(self, answer: Completed, offline: bool) -> ResolveError:
        """uv's own explanation, without credentials and without names of our temporary files."""
        texts = [*(requirement.text for requirement in self.spec.requirements), *self.spec.options]
        texts += [index.url for index in self.spec.indexes]
        reason = clean(answer.stderr, secrets(texts, self.env)) or f"uv ended with status {answer.status}"
        reason = reason.replace(f"{self.directory}/", "")
        reason = re.sub(r"file://\S*provided/(\S+?)-py3-none-any\.whl", r"conda's \1", reason)
        reason = re.sub(r"^error: ", "", reason)
        conflicting = [
            f"{name} {version}"
            for name, version in self.provided.items()
            if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-]|\.\w)", reason)
        ]
        where = f"{self.target.platform}, python {self.target.python}"
        if re.search(r"transport '\w+' not allowed", reason):
            hint = NO_GIT_HINT
        elif conflicting:
            hint = (
                f"conda installs {', '.join(conflicting)}: loosen the requirement, or pin another version in "
                "the conda dependencies"
            )
        elif offline:
            hint = "only what uv has in its cache is seen offline: run once without --offline"
        elif "was not found in the package registry" in reason:
            hint = "check the name's spelling, and that the right index is set (UV_INDEX_URL, --index-url)"
        elif re.search(r"error sending request|Failed to fetch|tcp connect|dns error|timed out", reason):
            hint = "check the network, the proxy and the index (UV_INDEX_URL), or use --offline"
        elif "Failed to build" in reason:
            reason = re.sub(r"\n*\s*hint: .*", "", reason, flags=re.DOTALL)
            hint = BUILD_HINT
        else:
            hint = "loosen one of the requirements named above"
        return ResolveError(f"pip requirements for {where}: {reason}", hint=hint)

    def _write(self, name: str, lines: Sequence[str]) -> None:
        # The directory is 0700; nothing in it outlives the call.
        (self.directory / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _environment(target: PipTarget) -> dict[str, str]:
    return {**marker_environment(target), "extra": ""}
