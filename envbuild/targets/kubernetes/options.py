"""The options of a Kubernetes target, and what they say of its pods."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from envbuild.targets.base import Option
from envbuild.targets.kubernetes.manifest import PodOptions
from envbuild.targets.options import repository_prefix, whole

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def _matches(pattern: re.Pattern[str], wanted: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {wanted}")
        return text

    return check


_name = _matches(_NAME, "the name of an object of Kubernetes")
_namespace = _matches(_DNS_LABEL, "the name of a namespace")
_amount = _matches(_QUANTITY, "an amount of Kubernetes, like 500m, 2 or 8Gi")


def _names(text: str) -> tuple[str, ...]:
    return tuple(_name(each) for each in text.split(","))


def switch(text: str) -> bool:
    """Raises ``ValueError``."""
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _selector(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for each in text.split(","):
        key, equals, value = each.partition("=")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError("must be labels of nodes: KEY=VALUE,KEY=VALUE")
        found[key] = value
    return tuple(sorted(found.items()))


def _tolerations(text: str) -> tuple[Mapping[str, str], ...]:
    """``KEY[=VALUE][:EFFECT]``, as kubectl writes taints."""
    found = []
    for each in text.split(","):
        taint, colon, effect = each.partition(":")
        key, equals, value = taint.partition("=")
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or (bool(colon) and effect not in _EFFECTS):
            raise ValueError("must be taints of nodes: KEY[=VALUE][:EFFECT],…")
        toleration = {"key": key, "operator": "Equal" if equals else "Exists"}
        found.append(
            toleration | ({"value": value} if equals else {}) | ({"effect": effect} if colon else {})
        )
    return tuple(found)


OPTIONS: tuple[Option, ...] = (
    Option(
        name="registry",
        help="where it pulls images from: HOST/PATH",
        required=True,
        check=repository_prefix,
    ),
    Option(name="namespace", help="where jobs run [the context's]", check=_namespace),
    Option(name="context", help="of the kubeconfig [its current one]"),
    Option(name="kubeconfig", help="a file [KUBECONFIG, else ~/.kube/config]"),
    Option(name="service-account", help="whom pods run as", check=_name),
    Option(name="image-pull-secret", help="the secret that opens the registry to nodes", check=_name),
    Option(name="secret-env", help="secrets whose entries become variables: A,B", check=_names),
    Option(name="node-selector", help="labels of nodes: KEY=VALUE,…", check=_selector),
    Option(name="tolerations", help="taints of nodes: KEY[=VALUE][:EFFECT],…", check=_tolerations),
    Option(name="gpus", help="NVIDIA GPUs of a pod", check=whole),
    Option(name="cpu", help="of a pod, as 500m or 4", check=_amount),
    Option(name="memory", help="of a pod, as 8Gi", check=_amount),
    Option(name="shm", help="of /dev/shm, as 8Gi; counts as memory", check=_amount),
    Option(name="outputs-claim", help="a volume claim for what jobs write to outputs/", check=_name),
    Option(name="deadline", help="seconds that a job may take", check=whole),
    Option(name="ttl", help="seconds that an ended job is kept", default="86400", check=whole),
    Option(name="keep", help="don't delete a job that has ended", default="false", check=switch),
    Option(
        name="start-timeout",
        help="seconds that a job may wait for its start",
        default="600",
        check=whole,
    ),
    Option(
        name="patience",
        help="seconds that the API server may be away",
        default="120",
        check=whole,
    ),
)


def pod_options(options: Mapping[str, str]) -> PodOptions:
    """What checked options say of pods."""
    return PodOptions(
        namespace=options.get("namespace"),
        service_account=options.get("service-account"),
        image_pull_secret=options.get("image-pull-secret"),
        secret_env=_names(options["secret-env"]) if "secret-env" in options else (),
        node_selector=_selector(options["node-selector"]) if "node-selector" in options else (),
        tolerations=_tolerations(options["tolerations"]) if "tolerations" in options else (),
        gpus=whole(options["gpus"]) if "gpus" in options else None,
        cpu=options.get("cpu"),
        memory=options.get("memory"),
        shm=options.get("shm"),
        ttl=whole(options["ttl"]),
        deadline=whole(options["deadline"]) if "deadline" in options else None,
        outputs_claim=options.get("outputs-claim"),
    )
