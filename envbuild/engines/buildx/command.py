"""The docker command that has BuildKit: which one, through which builder, and its arguments."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.docker.proxy import PROXIES
from envbuild.redact import safe_text

PROBE_SECONDS = 10
"""For one question to the docker command; a builder behind a dead network doesn't answer at all."""

CONTEXT, IMAGE_ID, ARCHIVE = "context", "image-id", "image.tar"
"""Names in the directory that the command runs in: no path of this machine has to be quoted then."""

_DROPPED = re.compile(
    r"BUILDKIT_PROGRESS|BUILDKIT_COLORS|BUILDKIT_TTY_.*|BUILDX_GIT_.*|BUILDX_METADATA_.*|BUILDX_NO_DEFAULT_.*"
    r"|BUILDX_BAKE_.*|DOCKER_BUILDKIT|DOCKER_DEFAULT_PLATFORM|SOURCE_DATE_EPOCH"
)
"""Settings that would change what is built or how it is said; all others are the user's."""

_PATHS = ("DOCKER_CONFIG", "DOCKER_CERT_PATH", "BUILDX_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, kw_only=True, slots=True)
class Builder:
    """A docker command with BuildKit behind it.

    ``driver`` is buildx's; BuildKit that is built into an engine counts as ``docker``. ``environ`` is the
    whole environment of the command, ``engine`` that of a client of the engine that ``docker`` builds in.
    """

    executable: str
    buildx: bool
    driver: str
    environ: Mapping[str, str] = field(repr=False)
    engine: Mapping[str, str] = field(repr=False)
    version: tuple[int, int] | None = None
    """buildx's; None: not known."""
    platforms: tuple[str, ...] = ()
    """That its nodes run; empty: not known."""

    @property
    def in_engine(self) -> bool:
        """Whether images end up in a Docker engine."""
        return self.driver == "docker"


@dataclass(frozen=True, kw_only=True, slots=True)
class NoBuilder:
    """Why there is none, a line for each command that was looked at."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildxBuild:
    """What is built. ``secrets`` are ids and file names, relative to the command's directory."""

    platform: str
    created: int
    context: str = CONTEXT
    """Its directory, relative to the command's. What BuildKit has of a directory of this name it updates by
    sizes and times alone, and all our files have one time: no two builds may share a name."""
    dockerfile: str = "Dockerfile"
    labels: Sequence[tuple[str, str]] = ()
    secrets: Sequence[tuple[str, str]] = ()
    proxies: Sequence[str] = ()
    network: str | None = None
    reuse: bool = True
    zstd: bool = False


def find_builder(environ: Mapping[str, str]) -> Builder | NoBuilder:
    """The first ``docker`` on PATH with buildx, else the first whose BuildKit is built in (before 23)."""
    reasons: list[str] = []
    commands = list(_commands(environ))
    env = command_environment(environ)
    for command in commands:
        builder = _with_buildx(command, env)
        if isinstance(builder, Builder):
            return builder
        if builder is not None:
            reasons.append(builder)
    for command in commands:
        builder = _built_in(command, env)
        if isinstance(builder, Builder):
            return builder
        reasons.append(builder)
    return NoBuilder(reasons=tuple(dict.fromkeys(reasons)) or ("there is no docker command on PATH",))


def command_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the docker command: the user's, but for what would change a result. Paths are made
    absolute, as the command runs in a directory of its own."""
    environment = {key: value for key, value in environ.items() if not _DROPPED.fullmatch(key)}
    for key in _PATHS:
        if environment.get(key):
            environment[key] = os.path.abspath(environment[key])  # noqa: PTH100 - resolves no symlinks
    environment["NO_COLOR"] = "1"
    return environment


def build_argv(builder: Builder, job: BuildxBuild) -> list[str]:
    """The command line of a build. Nothing secret is on it: every user of this machine can read it."""
    argv = [builder.executable, *(["buildx"] if builder.buildx else []), "build"]
    argv += ["--progress=plain", "--platform", job.platform, "--file", f"{job.context}/{job.dockerfile}"]
    argv += ["--build-arg", f"SOURCE_DATE_EPOCH={job.created}"]
    for name in job.proxies:
        # Without a value: the command takes it from its environment.
        argv += ["--build-arg", name]
    for identity, file in job.secrets:
        argv += ["--secret", f"id={identity},src={file}"]
    for key, value in job.labels:
        argv += ["--label", f"{key}={value}"]
    if not job.reuse:
        argv.append("--no-cache")
    if job.network is not None:
        argv += ["--network", job.network]
    if builder.buildx and (builder.version is None or builder.version >= (0, 10)):
        # Attestations hold times and ids of the build, so each build's would differ.
        argv += ["--provenance=false", "--sbom=false"]
    if builder.in_engine:
        argv += ["--iidfile", IMAGE_ID]
    else:
        compression = ",compression=zstd" if job.zstd else ""
        argv += ["--output", f"type=oci,dest={ARCHIVE},tar=true,rewrite-timestamp=true{compression}"]
    return [*argv, job.context]


def set_proxies(environ: Mapping[str, str]) -> list[str]:
    """The proxy variables that are set here, in the spelling they have: Docker knows them as build arguments
    that no history shows."""
    names = (name for upper in PROXIES for name in (upper, upper.lower()))
    return [name for name in names if environ.get(name)]


def lacks_bridge(builder: Builder) -> bool:
    """Whether the engine has no bridge, so that steps have a network only where they share the host's."""
    answer = _ask([builder.executable, "network", "ls", "--format", "{{.Name}} {{.Driver}}"], builder.engine)
    return answer.status == 0 and "bridge bridge" not in answer.stdout.splitlines()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    status: int
    stdout: str
    reason: str


def _commands(environ: Mapping[str, str]) -> Iterator[str]:
    """Every docker on PATH, each program once."""
    seen: set[str] = set()
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(directory) / "docker"
        if directory.startswith("/") and path.is_file() and os.access(path, os.X_OK):
            real = str(path.resolve())
            if real not in seen:
                seen.add(real)
                yield str(path)


def _with_buildx(command: str, env: Mapping[str, str]) -> Builder | str | None:
    """The builder that buildx would use, or why it can't be used; None where there is no buildx."""
    answer = _ask([command, "buildx", "version"], env)
    match = re.search(r"docker/buildx\s+v?(?:(\d+)\.(\d+))?", answer.stdout)
    if answer.status != 0 or match is None:
        return None
    version = (int(match[1]), int(match[2])) if match[1] else None
    answer = _ask([command, "buildx", "inspect"], env)
    driver = re.search(r"^Driver:\s*([a-z0-9-]+)\s*$", answer.stdout, re.MULTILINE)
    broken = re.search(r"^Error:\s*(.+)$", answer.stdout, re.MULTILINE)
    if answer.status != 0 or driver is None or broken is not None:
        reason = safe_text(broken[1]) if broken else answer.reason
        return f"{command} buildx has no builder that answers: {reason}"
    endpoint = re.search(r"^Endpoint:\s*(\S+)\s*$", answer.stdout, re.MULTILINE)
    platforms = re.findall(r"^Platforms:\s*(.+)$", answer.stdout, re.MULTILINE)
    engine = dict(env)
    if driver[1] == "docker" and endpoint is not None and endpoint[1] != "default":
        # A builder of this driver builds in the engine of the context that it is named after.
        engine.pop("DOCKER_HOST", None)
        engine["DOCKER_CONTEXT"] = endpoint[1]
    return Builder(
        executable=command,
        buildx=True,
        driver=driver[1],
        environ=env,
        engine=engine,
        version=version if version != (0, 0) else None,
        platforms=tuple(
            dict.fromkeys(
                name for line in platforms for name in re.findall(r"[a-z0-9]+(?:/[a-z0-9]+)+", line)
            )
        ),
    )


def _built_in(command: str, env: Mapping[str, str]) -> Builder | str:
    """The engine's own BuildKit, which clients of 20.10 to 22 use without buildx; or why not."""
    question = "{{.Client.Version}}|{{if .Server}}{{.Server.Version}}{{end}}"
    answer = _ask([command, "version", "--format", question], env)
    client, _, server = answer.stdout.strip().partition("|")
    if (client_version := _version(client)) is None:
        return f"{command} doesn't say its version: {answer.reason}"
    if not (20, 10) <= client_version < (23, 0):
        return f"{command} ({safe_text(client)}) has no buildx plugin"
    server_version = _version(server)
    if server_version is None:
        return f"{command}: the Docker engine doesn't answer: {answer.reason}"
    if server_version < (20, 10):
        return f"the Docker engine {safe_text(server)} has no BuildKit with cache and secret mounts"
    return Builder(
        executable=command,
        buildx=False,
        driver="docker",
        environ={**env, "DOCKER_BUILDKIT": "1"},
        engine=env,
    )


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return (int(match[1]), int(match[2])) if match else None


def _ask(argv: Sequence[str], env: Mapping[str, str]) -> _Answer:
    """What a short command says; one that hangs or can't be started has a status of its own."""
    try:
        done = subprocess.run(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Answer(status=-1, stdout="", reason=f"no answer within {PROBE_SECONDS} s")
    except (OSError, ValueError) as error:
        return _Answer(status=-1, stdout="", reason=str(getattr(error, "strerror", None) or error))
    words = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return _Answer(
        status=done.returncode,
        stdout=done.stdout.decode("utf-8", "replace"),
        reason=safe_text(words[-1])[:300] if words else f"status {done.returncode}",
    )
