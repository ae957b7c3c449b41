"""A small container registry on loopback: pull and push, authentication and faults on request."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from envbuild.oci.digest import digest_bytes
from envbuild.oci.manifest import OCI_INDEX

_MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
_REFERRERS = re.compile(r"/v2/(.+)/referrers/(sha256:[0-9a-f]{64})")
_TAGS = re.compile(r"/v2/(.+)/tags/list")
_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([^/]*)")


@dataclass
class Registry:
    """State and behaviour; change the fields while it runs."""

    host: str = ""
    """``127.0.0.1:PORT``."""
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    """By repository and tag or digest: media type and bytes."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    auth: str = "none"
    """``none``, ``basic`` or ``token``."""
    user: tuple[str, str] | None = None
    """With ``token``: None for anonymous tokens."""
    faults: list[int] = field(default_factory=list)
    """Statuses of the next answers, in turn."""
    truncate: int = 0
    """How many of the next blob answers break off half-way."""
    redirect: str = ""
    """Base address that blobs are redirected to."""
    referrers: bool = False
    """Whether it keeps a list of referrers (distribution-spec 1.1), in pages of one."""
    refused_types: tuple[str, ...] = ()
    """Artifact types that it takes no manifest of."""
    unknown_blobs: int = 0
    """How many of the next manifests are refused, as one of their blobs isn't known."""
    deletes: bool = True
    """Whether manifests may be deleted."""
    ranges: bool = True
    """Whether a part of a blob can be asked for."""
    states_digests: bool = False
    """Whether ``Docker-Content-Digest`` comes with a manifest."""
    uploads: dict[str, bytearray] = field(default_factory=dict)
    """What has come of each upload, by its number."""
    upload_base: str = ""
    upload_query: str = ""
    """What stands before and after the path of an upload's address."""
    cut_after: list[int] = field(default_factory=list)
    """Of the next bodies of uploads: bytes that are read before the connection breaks."""
    largest: int | None = None
    """Bytes of a body; a larger one is refused with 413."""
    lent: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """What can be mounted: repository and digest to bytes."""
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    """Method, path and headers (lower-case) of all requests."""

    def put_manifest(self, repository: str, tag: str, media_type: str, content: bytes) -> str:
        digest = digest_bytes(content)
        for name in (tag, digest):
            self.manifests[repository, name] = (media_type, content)
        return digest

    def put_blob(self, content: bytes) -> str:
        digest = digest_bytes(content)
        self.blobs[digest] = content
        return digest

    def paths(self, method: str = "GET") -> list[str]:
        return [path for verb, path, _ in self.requests if verb == method]


@contextmanager
def serve(registry: Registry | None = None) -> Iterator[Registry]:
    """Runs the registry on a free port of loopback until the end of the context."""
    state = registry or Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _get(self, state)

        def do_HEAD(self) -> None:
            _get(self, state)

        def do_POST(self) -> None:
            _push(self, state)

        def do_DELETE(self) -> None:
            _delete(self, state)

        def do_PUT(self) -> None:
            _push(self, state)

        def do_PATCH(self) -> None:
            _push(self, state)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # A client that hangs up in the middle is what some tests are about.

    server = Server(("127.0.0.1", 0), Handler)
    state.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    content: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def _admitted(handler: BaseHTTPRequestHandler, state: Registry) -> bool:
    """Whether the request may go on; else it has been answered."""
    state.requests.append((handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}))
    if state.faults:
        _answer(handler, state.faults.pop(0))
        return False
    given = handler.headers.get("Authorization", "")
    if state.auth == "basic" and state.user and given != _basic(state.user):
        _answer(handler, 401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
        return False
    if state.auth == "token" and given != "Bearer good":
        realm = f'Bearer realm="http://{state.host}/token",service="registry",scope="repository:app:pull"'
        _answer(handler, 401, headers={"WWW-Authenticate": realm})
        return False
    return True


def _basic(user: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(user).encode()).decode()


def _get(handler: BaseHTTPRequestHandler, state: Registry) -> None:
    if urlsplit(handler.path).path == "/token":
        _token(handler, state)
        return
    if not _admitted(handler, state):
        return
    if handler.path == "/v2/":
        _answer(handler, 200, b"{}")
    elif match := _MANIFEST.fullmatch(handler.path):
        found = state.manifests.get((match[1], match[2]))
        if found is None:
            _answer(handler, 404)
        else:
            stated = {"Docker-Content-Digest": digest_bytes(found[1])} if state.states_digests else {}
            _answer(handler, 200, found[1], {"Content-Type": found[0], **stated})
    elif match := _BLOB.fullmatch(handler.path):
        _blob(handler, state, match[2])
    elif (match := _UPLOAD.fullmatch(urlsplit(handler.path).path)) and match[2] in state.uploads:
        _upload_status(handler, state, match[1], match[2])
    elif match := _TAGS.fullmatch(urlsplit(handler.path).path):
        tags = [name for repository, name in state.manifests if repository == match[1] and ":" not in name]
        _answer(handler, 200, json.dumps({"name": match[1], "tags": sorted(tags)}).encode())
    elif state.referrers and (match := _REFERRERS.fullmatch(urlsplit(handler.path).path)):
        _referrers(handler, state, match[1], match[2])
    else:
        _answer(handler, 404)


def _referrers(handler: BaseHTTPRequestHandler, state: Registry, repository: str, subject: str) -> None:
    """The page that the query asks for."""
    found = []
    for (name, target), (media_type, content) in state.manifests.items():
        document = json.loads(content)
        if name != repository or ":" not in target or document.get("subject", {}).get("digest") != subject:
            continue
        found.append(
            {
                "mediaType": media_type,
                "digest": target,
                "size": len(content),
                "artifactType": document["artifactType"],
                "annotations": document.get("annotations", {}),
            }
        )
    page = int(parse_qs(urlsplit(handler.path).query).get("page", ["0"])[0])
    headers = {"Content-Type": OCI_INDEX}
    if page + 1 < len(found):
        headers["Link"] = f'</v2/{repository}/referrers/{subject}?page={page + 1}>; rel="next"'
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[page : page + 1]}
    _answer(handler, 200, json.dumps(index).encode(), headers)


