"""Reads images from registries and writes them there (OCI distribution-spec)."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote, urljoin, urlsplit

from envbuild.errors import FetchError
from envbuild.http.connection import BrokenError, Trust
from envbuild.http.policy import Retry
from envbuild.oci.digest import digest_bytes, is_digest
from envbuild.oci.manifest import INDEXES, MANIFEST_LIMIT, MANIFESTS, OCI_INDEX, Descriptor, media_type_of
from envbuild.oci.reference import Reference, is_tag
from envbuild.progress import Progress
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.base import Manifest, Pushed, RefusedError, UnreachableError
from envbuild.registry.download import Downloads
from envbuild.registry.errors import AbsentError
from envbuild.registry.token import Tokens, scopes
from envbuild.registry.transport import RegistryCall, RegistryTransport, RequestPolicy
from envbuild.registry.upload import Upload
from envbuild.store.content import Store

_SECONDS = (15.0, 60.0)
"""For a connection, and for an answer or its next piece."""
_HURRIED_SECONDS = (3.0, 10.0)
_PAGES = 100
"""Of a list of tags or referrers."""
_NO_REFERRERS = (400, 404, 405, 406)
"""What registries without the referrers API answer to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryOptions:
    """How a client asks registries."""

    ca_bundle: Path | None = None
    offline: bool = False
    hurried: bool = False
    """Asks once, and waits for seconds rather than a minute: for what is nice to know."""
    certificates: Sequence[Path] | None = None
    """Directories to look for ``HOST/ca.crt`` in, where those of Docker and Podman are not meant."""


