from __future__ import annotations

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from envbuild.errors import UsageError
from envbuild.oci.image import Image
from envbuild.store.content import Store
from envbuild.targets.base import TargetRecord
from envbuild.targets.kubernetes.manifest import label_value
from envbuild.targets.kubernetes.options import KubernetesOptions
from envbuild.targets.options import parse_options
from tests.unit.targets.kubernetes import NAME, REGISTRY, a_job, a_service, a_target, an_image

VERSIONS = kubernetes_validate.utils.all_versions()
EVERYTHING = {
    "namespace": "train",
    "service-account": "trainer",
    "image-pull-secret": "registry",
    "secret-env": "wandb,s3",
    "node-selector": "pool=gpu,zone=",
    "tolerations": "nvidia.com/gpu:NoSchedule,pool=gpu",
    "gpus": "2",
    "cpu": "500m",
    "memory": "8Gi",
    "shm": "2Gi",
    "ttl": "60",
    "deadline": "3600",
    "outputs-claim": "runs",
}


@pytest.fixture
def image(store: Store) -> Image:
    return an_image(store)


def job_of(store: Store, image: Image, options: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    (file,) = a_target(store, options).job_files(a_job(image, **more))
    assert (file.name, file.executable) == ("job.yaml", False)
    (document,) = yaml.safe_load_all(file.content)
    assert isinstance(document, dict)
    return document


def pod_of(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = document["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_job_runs_the_command_once_as_the_image_s_user(store: Store, image: Image) -> None:
    labels = {
        "app.kubernetes.io/name": "demo",
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/version": "3",
        "app.kubernetes.io/component": "job",
        "app.kubernetes.io/managed-by": "envbuild",
        "dev.envbuild/run": NAME,
    }
    notes = {
        "dev.envbuild/environment": "demo:3",
        "dev.envbuild/lock": image.lock_digest,
        "dev.envbuild/code": a_job(image).code_digest,
    }
    assert job_of(store, image) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "labels": labels, "annotations": notes},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "ttlSecondsAfterFinished": 86400,
            "template": {
                "metadata": {"labels": labels, "annotations": notes},
                "spec": {
                    "automountServiceAccountToken": False,
                    "nodeSelector": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"},
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 1001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "main",
                            "image": f"{REGISTRY}/demo:abc@{image.digest}",
                            "imagePullPolicy": "IfNotPresent",
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "args": ["python", "train.py"],
                            "volumeMounts": [{"name": "outputs", "mountPath": "/workspace/outputs"}],
                        }
                    ],
                    "volumes": [{"name": "outputs", "emptyDir": {}}],
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 10,
                },
            },
        },
    }


