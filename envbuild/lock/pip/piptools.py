"""Resolves with pip-tools, in the running interpreter: for this python and this platform only.

pip-tools chooses the versions; the one file of each is then chosen as for every other engine.
"""

from __future__ import annotations

import ast
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envbuild.errors import LockError, ResolveError
from envbuild.lock.base import PipRequest
from envbuild.lock.model import PipPin
from envbuild.lock.pip.command import NO_GIT, expand, expand_option, secrets, write_provided
from envbuild.lock.pip.pip_config import pip_places
from envbuild.lock.pip.requirements import LockedRequirement, load_requirements, load_via
from envbuild.lock.pip.runner import Runner, SubprocessRunner
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import Platform, runs_linux
from envbuild.redact import clean
from envbuild.specs.model import Origin, PipRequirement, PipSpec

_MACHINE = {"cert", "client-cert", "no-index", "proxy", "timeout", "retries", "trusted-host"}
"""pip's settings, besides its indexes, that say how this machine reaches them. All others could change a
lock."""


class PipToolsResolver:
    """A ``PipResolver``. ``env`` is the environment of this process."""

    name = "pip-tools"
    remembers = False

    def __init__(
        self, *, env: Mapping[str, str], runner: Runner | None = None, executable: str | None = None
    ) -> None:
        self._env = env
        self._runner = runner or SubprocessRunner()
        self._files = UvResolver(env=env, runner=self._runner, executable=executable, extra=("--no-deps",))

    def version(self) -> str:
        return version("pip-tools")

    def resolve(self, request: PipRequest) -> tuple[PipPin, ...]:
        """See ``PipResolver``. Refuses targets that aren't this interpreter, ``as_of`` and
        ``offline``, but for a complete list, which takes no resolving."""
        spec, kept = request.spec, request.kept
        if spec.complete:
            # Every version is stated, so there is nothing to resolve, but which file of each.
            return self._files.resolve(request)
        _refuse(request)
        if spec.build.extra:
            raise ResolveError(
                "extra_build_dependencies can't be passed to pip-tools", hint="use --pip-engine uv"
            )
        if not spec.requirements:
            return ()
        by_conda = {str(canonicalize_name(name)): version for name, version in request.provided.items()}
        text = self._compile(spec, kept, by_conda)
        try:
            chosen = [
                requirement
                for requirement in load_requirements(text, name="pip-compile")
                if requirement.name not in by_conda
            ]
        except LockError as error:
            raise ResolveError(f"pip-compile's answer can't be pinned: {error}", hint=error.hint) from error
        sources = {
            str(
                canonicalize_name(Requirement(requirement.text).name)
            ): f"-r {Path(requirement.origin.file).name}"
            for requirement in spec.requirements
        }
        via = load_via(text, sources)
        pins = self._files.resolve(
            PipRequest(spec=_exact(spec, chosen), target=request.target, preferred=kept)
        )
        return tuple(replace(pin, via=via.get(pin.name, ())) for pin in pins)

    def _compile(self, spec: PipSpec, kept: Sequence[PipPin], by_conda: Mapping[str, str]) -> str:
        with tempfile.TemporaryDirectory(prefix="envbuild-pip-tools-") as scratch:
            directory = Path(scratch)
            stubs, absent = write_provided(directory / "provided", by_conda)
            if absent:
                raise ResolveError(
                    f"pip-tools can't take into account what conda installs: {', '.join(absent)}",
                    hint="use --pip-engine uv",
                )
            lines = [expand_option(option, self._env) for option in spec.named_options]
            lines += [expand(_line(requirement), self._env) for requirement in spec.requirements]
            (directory / "requirements.in").write_text("\n".join(lines) + "\n")
            constraints = [*stubs, *(expand(_line(constraint), self._env) for constraint in spec.constraints)]
            (directory / "constraints.in").write_text("\n".join(constraints) + "\n")
            # pip-compile prefers what its output file says.
            (directory / "requirements.txt").write_text(
                "".join(
                    f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n" for pin in kept if not pin.url
                )
            )
            argv = [
                *(sys.executable, "-m", "piptools", "compile", "--quiet", "--no-config", "--generate-hashes"),
                *("--no-header", "--no-emit-options", "--strip-extras", "--allow-unsafe"),
                *("--resolver", "backtracking", "--annotation-style", "split"),
                *("--constraint", "constraints.in", "--output-file", "requirements.txt", "requirements.in"),
            ]
            env = self._pip_environment(directory)
            if spec.build.constraints:
                lines = [expand(_line(constraint), self._env) for constraint in spec.build.constraints]
                (directory / "build-constraints.in").write_text("\n".join(lines) + "\n")
                env["PIP_BUILD_CONSTRAINT"] = str(directory / "build-constraints.in")
            answer = self._runner.run(argv, env=env, cwd=directory)
            if answer.status != 0:
                texts = [*(requirement.text for requirement in spec.requirements), *spec.options]
                output = clean(answer.stderr, secrets(texts, self._env)).replace(f"{directory}/", "")
                hint = "loosen one of the requirements named above, or see what --pip-engine uv says"
                raise ResolveError(f"pip requirements: {output[-3000:]}", hint=hint)
            return (directory / "requirements.txt").read_text()

    def _pip_environment(self, directory: Path) -> dict[str, str]:
        """This machine's way to its index and nothing else of pip's configuration."""
        env = {key: value for key, value in self._env.items() if not key.startswith(("PIP_", "PYTHON"))}
        settings, places = self._machine_settings(directory), pip_places(self._env)
        index = places.index or self._env.get("UV_DEFAULT_INDEX") or self._env.get("UV_INDEX_URL")
        if index:
            settings["index-url"] = index
        if places.extra:
            settings["extra-index-url"] = " ".join(places.extra)
        for key, value in settings.items():
            env["PIP_" + key.upper().replace("-", "_")] = value
        return {
            **env,
            **NO_GIT,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NO_COLOR": "1",
        }

    def _machine_settings(self, directory: Path) -> dict[str, str]:
        argv = [sys.executable, "-m", "pip", "config", "list"]
        answer = self._runner.run(argv, env=self._env, cwd=directory)
        settings: dict[str, str] = {}
        for line in answer.stdout.splitlines():
            # ``global.cert='/etc/ssl/…'``; variables (``:env:.cert``) come last and win, as with pip.
            name, _, value = line.partition("=")
            key = name.rsplit(".", 1)[-1]
            if key in _MACHINE:
                try:
                    settings[key] = str(ast.literal_eval(value))
                except (ValueError, SyntaxError):
                    continue
        return settings