class RegistryClient:
    """A :class:`envbuild.registry.base.Remote` over HTTPS (plain HTTP for this machine itself only). A
    context manager; thread safe.

    Tries three times, with back-off, where a registry is busy or the connection breaks. Credentials go
    to the registry and its token server, never to another host it redirects to. Every answer is bounded
    in size and checked against its digest. Raises ``FetchError``: what, where, why.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        credentials: RegistryCredentials,
        *,
        options: RegistryOptions | None = None,
        sleep: Callable[[float], None] = time.sleep,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """``environ`` has the proxies."""
        options = options or RegistryOptions()
        self._store = store
        self._progress = progress
        self._credentials = credentials
        self._ca_bundle = options.ca_bundle
        self._sleep = sleep
        self._offline = options.offline
        environ = os.environ if environ is None else environ
        self._downloads = Downloads(store, progress)
        self._transport = RegistryTransport(
            RequestPolicy(
                trust=Trust(
                    options.ca_bundle,
                    environ,
                    certificate_directories(environ)
                    if options.certificates is None
                    else options.certificates,
                ),
                tokens=Tokens(credentials),
                environ=environ,
                seconds=_HURRIED_SECONDS if options.hurried else _SECONDS,
                retry=Retry(tries=1 if options.hurried else 3),
                sleep=sleep,
                offline=options.offline,
            )
        )

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client may be used again and opens new ones."""
        self._transport.close()

    def manifest(self, reference: Reference, target: str | None = None) -> Manifest:
        """The manifest or index that ``reference`` names, or ``target``, another tag or digest there.

        It is in the store afterwards."""
        wanted = target or reference.target
        return self._stored_manifest(wanted) or self._fetch_manifest(reference, wanted)

    def find_manifest(self, reference: Reference, target: str | None = None) -> Manifest | None:
        """As ``manifest``; None where the registry has no such repository, tag or digest.

        The registry is asked even for what the store has, unless this is an offline run."""
        wanted = target or reference.target
        try:
            if (stored := self._stored_manifest(wanted)) is not None:
                if self._offline or self._head_manifest(reference, wanted, MANIFESTS + INDEXES) is not None:
                    return stored
                return None
            return self._fetch_manifest(reference, wanted)
        except AbsentError:
            return None

    def _stored_manifest(self, wanted: str) -> Manifest | None:
        if not is_digest(wanted) or not self._store.find_blob(wanted):
            return None
        content = self._store.blob(wanted).read_bytes()
        if digest_bytes(content) != wanted:
            return None
        return Manifest(content=content, media_type=media_type_of(content), digest=wanted)

    def _fetch_manifest(self, reference: Reference, wanted: str) -> Manifest:
        what = _what(reference, wanted)
        call = RegistryCall(
            reference=reference,
            method="GET",
            address=f"/v2/{reference.repository}/manifests/{wanted}",
            what=what,
            scopes=scopes(reference.repository, "pull"),
            headers={"Accept": ", ".join((*INDEXES, *MANIFESTS))},
        )
        content, answer = self._read(call)
        digest = digest_bytes(content)
        if is_digest(wanted) and digest != wanted:
            raise FetchError(f"{what}: the registry sent other bytes, with the digest {digest}")
        claimed = answer.get("docker-content-digest", "")
        if claimed.startswith("sha256:") and claimed != digest:
            raise FetchError(
                f"{what}: the registry says {claimed[:80]} but sent bytes with the digest {digest}"
            )
        media_type = answer.get("content-type", "").partition(";")[0].strip()
        if media_type not in (*INDEXES, *MANIFESTS):
            try:
                media_type = media_type_of(content)
            except FetchError as error:
                raise FetchError(f"{what}: {error.message}", hint=error.hint) from error
        self._store.add_blob(content)
        return Manifest(content=content, media_type=media_type, digest=digest)

    def _head_manifest(
        self, reference: Reference, wanted: str, accept: Sequence[str], actions: str = "pull"
    ) -> str | None:
        """The digest that the registry states for a manifest, empty where it states none; None where there is
        no such manifest."""
        call = RegistryCall(
            reference=reference,
            method="HEAD",
            address=f"/v2/{reference.repository}/manifests/{wanted}",
            what=_what(reference, wanted),
            scopes=scopes(reference.repository, actions),
            headers={"Accept": ", ".join(accept)},
        )
        try:
            with self._transport.open(call) as response:
                return response.headers.get("docker-content-digest", "")
        except AbsentError:
            return None

    def blob(self, reference: Reference, digest: str, size: int) -> Path:
        """A blob of ``size`` bytes, streamed into the store and checked; at once where the store has it."""
        return self._downloads.blob(self._transport, reference, digest, size)

    def pull_blobs(self, reference: Reference, blobs: Sequence[Descriptor]) -> None:
        """All of ``blobs`` in the store and checked, several at once."""

        def pull(transport: RegistryTransport, blob: Descriptor) -> Path:
            return self._downloads.blob(transport, reference, blob.digest, blob.size)

        concurrently(self._transport, _largest_first(blobs), pull)

    def push_blobs(
        self,
        reference: Reference,
        blobs: Sequence[Descriptor],
        *,
        mount_from: Sequence[Reference] = (),
        fetch: Callable[[Descriptor], object] | None = None,
    ) -> Pushed:
        """Makes the repository have ``blobs``, which are in the store or which ``fetch`` brings there."""
        lenders = list(
            dict.fromkeys(
                lender.repository
                for lender in mount_from
                if lender.registry == reference.registry and lender.repository != reference.repository
            )
        )

        def push(transport: RegistryTransport, blob: Descriptor) -> Pushed:
            path = self._store.blob(blob.digest)
            return Upload(transport, self._progress, reference, blob, path, lenders, fetch).run()

        ordered = _largest_first(blobs)
        # One goes ahead, and is the only one that the registry asks to log in.
        done = concurrently(self._transport, ordered[-1:], push)
        return sum(concurrently(self._transport, ordered[:-1], push), sum(done, Pushed()))

    def push_manifest(
        self, reference: Reference, content: bytes, media_type: str, target: str | None = None
    ) -> str:
        """Puts a manifest or index under ``target``, or what ``reference`` names, and returns its digest,
        which the registry has confirmed. Does nothing where the registry has these bytes under it."""
        wanted = target or reference.target
        digest = digest_bytes(content)
        what = _what(reference, wanted)
        if is_digest(wanted) and wanted != digest:
            raise FetchError(f"{what}: the manifest to be pushed has the digest {digest}")
        # The scope is that of the push, so that there is one token for both.
        if self._head_manifest(reference, wanted, (media_type,), "pull,push") == digest:
            return digest
        call = RegistryCall(
            reference=reference,
            method="PUT",
            address=f"/v2/{reference.repository}/manifests/{wanted}",
            what=what,
            scopes=scopes(reference.repository, "pull,push"),
            headers={"Content-Type": media_type, "Content-Length": str(len(content))},
            body=lambda: iter([content]),
            good=(200, 201, 202, 204),
        )
        claimed = self._put_manifest(call)
        if claimed and claimed != digest:
            raise FetchError(
                f"{what}: the registry took the manifest as {claimed[:80]!r}, but it is {digest}"
            )
        return digest

    def _put_manifest(self, call: RegistryCall) -> str:
        """The digest that the registry says it has it as.

        Where several push the same blobs at once, docker-registry writes its note of a blob again in place,
        and doesn't know the blob in that moment. So what was pushed a moment ago and isn't known is asked for
        again."""
        failed = 0
        while True:
            try:
                with self._transport.open(call) as response:
                    return response.headers.get("docker-content-digest", "")
            except RefusedError as error:
                failed += 1
                wait = self._transport.retry.wait(failed) if "MANIFEST_BLOB_UNKNOWN" in error.codes else None
                if wait is None:
                    raise
                self._transport.pause(wait)

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the repository, sorted; empty where the registry doesn't know the repository."""
        tags: set[str] = set()
        try:
            pages = self._pages(reference, f"/v2/{reference.repository}/tags/list?n=1000", {}, reference.name)
            for _, content in pages:
                # A name that is no tag can't be asked for, and would only do harm where it is shown.
                tags.update(tag for tag in json.loads(content)["tags"] or () if is_tag(tag))
        except AbsentError:
            return ()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FetchError(f"{reference.name}: the registry sent no list of tags") from error
        return tuple(sorted(tags))

    def referrers(
        self, reference: Reference, digest: str, artifact_type: str | None = None
    ) -> tuple[bytes, ...] | None:
        """The registry's own list of what refers to ``digest``, page by page; None where it has no such
        list."""
        what = _what(reference, digest)
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
            call = RegistryCall(
                reference=reference,
                method="GET",
                address=path,
                what=what,
                scopes=scopes(reference.repository, "pull"),
                headers=headers,
            )
            content, answer = self._read(call)
            yield answer.get("content-type", "").partition(";")[0].strip(), content
            link = re.match(r'<([^>]+)>\s*;\s*rel="?next"?', answer.get("link", ""))
            if link is None:
                return
            try:
                parts = urlsplit(urljoin(path, link[1]))
            except ValueError as error:
                raise FetchError(f"{what}: the registry's list goes on at no address") from error
            # One slash, as two would name another host.
            path = f"/{parts.path.lstrip('/')}?{parts.query}"

    def delete(self, reference: Reference, target: str) -> None:
        """Removes a manifest by digest, and with it all its tags."""
        what = _what(reference, target)
        if not is_digest(target):
            raise FetchError(f"{what}: only what a digest names can be removed")
        call = RegistryCall(
            reference=reference,
            method="DELETE",
            address=f"/v2/{reference.repository}/manifests/{target}",
            what=what,
            scopes=scopes(reference.repository, "pull,delete"),
            good=(200, 202, 204),
        )
        with self._transport.open(call):
            pass

    def _read(self, call: RegistryCall) -> tuple[bytes, Mapping[str, str]]:
        """The body of a manifest or a list, and the headers."""
        failed = 0
        while True:
            try:
                with self._transport.open(call) as response:
                    content = response.read(MANIFEST_LIMIT)
                if content is None:
                    raise FetchError(f"{call.what}: the manifest is larger than {MANIFEST_LIMIT} bytes")
                return content, response.headers
            except BrokenError as error:
                failed += 1
                wait = self._transport.retry.wait(failed)
                if wait is None:
                    raise UnreachableError(
                        f"{call.what}: the transfer broke off: {error}; tried {failed} times"
                    ) from error
                self._transport.pause(wait)


