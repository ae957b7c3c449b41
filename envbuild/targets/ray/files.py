"""What Ray is handed: a request of its Jobs API, a RayJob of KubeRay, a cluster of ``ray up``."""

from __future__ import annotations

import json
import shlex
from typing import Any

from envbuild.targets.base import Job, TargetFile
from envbuild.targets.ray.options import RayOptions
from envbuild.targets.yaml import yaml_text

REQUEST, RAY_JOB, CLUSTER = "ray-job.json", "ray-job.yaml", "ray-cluster.yaml"
_DASHBOARD = 8265


def job_request(options: RayOptions, job: Job, code: str | None = None) -> dict[str, Any]:
    """The body of ``POST /api/jobs/``; ``code`` is the address of the code's package where the image isn't
    used."""
    runtime: dict[str, Any] = {}
    if options.in_image:
        runtime["image_uri"] = job.reference
    elif code is not None:
        runtime["working_dir"] = code
    if job.env:
        runtime["env_vars"] = dict(job.env)
    body: dict[str, Any] = {
        "submission_id": job.name,
        "entrypoint": shlex.join(job.command),
        "runtime_env": runtime,
        "metadata": _metadata(job),
    }
    amounts = {"num_cpus": options.cpus, "num_gpus": options.gpus, "memory": options.memory}
    return body | {f"entrypoint_{name}": value for name, value in amounts.items() if value is not None}


def _metadata(job: Job) -> dict[str, str]:
    metadata = {"name": job.name, "environment": job.environment, "image": job.image.digest}
    if job.code_digest is not None:
        metadata["code"] = job.code_digest
    return metadata


def job_files(options: RayOptions, job: Job, code: str | None) -> tuple[TargetFile, ...]:
    """The request where there is a dashboard to send it to; else a RayJob, and a cluster of machines."""
    if options.address is not None:
        text = json.dumps(job_request(options, job, code), indent=2)
        return (TargetFile(name=REQUEST, content=f"{text}\n"),)
    written = [TargetFile(name=RAY_JOB, content=yaml_text(_ray_job(options, job)))]
    if options.head is not None:
        written.append(TargetFile(name=CLUSTER, content=yaml_text(_cluster(options, job))))
    return tuple(written)


def _ray_job(options: RayOptions, job: Job) -> dict[str, Any]:
    """A RayJob (ray.io/v1): a cluster of the job's image, which goes when the job has ended."""
    resources: dict[str, Any] = {}
    if options.cpus is not None:
        resources["cpu"] = f"{max(1, round(options.cpus * 1000))}m"
    if options.memory is not None:
        resources["memory"] = str(options.memory)
    if options.gpus is not None:
        resources["nvidia.com/gpu"] = str(max(1, -int(-options.gpus // 1)))
    head, worker = _pod("ray-head", job, resources), _pod("ray-worker", job, resources)
    spec: dict[str, Any] = {
        "entrypoint": shlex.join(job.command),
        "shutdownAfterJobFinishes": True,
        "metadata": _metadata(job),
    }
    if job.env:
        spec["runtimeEnvYAML"] = yaml_text({"env_vars": dict(job.env)})
    spec["rayClusterSpec"] = {
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": head},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": options.workers,
                "minReplicas": options.workers,
                "maxReplicas": options.workers,
                "rayStartParams": {},
                "template": worker,
            }
        ],
    }
    labels = {"app.kubernetes.io/managed-by": "envbuild"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": job.name, "labels": labels},
        "spec": spec,
    }


def _pod(name: str, job: Job, resources: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = {"name": name, "image": job.reference}
    if resources:
        container["resources"] = {"requests": dict(resources), "limits": dict(resources)}
    return {"spec": {"containers": [container]}}


def _cluster(options: RayOptions, job: Job) -> dict[str, Any]:
    """Machines that are there already, with Ray in containers of the image (``ray up``)."""
    return {
        "cluster_name": job.name,
        "docker": {"image": job.reference, "container_name": "ray", "pull_before_run": True},
        "provider": {"type": "local", "head_ip": options.head, "worker_ips": list(options.hosts)},
        "auth": {"ssh_user": options.ssh_user},
        "max_workers": len(options.hosts),
        "min_workers": len(options.hosts),
        "head_start_ray_commands": [
            "ray stop",
            f"ray start --head --port=6379 --dashboard-port={_DASHBOARD} "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": ["ray stop", "ray start --address=$RAY_HEAD_IP:6379"],
    }
