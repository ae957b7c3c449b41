"""Reads images from registries and writes them there (OCI distribution-spec)."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from envbuild.digest import CHUNK, digest_bytes
from envbuild.errors import FetchError
from envbuild.progress import Progress
from envbuild.remote.auth import Credential, Credentials
from envbuild.remote.base import Manifest, Pushed, RefusedError, UnreachableError
from envbuild.remote.manifest import MANIFEST_LIMIT, Descriptor, media_type_of
from envbuild.remote.media import INDEXES, MANIFESTS, OCI_INDEX
from envbuild.remote.reference import Reference
from envbuild.store.content import Store, commit_file

if TYPE_CHECKING:
    import httpx

_TOKEN_LIMIT = 1 << 20
_TRIES = 3
_SECONDS = (15.0, 60.0)
"""For a connection, and for an answer or its next piece."""
_HURRIED_SECONDS = (3.0, 10.0)
_RETRIED = (408, 429, 500, 502, 503, 504)
_REDIRECTS = 5
_PAGES = 100
"""Of a list of tags or referrers."""
_NO_REFERRERS = (400, 404, 405, 406)
"""What registries without the referrers API answer to it."""
_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"')


class RegistryClient:
    """Reads from registries over HTTPS (plain HTTP for this machine itself only). A context manager.

    Tries three times, with back-off, where a registry is busy or the connection breaks. Credentials go
    to the registry and its token server, never to another host it redirects to. Every answer is bounded
    in size and checked against its digest. Raises ``FetchError``: what, where, why.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        credentials: Credentials,
        *,
        ca_bundle: Path | None = None,
        offline: bool = False,
        hurried: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``hurried``: asks once, and waits for seconds rather than a minute: for what is nice to know."""
        self._tries = 1 if hurried else _TRIES
        self._seconds = _HURRIED_SECONDS if hurried else _SECONDS
        self._store = store
        self._progress = progress
        self._credentials = credentials
        self._ca_bundle = ca_bundle
        self._offline = offline
        self._sleep = sleep
        self._client: httpx.Client | None = None
        self._tokens: dict[tuple[str, str], str] = {}

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def manifest(self, reference: Reference, target: str | None = None) -> Manifest:
        """The manifest or index that ``reference`` names, or ``target``, another tag or digest there.

        It is in the store afterwards."""
        wanted = target or reference.target
        if wanted.startswith("sha256:") and self._store.has_blob(wanted):
            content = self._store.blob(wanted).read_bytes()
            if digest_bytes(content) == wanted:
                return Manifest(content=content, media_type=media_type_of(content), digest=wanted)
        what = f"{reference.name}{'@' if wanted.startswith('sha256:') else ':'}{wanted}"
        headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        path = f"/v2/{reference.repository}/manifests/{wanted}"
        content, answer = self._read(reference, path, headers, what, MANIFEST_LIMIT)
        digest = digest_bytes(content)
        if wanted.startswith("sha256:") and digest != wanted:
            raise FetchError(f"{what}: the registry sent other bytes, with the digest {digest}")
        claimed = answer.get("docker-content-digest")
        if claimed and claimed.startswith("sha256:") and claimed != digest:
            raise FetchError(f"{what}: the registry says {claimed} but sent bytes with the digest {digest}")
        media_type = answer.get("content-type", "").partition(";")[0].strip()
        if media_type not in (*INDEXES, *MANIFESTS):
            media_type = media_type_of(content)
        self._store.add_blob(content)
        return Manifest(content=content, media_type=media_type, digest=digest)

    def find_manifest(self, reference: Reference, target: str | None = None) -> Manifest | None:
        """As ``manifest``; None where the registry has no such repository, tag or digest."""
        try:
            return self.manifest(reference, target)
        except _AbsentError:
            return None

    def pull_blobs(self, reference: Reference, blobs: Sequence[Descriptor]) -> None:
        """All of ``blobs`` in the store and checked, several at once."""
        for blob in blobs:
            self.blob(reference, blob.digest, blob.size)

    def push_blobs(
        self,
        reference: Reference,
        blobs: Sequence[Descriptor],
        *,
        mount_from: Sequence[Reference] = (),
        fetch: Callable[[Descriptor], object] | None = None,
    ) -> Pushed:
        """Makes the repository have ``blobs``, which are in the store or which ``fetch`` brings there."""
        pushed = Pushed()
        for blob in blobs:
            pushed += self._push_blob(reference, blob, fetch)
        return pushed

    def _push_blob(
        self, reference: Reference, blob: Descriptor, fetch: Callable[[Descriptor], object] | None
    ) -> Pushed:
        what = f"{reference.name}@{blob.digest}"
        root = f"/v2/{reference.repository}/blobs"
        try:
            with self._open(reference, f"{root}/{blob.digest}", {}, what, method="HEAD"):
                return Pushed(present=blob.size)
        except _AbsentError:
            pass
        if fetch is not None:
            fetch(blob)
        with self._open(reference, f"{root}/uploads/", {}, what, method="POST") as response:
            location = urljoin(str(response.url), response.headers.get("location", ""))
        location += ("&" if "?" in location else "?") + f"digest={blob.digest.replace(':', '%3A')}"
        path = self._store.blob(blob.digest)
        with self._progress.task(
            "push", f"{reference.familiar} {blob.digest[7:19]}", total=blob.size
        ) as task:

            def pieces() -> Iterator[bytes]:
                with path.open("rb", buffering=0) as file:
                    while piece := file.read(CHUNK):
                        yield piece
                        task.advance(len(piece))

            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
            with self._open(reference, location, headers, what, method="PUT", body=pieces):
                return Pushed(sent=blob.size)

    def push_manifest(
        self, reference: Reference, content: bytes, media_type: str, target: str | None = None
    ) -> str:
        """Puts a manifest or index under ``target``, or what ``reference`` names, and returns its digest."""
        wanted = target or reference.target
        digest = digest_bytes(content)
        what = f"{reference.name}{'@' if wanted.startswith('sha256:') else ':'}{wanted}"
        path = f"/v2/{reference.repository}/manifests/{wanted}"
        try:
            accept = {"Accept": media_type}
            with self._open(reference, path, accept, what, method="HEAD") as response:
                if response.headers.get("docker-content-digest") == digest:
                    return digest
        except _AbsentError:
            pass
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        with self._open(
            reference, path, headers, what, method="PUT", body=lambda: iter([content])
        ) as response:
            claimed = response.headers.get("docker-content-digest")
        if claimed and claimed != digest:
            raise FetchError(f"{what}: the registry took the manifest as {claimed}, but it is {digest}")
        return digest

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the repository, sorted; empty where the registry doesn't know the repository."""
        found: set[str] = set()
        try:
            pages = self._pages(reference, f"/v2/{reference.repository}/tags/list?n=1000", {}, reference.name)
            for _, content in pages:
                found.update(str(each) for each in json.loads(content)["tags"] or ())
        except _AbsentError:
            return ()
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError(f"{reference.name}: the registry sent no list of tags") from error
        return tuple(sorted(found))

    def referrers(
        self, reference: Reference, digest: str, artifact_type: str | None = None
    ) -> tuple[bytes, ...] | None:
        """The registry's own list of what refers to ``digest``, page by page; None where it has no such
        list."""
        what = f"{reference.name}@{digest}"
        path = f"/v2/{reference.repository}/referrers/{digest}"
        if artifact_type is not None:
            path += f"?artifactType={quote(artifact_type, safe='')}"
        try:
            pages = list(self._pages(reference, path, {"Accept": OCI_INDEX}, what))
        except RefusedError as error:
            if error.status in _NO_REFERRERS:
                return None
            raise
        # Some registries answer what they don't know with a page for people.
        return tuple(content for _, content in pages) if pages[0][0] == OCI_INDEX else None

    def _pages(
        self, reference: Reference, path: str, headers: Mapping[str, str], what: str
    ) -> Iterator[tuple[str, bytes]]:
        """Media type and content of each page of a list, as ``Link`` headers lead from one to the next."""
        seen: set[str] = set()
        while path not in seen:
            if len(seen) == _PAGES:
                raise FetchError(f"{what}: the registry's list has more than {_PAGES} pages")
            seen.add(path)
            with self._open(reference, path, headers, what) as response:
                content = _bounded(response, MANIFEST_LIMIT, what)
                media_type = response.headers.get("content-type", "").partition(";")[0].strip()
                link = re.match(r'<([^>]+)>\s*;\s*rel="?next"?', response.headers.get("link", ""))
            yield media_type, content
            if link is None:
                return
            parts = urlsplit(urljoin(path, link[1]))
            path = f"{parts.path}?{parts.query}"

    def delete(self, reference: Reference, target: str) -> None:
        """Removes a manifest by digest, and with it all its tags."""
        what = f"{reference.name}@{target}"
        with self._open(
            reference, f"/v2/{reference.repository}/manifests/{target}", {}, what, method="DELETE"
        ):
            pass

    def blob(self, reference: Reference, digest: str, size: int) -> Path:
        """A blob of ``size`` bytes, streamed into the store and checked; at once where the store has it."""
        path = self._store.blob(digest)
        if path.is_file() and path.stat().st_size == size:
            return path
        what = f"{reference.name}@{digest}"
        address = f"/v2/{reference.repository}/blobs/{digest}"
        last: FetchError | None = None
        for attempt in range(self._tries):
            if attempt:
                self._sleep(float(2**attempt) / 2)
            try:
                self._stream_blob(reference, address, what, digest, size)
                return path
            except _BrokenStreamError as error:
                last = error
        raise FetchError(f"{last}; tried {self._tries} times") from last

    def _stream_blob(self, reference: Reference, address: str, what: str, digest: str, size: int) -> None:
        import httpx

        sha = hashlib.sha256()
        got = 0
        with (
            self._store.scratch() as scratch,
            self._progress.task("download", f"{reference.familiar} {digest[7:19]}", total=size) as task,
        ):
            part = scratch / "blob"
            try:
                with self._open(reference, address, {}, what) as response, part.open("wb") as sink:
                    for piece in response.iter_raw(1 << 20):
                        got += len(piece)
                        if got > size:
                            raise FetchError(f"{what}: the registry sends more than the {size} bytes it has")
                        sha.update(piece)
                        sink.write(piece)
                        task.advance(len(piece))
            except httpx.TransportError as error:
                raise _BrokenStreamError(
                    f"{what}: the transfer broke off after {got} bytes: {error}"
                ) from error
            if got != size:
                raise _BrokenStreamError(f"{what}: only {got} of {size} bytes came")
            if f"sha256:{sha.hexdigest()}" != digest:
                raise FetchError(f"{what}: the bytes that came have the digest sha256:{sha.hexdigest()}")
            commit_file(part, self._store.blob(digest))

    def _read(
        self, reference: Reference, path: str, headers: Mapping[str, str], what: str, limit: int
    ) -> tuple[bytes, Mapping[str, str]]:
        import httpx

        last = ""
        for attempt in range(self._tries):
            if attempt:
                self._sleep(float(2**attempt) / 2)
            try:
                with self._open(reference, path, headers, what) as response:
                    return _bounded(response, limit, what), dict(response.headers)
            except httpx.TransportError as error:
                last = str(error) or type(error).__name__
        raise FetchError(f"{what}: the transfer broke off: {last}; tried {self._tries} times")

    @contextmanager
    def _open(
        self,
        reference: Reference,
        path: str,
        headers: Mapping[str, str],
        what: str,
        *,
        method: str = "GET",
        body: Callable[[], Iterator[bytes]] | None = None,
    ) -> Iterator[httpx.Response]:
        """A successful response, not yet read, after authentication, redirects and retries."""
        registry = reference.registry
        url = urljoin(f"{_scheme(registry)}://{_host(registry)}", path)
        challenged = False
        tries = redirects = 0
        while True:
            response = self._send(method, url, {**headers, **self._authorization(reference, url)}, what, body)
            status = response.status_code
            if status in (301, 302, 303, 307, 308) and response.headers.get("location"):
                response.close()
                redirects += 1
                if redirects > _REDIRECTS:
                    raise FetchError(f"{what}: more than {_REDIRECTS} redirects")
                url = self._redirected(url, response.headers["location"], what)
                continue
            if status == 401 and not challenged and _same_host(url, registry):
                challenge = response.headers.get("www-authenticate", "")
                response.close()
                challenged = True
                self._authenticate(reference, challenge, what)
                continue
            if status in _RETRIED and tries < self._tries - 1:
                wait = _retry_after(response.headers.get("retry-after"), float(2**tries))
                response.close()
                tries += 1
                self._sleep(wait)
                continue
            break
        try:
            if status == 404:
                raise _AbsentError(
                    f"{what}: {registry} has no such image (HTTP 404)",
                    hint="check the name and the tag",
                    status=404,
                )
            if status not in (200, 201, 202, 204):
                raise _refusal(status, what, registry, self._credentials.find(registry, reference.repository))
            yield response
        finally:
            response.close()

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        what: str,
        body: Callable[[], Iterator[bytes]] | None,
    ) -> httpx.Response:
        import httpx

        if self._offline:
            raise FetchError(f"{what} is not in the store, and this is an offline run")
        client = self._http()
        last: Exception | None = None
        for attempt in range(self._tries):
            if attempt:
                self._sleep(float(2**attempt) / 2)
            try:
                # Without it a proxy or server may compress; digests are of the bytes as they are.
                request = client.build_request(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", **headers},
                    content=body() if body else None,
                )
                return client.send(request, stream=True)
            except httpx.TransportError as error:
                last = error
                if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error):
                    break
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise UnreachableError(
            f"{what}: {host} can't be reached: {last}",
            hint="check the network, the proxy settings and, for a private registry, SSL_CERT_FILE",
        ) from last

    def _http(self) -> httpx.Client:
        if self._client is None:
            import httpx

            verify: ssl.SSLContext | bool = True
            if self._ca_bundle is not None:
                verify = ssl.create_default_context(cafile=str(self._ca_bundle))
            connect, answer = self._seconds
            self._client = httpx.Client(
                timeout=httpx.Timeout(answer, connect=connect), verify=verify, follow_redirects=False
            )
        return self._client

    def _redirected(self, url: str, location: str, what: str) -> str:
        target = urljoin(url, location)
        parts = urlsplit(target)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise FetchError(
                f"{what}: the registry redirects to {parts.scheme}://{parts.hostname}, which isn't safe"
            )
        return target

    def _authorization(self, reference: Reference, url: str) -> dict[str, str]:
        if not _same_host(url, reference.registry):
            return {}
        value = self._tokens.get((reference.registry, reference.repository))
        return {"Authorization": value} if value else {}

    def _authenticate(self, reference: Reference, challenge: str, what: str) -> None:
        """Answers a ``WWW-Authenticate`` challenge; keeps the header value for the repository."""
        registry, repository = reference.registry, reference.repository
        credential = self._credentials.find(registry, repository)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if credential is None or not credential.username:
                raise _refusal(401, what, registry, None)
            self._tokens[registry, repository] = credential.basic
        elif scheme.lower() == "bearer":
            token = self._token(dict(_PARAMETER.findall(rest)), repository, credential, what, registry)
            self._tokens[registry, repository] = f"Bearer {token}"
        else:
            raise FetchError(f"{what}: {registry} asks for an unknown authentication {scheme[:20]!r}")

    def _token(
        self,
        parameters: Mapping[str, str],
        repository: str,
        credential: Credential | None,
        what: str,
        registry: str,
    ) -> str:
        """A bearer token from the server that the challenge names (distribution's token authentication)."""
        realm = urlsplit(parameters.get("realm", ""))
        if realm.scheme != "https" and not (realm.scheme == "http" and is_loopback(realm.hostname or "")):
            raise FetchError(f"{what}: {registry} names a token server that isn't reached over HTTPS")
        query = {"scope": parameters.get("scope") or f"repository:{repository}:pull"}
        if parameters.get("service"):
            query["service"] = parameters["service"]
        import httpx

        client = self._http()
        url = httpx.URL(parameters["realm"]).copy_merge_params(query)
        try:
            if credential is not None and credential.identity_token:
                form = {
                    "grant_type": "refresh_token",
                    "refresh_token": credential.identity_token,
                    "client_id": "envbuild",
                    **query,
                }
                response = client.post(parameters["realm"], data=form)
            else:
                headers = {"Authorization": credential.basic} if credential else {}
                response = client.get(url, headers=headers)
        except httpx.TransportError as error:
            raise FetchError(
                f"{what}: the token server {realm.hostname} can't be reached: {error}"
            ) from error
        if response.status_code != 200:
            raise _refusal(response.status_code, what, registry, credential)
        if len(response.content) > _TOKEN_LIMIT:
            raise FetchError(f"{what}: the token server {realm.hostname} sent too much")
        try:
            answer = response.json()
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token or not token.isprintable():
            raise FetchError(f"{what}: the token server {realm.hostname} gave no token")
        return token