def certificate_directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where Docker and Podman look for a registry's certificates."""
    config = Path(environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME') or '/'}/.config")
    return (
        config / "containers" / "certs.d",
        config / "docker" / "certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def _what(reference: Reference, target: str) -> str:
    return f"{reference.name}{'@' if target.startswith('sha256:') else ':'}{target}"


def _largest_first(blobs: Sequence[Descriptor]) -> list[Descriptor]:
    """Each of ``blobs`` once; the last to end is then a small one."""
    return sorted({blob.digest: blob for blob in blobs}.values(), key=lambda blob: -blob.size)


AT_ONCE = 4
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def concurrently(
    transport: RegistryTransport, items: Sequence[_In], work: Callable[[RegistryTransport, _In], _Out]
) -> list[_Out]:
    """What ``work`` makes of each item, in their order, several at once.

    ``work`` is given a transport of this group's own. The first error, or an interrupt, cuts what the others
    have under way, and is what comes out here: not what the cutting made of them."""
    if not items:
        return []
    group = transport.fork()

    def run(item: _In) -> _Out:
        group.check()
        return work(group, item)

    try:
        with ThreadPoolExecutor(min(AT_ONCE, len(items)), thread_name_prefix="registry") as pool:
            jobs = [pool.submit(run, item) for item in items]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                # Nothing has been cut yet, so what failed by now failed by itself.
                failed = [job for job in jobs if job in done and job.exception() is not None]
                if failed:
                    failed[0].result()
            except BaseException:
                group.cut()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [job.result() for job in jobs]
    finally:
        group.close()