def _refuse(request: PipRequest) -> None:
    """Raises ``ResolveError`` with everything in ``request`` that pip-tools can't answer here."""
    target, own = request.target, platform.python_version().split(".")[:2]
    reasons = []
    if not runs_linux() or target.platform != Platform.host():
        reasons.append(f"pip-tools can't resolve for {target.platform} on this machine")
    if target.python.split(".")[:2] != own:
        reasons.append(f"pip-tools runs python {'.'.join(own)} here and can't resolve for {target.python}")
    if request.spec.index_strategy == "first-index":
        reasons.append("pip-tools takes the best match of all indexes (index_strategy: first-index)")
    if any(index.packages for index in request.spec.indexes):
        reasons.append("pip-tools asks every index for every package (indexes)")
    if request.as_of is not None:
        reasons.append("pip-tools can't leave out what is newer than a date (as_of)")
    if request.offline:
        reasons.append("pip-tools can't resolve offline")
    if reasons:
        raise ResolveError("\n".join(reasons), hint="use --pip-engine uv")


def _line(requirement: PipRequirement) -> str:
    return " ".join([requirement.text, *(f"--hash={digest}" for digest in requirement.hashes)])


def _exact(spec: PipSpec, chosen: Sequence[LockedRequirement]) -> PipSpec:
    """The chosen versions as a spec of their own; addresses and hashes as the spec writes them."""
    requested = {
        str(canonicalize_name(Requirement(requirement.text).name)): requirement
        for requirement in spec.requirements
    }
    lines = []
    for locked in chosen:
        before = requested.get(locked.name)
        if locked.url is not None:
            text = before.text if before is not None else f"{locked.name} @ {locked.url}"
        else:
            text = f"{locked.name}=={locked.version}"
        hashes = before.hashes if before is not None else ()
        lines.append(PipRequirement(text=text, hashes=hashes, origin=Origin(file="pip-compile")))
    return PipSpec(requirements=tuple(lines), options=spec.options)
