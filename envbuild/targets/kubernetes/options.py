"""The options of a Kubernetes target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from envbuild.targets.options import (
    TargetOptions,
    listed,
    matching,
    option,
    repository_prefix,
    switch,
    whole,
)

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


_name = matching(_NAME, "the name of an object of Kubernetes")
_namespace = matching(_DNS_LABEL, "the name of a namespace")
_amount = matching(_QUANTITY, "an amount of Kubernetes, like 500m, 2 or 8Gi")


def _selector(text: str) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    for label in text.split(","):
        key, equals, value = label.partition("=")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError("must be labels of nodes: KEY=VALUE,KEY=VALUE")
        labels[key] = value
    return tuple(sorted(labels.items()))


def _tolerations(text: str) -> tuple[Mapping[str, str], ...]:
    """``KEY[=VALUE][:EFFECT]``, as kubectl writes taints."""
    tolerations = []
    for part in text.split(","):
        taint, colon, effect = part.partition(":")
        key, equals, value = taint.partition("=")
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or (bool(colon) and effect not in _EFFECTS):
            raise ValueError("must be taints of nodes: KEY[=VALUE][:EFFECT],…")
        toleration = {"key": key, "operator": "Equal" if equals else "Exists"}
        tolerations.append(
            toleration | ({"value": value} if equals else {}) | ({"effect": effect} if colon else {})
        )
    return tuple(tolerations)


@dataclass(frozen=True, kw_only=True, slots=True)
class KubernetesOptions(TargetOptions):
    registry: str = option("where it pulls images from: HOST/PATH", repository_prefix, required=True)
    namespace: str | None = option("where jobs run [the context's]", _namespace)
    context: str | None = option("of the kubeconfig [its current one]")
    kubeconfig: str | None = option("a file [KUBECONFIG, else ~/.kube/config]")
    service_account: str | None = option("whom pods run as", _name)
    image_pull_secret: str | None = option("the secret that opens the registry to nodes", _name)
    secret_env: tuple[str, ...] = option(
        "secrets whose entries become variables: A,B", listed(_name), absent=()
    )
    node_selector: tuple[tuple[str, str], ...] = option("labels of nodes: KEY=VALUE,…", _selector, absent=())
    tolerations: tuple[Mapping[str, str], ...] = option(
        "taints of nodes: KEY[=VALUE][:EFFECT],…", _tolerations, absent=()
    )
    """As in a pod's spec."""
    gpus: int | None = option("NVIDIA GPUs of a pod", whole)
    cpu: str | None = option("of a pod, as 500m or 4", _amount)
    memory: str | None = option("of a pod, as 8Gi", _amount)
    shm: str | None = option("of /dev/shm, as 8Gi; counts as memory", _amount)
    """None: the cluster's, mostly 64 MiB."""
    outputs_claim: str | None = option("a volume claim for what jobs write to outputs/", _name)
    deadline: int | None = option("seconds that a job may take", whole)
    ttl: int = option("seconds that an ended job is kept", whole, default="86400")
    keep: bool = option("don't delete a job that has ended", switch, default="false")
    start_timeout: int = option("seconds that a job may wait for its start", whole, default="600")
    patience: int = option("seconds that the API server may be away", whole, default="120")
