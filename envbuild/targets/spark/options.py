"""What a Spark target is given, and which of it go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envbuild.errors import UsageError
from envbuild.targets.base import Option
from envbuild.targets.options import repository_prefix, size, whole

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


def _matching(pattern: re.Pattern[str], words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {words}")
        return text

    return check


def _master(text: str) -> str:
    if text == "yarn":
        raise ValueError(
            "YARN takes a script from the submitting machine and not from an image: it isn't supported"
        )
    if not any(each.fullmatch(text) for each in (_LOCAL, _STANDALONE, _KUBERNETES)):
        raise ValueError("must be local[*], spark://HOST:PORT or k8s://https://HOST:PORT")
    return text


def _mode(text: str) -> str:
    if text not in ("client", "cluster"):
        raise ValueError("must be client or cluster")
    return text


def conf_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``k=v;k=v``. Raises ``ValueError``, without a value: it may be a secret."""
    found: dict[str, str] = {}
    for each in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = each.partition("=")
        key = key.strip()
        if not equals or not _KEY.fullmatch(key):
            raise ValueError("must be settings of Spark: spark.KEY=VALUE;spark.KEY=VALUE")
        if _SECRET.search(key) and not _NAMES_ONE.search(key):
            raise ValueError(f"{key} holds a secret; options only name where secrets are kept")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = value.strip()
    return tuple(found.items())


OPTIONS: Sequence[Option] = (
    Option(
        name="master",
        help="local[*], spark://HOST:PORT or k8s://https://HOST:PORT",
        default="local[*]",
        check=_master,
    ),
    Option(
        name="deploy-mode",
        help="where the driver runs: client (here, in the image) or cluster [cluster on Kubernetes]",
        check=_mode,
    ),
    Option(
        name="spark-submit",
        help="the command: in the image, or, for Kubernetes, of this machine "
        "[/opt/env/bin/spark-submit there, spark-submit of PATH here]",
        check=_matching(_PATH, "a path of letters, digits and the signs _./+@-"),
    ),
    Option(
        name="python",
        help="Python on the workers of a standalone cluster",
        default="/opt/env/bin/python",
        check=_matching(_PATH, "a path of letters, digits and the signs _./+@-"),
    ),
    Option(name="master-ui", help="the web page of a standalone master, to ask it first: HTTP://HOST:PORT"),
    Option(name="executors", help="how many", check=whole),
    Option(name="memory", help="of an executor, like 8GB", check=size),
    Option(name="cores", help="of an executor", check=whole),
    Option(name="conf", help="more settings: spark.KEY=VALUE;spark.KEY=VALUE", check=conf_pairs),
    Option(
        name="namespace",
        help="where pods run",
        default="default",
        check=_matching(_LABEL, "the name of a namespace"),
    ),
    Option(
        name="service-account",
        help="whom the driver's pod runs as: it starts the executors",
        check=_matching(_NAME, "a name"),
    ),
    Option(
        name="image-pull-secret",
        help="the secret that opens the registry to nodes",
        check=_matching(_NAME, "a name"),
    ),
    Option(name="registry", help="where pods pull images from: HOST/PATH", check=repository_prefix),
)


def _page(name: str, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(rf"https?://{_HOST_PORT}/?", text, re.IGNORECASE):
        raise UsageError(f"target {name}: master-ui must be like http://HOST:8080")
    return text.rstrip("/") if text is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkOptions:
    """Checked options. ``place`` is ``local``, ``standalone`` or ``kubernetes``."""

    master: str
    place: str
    submit: str
    python: str
    page: str | None
    executors: int | None
    memory: int | None
    cores: int | None
    conf: tuple[tuple[str, str], ...]
    namespace: str
    service_account: str | None
    pull_secret: str | None

    @classmethod
    def of(cls, name: str, options: Mapping[str, str]) -> SparkOptions:
        """The options of the target ``name``, each already checked alone. Raises ``UsageError`` where they
        don't go together."""
        master = options["master"]
        place = (
            "kubernetes"
            if master.startswith("k8s:")
            else "standalone"
            if master.startswith("spark:")
            else "local"
        )
        expected = "cluster" if place == "kubernetes" else "client"
        if options.get("deploy-mode", expected) != expected:
            why = {
                "kubernetes": "on Kubernetes the driver runs in a pod",
                "standalone": "Spark's own clusters run drivers of Python only as clients",
                "local": "a local Spark has no cluster",
            }[place]
            raise UsageError(f"target {name}: {why}", hint=f"use deploy-mode={expected}")
        if place == "local" and "executors" in options:
            raise UsageError(f"target {name}: a local Spark has one executor", hint="use master=local[4]")
        if place == "kubernetes" and "registry" not in options:
            raise UsageError(
                f"target {name}: pods take the image from a registry",
                hint="name one that you can push to and the nodes can pull from: registry=HOST/PATH",
            )
        return cls(
            master=master,
            place=place,
            submit=options.get(
                "spark-submit", "spark-submit" if place == "kubernetes" else "/opt/env/bin/spark-submit"
            ),
            python=options["python"],
            page=_page(name, options.get("master-ui")),
            executors=whole(options["executors"]) if "executors" in options else None,
            memory=size(options["memory"]) if "memory" in options else None,
            cores=whole(options["cores"]) if "cores" in options else None,
            conf=conf_pairs(options.get("conf", "")),
            namespace=options["namespace"],
            service_account=options.get("service-account"),
            pull_secret=options.get("image-pull-secret"),
        )

    @property
    def masters(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports of a standalone master and those that stand by for it."""
        match = _STANDALONE.fullmatch(self.master)
        parts = match[1].split(",") if match is not None else ()
        return tuple(
            (host.strip("[]"), int(port)) for host, _, port in (part.rpartition(":") for part in parts)
        )