def _delete(handler: BaseHTTPRequestHandler, state: Registry) -> None:
    if not _admitted(handler, state):
        return
    match = _MANIFEST.fullmatch(handler.path)
    if not state.deletes:
        _answer(handler, 405)
    elif match is None or (match[1], match[2]) not in state.manifests:
        _answer(handler, 404)
    else:
        content = state.manifests[match[1], match[2]][1]
        for key in [
            key for key, manifest in state.manifests.items() if key[0] == match[1] and manifest[1] == content
        ]:
            del state.manifests[key]
        _answer(handler, 202)


def _blob(handler: BaseHTTPRequestHandler, state: Registry, digest: str) -> None:
    content = state.blobs.get(digest)
    if content is None:
        _answer(handler, 404)
        return
    if state.redirect:
        _answer(handler, 307, headers={"Location": f"{state.redirect}{handler.path}"})
        return
    span = re.fullmatch(r"bytes=([0-9]+)-", handler.headers.get("Range", ""))
    start = int(span[1]) if span and state.ranges else 0
    headers = {"Content-Type": "application/octet-stream"}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    content = content[start:]
    if state.truncate:
        state.truncate -= 1
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.close_connection = True
    else:
        _answer(handler, 206 if start else 200, content, headers)


def _token(handler: BaseHTTPRequestHandler, state: Registry) -> None:
    state.requests.append((handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}))
    if state.user and handler.headers.get("Authorization") != _basic(state.user):
        _answer(handler, 401)
        return
    _answer(handler, 200, json.dumps({"token": "good"}).encode())


def _push(handler: BaseHTTPRequestHandler, state: Registry) -> None:
    length = int(handler.headers.get("Content-Length") or 0)
    path = urlsplit(handler.path).path
    upload = handler.command in ("PUT", "PATCH") and _UPLOAD.fullmatch(path)
    if upload and length and state.cut_after:
        # What came stays; the connection breaks.
        state.uploads[upload[2]] += handler.rfile.read(state.cut_after.pop(0))
        _admitted(handler, state)
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return
    body = handler.rfile.read(length)
    if not _admitted(handler, state):
        return
    if handler.command == "POST" and (match := _UPLOAD.fullmatch(path)):
        _begin_upload(handler, state, match[1])
    elif upload:
        _go_on(handler, state, upload[1], upload[2], body)
    elif (match := _MANIFEST.fullmatch(path)) and _artifact_type(body) in state.refused_types:
        _answer(handler, 400)
    elif _MANIFEST.fullmatch(path) and state.unknown_blobs:
        state.unknown_blobs -= 1
        _answer(handler, 400, json.dumps({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}).encode())
    elif match := _MANIFEST.fullmatch(path):
        state.put_manifest(match[1], match[2], handler.headers.get("Content-Type", ""), body)
        _answer(handler, 201, headers={"Docker-Content-Digest": digest_bytes(body)})
    else:
        _answer(handler, 404)


def _begin_upload(handler: BaseHTTPRequestHandler, state: Registry, repository: str) -> None:
    query = parse_qs(urlsplit(handler.path).query)
    lent = (query.get("from", [""])[0], query.get("mount", [""])[0])
    if lent in state.lent:
        state.put_blob(state.lent[lent])
        _answer(handler, 201, headers={"Docker-Content-Digest": lent[1]})
        return
    number = str(len(state.uploads) + 1)
    state.uploads[number] = bytearray()
    _answer(handler, 202, headers={"Location": _upload_address(state, repository, number)})


def _upload_address(state: Registry, repository: str, number: str) -> str:
    return f"{state.upload_base}/v2/{repository}/blobs/uploads/{number}{state.upload_query}"


def _upload_status(handler: BaseHTTPRequestHandler, state: Registry, repository: str, number: str) -> None:
    last = max(len(state.uploads[number]) - 1, 0)
    location = _upload_address(state, repository, number)
    _answer(handler, 204, headers={"Range": f"0-{last}", "Location": location})


def _go_on(
    handler: BaseHTTPRequestHandler, state: Registry, repository: str, number: str, body: bytes
) -> None:
    """A PATCH, or the PUT that closes an upload, which may bring the rest."""
    query = parse_qs(urlsplit(handler.path).query)
    there = state.uploads[number]
    if state.largest is not None and len(body) > state.largest:
        _answer(handler, 413)
        return
    span = handler.headers.get("Content-Range", "")
    if handler.command == "PATCH" and span != f"{len(there)}-{len(there) + len(body) - 1}":
        _answer(handler, 416)
        return
    there += body
    if handler.command == "PATCH":
        last = max(len(there) - 1, 0)
        location = _upload_address(state, repository, number)
        _answer(handler, 202, headers={"Range": f"0-{last}", "Location": location})
    elif digest_bytes(bytes(there)) != query.get("digest", [""])[0]:
        _answer(handler, 400)
    else:
        state.put_blob(bytes(there))
        _answer(handler, 201)


def _artifact_type(content: bytes) -> str:
    return str(json.loads(content).get("artifactType", ""))
