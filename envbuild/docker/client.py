"""A client of the Docker engine that the user's own ``docker`` command would talk to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from envbuild.docker.ssh import SshBridge
from envbuild.docker.stream import engine_errors
from envbuild.errors import BuildError, FetchError, causes
from envbuild.lazy import lazy
from envbuild.progress import Progress

if TYPE_CHECKING:
    import docker
    import requests
    from docker import transport as docker_transport
    from requests import adapters as requests_adapters
    from requests.adapters import BaseAdapter

    from envbuild.docker.ssh import SshBridge
else:
    docker = lazy("docker")
    docker_transport = lazy("docker.transport")
    requests = lazy("requests")
    requests_adapters = lazy("requests.adapters")

_PROBE_SECONDS = 5
_SSH_SECONDS = 20
"""The same over SSH, which may take ten seconds to connect (``docker_ssh``)."""
_CALL_SECONDS = 3600
"""An engine unpacks a large image for minutes without a word, so calls have this long; Ctrl-C ends them."""
_OLDEST_API = "1.24"
"""What the engine's version is asked with: the answer's own version is used then."""
_DEFAULT_HOST = "unix:///var/run/docker.sock"
_SSH_HINT = "ssh asks for nothing here: log in once by hand, with a key, and see that docker is there"
_BRIDGE = "ssh://"
"""Where a session keeps its way through ssh. Nothing is asked there; shorter than its other addresses, it is
closed last."""
_HINT = "start the Docker engine, or point DOCKER_HOST at one that runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class NoEngine:
    """Why there is no engine to talk to."""

    reason: str
    hint: str = _HINT


@dataclass(frozen=True, kw_only=True, slots=True)
class _Endpoint:
    host: str
    tls: Mapping[str, Any] | None = None
    origin: str = ""


def connect(environ: Mapping[str, str], *, home: Path | None = None) -> docker.DockerClient | NoEngine:
    """A client of an engine that has just answered, or why there is none; never raises for that.

    Looks where docker's command line does, in its order: ``DOCKER_HOST`` (with ``DOCKER_TLS_VERIFY`` and
    ``DOCKER_CERT_PATH``), the context ``DOCKER_CONTEXT`` or ``currentContext`` of ``config.json`` in
    ``DOCKER_CONFIG`` or ``~/.docker``, then the system's socket. The caller closes the client.
    """
    endpoint = _endpoint(environ, home or Path(environ.get("HOME") or "/"))
    if isinstance(endpoint, NoEngine):
        return endpoint
    socket = endpoint.host.removeprefix("unix://")
    if endpoint.host.startswith("unix://") and not Path(socket).exists():
        return NoEngine(
            reason=f"no Docker engine at {endpoint.host}{endpoint.origin}: there is no such socket"
        )

    if endpoint.host.startswith("ssh://"):
        return _over_ssh(endpoint, environ)
    return _connected(endpoint, endpoint.host, _PROBE_SECONDS)


def _connected(endpoint: _Endpoint, address: str, patience: int) -> docker.DockerClient | NoEngine:
    try:
        tls = docker.tls.TLSConfig(**endpoint.tls) if endpoint.tls is not None else False
        make = partial(docker.DockerClient, base_url=address, tls=tls)
        with closing(_own(make(version=_OLDEST_API, timeout=patience))) as probe:
            version = probe.api.version(api_version=False)["ApiVersion"]
        return _own(make(version=version, timeout=_CALL_SECONDS))
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        return NoEngine(reason=f"no Docker engine at {endpoint.host}{endpoint.origin}: {_cause(error)}")


def _over_ssh(endpoint: _Endpoint, environ: Mapping[str, str]) -> docker.DockerClient | NoEngine:
    """A client that takes its way through ssh down with it."""
    where = f"{endpoint.host}{endpoint.origin}"
    try:
        bridge = SshBridge(endpoint.host, environ)
    except (OSError, ValueError) as error:
        return NoEngine(reason=f"no Docker engine at {where}: {error}")
    try:
        docker_client = _connected(endpoint, bridge.address, _SSH_SECONDS)
    except BaseException:
        bridge.close()
        raise
    if isinstance(docker_client, NoEngine):
        reason = bridge.close()
        return (
            NoEngine(reason=f"no Docker engine at {where}: {reason}", hint=_SSH_HINT)
            if reason
            else docker_client
        )
    docker_client.api.mount("http+docker://", _one_pool(bridge.address, docker_client.api.timeout))
    docker_client.api.mount(_BRIDGE, _closing(bridge))
    return docker_client


def _one_pool(address: str, patience: int) -> BaseAdapter:
    """Connections that serve any call: the library keeps one for each URL, and here each is a login."""

    class OnePool(docker_transport.UnixHTTPAdapter):
        def get_connection(self, url: str | bytes, proxies: object = None) -> Any:
            return super().get_connection("http+docker://localhost", proxies)

    pool: BaseAdapter = OnePool(address.replace("unix://", "http+unix://"), timeout=patience)
    return pool


def _closing(bridge: SshBridge) -> requests_adapters.BaseAdapter:
    """What a session closes together with itself."""

    class Closing(requests_adapters.BaseAdapter):
        def close(self) -> None:
            bridge.close()

    return Closing()


def has_bridge(client: docker.DockerClient) -> bool:
    """Whether containers can have a network of their own; where not, they can share the host's."""
    return any(network["Name"] == "bridge" for network in client.api.networks())


