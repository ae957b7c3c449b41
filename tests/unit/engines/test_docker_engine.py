"""What the docker engine says without any engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.engines.docker.engine import DockerEngine
from envbuild.engines.secret import Secret
from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes
from envbuild.plan.model import Plan
from envbuild.platforms import LINUX_ARM64
from envbuild.render.base import BuildContext
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from tests.fakes.image import Item, put_image, put_layer
from tests.unit.engines.test_docker_image import PLAN


class Never:
    """A renderer whose context nobody may ask for."""

    def unable(self, plan: Plan) -> list[str]:
        return ["nothing renders arm64"] if plan.platform == LINUX_ARM64 else []

    def describe(self, plan: Plan, engine: str) -> Plan:
        return replace(plan, lock_digest=digest_bytes(f"{engine} {plan.lock_digest}".encode()))

    def context(self, plan: Plan, *, offline: bool) -> BuildContext:
        raise AssertionError("nothing is rendered without an engine")


def engine(tmp_path: Path, *secrets: Secret, reuse: bool = True) -> DockerEngine:
    return DockerEngine(
        store=Store(tmp_path / "store"),
        renderer=Never(),
        environ={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
        secrets=secrets,
        reuse=reuse,
        clock=lambda: 1.0,
    )


def test_no_engine_is_a_reason_and_an_error(tmp_path: Path) -> None:
    reason = f"no Docker engine at unix://{tmp_path}/none.sock (DOCKER_HOST): there is no such socket"
    assert engine(tmp_path).unable(PLAN) == [reason]
    with pytest.raises(BuildError) as raised:
        engine(tmp_path).build(PLAN)
    assert raised.value.message == reason
    assert raised.value.hint == "start the Docker engine, or point DOCKER_HOST at one that runs"


def test_what_cannot_be_rendered_cannot_be_built(tmp_path: Path) -> None:
    other = replace(PLAN, platform=LINUX_ARM64)
    assert engine(tmp_path).unable(other)[0] == "nothing renders arm64"
    with pytest.raises(BuildError, match="the docker engine can't build this:\n  nothing renders arm64"):
        engine(tmp_path).build(other)


def test_secrets_are_another_builders_matter(tmp_path: Path) -> None:
    secrets = (Secret(id="netrc", file=Path("/x")), Secret(id="token", variable="T"))
    reason = "the classic builder of Docker's API has no build secrets (netrc, token); --engine buildx has"
    assert engine(tmp_path, *secrets).unable(PLAN)[0] == reason
    with pytest.raises(BuildError, match="has no build secrets"):
        engine(tmp_path, *secrets).build(PLAN)


def test_an_image_that_was_built_before_needs_no_engine(tmp_path: Path) -> None:
    docker = engine(tmp_path)
    assert docker.identity(PLAN) == digest_bytes(f"docker {PLAN.lock_digest}".encode())
    image = put_image(docker.store, [put_layer(docker.store, [Item(name="a")])])
    ImageIndex(docker.store, lambda: 0.0).put(docker.identity(PLAN).removeprefix("sha256:"), image)
    assert docker.build(PLAN) == image
    with pytest.raises(BuildError, match="no Docker engine"):
        engine(tmp_path, reuse=False).build(PLAN)