def test_options_are_in_the_manifest(store: Store, image: Image) -> None:
    document = job_of(store, image, EVERYTHING, env=(("A", "1"),))
    assert document["metadata"]["namespace"] == "train"
    assert document["spec"]["ttlSecondsAfterFinished"] == 60
    assert document["spec"]["activeDeadlineSeconds"] == 3600
    pod, container = pod_of(document)
    assert pod["serviceAccountName"] == "trainer"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {
        "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "pool": "gpu", "zone": "",
    }  # fmt: skip
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "pool", "operator": "Equal", "value": "gpu"},
    ]
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "8Gi"},
        "limits": {"cpu": "500m", "memory": "8Gi", "nvidia.com/gpu": "2"},
    }
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}, {"secretRef": {"name": "s3"}}]
    assert pod["volumes"] == [
        {"name": "outputs", "persistentVolumeClaim": {"claimName": "runs"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
    ]
    assert container["volumeMounts"] == [
        {"name": "outputs", "mountPath": "/workspace/outputs", "subPath": NAME},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    assert pod["securityContext"]["fsGroup"] == 1001


def test_words_and_values_arrive_as_they_are(store: Store, image: Image) -> None:
    """Kubernetes would put a variable's value for ``$(HOME)``, and one dollar for two."""
    command = ("sh", "-c", "echo $HOME $(HOME) $$; true", "", "a b")
    _, container = pod_of(job_of(store, image, command=command, env=(("A", "$(B) $C"), ("B", "yes"))))
    assert container["args"] == ["sh", "-c", "echo $$HOME $$(HOME) $$$$; true", "", "a b"]
    assert container["env"] == [{"name": "A", "value": "$$(B) $$C"}, {"name": "B", "value": "yes"}]


@pytest.mark.parametrize("user", ["", "root", "0", "0:1000", "app", "99999999999:1"])
def test_no_user_is_stated_that_a_cluster_can_t_check(store: Store, user: str) -> None:
    pod, _ = pod_of(job_of(store, an_image(store, user), {"outputs-claim": "runs"}))
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_user_without_a_group(store: Store) -> None:
    pod, _ = pod_of(job_of(store, an_image(store, "1000"), {"outputs-claim": "runs"}))
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_manifests_are_deterministic(store: Store, image: Image) -> None:
    target = a_target(store, EVERYTHING)
    same = a_target(store, dict(reversed(EVERYTHING.items())))
    assert target.job_files(a_job(image)) == same.job_files(a_job(image))
    assert target.service_files(a_service(image)) == same.service_files(a_service(image))


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["least", "most"])
def test_manifests_are_valid_by_the_published_schemas(
    store: Store, image: Image, options: dict[str, str], version: str
) -> None:
    target = a_target(store, options)
    env = (("A", "1"),)
    files = (*target.job_files(a_job(image, env=env)), *target.service_files(a_service(image, env=env)))
    documents = [each for file in files for each in yaml.safe_load_all(file.content)]
    assert [document["kind"] for document in documents] == ["Job", "Deployment", "Service"]
    for document in documents:
        assert version.startswith(kubernetes_validate.validate(document, version, strict=True))
    documents[0]["spec"]["template"]["spec"]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[0], version, strict=True)


def test_service_has_probes_and_stops_gracefully(store: Store, image: Image) -> None:
    (file,) = a_target(store, EVERYTHING).service_files(a_service(image, replicas=3))
    assert file.name == "service.yaml"
    deployment, service = yaml.safe_load_all(file.content)
    chosen = {"app.kubernetes.io/name": "demo", "app.kubernetes.io/instance": "demo"}
    spec = deployment["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    assert spec["selector"] == {"matchLabels": chosen}
    assert chosen.items() <= spec["template"]["metadata"]["labels"].items()
    pod, container = pod_of(deployment)
    assert pod["terminationGracePeriodSeconds"] == 60
    assert container["ports"] == [{"name": "http", "containerPort": 5001}]
    often = {"timeoutSeconds": 5, "periodSeconds": 5}
    live = {"httpGet": {"path": "/", "port": "http"}}
    assert container["startupProbe"] == {**live, **often, "failureThreshold": 60}
    assert container["livenessProbe"] == {**live, **often, "periodSeconds": 10, "failureThreshold": 3}
    assert container["readinessProbe"] == {
        **often, "httpGet": {"path": "/ready", "port": "http"}, "failureThreshold": 3,
    }  # fmt: skip
    # What jobs write has no place in a service.
    assert "args" not in container
    assert [each["name"] for each in pod["volumes"]] == ["shm"]
    assert "fsGroup" not in pod["securityContext"]
    assert service["metadata"] == deployment["metadata"]
    assert service["spec"] == {
        "type": "ClusterIP",
        "selector": chosen,
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }


@pytest.mark.parametrize("name", ["3d", "Demo", "a_b", "a" * 64, ""])
def test_service_s_name_must_be_one(store: Store, image: Image, name: str) -> None:
    with pytest.raises(UsageError, match="can't be the name of a Service"):
        a_target(store).service_files(a_service(image, name=name))


@pytest.mark.parametrize(
    ("text", "value"),
    [("a" * 80, "a" * 63), ("-a.b_c-", "a.b_c"), ("3:@x", "3--x"), ("é", ""), ("a" * 62 + ".b", "a" * 62)],
)
def test_label_value_is_one(text: str, value: str) -> None:
    assert label_value(text) == value


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("namespace", "Train", "must be the name of a namespace"),
        ("namespace", "a.b", "must be the name of a namespace"),
        ("image-pull-secret", "a/b", "must be the name of an object"),
        ("secret-env", "a,,b", "must be the name of an object"),
        ("node-selector", "pool", "must be labels of nodes"),
        ("node-selector", "a b=c", "must be labels of nodes"),
        ("tolerations", "gpu:Never", "must be taints of nodes"),
        ("tolerations", "=x", "must be taints of nodes"),
        ("gpus", "0", "must be a whole number above 0"),
        ("memory", "8 GB", "must be an amount of Kubernetes"),
        ("cpu", "-1", "must be an amount of Kubernetes"),
        ("keep", "yes", "must be true or false"),
        ("start-timeout", "1.5", "must be a whole number above 0"),
        ("nodes", "1", "has no option 'nodes'"),
    ],
)
def test_option_that_does_not_fit_is_refused(store: Store, option: str, value: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        a_target(store, {option: value})


def test_registry_is_needed(store: Store) -> None:
    with pytest.raises(UsageError, match="a kubernetes target needs the option registry"):
        parse_options(TargetRecord(name="k8s", kind="kubernetes"), KubernetesOptions)
