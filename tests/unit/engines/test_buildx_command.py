"""Which docker command is taken, and the exact command line for each kind of builder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from envbuild.engines.buildx.command import (
    Builder,
    BuildxBuild,
    NoBuilder,
    build_argv,
    command_environment,
    find_builder,
    lacks_bridge,
    set_proxies,
)
from tests.fakes.docker_command import DockerCommand, built_in, with_buildx


def found(*commands: DockerCommand, **more: str) -> Builder | NoBuilder:
    path = os.pathsep.join(str(command.directory) for command in commands)
    return find_builder({"PATH": path, **more})


def builder(*commands: DockerCommand, **more: str) -> Builder:
    result = found(*commands, **more)
    assert isinstance(result, Builder)
    return result


def reasons(*commands: DockerCommand) -> tuple[str, ...]:
    result = found(*commands)
    assert isinstance(result, NoBuilder)
    return result.reasons


def test_buildx_comes_before_a_client_with_buildkit_built_in(tmp_path: Path) -> None:
    old, new = built_in(tmp_path / "old"), with_buildx(tmp_path / "new", "docker")
    result = builder(old, new)
    assert (result.executable, result.buildx, result.driver) == (new.path, True, "docker")
    assert result.version == (0, 13)


def test_an_old_client_builds_by_itself(tmp_path: Path) -> None:
    new, old = built_in(tmp_path / "new", client="28.2.2"), built_in(tmp_path / "old")
    result = builder(new, old)
    assert (result.executable, result.buildx, result.driver) == (old.path, False, "docker")
    assert result.environ["DOCKER_BUILDKIT"] == "1"


def test_a_program_behind_two_names_is_asked_once(tmp_path: Path) -> None:
    command = built_in(tmp_path / "one", client="28.2.2")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    result = find_builder({"PATH": f"{tmp_path}/one:{tmp_path}/two:relative"})
    assert result == NoBuilder(reasons=(f"{command.path} (28.2.2) has no buildx plugin",))
    assert len(command.calls()) == 2


def test_every_command_says_why_it_wont_do(tmp_path: Path) -> None:
    new = built_in(tmp_path / "new", client="28.2.2")
    dead = built_in(tmp_path / "dead", server="")
    ancient = built_in(tmp_path / "ancient", server="19.03.8")
    broken = DockerCommand(tmp_path / "broken").write()
    assert reasons(new, dead, ancient, broken) == (
        f"{new.path} (28.2.2) has no buildx plugin",
        f"{dead.path}: the Docker engine doesn't answer: Cannot connect to the Docker daemon at tcp://x.test:1.",
        "the Docker engine 19.03.8 has no BuildKit with cache and secret mounts",
        f"{broken.path} doesn't say its version: docker: unknown command",
    )
    assert reasons() == ("there is no docker command on PATH",)


def test_a_builder_that_doesnt_answer_is_a_reason(tmp_path: Path) -> None:
    command = with_buildx(tmp_path, "kubernetes")
    command.answers["buildx inspect"] = (1, "", 'ERROR: no builder "many" found\n')
    command.write()
    assert f'{command.path} buildx has no builder that answers: ERROR: no builder "many" found' in reasons(
        command
    )
    command.answers["buildx inspect"] = (0, "Name: x\nDriver: docker\nError: cannot reach it\n", "")
    command.write()
    assert f"{command.path} buildx has no builder that answers: cannot reach it" in reasons(command)


def test_podmans_docker_is_not_taken_for_buildx(tmp_path: Path) -> None:
    command = DockerCommand(tmp_path, {"buildx version": (0, "buildah 1.28.2\n", "")}).write()
    assert reasons(command) == (f"{command.path} doesn't say its version: docker: unknown command",)


JOB = BuildxBuild(
    platform="linux/arm64",
    created=1700000000,
    dockerfile="Dockerfile",
    labels=(("dev.envbuild.lock", "sha256:1"), ("title", 'a b,"c"')),
    secrets=(("pip-conf", "secrets/0"),),
    proxies=("https_proxy",),
    network="host",
)
COMMON = [
    "build",
    "--progress=plain",
    "--platform",
    "linux/arm64",
    "--file",
    "context/Dockerfile",
    "--build-arg",
    "SOURCE_DATE_EPOCH=1700000000",
    "--build-arg",
    "https_proxy",
    "--secret",
    "id=pip-conf,src=secrets/0",
    "--label",
    "dev.envbuild.lock=sha256:1",
    "--label",
    'title=a b,"c"',
    "--network",
    "host",
]
NO_ATTESTATIONS = ["--provenance=false", "--sbom=false"]
EXPORT = ["--output", "type=oci,dest=image.tar,tar=true,rewrite-timestamp=true"]


def test_the_command_of_the_docker_driver(tmp_path: Path) -> None:
    command = with_buildx(tmp_path, "docker")
    assert build_argv(builder(command), JOB) == [
        command.path, "buildx", *COMMON, *NO_ATTESTATIONS, "--iidfile", "image-id", "context"
    ]  # fmt: skip


def test_the_command_of_buildkit_that_is_built_in(tmp_path: Path) -> None:
    command = built_in(tmp_path)
    assert build_argv(builder(command), JOB) == [command.path, *COMMON, "--iidfile", "image-id", "context"]


@pytest.mark.parametrize("driver", ["docker-container", "kubernetes", "remote", "cloud"])
def test_the_command_of_every_other_driver_exports_a_layout(driver: str, tmp_path: Path) -> None:
    command = with_buildx(tmp_path, driver, name="many", endpoint="tcp://x.test:1234")
    assert build_argv(builder(command), JOB) == [
        command.path, "buildx", *COMMON, *NO_ATTESTATIONS, *EXPORT, "context"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("github.com/docker/buildx v0.9.1 ed00243", False),
        ("github.com/docker/buildx v0.10.0 1", True),
        ("github.com/docker/buildx 0.19.3+ds1-4 0.19.3", True),
        ("github.com/docker/buildx v0.0.0+unknown", True),
        ("github.com/docker/buildx (devel)", True),
    ],
)
def test_attestations_are_refused_where_buildx_knows_them(version: str, known: bool, tmp_path: Path) -> None:
    command = with_buildx(tmp_path, "remote", version=version)
    assert ("--provenance=false" in build_argv(builder(command), JOB)) is known


def test_without_caches_and_with_zstd(tmp_path: Path) -> None:
    job = BuildxBuild(platform="linux/amd64", created=0, reuse=False, zstd=True)
    command = with_buildx(tmp_path, "remote")
    assert build_argv(builder(command), job) == [
        command.path, "buildx", "build", "--progress=plain", "--platform", "linux/amd64",
        "--file", "context/Dockerfile", "--build-arg", "SOURCE_DATE_EPOCH=0", "--no-cache",
        *NO_ATTESTATIONS, "--output", f"{EXPORT[1]},compression=zstd", "context",
    ]  # fmt: skip


def test_the_users_builder_and_engine_are_respected() -> None:
    given = {
        "PATH": "/bin",
        "BUILDX_BUILDER": "many",
        "DOCKER_HOST": "tcp://x.test:1",
        "DOCKER_CONTEXT": "far",
        "DOCKER_CONFIG": "/etc/docker-cli",
        "HTTPS_PROXY": "http://p.test:3128",
    }
    assert command_environment(given) == {**given, "NO_COLOR": "1"}


def test_what_would_change_the_result_stays_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given: Mapping[str, str] = {
        "DOCKER_DEFAULT_PLATFORM": "linux/arm64",
        "SOURCE_DATE_EPOCH": "5",
        "BUILDKIT_PROGRESS": "tty",
        "BUILDX_GIT_LABELS": "full",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "0",
        "DOCKER_BUILDKIT": "0",
        "DOCKER_CERT_PATH": "certificates",
    }
    assert command_environment(given) == {
        "DOCKER_CERT_PATH": f"{tmp_path}/certificates",
        "NO_COLOR": "1",
    }


def test_a_builder_of_another_context_builds_in_that_contexts_engine(tmp_path: Path) -> None:
    command = with_buildx(tmp_path, "docker", name="far", endpoint="far")
    result = builder(command, DOCKER_HOST="tcp://x.test:1")
    assert result.engine["DOCKER_CONTEXT"] == "far"
    assert "DOCKER_HOST" not in result.engine
    assert result.environ["DOCKER_HOST"] == "tcp://x.test:1"


def test_steps_share_the_hosts_network_only_where_there_is_no_bridge(tmp_path: Path) -> None:
    assert lacks_bridge(builder(built_in(tmp_path / "bare")))
    assert not lacks_bridge(builder(with_buildx(tmp_path / "usual", "docker")))


def test_proxies_are_named_as_they_are_set() -> None:
    given = {"https_proxy": "http://me:word@p.test", "NO_PROXY": "x.test", "HTTP_PROXY": "", "ALL_PROXY": "y"}
    assert set_proxies(given) == ["https_proxy", "NO_PROXY"]


def test_an_environment_is_never_shown(tmp_path: Path) -> None:
    result = builder(with_buildx(tmp_path, "docker"), TOKEN="s3cret")
    assert "s3cret" not in repr(result)
