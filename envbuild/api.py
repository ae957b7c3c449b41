"""One environment for Python programs: made from what people have, changed, registered, locked, built, run.

Names follow ``azureml.core.Environment`` where it has one. What differs: nothing returns None for a failure,
no pin is rewritten, building needs neither a workspace nor a registration, and a build never supersedes a
registered version.
"""

from __future__ import annotations

import codecs
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.app import edit, sources
from envbuild.app.environments import Workspace
from envbuild.app.requests import BuildRequest, BuildResult, LockRequest, LockResult, RunRequest
from envbuild.app.save import save
from envbuild.app.session import Session
from envbuild.errors import UsageError, suggestion
from envbuild.lazy import lazy
from envbuild.plan.model import Plan
from envbuild.platforms import Platform
from envbuild.progress import Silent
from envbuild.resources import curated_spec
from envbuild.settings import load_settings
from envbuild.specs.definition import definition_digest
from envbuild.specs.exporters.formats import export
from envbuild.specs.model import Spec
from envbuild.specs.plugins import Exported
from envbuild.targets.base import TargetFile
from envbuild.workspace.base import EnvironmentSummary, ImageRecord, Version

if TYPE_CHECKING:
    from envbuild.app import build, deploy, jobs, lock, plan, run, services
else:
    build = lazy("envbuild.app.build")
    deploy = lazy("envbuild.app.deploy")
    jobs = lazy("envbuild.app.jobs")
    lock = lazy("envbuild.app.lock")
    plan = lazy("envbuild.app.plan")
    run = lazy("envbuild.app.run")
    services = lazy("envbuild.app.services")

PathLike = str | os.PathLike[str]
_SEVERAL = {"platforms", "push", "tags", "outputs"}
"""Options of which there may be several."""


