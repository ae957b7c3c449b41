"""Where a cluster is, and what opens it: a kubeconfig, or the account of the pod that this runs in.

The client's own messages are never passed on as they are: those about a kubeconfig can hold what stands in
it, tokens included.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from envbuild.errors import RunError
from envbuild.lazy import lazy
from envbuild.store.content import Store
from envbuild.targets.kubernetes.client import Cluster, mapping
from envbuild.targets.polling import Polling

if TYPE_CHECKING:
    import kubernetes
    import yaml
else:
    kubernetes = lazy("kubernetes")
    yaml = lazy("yaml")

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterAccess:
    """Where a cluster's address and credentials are; by name, as kubectl takes them."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


def connect(
    access: ClusterAccess,
    environ: Mapping[str, str],
    store: Store,
    polling: Polling,
) -> Cluster:
    """A connection, which asks nothing yet. Like kubectl it takes the kubeconfig that is named, that of
    ``KUBECONFIG``, or ``~/.kube/config``; inside a cluster without one, the pod's own account.

    Raises ``RunError`` where there is none, or where the extra ``kubernetes`` isn't installed.
    """
    try:
        configuration = kubernetes.client.Configuration()
    except ImportError as error:
        raise RunError(
            "kubernetes targets need Kubernetes' client, which isn't installed",
            hint="pip install 'envbuild[kubernetes]'",
        ) from error
    with contextlib.ExitStack() as resources:
        namespace = _configure(configuration, access, environ, store, resources)
        # Ours are the retries: urllib3 would log its own with addresses, and know nothing of Ctrl-C.
        configuration.retries = cast(Any, False)
        return Cluster(
            kubernetes.client.ApiClient(configuration),
            access.namespace or namespace or "default",
            resources.pop_all(),
            polling,
        )


def _configure(
    configuration: Any,
    access: ClusterAccess,
    environ: Mapping[str, str],
    store: Store,
    resources: contextlib.ExitStack,
) -> str | None:
    """Fills in address and credentials; returns the namespace that they come with, if any."""
    default = str(Path(environ["HOME"]) / ".kube" / "config") if "HOME" in environ else "~/.kube/config"
    paths = access.kubeconfig or environ.get("KUBECONFIG") or default
    if any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path):
        return _from_kubeconfig(configuration, paths, access, store, resources)
    if access.kubeconfig is None and environ.get("KUBERNETES_SERVICE_HOST"):
        return _from_pod(configuration, environ)
    raise RunError(
        f"there is no kubeconfig {paths}",
        hint="log in to the cluster, or name its file: envbuild target add … kubeconfig=FILE",
    )


def _from_kubeconfig(
    configuration: Any, paths: str, access: ClusterAccess, store: Store, resources: contextlib.ExitStack
) -> str | None:
    # The client writes certificates and keys that stand in the file into files of their own. What a kill
    # leaves of those is swept with the store's scratch.
    scratch = resources.enter_context(store.scratch())
    scratch.chmod(0o700)
    try:
        loader = cast(Any, kubernetes.config.kube_config.KubeConfigLoader)(
            config_dict=cast(Any, kubernetes.config.kube_config.KubeConfigMerger)(paths).config,
            active_context=access.context,
            config_base_path=None,
            temp_file_path=str(scratch),
        )
        loader.load_and_set(configuration)
        namespace = mapping(loader.current_context.get("context")).get("namespace")
    except kubernetes.config.ConfigException as error:
        # Its message names a part by all that stands in it.
        missing = re.search(r"Expected (?:object with name|key) ([\w.@:/-]{1,200}) in", str(error))
        reason = f"it has no {missing[1]}" if missing is not None else "something in it is missing"
        raise _unusable(paths, reason) from None
    except OSError as error:
        raise _unusable(paths, error.strerror or "it can't be read") from None
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError):
        raise _unusable(paths, "it is not as a kubeconfig should be") from None
    if not str(getattr(loader, "host", "")).startswith(("http://", "https://")):
        raise _unusable(paths, "it has no address of a server")
    return namespace if isinstance(namespace, str) else None


def _unusable(paths: str, why: str) -> RunError:
    return RunError(
        f"the kubeconfig {paths} can't be used: {why}", hint="kubectl config get-contexts shows what it has"
    )


def _from_pod(configuration: Any, environ: Mapping[str, str]) -> str | None:
    try:
        cast(Any, kubernetes.config.incluster_config.InClusterConfigLoader)(
            token_filename=str(_SERVICE_ACCOUNT / "token"),
            cert_filename=str(_SERVICE_ACCOUNT / "ca.crt"),
            environ=environ,
        ).load_and_set(configuration)
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip() or None
    except (kubernetes.config.ConfigException, OSError) as error:
        raise RunError(
            "this pod has no account for its cluster", hint="give it one, or a kubeconfig"
        ) from error
