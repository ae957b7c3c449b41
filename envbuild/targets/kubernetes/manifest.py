"""Kubernetes manifests: a Job that runs a command once, a Deployment and a Service that answer HTTP.

They hold to the profile ``restricted`` of the Pod Security Standards as far as the image's user lets them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from envbuild.oci.image import Image
from envbuild.platforms import Platform
from envbuild.targets.base import OUTPUTS, Job, Service
from envbuild.targets.kubernetes.options import KubernetesOptions

RUN_LABEL = "dev.envbuild/run"
"""Label of a job and of its pod: the run's name."""
CONTAINER = "main"
"""The container with the command, among those that a cluster may add."""

_LABEL = 63
_JOB_STOP_SECONDS = 10
"""A training script rarely listens to SIGTERM; what it wrote by then is what there is."""
_SERVICE_STOP_SECONDS = 60
"""For the requests that are under way."""
_START_CHECKS = 60
"""Each after five seconds: a model may take minutes to load."""
_LARGEST_ID = 2**31


def job_manifest(job: Job, options: KubernetesOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """The Job of ``batch/v1``. ``config`` is the inner ``config`` object of the image's own config.

    The command is the container's ``args``, word by word: the image's entry point stays, no shell is added.
    """
    labels = _labels(job.name, job.environment, "job") | {RUN_LABEL: job.name}
    notes = _annotations(job.environment, job.image) | (
        {"dev.envbuild/code": job.code_digest} if job.code_digest is not None else {}
    )
    container = _container(job.reference, job.env, options)
    container["args"] = [_literal(word) for word in job.command]
    volume: dict[str, Any] = {"name": "outputs", "emptyDir": {}}
    mount = {"name": "outputs", "mountPath": str(OUTPUTS)}
    if options.outputs_claim is not None:
        volume = {"name": "outputs", "persistentVolumeClaim": {"claimName": options.outputs_claim}}
        mount["subPath"] = job.name
    container["volumeMounts"] = [mount]
    pod = _pod(container, job.image.platform, options, config, [volume])
    pod["restartPolicy"] = "Never"
    pod["terminationGracePeriodSeconds"] = _JOB_STOP_SECONDS
    spec: dict[str, Any] = {"backoffLimit": 0, "completions": 1, "parallelism": 1}
    if options.deadline is not None:
        spec["activeDeadlineSeconds"] = options.deadline
    spec["ttlSecondsAfterFinished"] = options.ttl
    spec["template"] = {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job.name, options, labels, notes),
        "spec": spec,
    }


def service_manifests(
    service: Service, options: KubernetesOptions, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Deployment, and the Service that leads to it: port 80 of a cluster address."""
    labels = _labels(service.name, service.environment, "service")
    # What selects pods can't be changed later, so no version is among it.
    chosen = {key: labels[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    notes = _annotations(service.environment, service.image)
    container = _container(service.reference, service.env, options)
    container["ports"] = [{"name": "http", "containerPort": service.port}]
    container["startupProbe"] = _probe(service.liveness, period=5, failures=_START_CHECKS)
    container["livenessProbe"] = _probe(service.liveness, period=10, failures=3)
    container["readinessProbe"] = _probe(service.readiness, period=5, failures=3)
    pod = _pod(container, service.image.platform, options, config, [])
    pod["terminationGracePeriodSeconds"] = _SERVICE_STOP_SECONDS
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(service.name, options, labels, notes),
        "spec": {
            "replicas": service.replicas,
            "selector": {"matchLabels": chosen},
            # The old pods answer until new ones do.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels, "annotations": notes}, "spec": pod},
        },
    }
    address = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service.name, options, labels, notes),
        "spec": {
            "type": "ClusterIP",
            "selector": chosen,
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }
    return deployment, address


def label_value(text: str) -> str:
    """``text`` as a label's value: at most 63 characters, letters or digits at both ends."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:_LABEL].strip("._-")


def _labels(name: str, environment: str, component: str) -> dict[str, str]:
    application, _, version = environment.partition(":")
    values = {
        "name": label_value(application) or name,
        "instance": name,
        "version": label_value(version),
        "component": component,
        "managed-by": "envbuild",
    }
    return {f"app.kubernetes.io/{key}": value for key, value in values.items() if value}


def _annotations(environment: str, image: Image) -> dict[str, str]:
    return {"dev.envbuild/environment": environment, "dev.envbuild/lock": image.lock_digest}


def _metadata(
    name: str, options: KubernetesOptions, labels: dict[str, str], annotations: dict[str, str]
) -> dict[str, Any]:
    place = {"namespace": options.namespace} if options.namespace is not None else {}
    return {"name": name, **place, "labels": dict(labels), "annotations": dict(annotations)}


def _container(
    reference: str, env: tuple[tuple[str, str], ...], options: KubernetesOptions
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": CONTAINER, "image": reference, "imagePullPolicy": "IfNotPresent"}
    if env:
        container["env"] = [{"name": name, "value": _literal(value)} for name, value in env]
    if options.secret_env:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in options.secret_env]
    amounts = {
        key: value for key, value in (("cpu", options.cpu), ("memory", options.memory)) if value is not None
    }
    limits = dict(amounts)
    if options.gpus is not None:
        limits["nvidia.com/gpu"] = str(options.gpus)
    if limits:
        container["resources"] = {**({"requests": amounts} if amounts else {}), "limits": limits}
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return container


def _pod(
    container: dict[str, Any],
    platform: Platform,
    options: KubernetesOptions,
    config: Mapping[str, Any],
    volumes: list[dict[str, Any]],
) -> dict[str, Any]:
    if options.shm is not None:
        volumes = [*volumes, {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": options.shm}}]
        mounts = container.get("volumeMounts", [])
        container["volumeMounts"] = [*mounts, {"name": "shm", "mountPath": "/dev/shm"}]
    pod: dict[str, Any] = {"automountServiceAccountToken": False}
    if options.service_account is not None:
        pod["serviceAccountName"] = options.service_account
    if options.image_pull_secret is not None:
        pod["imagePullSecrets"] = [{"name": options.image_pull_secret}]
    pod["nodeSelector"] = {
        "kubernetes.io/arch": platform.architecture,
        "kubernetes.io/os": platform.os,
        **dict(options.node_selector),
    }
    if options.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in options.tolerations]
    pod["securityContext"] = _security(
        config, claim=any("persistentVolumeClaim" in volume for volume in volumes)
    )
    pod["containers"] = [container]
    if volumes:
        pod["volumes"] = volumes
    return pod


def _security(config: Mapping[str, Any], *, claim: bool) -> dict[str, Any]:
    """The user is the image's own: stated only where it is a number and not root's, as a cluster can't see
    that a name isn't root's."""
    context: dict[str, Any] = {}
    user, _, group = str(config.get("User") or "").partition(":")
    uid, gid = _number(user), _number(group)
    if uid:
        context["runAsNonRoot"] = True
        context["runAsUser"] = uid
        if gid is not None:
            context["runAsGroup"] = gid
        if claim:
            # A claim's files belong to root until they are given a group.
            context["fsGroup"] = gid if gid is not None else uid
    context["seccompProfile"] = {"type": "RuntimeDefault"}
    return context


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= _LARGEST_ID:
        return None
    return int(text)


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _literal(text: str) -> str:
    """As it is, since Kubernetes replaces ``$(NAME)`` and takes ``$$`` for a dollar."""
    return text.replace("$", "$$")