def is_here(client: docker.DockerClient) -> bool:
    """Whether the engine is on this machine, as far as the way to it tells: a socket."""
    return client.api.base_url.startswith("http+docker://localhost") and _BRIDGE not in client.api.adapters


def _own(client: docker.DockerClient) -> docker.DockerClient:
    """The client, trusting the engine's own CA and no other.

    REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE would go before the CA of ``DOCKER_CERT_PATH`` (psf/requests#3829),
    and netrc's password would be sent to the engine. Proxies of the environment still count.
    """
    if client.api.base_url.startswith(("http://", "https://")):
        client.api.proxies.update(requests.utils.get_environ_proxies(client.api.base_url))
    client.api.trust_env = False
    return client


def _cause(error: BaseException) -> str:
    """The innermost reason: the SDK wraps the operating system's words three times."""
    *_, innermost = causes(error)
    return getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__


def _endpoint(environ: Mapping[str, str], home: Path) -> _Endpoint | NoEngine:
    config = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home / ".docker"
    if host := environ.get("DOCKER_HOST"):
        tls: dict[str, Any] | None = None
        if environ.get("DOCKER_TLS_VERIFY"):
            certificates = Path(environ.get("DOCKER_CERT_PATH") or config)
            tls = _tls(certificates, verify=True)
        return _Endpoint(host=host, tls=tls, origin=" (DOCKER_HOST)")
    name = environ.get("DOCKER_CONTEXT") or _current_context(config)
    if name and name != "default":
        return _context(config, name)
    if not Path(_DEFAULT_HOST.removeprefix("unix://")).exists():
        for directory in (Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent"), config / "run"):
            if (directory / "docker.sock").exists():
                return _Endpoint(host=f"unix://{directory / 'docker.sock'}")
    return _Endpoint(host=_DEFAULT_HOST)


def _current_context(config: Path) -> str | None:
    try:
        document = json.loads((config / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    name = document.get("currentContext") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None


def _context(config: Path, name: str) -> _Endpoint | NoEngine:
    key = hashlib.sha256(name.encode()).hexdigest()
    file = config / "contexts" / "meta" / key / "meta.json"
    try:
        docker_end = json.loads(file.read_bytes())["Endpoints"]["docker"]
        host = docker_end["Host"]
        verify = not docker_end.get("SkipTLSVerify", False)
        if not isinstance(host, str):
            raise TypeError("Host is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return NoEngine(
            reason=f"the Docker context {name!r} can't be read: {error}",
            hint="see docker context ls; docker context use default goes back to the local engine",
        )
    certificates = config / "contexts" / "tls" / key / "docker"
    tls = _tls(certificates, verify=verify) if certificates.is_dir() else None
    return _Endpoint(host=host, tls=tls, origin=f" (context {name})")


def _tls(certificates: Path, *, verify: bool) -> dict[str, Any]:
    ca, certificate, key = (certificates / file for file in ("ca.pem", "cert.pem", "key.pem"))
    return {
        "verify": verify,
        "ca_cert": str(ca) if ca.is_file() else None,
        "client_cert": (str(certificate), str(key)) if certificate.is_file() and key.is_file() else None,
    }


def save_image(environ: Mapping[str, str], name: str, file: Path, progress: Progress) -> None:
    """Writes the engine's image ``name`` (or id) to ``file``. Raises ``FetchError``."""
    client = connect(environ)
    if isinstance(client, NoEngine):
        raise FetchError(f"docker-daemon:{name}: {client.reason}", hint=client.hint)
    try:
        with engine_errors():
            inspect = cast(Callable[[str], Mapping[str, Any]], client.api.inspect_image)
            size = int(inspect(name).get("Size") or 0)
            pieces = cast(Iterator[bytes], client.api.get_image(name))
            with progress.task("import", "the image", total=size) as task, file.open("wb") as sink:
                for piece in pieces:
                    sink.write(piece)
                    task.advance(len(piece))
    except BuildError as error:
        raise FetchError(f"docker-daemon:{name}: {error.message}", hint=error.hint) from error
    finally:
        client.close()