class _AbsentError(RefusedError):
    """The registry knows no such repository, tag or digest."""


class _BrokenStreamError(FetchError):
    """A transfer that may succeed when tried again."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host(registry: str) -> str:
    return "registry-1.docker.io" if registry == "docker.io" else registry


def _scheme(registry: str) -> str:
    return "http" if is_loopback(urlsplit(f"//{registry}").hostname or "") else "https"


def _same_host(url: str, registry: str) -> bool:
    parts = urlsplit(url)
    return parts.netloc == _host(registry) and parts.scheme == _scheme(registry)


def _retry_after(value: str | None, default: float) -> float:
    return min(float(value), 30.0) if value and value.isdigit() else default


def _bounded(response: httpx.Response, limit: int, what: str) -> bytes:
    content = bytearray()
    for piece in response.iter_raw(1 << 16):
        content += piece
        if len(content) > limit:
            raise FetchError(f"{what}: the manifest is larger than {limit} bytes")
    return bytes(content)


def _refusal(status: int, what: str, registry: str, credential: Credential | None) -> RefusedError:
    if status in (401, 403):
        who = "these credentials" if credential else "anonymous access"
        return RefusedError(
            f"{what}: {registry} refuses {who} (HTTP {status})",
            hint=f"check the name; log in with: docker login {registry}",
            status=status,
        )
    return RefusedError(f"{what}: {registry} answered HTTP {status}", hint="try again later", status=status)