class Environment:
    """An environment. Its attributes may be changed; whatever is registered, locked or built is what they
    say then.

    ``version`` is that of the workspace it came from or was registered in, else None. A change of the
    definition doesn't change it; ``register`` gives the changed environment a version of its own.
    """

    def __init__(self, spec: Spec | str) -> None:
        """A new environment of that name, or what one of the ``from_…`` methods reads.

        Raises ``SpecError`` for what is no name."""
        spec = sources.empty(spec) if isinstance(spec, str) else spec
        self._spec = spec
        self._channels: tuple[str, ...] = ()
        """Those that the first conda package will come from."""
        self.name = spec.name
        self.version = spec.version
        self.description = spec.description or ""
        self.tags: dict[str, str] = dict(spec.tags)
        self.environment_variables: dict[str, str] = dict(spec.environment_variables)
        self.python = spec.python
        """The version or constraint as written; None: that of the base."""
        self.platforms: tuple[str, ...] = tuple(map(str, spec.platforms))

    def __repr__(self) -> str:
        version = f":{self.version}" if self.version else ""
        return f"<Environment {self.name}{version} {self.definition_digest}>"

    # --- where it comes from --------------------------------------------------------------------------

    @classmethod
    def from_conda_specification(cls, name: str, file_path: PathLike) -> Environment:
        """The environment of a conda ``environment.yml``, its python as written. Raises ``SpecError``."""
        return cls(sources.conda_file(name, Path(file_path)))

    @classmethod
    def from_pip_requirements(
        cls, name: str, file_path: PathLike, *, python: str | None = None
    ) -> Environment:
        """The environment of a requirements file; ``-r`` and ``-c`` are followed. Raises ``SpecError``."""
        return cls(replace(sources.requirements_file(name, Path(file_path)), python=python))

    @classmethod
    def from_docker_image(
        cls,
        name: str,
        image: str,
        *,
        conda_specification: PathLike | None = None,
        pip_requirements: PathLike | None = None,
    ) -> Environment:
        """An image as it is, or with packages on it: conda's or pip's, not both. Raises ``SpecError``."""
        conda = Path(conda_specification) if conda_specification is not None else None
        pip = Path(pip_requirements) if pip_requirements is not None else None
        return cls(sources.image(name, image, conda=conda, pip=pip))

    @classmethod
    def from_dockerfile(cls, name: str, dockerfile: PathLike) -> Environment:
        """What a Dockerfile makes of the directory it stands in. Raises ``SpecError``."""
        path = Path(dockerfile)
        return cls(sources.build_context(name, path.parent, path.name))

    @classmethod
    def from_docker_build_context(
        cls, name: str, path: PathLike, *, dockerfile_path: str = "Dockerfile"
    ) -> Environment:
        """What a Dockerfile of the directory ``path`` makes of it. Raises ``SpecError``."""
        return cls(sources.build_context(name, Path(path), dockerfile_path))

    @classmethod
    def from_existing_conda_environment(cls, name: str, conda_environment: PathLike) -> Environment:
        """The exact packages of a conda environment of this machine, by its name or its directory.

        Raises ``SpecError`` where there is none; no conda is run."""
        prefix = sources.conda_prefix(conda_environment, os.environ)
        return cls(sources.moved(sources.file(prefix), name))

    @classmethod
    def from_virtual_environment(cls, name: str, path: PathLike | None = None) -> Environment:
        """What is installed in a virtual environment, by default the one that is active. Raises
        ``SpecError``."""
        prefix = Path(path) if path is not None else sources.virtual_environment(os.environ)
        return cls(sources.moved(sources.file(prefix), name))

    @classmethod
    def from_file(cls, path: PathLike, *, name: str | None = None) -> Environment:
        """The environment in a file of any known format, or a directory that holds one. Raises
        ``SpecError``."""
        environment = cls(sources.file(Path(path)))
        environment.name = name or environment.name
        return environment

    @classmethod
    def load_from_directory(cls, path: PathLike) -> Environment:
        """The environment in a directory: what ``save_to_directory`` wrote, Azure ML's, or any known one.

        Raises ``SpecError``."""
        if not Path(path).is_dir():
            raise UsageError(f"{os.fspath(path)} is no directory", hint="from_file reads a file")
        return cls.from_file(path)

    # --- what is in it --------------------------------------------------------------------------------

    def add_pip_package(self, requirement: str) -> None:
        """Adds a requirement (PEP 508), in place of another one of that package. Raises ``SpecError``."""
        self._spec = edit.add_pip(self.spec, requirement)

    def remove_pip_package(self, name: str) -> None:
        """Takes away what is required of a package. Raises ``UsageError`` where nothing is."""
        self._spec = edit.remove_pip(self.spec, name)

    def add_conda_package(self, package: str) -> None:
        """Adds a conda match spec, in place of another one of that package. Raises ``SpecError``."""
        self._spec = edit.add_conda(self.spec, package, self._channels)

    def remove_conda_package(self, name: str) -> None:
        """Takes a conda package away. Raises ``UsageError`` where there is none."""
        self._channels = self.conda_channels
        self._spec = edit.remove_conda(self.spec, name)

    @property
    def conda_channels(self) -> tuple[str, ...]:
        """In order of priority. They count where there are conda packages, which without one come from
        conda-forge."""
        return self._spec.conda.channels if self._spec.conda is not None else self._channels

    @conda_channels.setter
    def conda_channels(self, channels: Iterable[str]) -> None:
        self._channels = tuple(dict.fromkeys(channels))
        if self._spec.conda is not None:
            self._spec = edit.with_channels(self.spec, self._channels)

    def add_channel(self, channel: str) -> None:
        """Adds a conda channel, behind those that are there. Raises ``SpecError``."""
        self.conda_channels = (*self.conda_channels, channel)

    def remove_channel(self, channel: str) -> None:
        """Takes a conda channel away. Raises ``UsageError`` where there is none."""
        if channel not in self.conda_channels:
            raise UsageError(
                f"there is no channel {channel}", hint=suggestion(channel, self.conda_channels) or None
            )
        self.conda_channels = tuple(known for known in self.conda_channels if known != channel)

    def add_debian_package(self, name: str) -> None:
        """Adds a Debian package to the base. Raises ``UsageError`` on a base of another kind."""
        self._spec = edit.add_debian(self.spec, name)

    def remove_debian_package(self, name: str) -> None:
        """Takes a Debian package away. Raises ``UsageError`` where it wasn't asked for."""
        self._spec = edit.remove_debian(self.spec, name)

    # --- what it says ---------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """All it says now, as one frozen value. Raises ``SpecError`` for what no environment can say."""
        changed = replace(
            self._spec,
            name=self.name,
            named=self._spec.named or self.name != self._spec.name,
            version=self.version,
            description=self.description or None,
            tags=tuple(sorted(self.tags.items())),
            environment_variables=tuple(sorted(self.environment_variables.items())),
            python=self.python,
            platforms=tuple(dict.fromkeys(map(Platform.parse, self.platforms))),
        )
        return self._spec if changed == self._spec else sources.checked(changed)

    @property
    def definition_digest(self) -> str:
        """``sha256:…`` over everything that can change an image; names and descriptions don't count."""
        return definition_digest(self.spec)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What its source said and an environment can't carry, a line each."""
        return self._spec.left_out

    def clone(self, new_name: str) -> Environment:
        """The same environment under another name, without a version, free to be changed."""
        clone = Environment(sources.checked(replace(self.spec, name=new_name, version=None, named=True)))
        clone._channels = self._channels
        return clone

    def export(self, format: str = "native") -> Exported:
        """Files in another format, and what it can't carry; ``envbuild.specs.exporters.formats`` lists the
        formats."""

        return export(self.spec, format)

    def save_to_directory(
        self, path: PathLike, overwrite: bool = False, *, format: str = "native"
    ) -> tuple[str, ...]:
        """Writes the environment's files into ``path``; returns what they can't carry.

        Raises ``UsageError`` where a file is there already, unless ``overwrite``."""

        return save(self.spec, Path(path), format=format, overwrite=overwrite)

    # --- in a workspace -------------------------------------------------------------------------------

    def register(
        self, workspace: Workspace, version: str | int | None = None, *, labels: Iterable[str] = ()
    ) -> Environment:
        """The registered environment: the same definition has the same version.

        Raises ``WorkspaceError`` where ``version`` is another definition's."""
        registered = workspace.register(
            self.spec, version=str(version) if version is not None else None, labels=labels
        ).version
        return self._as(registered)

    def _as(self, version: Version) -> Environment:
        registered = Environment(self.spec)
        registered.version = version.version
        registered.description, registered.tags = version.description, dict(version.tags)
        return registered

    @staticmethod
    def get(
        workspace: Workspace, name: str, version: str | int | None = None, label: str | None = None
    ) -> Environment:
        """A registered environment, by default its latest version; else the curated one of that name.

        Raises ``WorkspaceError`` with the nearest names, versions or labels."""

        if version is None and label is None and workspace.find(name) is None:
            curated = curated_spec(name)
            if curated is not None:
                return Environment(sources.file(curated))
        registered = workspace.environments.get(name, str(version) if version is not None else None, label)
        return Environment(workspace.spec(registered))

    @staticmethod
    def list(workspace: Workspace) -> tuple[EnvironmentSummary, ...]:
        """The registered environments, sorted by name; archived ones aren't listed."""
        return workspace.environments.list()

    @staticmethod
    def label(workspace: Workspace, name: str, version: str | int, labels: Iterable[str]) -> None:
        """Moves ``labels`` to that version, from whichever had them."""
        workspace.environments.label(name, str(version), [labels] if isinstance(labels, str) else labels)

    def get_image_details(self, workspace: Workspace) -> tuple[ImageRecord, ...]:
        """The images that were built of this definition, the newest first; none: ``()``."""
        return workspace.environments.images(definition=self.definition_digest)

    # --- made of it -----------------------------------------------------------------------------------

    def lock(self, workspace: Workspace | None = None, **options: Any) -> LockResult:
        """The lock, resolved where it is missing or stale; it stands in ``lockfiles/`` beside the source,
        and goes into ``workspace``. ``options`` are those of ``LockRequest``: ``upgrade``, ``as_of``…"""

        request = request_of(LockRequest, options)
        with self.session(workspace) as session:
            spec = self.spec
            result = lock.lock_spec(session, spec, request)
            if workspace is not None and not request.dry_run:
                workspace.keep_lock(spec, result.directory)
            return result

    def plan(self, platform: str | None = None, workspace: Workspace | None = None) -> Plan:
        """The layers and artifacts of the image that a build would make, by default of the first platform."""

        with self.session(workspace) as session:
            pins = lock.lock_spec(session, self.spec, LockRequest()).lock
            chosen = Platform.parse(platform) if platform else pins.platforms[0].platform
            return plan.plan_image(session, self.spec, pins, chosen)

    def build(self, workspace: Workspace | None = None, **options: Any) -> BuildResult:
        """The image: locks where need be, builds what isn't in the store, records it in ``workspace``.

        ``options`` are those of ``BuildRequest``: ``push``, ``tags``, ``outputs``, ``load``, ``locked``…
        Raises an ``EnvbuildError`` where it can't be built."""

        request = request_of(BuildRequest, options)
        with self.session(workspace) as session:
            return build.build(session, self.spec, request)

    def run(self, *command: str, workspace: Workspace | None = None, **options: Any) -> int:
        """Runs a command in the image, built where need be, and returns its exit status. ``options`` are
        those of ``RunRequest``: ``env``, ``mounts``, ``workdir``, ``backend``…"""

        if not command:
            raise UsageError("no command to run", hint='write it as words: run("python", "train.py")')
        request = request_of(RunRequest, {**options, "command": tuple(map(str, command))})
        with self.session(workspace) as session:
            return run.run(session, self.spec, request)

    def publish(
        self,
        workspace: Workspace,
        to: Iterable[str],
        *,
        directory: PathLike | None = None,
        command: Iterable[str] = (),
        code: PathLike | None = None,
        serve: PathLike | None = None,
        model: PathLike | None = None,
        environment_variables: Mapping[str, str] | None = None,
        push: str | None = None,
        **options: Any,
    ) -> deploy.Published:
        """Pushes the image and returns, for each target or kind of file in ``to``, the files that name it by
        digest; they are written into ``directory``. They run ``command``, or serve the script ``serve``.
        ``push`` is a repository instead of the targets' own; ``options`` are those of ``BuildRequest``.
        Raises ``RunError`` where it couldn't run there."""

        request = deploy.PublishRequest(
            to=(to,) if isinstance(to, str) else tuple(to),
            command=tuple(map(str, command)),
            code=Path(code) if code is not None else None,
            serve=Path(serve) if serve is not None else None,
            model=Path(model) if model is not None else None,
            env=tuple(sorted((environment_variables or {}).items())),
            push=push,
            directory=Path(directory) if directory is not None else None,
            build=request_of(BuildRequest, options),
        )
        with self.session(workspace) as session:
            return deploy.publish(session, self.spec, request)

    @contextmanager
    def serve(
        self,
        entry_script: PathLike,
        workspace: Workspace,
        *,
        code: PathLike | None = None,
        model: PathLike | None = None,
        target: str = "local",
        port: int | None = None,
        environment_variables: Mapping[str, str] | None = None,
        out: Callable[[bytes], None] | None = None,
        ready_seconds: float | None = None,
        **options: Any,
    ) -> Iterator[services.Serving]:
        """What answers on this machine while the context is open: ``serving.url``, ``scoring_url``, ``name``…

        The entry script defines ``init()`` and ``run(data)``; ``model`` is the directory that it finds at
        ``AZUREML_MODEL_DIR``. ``out`` gets what the service prints, which is also in its log. ``options`` are
        those of ``BuildRequest``. Raises ``SpecError`` before a build for a script that can't serve, and
        ``RunError`` where it doesn't come to answer."""

        request = services.ServeRequest(
            entry_script=Path(entry_script),
            code=Path(code) if code is not None else None,
            model=Path(model) if model is not None else None,
            target=target,
            port=port,
            env=tuple(sorted((environment_variables or {}).items())),
            build=request_of(BuildRequest, options),
        )
        with (
            self.session(workspace) as session,
            services.prepare_service(session, self.spec, request) as prepared,
            services.run_service(
                session,
                prepared,
                out or (lambda piece: None),
                ready_seconds=ready_seconds or services.READY_SECONDS,
            ) as serving,
        ):
            yield serving

    def session(self, workspace: Workspace | None) -> Session:
        """What locks, builds and runs it, for one call: a context manager."""
        if workspace is not None:
            settings = workspace.settings
        else:
            # Without a workspace nothing is recorded anywhere: whoever wants it passes one.
            settings = load_settings({"record": False}, os.environ, Path.cwd(), start=self._spec.directory)
        return Session(settings, Silent(), workspace=workspace)


