"""What a Ray target is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envbuild.errors import UsageError
from envbuild.targets.base import Option
from envbuild.targets.options import repository_prefix, size, whole

_ADDRESS = re.compile(
    r"https?://(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:]{2,45}\])(?::[0-9]{1,5})?/?"
)
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_AMOUNT = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,4})?")


def _matching(pattern: re.Pattern[str], words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {words}")
        return text

    return check


def _address(text: str) -> str:
    if text.startswith("ray://"):
        raise ValueError("is an address of Ray Client; jobs go to the dashboard: http://HOST:8265")
    if not _ADDRESS.fullmatch(text):
        raise ValueError("must be the dashboard's address, like http://HOST:8265")
    return text.rstrip("/")


def _image(text: str) -> str:
    if text not in ("environment", "none"):
        raise ValueError("must be environment or none")
    return text


def _amount(text: str) -> float:
    if not _AMOUNT.fullmatch(text) or float(text) == 0:
        raise ValueError("must be a number above 0, like 2 or 0.5")
    return float(text)


def _hosts(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not all(_HOST.fullmatch(each) for each in found):
        raise ValueError("must be hosts: A,B")
    return found


OPTIONS: Sequence[Option] = (
    Option(name="address", help="the dashboard, that takes jobs: http://HOST:8265", check=_address),
    Option(
        name="image",
        help="environment: each job runs in its image, by podman on the nodes; none: in the software that "
        "the cluster has",
        default="environment",
        check=_image,
    ),
    Option(name="registry", help="where nodes pull images from: HOST/PATH", check=repository_prefix),
    Option(
        name="token-env",
        help="the variable of this process that holds the dashboard's token",
        check=_matching(_VARIABLE, "a variable's name"),
    ),
    Option(name="cpus", help="of a job's entry point, like 1 or 0.5", check=_amount),
    Option(name="gpus", help="of a job's entry point", check=_amount),
    Option(name="memory", help="of a job's entry point, like 8GB", check=size),
    Option(name="workers", help="of a cluster that is written for KubeRay", default="1", check=whole),
    Option(
        name="head",
        help="the head's host, for a cluster that ray up makes of machines",
        check=_matching(_HOST, "a host"),
    ),
    Option(name="hosts", help="the other hosts of that cluster: A,B", check=_hosts),
    Option(
        name="ssh-user", help="whom ray up logs in as", check=_matching(_USER, "a user's name"), default="ray"
    ),
    Option(name="patience", help="seconds that the dashboard may be away", default="120", check=whole),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions:
    """Checked options. ``address`` is None where only files are written."""

    address: str | None
    in_image: bool
    token_variable: str | None
    cpus: float | None
    gpus: float | None
    memory: int | None
    workers: int
    head: str | None
    hosts: tuple[str, ...]
    ssh_user: str
    patience: int

    @classmethod
    def of(cls, name: str, options: Mapping[str, str]) -> RayOptions:
        """The options of the target ``name``, each already checked alone. Raises ``UsageError`` where they
        don't go together."""
        in_image = options["image"] == "environment"
        address = _address(options["address"]) if "address" in options else None
        if in_image and address is not None and "registry" not in options:
            raise UsageError(
                f"target {name}: nodes take the image from a registry",
                hint="name one that they can pull from: registry=HOST/PATH; or use image=none",
            )
        if not in_image and "registry" in options:
            raise UsageError(f"target {name}: with image=none nothing is pulled from a registry")
        return cls(
            address=address,
            in_image=in_image,
            token_variable=options.get("token-env"),
            cpus=_amount(options["cpus"]) if "cpus" in options else None,
            gpus=_amount(options["gpus"]) if "gpus" in options else None,
            memory=size(options["memory"]) if "memory" in options else None,
            workers=whole(options["workers"]),
            head=options.get("head"),
            hosts=_hosts(options["hosts"]) if "hosts" in options else (),
            ssh_user=options["ssh-user"],
            patience=whole(options["patience"]),
        )
