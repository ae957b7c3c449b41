"""One request to a registry: authenticated, redirected with care, tried again where that can help."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from envbuild.errors import FetchError
from envbuild.http.connection import BrokenError, Connections, Response, Trust
from envbuild.http.policy import Retry, is_busy, is_loopback, retry_after
from envbuild.oci.reference import Reference
from envbuild.registry.base import RefusedError, UnreachableError
from envbuild.registry.errors import ERROR_LIMIT, complaints, refusal
from envbuild.registry.token import TOKEN_LIMIT, Scopes, Tokens

REDIRECTS = 5
Body = Callable[[], Iterator[bytes]]
"""Makes a body anew for every time it is sent."""


class StoppedError(Exception):
    """Another transfer's failure ended this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryCall:
    """A request. ``address`` is a path, or what a ``Location`` said; ``body`` needs a Content-Length."""

    reference: Reference
    method: str
    address: str
    what: str
    """For messages."""
    scopes: Scopes
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    good: tuple[int, ...] = (200,)
    once: bool = False
    """Not tried again where the registry is busy or the connection breaks: the caller knows better how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestPolicy:
    """What all requests of one client go by."""

    trust: Trust
    tokens: Tokens
    environ: Mapping[str, str]
    seconds: tuple[float, float]
    """To connect, and to wait for bytes."""
    retry: Retry
    sleep: Callable[[float], None]
    offline: bool


class RegistryTransport:
    """Makes requests. Thread safe. ``stop``: once set, nothing is begun or waited for any more."""

    def __init__(self, policy: RequestPolicy, schemes: dict[str, str] | None = None) -> None:
        """``schemes`` are those of registries that answered before."""
        self._policy = policy
        self._schemes: dict[str, str] = {} if schemes is None else schemes
        self._connections = Connections(policy.trust, policy.environ, policy.seconds)
        self.retry = policy.retry
        self.stop = threading.Event()

    def fork(self) -> RegistryTransport:
        """One with connections of its own, so that cutting these hits nothing else; the logins are shared."""
        return RegistryTransport(self._policy, self._schemes)

    def close(self) -> None:
        self._connections.close()

    def cut(self) -> None:
        """Ends all requests under way, in whichever thread; they raise ``StoppedError``."""
        self.stop.set()
        self._connections.cut()

    def pause(self, seconds: float) -> None:
        """Waits, but not for work that has been stopped."""
        if self._policy.sleep is time.sleep:
            self.stop.wait(seconds)
        else:
            self._policy.sleep(seconds)
        self.check()

    def check(self) -> None:
        """Raises ``StoppedError`` once the work has been stopped."""
        if self.stop.is_set():
            raise StoppedError

    def url(self, reference: Reference, address: str) -> str:
        """``address`` as the registry meant it."""
        registry = reference.registry
        return urljoin(f"{self._scheme(registry)}://{_host(registry)}/", address)

    @contextmanager
    def open(self, call: RegistryCall) -> Iterator[Response]:
        """The answer to ``call``, with one of its good statuses. Raises ``RefusedError`` for any other one,
        ``UnreachableError`` where no answer came, ``BrokenError`` where the body breaks off."""
        if self._policy.offline:
            raise FetchError(f"{call.what} is not in the store, and this is an offline run")
        failed = 0
        while True:
            self.check()
            began = False
            try:
                with self._answered(call) as response:
                    if response.status not in call.good:
                        error = self._refused(call, response)
                        failed += 1
                        after = retry_after(response.headers.get("retry-after"))
                        wait = self.retry.wait(failed, after) if is_busy(response.status) else None
                        if wait is None or call.once:
                            raise error
                    else:
                        began = True
                        yield response
                        return
            except BrokenError as error:
                self.check()
                if began:
                    raise
                failed += 1
                maybe = None if error.final or call.once else self.retry.wait(failed)
                if maybe is None:
                    raise self._unreachable(call, error, failed) from error
                wait = maybe
            self.pause(wait)

    @contextmanager
    def _answered(self, call: RegistryCall) -> Iterator[Response]:
        """The answer after authentication and redirects."""
        url = self._checked(call, self.url(call.reference, call.address))
        renewed = False
        for _ in range(REDIRECTS + 3):
            used = self._authorization(call, url)
            headers = {
                # Without it a proxy or server may compress; digests are of the bytes as they are.
                "Accept-Encoding": "identity",
                "User-Agent": "envbuild",
                **call.headers,
                **({"Authorization": used} if used else {}),
            }
            body = call.body() if call.body else b"" if call.method in ("POST", "PUT", "PATCH") else None
            with self._connections.exchange(call.method, url, headers, body) as response:
                status, location = response.status, response.headers.get("location")
                moved = status in (307, 308) or (status in (301, 302, 303) and call.method in ("GET", "HEAD"))
                if moved and location and status not in call.good:
                    url = self._checked(call, joined(url, location, call.what))
                    continue
                if status == 400 and self._speaks_tls(call, response):
                    url = self.url(call.reference, call.address)
                    continue
                challenge = response.headers.get("www-authenticate", "")
                if status == 401 and challenge and not renewed and self._own(call, url):
                    renewed = True
                else:
                    if self._own(call, url):
                        self._schemes.setdefault(call.reference.registry, urlsplit(url).scheme)
                    yield response
                    return
            # The connection is free again, for the token server may be the registry itself.
            self._policy.tokens.renewed(
                call.reference.registry,
                call.reference.repository,
                call.scopes,
                challenge,
                used,
                self._ask,
                call.what,
            )
        raise FetchError(f"{call.what}: more than {REDIRECTS} redirects")

    def _authorization(self, call: RegistryCall, url: str) -> str | None:
        if not self._own(call, url):
            return None
        reference = call.reference
        return self._policy.tokens.header(
            reference.registry, reference.repository, call.scopes, self._ask, call.what
        )

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[Response, bytes | None]:
        """A request to a token server, tried again as any other."""
        failed = 0
        while True:
            self.check()
            try:
                with self._connections.exchange(method, url, headers, body) as response:
                    content = response.read(TOKEN_LIMIT)
                failed += 1
                after = retry_after(response.headers.get("retry-after"))
                wait = self.retry.wait(failed, after) if is_busy(response.status) else None
                if wait is None:
                    return response, content
            except BrokenError as error:
                self.check()
                failed += 1
                maybe = None if error.final else self.retry.wait(failed)
                if maybe is None:
                    raise UnreachableError(
                        f"the token server {urlsplit(url).hostname} can't be reached: {error}"
                    ) from error
                wait = maybe
            self.pause(wait)

    def _scheme(self, registry: str) -> str:
        """HTTPS; for this machine itself plain HTTP, unless there is a certificate for it or it said so."""
        known = self._schemes.get(registry)
        if known is not None:
            return known
        own = is_loopback(urlsplit(f"//{registry}").hostname or "")
        return "http" if own and self._policy.trust.directory(registry) is None else "https"

    def _speaks_tls(self, call: RegistryCall, response: Response) -> bool:
        """Whether a registry on loopback, asked without TLS, answered that it wants TLS."""
        registry = call.reference.registry
        if registry in self._schemes or not response.url.startswith("http:") or call.body is not None:
            return False
        if not self._own(call, response.url):
            return False
        if call.method == "HEAD":
            # Why is only said in a body.
            with self._connections.exchange("GET", self.url(call.reference, "/v2/"), {}) as asked:
                content = asked.read(ERROR_LIMIT) or b""
        else:
            content = response.read(ERROR_LIMIT) or b""
        if b"HTTPS" not in content and b"SSL" not in content:
            return False
        self._schemes[registry] = "https"
        return True

    def _own(self, call: RegistryCall, url: str) -> bool:
        """Whether ``url`` is the registry itself, which may see credentials."""
        registry = call.reference.registry
        parts = urlsplit(url)
        return parts.netloc.lower() == _host(registry) and parts.scheme == self._scheme(registry)

    def _checked(self, call: RegistryCall, url: str) -> str:
        """``url`` if it is as safe as the registry's own address; raises ``FetchError``."""
        registry = call.reference.registry
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            parts, host = urlsplit(""), ""
        local = is_loopback(urlsplit(f"//{registry}").hostname or "")
        if parts.scheme == "http" and not local and parts.netloc.lower() == _host(registry):
            # A registry behind a proxy that ends TLS may not know that it is reached over HTTPS.
            return parts._replace(scheme="https").geturl()
        if parts.scheme == "https" and host and (local or not is_loopback(host)):
            return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        if parts.scheme == "http" and local and is_loopback(host):
            return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        where = f"{parts.scheme}://{host}"[:200] if host and host.isprintable() else "no address"
        raise FetchError(f"{call.what}: the registry redirects to {where}, which isn't safe")

    def _refused(self, call: RegistryCall, response: Response) -> RefusedError:
        try:
            body = response.read(ERROR_LIMIT) if call.method != "HEAD" else None
        except BrokenError:
            body = None
        registry, repository = call.reference.registry, call.reference.repository
        said = complaints(body, self._policy.tokens.secrets())
        error = refusal(
            response.status,
            call.what,
            registry,
            said,
            logged_in=self._policy.tokens.logged_in(registry, repository),
        )
        error.after = retry_after(response.headers.get("retry-after"))
        error.codes = frozenset(complaint.code.upper() for complaint in said)
        return error

    def _unreachable(self, call: RegistryCall, error: BrokenError, tries: int) -> UnreachableError:
        host = urlsplit(self.url(call.reference, call.address)).netloc.rpartition("@")[2]
        again = f"; tried {tries} times" if tries > 1 else ""
        return UnreachableError(
            f"{call.what}: {host} can't be reached: {error}{again}",
            hint="check the network, the proxy settings and, for a private registry, SSL_CERT_FILE",
        )


def joined(url: str, location: str, what: str) -> str:
    """The address that a ``Location`` means, which may be relative. Raises ``FetchError``."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchError(f"{what}: the registry points to what is no address") from error


def _host(registry: str) -> str:
    return "registry-1.docker.io" if registry == "docker.io" else registry
