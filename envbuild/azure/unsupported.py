"""What of Azure ML's first SDK has no meaning on one's own machine, and what to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NoReturn

from envbuild.errors import UsageError


class AzureOnlyError(UsageError):
    """A name of Azure ML that means nothing here; the hint says what to use instead."""


def azure_only(what: str, instead: str) -> AzureOnlyError:
    """The error for ``what``, to be raised."""
    return AzureOnlyError(f"{what} is Azure ML's alone", hint=instead)


_TARGETS = "name a target: 'envbuild target add NAME KIND …' makes one, and compute_target takes its name"
_DATA = "put the data beside the code, or mount it: 'envbuild run --mount SOURCE:TARGET'"
_LOGIN = "no login is needed; registries are logged in to with 'docker login'"
_METRICS = "print it, or log it with MLflow; files below outputs/ are brought back"

_SECRETS = "give secrets as environment variables of the run"
_WORKSPACE = "a workspace is a file or a database, which ENVBUILD_WORKSPACE names; nothing is around it"
_RUNS = "'envbuild runs list' and 'envbuild runs show NAME' show what is kept of runs"
_UPLOADS = "write it below outputs/: it is brought back"

INSTEAD: Mapping[str, str] = {
    "ComputeTarget": _TARGETS,
    "Datastore": _DATA,
    "Dataset": _DATA,
    "Keyvault": _SECRETS,
    "Image": "Environment.build(workspace) builds an image, get_image_details shows it",
    "LinkedService": _TARGETS,
    "PrivateEndPoint": _WORKSPACE,
    "PrivateEndPointConfig": _WORKSPACE,
    "ScriptRun": "Experiment.submit returns a Run",
    "authentication": _LOGIN,
    "compute": _TARGETS,
    "compute_target": _TARGETS,
    "databricks": "pip packages go into CondaDependencies, jars into Environment.spark.packages",
    "dataset": _DATA,
    "datastore": _DATA,
    "get_run": _RUNS,
    "image": "Environment.build(workspace) builds an image, get_image_details shows it",
    "keyvault": _SECRETS,
    "linked_service": _TARGETS,
    "private_endpoint": _WORKSPACE,
}
"""Names of ``azureml.core``."""

RUN: Mapping[str, str] = {
    "add_properties": _RUNS,
    "add_type_provider": _RUNS,
    "child_run": "submit another run",
    "clean": "nothing is left where it ran; outputs and log stay until they are deleted",
    "complete": "a run ends when its script does",
    "create_children": "submit other runs",
    "description": _RUNS,
    "fail": "end the script with an exit status",
    "flush": _METRICS,
    "get_children": "a run has no children",
    "get_context": "a script needs no context here: print, log with MLflow, write below outputs/",
    "get_detailed_status": "get_status says how it ended",
    "get_metrics": _METRICS,
    "get_properties": "get_details()['properties'] has digests and the exit status",
    "get_secret": _SECRETS,
    "get_secrets": _SECRETS,
    "get_snapshot_id": "get_details()['properties'] has the digest of the code",
    "get_submitted_run": _RUNS,
    "get_tags": _RUNS,
    "list": _RUNS,
    "list_by_compute": _RUNS,
    "log": _METRICS,
    "log_accuracy_table": _METRICS,
    "log_confusion_matrix": _METRICS,
    "log_image": _METRICS,
    "log_list": _METRICS,
    "log_predictions": _METRICS,
    "log_residuals": _METRICS,
    "log_row": _METRICS,
    "log_table": _METRICS,
    "number": _RUNS,
    "parent": "a run has no parent",
    "properties": "get_details()['properties'] has digests and the exit status",
    "register_model": "a model is a directory: Model(workspace, name) isn't needed, models=['outputs'] is",
    "remove_tags": _RUNS,
    "restore_snapshot": "the code is a layer of the run's image: 'envbuild copy' brings it",
    "set_tags": _RUNS,
    "start": "a run has started when submit returns",
    "submit_child": "submit another run",
    "tag": _RUNS,
    "take_snapshot": "the code becomes a layer of the run's image",
    "upload_file": _UPLOADS,
    "upload_files": _UPLOADS,
    "upload_folder": _UPLOADS,
}
"""Methods of ``Run``."""

_ONE_MACHINE = "a target of the kind ray or spark runs on several machines; compute_target takes its name"
RUN_LIMITS = "limits are options of a target: 'envbuild target add NAME KIND …'"

RUN_CONFIGURATION: Mapping[str, str] = {
    "amlcompute": RUN_LIMITS,
    "auto_cluster_compute_specification": RUN_LIMITS,
    "credential_passthrough": _LOGIN,
    "data": _DATA,
    "data_references": _DATA,
    "datacaches": _DATA,
    "hdi": _TARGETS,
    "history": "every run is recorded; 'envbuild runs list' shows them",
    "kubernetescompute": RUN_LIMITS,
    "mpi": _ONE_MACHINE,
    "output_data": "write below outputs/: it is brought back",
    "paralleltask": _ONE_MACHINE,
    "priority": RUN_LIMITS,
    "pytorch": _ONE_MACHINE,
    "services": "serve with Model.deploy",
    "source_directory_data_store": _DATA,
    "spark": "options of a target of the kind spark: 'envbuild target add NAME spark …'",
    "tensorflow": _ONE_MACHINE,
}
"""Attributes of ``RunConfiguration``."""

_OF_EXPERIMENTS = """archive archived_time delete from_directory get_docs_url get_runs id list reactivate
refresh remove_tags set_tags tag tags workspace_object"""
EXPERIMENT: Mapping[str, str] = {
    **dict.fromkeys(_OF_EXPERIMENTS.split(), _RUNS),
    "start_logging": "run the script with submit; print, or log with MLflow",
}
"""Names of ``Experiment``."""

WORKSPACE: Mapping[str, str] = {
    "add_private_endpoint": _WORKSPACE,
    "datasets": _DATA,
    "datastores": _DATA,
    "delete": "delete the workspace's file, or its database",
    "delete_connection": _LOGIN,
    "delete_private_endpoint_connection": _WORKSPACE,
    "diagnose_workspace": _WORKSPACE,
    "discovery_url": _WORKSPACE,
    "experiments": _RUNS,
    "get_connection": _LOGIN,
    "get_default_compute_target": _TARGETS,
    "get_default_datastore": _DATA,
    "get_default_keyvault": _SECRETS,
    "get_mlflow_tracking_uri": "set MLFLOW_TRACKING_URI as an environment variable of the run",
    "images": "Environment.get_image_details(workspace) lists an environment's images",
    "linked_services": _TARGETS,
    "list": _WORKSPACE,
    "list_connections": _LOGIN,
    "list_keys": _LOGIN,
    "models": "a model is a directory: models=['outputs'] of Model.deploy",
    "private_endpoints": _WORKSPACE,
    "service_context": _LOGIN,
    "set_connection": _LOGIN,
    "set_default_datastore": _DATA,
    "setup": _WORKSPACE,
    "sku": _WORKSPACE,
    "sync_keys": _LOGIN,
    "tags": _WORKSPACE,
    "update": _WORKSPACE,
    "update_dependencies": _WORKSPACE,
    "webservices": "'envbuild runs list' shows services too",
}
"""Names of ``Workspace``."""


class PartlyThere:
    """A class of the SDK of which only a part has a meaning here: the rest says what to use instead."""

    __slots__ = ()

    _instead: ClassVar[Mapping[str, str]] = {}

    def __getattr__(self, name: str) -> NoReturn:
        kind = type(self).__name__
        if name in self._instead:
            raise azure_only(f"{kind}.{name}", self._instead[name])
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._instead:
            raise azure_only(f"{type(self).__name__}.{name}", self._instead[name])
        super().__setattr__(name, value)
