"""Rules about how an image runs and serves: the server, its ports, the user, the day of its pins."""

from __future__ import annotations

from collections.abc import Iterator

from envbuild.lint.subject import Doubt, Subject
from envbuild.specs.serving import DEFAULTS, WANTED, promises

# What people serve models with besides Azure's own server.
_SERVERS = frozenset(
    {
        *("aiohttp", "bentoml", "cherrypy", "django", "falcon", "fastapi", "flask", "gradio", "granian"),
        *("gunicorn", "hypercorn", "kserve", "litestar", "litserve", "mlflow", "mlserver", "quart", "ray"),
        *("robyn", "sanic", "starlette", "streamlit", "torchserve", "tornado", "uvicorn", "vllm", "waitress"),
        *("azureml-inference-server-http", "ray-serve", "seldon-core", "tritonserver", "uwsgi", "mod-wsgi"),
    }
)
_FIRST_FREE_PORT = 1024


def no_server(subject: Subject) -> Iterator[Doubt]:
    """Of a user-managed environment the spec and the image are checked elsewhere, and refused."""
    if subject.spec.inference_config is None or not subject.installs:
        return
    asked = {requirement.name for requirement in subject.pip} | {
        dependency.match.name for dependency in subject.conda
    }
    served = _SERVERS & (asked | subject.pinned) or promises(
        requirement.item.text for requirement in subject.pip
    )
    if not served:
        old = ", and this azureml-defaults brings no server" if DEFAULTS in asked else ""
        yield Doubt(
            message=f"inference_config without a package that serves{old}",
            where=subject.places.key("inference_config"),
            hint=f"require {WANTED}, or the server of your own",
        )


def ports_apart(subject: Subject) -> Iterator[Doubt]:
    config = subject.spec.inference_config
    if config is None:
        return
    ports = (config.liveness_route.port, config.readiness_route.port, config.scoring_route.port)
    if len(set(ports)) > 1:
        yield Doubt(
            message="the routes are on different ports "
            f"(liveness {ports[0]}, readiness {ports[1]}, scoring {ports[2]})",
            where=subject.places.key("inference_config"),
            hint="one server answers all three on one port, unless yours is made of several",
        )


def privileged_port(subject: Subject) -> Iterator[Doubt]:
    config, user = subject.spec.inference_config, subject.spec.user
    if config is None or not user or _is_root(user):
        return
    routes = (config.liveness_route, config.readiness_route, config.scoring_route)
    for port in sorted({route.port for route in routes if route.port < _FIRST_FREE_PORT}):
        yield Doubt(
            message=f"port {port} is open to root alone on many machines, and the user is {user}",
            where=subject.places.key("inference_config"),
            hint="serve on a port from 1024 on, e.g. 5001",
        )


def root(subject: Subject) -> Iterator[Doubt]:
    if _is_root(subject.spec.user):
        yield Doubt(
            message="everything in the image runs as root",
            where=subject.places.key("user"),
            hint="leave user out: 1000:1000 is the default",
        )


def future(subject: Subject) -> Iterator[Doubt]:
    as_of = subject.spec.as_of
    if as_of is not None and as_of > subject.today:
        yield Doubt(
            message=f"as_of {as_of} is still to come: it bounds nothing, and each lock until then may differ",
            where=subject.places.key("as_of"),
            hint=f"name a day that has passed; today is {subject.today}",
        )


def _is_root(user: str) -> bool:
    return user.partition(":")[0] in ("0", "root")
