"""What a Ray target is given."""

from __future__ import annotations

import re
from dataclasses import dataclass

from envbuild.errors import UsageError
from envbuild.targets.options import (
    TargetOptions,
    byte_size,
    listed,
    matching,
    one_of,
    option,
    repository_prefix,
    whole,
)

_ADDRESS = re.compile(
    r"https?://(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:]{2,45}\])(?::[0-9]{1,5})?/?"
)
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_AMOUNT = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,4})?")


def _address(text: str) -> str:
    if text.startswith("ray://"):
        raise ValueError("is an address of Ray Client; jobs go to the dashboard: http://HOST:8265")
    if not _ADDRESS.fullmatch(text):
        raise ValueError("must be the dashboard's address, like http://HOST:8265")
    return text.rstrip("/")


def _amount(text: str) -> float:
    if not _AMOUNT.fullmatch(text) or float(text) == 0:
        raise ValueError("must be a number above 0, like 2 or 0.5")
    return float(text)


_host = matching(_HOST, "a host")
_hosts = listed(matching(_HOST, "hosts: A,B"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions(TargetOptions):
    address: str | None = option("the dashboard, that takes jobs: http://HOST:8265", _address)
    """None where only files are written."""
    image: str = option(
        "environment: each job runs in its image, by podman on the nodes; none: in the software that the "
        "cluster has",
        one_of("environment", "none"),
        default="environment",
    )
    registry: str | None = option("where nodes pull images from: HOST/PATH", repository_prefix)
    token_env: str | None = option(
        "the variable of this process that holds the dashboard's token",
        matching(_VARIABLE, "a variable's name"),
    )
    cpus: float | None = option("of a job's entry point, like 1 or 0.5", _amount)
    gpus: float | None = option("of a job's entry point", _amount)
    memory: int | None = option("of a job's entry point, like 8GB", byte_size)
    workers: int = option("of a cluster that is written for KubeRay", whole, default="1")
    head: str | None = option("the head's host, for a cluster that ray up makes of machines", _host)
    hosts: tuple[str, ...] = option("the other hosts of that cluster: A,B", _hosts, absent=())
    ssh_user: str = option("whom ray up logs in as", matching(_USER, "a user's name"), default="ray")
    patience: int = option("seconds that the dashboard may be away", whole, default="120")

    @property
    def in_image(self) -> bool:
        return self.image == "environment"

    def checked(self, target: str) -> RayOptions:
        if self.in_image and self.address is not None and self.registry is None:
            raise UsageError(
                f"target {target}: nodes take the image from a registry",
                hint="name one that they can pull from: registry=HOST/PATH; or use image=none",
            )
        if not self.in_image and self.registry is not None:
            raise UsageError(f"target {target}: with image=none nothing is pulled from a registry")
        return self