def request_of(kind: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """A request with ``options``; lists do for tuples, words for platforms, and one name for several."""
    given = {
        key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in options.items()
    }
    for key in _SEVERAL & given.keys():
        given[key] = (given[key],) if isinstance(given[key], (str, Platform)) else given[key]
    if "platforms" in given:
        given["platforms"] = tuple(
            Platform.parse(platform) if isinstance(platform, str) else platform
            for platform in given["platforms"]
        )
    try:
        return kind(**given)
    except TypeError as error:
        raise UsageError(f"no such option: {error}") from error


class ScriptRun:
    """What is to be run, where, and in which environment. Names follow ``ScriptRunConfig`` of Azure ML.

    >>> run = ScriptRun("src", "train.py", ["--depth", 3], environment=env, target="cluster")
    >>> run.submit(workspace).exit_status
    0
    """

    def __init__(
        self,
        source_directory: PathLike | None = None,
        script: str | None = None,
        arguments: Sequence[object] = (),
        *,
        environment: Environment,
        target: str = "local",
        command: Sequence[str] | str | None = None,
        environment_variables: Mapping[str, str] | None = None,
    ) -> None:
        """``script`` is a Python file of ``source_directory``, started with ``arguments``; ``command`` stands
        for both, as words or as a line. Raises ``UsageError`` where neither, or both, are given."""
        if (script is None) == (command is None):
            raise UsageError("a run needs a script or a command, and not both")
        if script is not None and (
            source_directory is None or not (Path(source_directory) / script).is_file()
        ):
            raise UsageError(f"there is no script {script} in {source_directory}")
        self.source_directory = Path(source_directory) if source_directory is not None else None
        self.environment = environment
        self.target = target
        self.environment_variables = dict(environment_variables or {})
        if isinstance(command, str):
            command = shlex.split(command)
        words = ["python", str(script), *map(str, arguments)] if command is None else [*map(str, command)]
        if command is not None and arguments:
            raise UsageError("arguments belong to a script, a command has its own")
        self.command = tuple(words)

    def files(self, workspace: Workspace, **options: Any) -> tuple[TargetFile, ...]:
        """What the target would be given. Builds the image; brings and starts nothing. Raises ``RunError``
        where it couldn't run there."""

        with (
            self.environment.session(workspace) as session,
            jobs.prepare_job(
                session, self.environment.spec, replace(self._request(options), register=False)
            ) as prepared,
        ):
            jobs.refuse(prepared.findings, prepared.target.record.name)
            return prepared.files

    def submit(
        self,
        workspace: Workspace,
        *,
        outputs: PathLike | None = None,
        out: Callable[[bytes], None] | None = None,
        **options: Any,
    ) -> jobs.JobOutcome:
        """Runs it to its end: builds where need be, records, and passes what it prints to ``out``, by default
        standard output. ``options`` are those of ``BuildRequest``. Raises ``RunError`` where it can't be
        started or the target goes away; an exit status is no error."""

        with (
            self.environment.session(workspace) as session,
            jobs.prepare_job(session, self.environment.spec, self._request(options)) as prepared,
        ):
            return jobs.run_job(
                session, prepared, out or _writer(), outputs=Path(outputs) if outputs else None
            )

    def _request(self, options: Mapping[str, Any]) -> jobs.JobRequest:

        return jobs.JobRequest(
            target=self.target,
            command=self.command,
            code=self.source_directory,
            env=tuple(sorted(self.environment_variables.items())),
            build=request_of(BuildRequest, options),
        )


def _writer() -> Callable[[bytes], None]:
    """Writes to standard output as it is now, which may be a notebook's and take text only."""
    stream = sys.stdout
    # Pieces end anywhere, also within a character.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def write(piece: bytes) -> None:
        stream.write(decoder.decode(piece))
        stream.flush()

    return write
