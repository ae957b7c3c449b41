"""What the tests of Kubernetes targets share: an image, a job and a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.platforms import LINUX_AMD64
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import Job, Service, TargetRecord
from envbuild.targets.kinds import TargetContext
from envbuild.targets.kubernetes.target import KIND, KubernetesTarget
from tests.fakes.image import Item, put_image, put_layer

NAME = "demo-20261123-060000-ab12"
REGISTRY = "registry.example.org/team"


def an_image(store: Store, user: str = "1000:1001") -> Image:
    layer = put_layer(store, [Item(name="opt/x", content=b"x")])
    return put_image(store, [layer], {"User": user, "WorkingDir": "/workspace"}, LINUX_AMD64)


def a_job(image: Image, command: tuple[str, ...] = ("python", "train.py"), **more: object) -> Job:
    values: dict[str, object] = {
        "name": NAME,
        "reference": f"{REGISTRY}/demo:abc@{image.digest}",
        "image": image,
        "command": command,
        "environment": "demo:3",
        "code_digest": digest_bytes(b"code"),
    }
    return Job(**{**values, **more})  # type: ignore[arg-type]


def a_service(image: Image, **more: object) -> Service:
    values: dict[str, object] = {
        "name": "demo",
        "reference": f"{REGISTRY}/demo:abc@{image.digest}",
        "image": image,
        "port": 5001,
        "liveness": "/",
        "readiness": "/ready",
        "scoring": "/score",
        "environment": "demo:3",
    }
    return Service(**{**values, **more})  # type: ignore[arg-type]


def a_target(
    store: Store,
    options: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    progress: Silent | None = None,
) -> KubernetesTarget:
    record = TargetRecord(
        name="k8s",
        kind="kubernetes",
        options=tuple(sorted({"registry": REGISTRY, **(options or {})}.items())),
    )
    surroundings = TargetContext(
        store=store, progress=progress or Silent(), state=Path("/nowhere"), environ=environ or {}
    )
    return KIND.open(record, surroundings)
