"""A Kubernetes cluster: a Job for a training run, a Deployment and a Service for what answers HTTP."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from envbuild.errors import EnvbuildError, RunError, UsageError
from envbuild.oci.image import Image
from envbuild.run.command import image_config
from envbuild.targets.base import Job, PreflightFinding, Service, TargetFile
from envbuild.targets.kinds import ConfiguredKind, ConfiguredTarget
from envbuild.targets.kubernetes.access import ClusterAccess, connect
from envbuild.targets.kubernetes.client import POLLING, Cluster
from envbuild.targets.kubernetes.job import KubernetesExecution
from envbuild.targets.kubernetes.manifest import job_manifest, service_manifests
from envbuild.targets.kubernetes.options import KubernetesOptions
from envbuild.targets.polling import ServiceRefusal
from envbuild.targets.yaml import yaml_text

_log = logging.getLogger(__name__)

JOB_FILE = "job.yaml"
SERVICE_FILE = "service.yaml"

_RIGHTS = (
    ("create", "batch", "jobs", ""),
    ("get", "batch", "jobs", ""),
    ("list", "", "pods", ""),
    ("get", "", "pods", "log"),
)
"""What a job can't do without: verb, group, resource and its part."""
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class KubernetesTarget(ConfiguredTarget[KubernetesOptions]):
    """Images are pushed to ``registry``, and pulled from there by digest."""

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        try:
            with contextlib.closing(self._connect(patience=0)) as cluster:
                return list(self._check_cluster(cluster, image))
        except RunError as error:
            return [PreflightFinding.of(error)]

    def bytes_to_pull(self, image: Image) -> int | None:
        """0 where every node that the image fits has it; else None, as nodes don't tell of layers."""
        try:
            with contextlib.closing(self._connect(patience=0)) as cluster:
                nodes = cluster.nodes(self._nodes_for(image))
        except RunError:
            return None
        return 0 if nodes and all(_has_image(node, image.digest) for node in nodes) else None

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        return (TargetFile(name=JOB_FILE, content=yaml_text(self._manifest(job))),)

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        if not _SERVICE_NAME.fullmatch(service.name):
            raise UsageError(
                f"{service.name!r} can't be the name of a Service",
                hint="it must begin with a letter and hold lower-case letters, digits and -",
            )
        manifests = service_manifests(
            service, self._options, image_config(service.image, self._context.store)
        )
        return (TargetFile(name=SERVICE_FILE, content=yaml_text(*manifests)),)

    def submit(self, job: Job) -> KubernetesExecution:
        cluster = self._connect(patience=self._options.patience)
        execution = KubernetesExecution(cluster, job.name, keep=self._options.keep)
        accepted = True
        try:
            try:
                cluster.create_job(self._manifest(job))
            except ServiceRefusal:
                accepted = False
                raise
            with self._context.progress.stage("start"):
                execution.await_start(self._options.start_timeout, self._context.progress.note)
        except BaseException:
            self._delete_unstarted(cluster, job.name if accepted else None)
            raise
        return execution

    def _connect(self, *, patience: int) -> Cluster:
        access = ClusterAccess(
            kubeconfig=self._options.kubeconfig,
            context=self._options.context,
            namespace=self._options.namespace,
        )
        polling = replace(POLLING, patience=patience)
        return connect(access, self._context.environ, self._context.store, polling)

    def _manifest(self, job: Job) -> dict[str, Any]:
        return job_manifest(job, self._options, image_config(job.image, self._context.store))

    def _check_cluster(self, cluster: Cluster, image: Image) -> Iterator[PreflightFinding]:
        place = cluster.namespace
        if cluster.has_namespace() is False:
            yield PreflightFinding(
                f"the cluster at {cluster.where} has no namespace {place}",
                hint=f"make it: kubectl create namespace {place}",
            )
            return
        for verb, group, resource, part in _RIGHTS:
            if not cluster.may(verb, group, resource, part):
                named = "/".join(filter(None, (resource, part)))
                yield PreflightFinding(
                    f"you may not {verb} {named} in the namespace {place}",
                    hint="ask for a role with: create, get and delete jobs; list pods; get pods/log",
                )
        if not cluster.may("delete", "batch", "jobs"):
            text = f"you may not delete jobs in the namespace {place}: Ctrl-C can't stop this one"
            yield PreflightFinding(text, error=False)
        options = self._options
        objects = [("secret", name) for name in (options.image_pull_secret, *options.secret_env)]
        objects += [
            ("service_account", options.service_account),
            ("persistent_volume_claim", options.outputs_claim),
        ]
        for kind, name in objects:
            if name is not None and cluster.has(kind, name) is False:
                yield PreflightFinding(
                    f"there is no {kind.replace('_', ' ')} {name} in the namespace {place}"
                )
        yield from self._check_nodes(cluster, image)

    def _check_nodes(self, cluster: Cluster, image: Image) -> Iterator[PreflightFinding]:
        platform = f"kubernetes.io/arch={image.platform.architecture},kubernetes.io/os={image.platform.os}"
        fitting = cluster.nodes(platform)
        if fitting is None:
            return
        if not fitting:
            # None at all: a cluster that makes nodes when they are asked for.
            yield PreflightFinding(
                f"the cluster at {cluster.where} has no node for {image.platform}",
                error=bool(cluster.nodes("")),
                hint="set the target's platform to that of its nodes",
            )
        elif self._options.node_selector and not cluster.nodes(self._nodes_for(image)):
            labels = self.record.option("node-selector")
            yield PreflightFinding(f"no node has the labels {labels} now", error=False)

    def _nodes_for(self, image: Image) -> str:
        """The selector of the nodes that a job may run on."""
        chosen = {
            "kubernetes.io/arch": image.platform.architecture,
            "kubernetes.io/os": image.platform.os,
            **dict(self._options.node_selector),
        }
        return ",".join(f"{key}={value}" for key, value in chosen.items())

    def _delete_unstarted(self, cluster: Cluster, name: str | None) -> None:
        """Leaves nothing of a job that didn't start. None: the cluster took no job, and one that has its name
        isn't ours."""
        try:
            if name is not None:
                cluster.delete_job(name, wait=False)
        except EnvbuildError as error:
            _log.warning("the job %s may still be on the cluster: %s", name, error)
        finally:
            cluster.close()


def _has_image(node: Mapping[str, Any], digest: str) -> bool:
    status = node.get("status")
    images = status.get("images") if isinstance(status, dict) else None
    return any(
        isinstance(name, str) and name.endswith(f"@{digest}")
        for image in (images if isinstance(images, list) else ())
        for name in (image.get("names") or () if isinstance(image, dict) else ())
    )


KIND = ConfiguredKind("kubernetes", KubernetesOptions, KubernetesTarget)
