"""What a Spark target is given, and which of it go together."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from envbuild.errors import UsageError
from envbuild.targets.options import (
    TargetOptions,
    byte_size,
    matching,
    one_of,
    option,
    repository_prefix,
    whole,
)

_HOST_PORT = r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}"
_LOCAL = re.compile(r"local(?:\[(?:\*|[1-9][0-9]{0,3})(?:,[1-9][0-9]{0,2})?\])?")
_STANDALONE = re.compile(rf"spark://({_HOST_PORT}(?:,{_HOST_PORT})*)")
_KUBERNETES = re.compile(rf"k8s://https?://({_HOST_PORT}|[A-Za-z0-9][A-Za-z0-9.-]{{0,252}})(?:/[\w./-]*)?")
_KEY = re.compile(r"spark\.[A-Za-z0-9_./-]{1,200}")
_SECRET = re.compile(r"secret|password|token|access[.]?key", re.IGNORECASE)
"""What Spark itself hides where it prints its configuration (``spark.redaction.regex``)."""
_NAMES_ONE = re.compile(r"secretKeyRef\.|\.kubernetes\.(?:driver|executor)\.secrets\.|File$|Path$")
"""Keys whose value is the name or the place of a secret."""
_PATH = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,1023}|/")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _master(text: str) -> str:
    if text == "yarn":
        raise ValueError(
            "YARN takes a script from the submitting machine and not from an image: it isn't supported"
        )
    if not any(pattern.fullmatch(text) for pattern in (_LOCAL, _STANDALONE, _KUBERNETES)):
        raise ValueError("must be local[*], spark://HOST:PORT or k8s://https://HOST:PORT")
    return text


def conf_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``k=v;k=v``. Raises ``ValueError``, without a value: it may be a secret."""
    values: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not _KEY.fullmatch(key):
            raise ValueError("must be settings of Spark: spark.KEY=VALUE;spark.KEY=VALUE")
        if _SECRET.search(key) and not _NAMES_ONE.search(key):
            raise ValueError(f"{key} holds a secret; options only name where secrets are kept")
        if key in values:
            raise ValueError(f"{key} is given twice")
        values[key] = value.strip()
    return tuple(values.items())


_path = matching(_PATH, "a path of letters, digits and the signs _./+@-")
_name = matching(_NAME, "a name")


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkOptions(TargetOptions):
    master: str = option(
        "local[*], spark://HOST:PORT or k8s://https://HOST:PORT", _master, default="local[*]"
    )
    deploy_mode: str | None = option(
        "where the driver runs: client (here, in the image) or cluster [cluster on Kubernetes]",
        one_of("client", "cluster"),
    )
    spark_submit: str = option(
        "the command: in the image, or, for Kubernetes, of this machine "
        "[/opt/env/bin/spark-submit there, spark-submit of PATH here]",
        _path,
        absent="",
    )
    python: str = option(
        "Python on the workers of a standalone cluster", _path, default="/opt/env/bin/python"
    )
    master_ui: str | None = option("the web page of a standalone master, to ask it first: HTTP://HOST:PORT")
    executors: int | None = option("how many", whole)
    memory: int | None = option("of an executor, like 8GB", byte_size)
    cores: int | None = option("of an executor", whole)
    conf: tuple[tuple[str, str], ...] = option(
        "more settings: spark.KEY=VALUE;spark.KEY=VALUE", conf_pairs, absent=()
    )
    namespace: str = option("where pods run", matching(_LABEL, "the name of a namespace"), default="default")
    service_account: str | None = option("whom the driver's pod runs as: it starts the executors", _name)
    image_pull_secret: str | None = option("the secret that opens the registry to nodes", _name)
    registry: str | None = option("where pods pull images from: HOST/PATH", repository_prefix)

    @property
    def place(self) -> str:
        """``local``, ``standalone`` or ``kubernetes``."""
        scheme = self.master.partition(":")[0]
        return {"k8s": "kubernetes", "spark": "standalone"}.get(scheme, "local")

    @property
    def masters(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports of a standalone master and those that stand by for it."""
        match = _STANDALONE.fullmatch(self.master)
        parts = match[1].split(",") if match is not None else ()
        return tuple(
            (host.strip("[]"), int(port)) for host, _, port in (part.rpartition(":") for part in parts)
        )

    def checked(self, target: str) -> SparkOptions:
        expected = "cluster" if self.place == "kubernetes" else "client"
        if self.deploy_mode not in (None, expected):
            why = {
                "kubernetes": "on Kubernetes the driver runs in a pod",
                "standalone": "Spark's own clusters run drivers of Python only as clients",
                "local": "a local Spark has no cluster",
            }[self.place]
            raise UsageError(f"target {target}: {why}", hint=f"use deploy-mode={expected}")
        if self.place == "local" and self.executors is not None:
            raise UsageError(f"target {target}: a local Spark has one executor", hint="use master=local[4]")
        if self.place == "kubernetes" and self.registry is None:
            raise UsageError(
                f"target {target}: pods take the image from a registry",
                hint="name one that you can push to and the nodes can pull from: registry=HOST/PATH",
            )
        page = self.master_ui
        if page is not None and not re.fullmatch(rf"https?://{_HOST_PORT}/?", page, re.IGNORECASE):
            raise UsageError(f"target {target}: master-ui must be like http://HOST:8080")
        submit = "spark-submit" if self.place == "kubernetes" else "/opt/env/bin/spark-submit"
        return replace(
            self,
            spark_submit=self.spark_submit or submit,
            master_ui=page.rstrip("/") if page is not None else None,
        )
