"""A token server on loopback, as distribution's token authentication has it; a registry trusts its key."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

ISSUER = "tokens of the tests"
SERVICE = "registry of the tests"
LEEWAY = 60
"""Seconds for which docker-registry believes a token that has expired."""


@dataclass(kw_only=True)
class TokenServer:
    """State and behaviour; change the fields while it runs."""

    url: str = ""
    users: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """By name: the password, and which of ``pull``, ``push``, ``delete`` are granted."""
    identities: dict[str, str] = field(default_factory=dict)
    """Identity tokens, and whose they are."""
    anonymous: frozenset[str] = frozenset()
    """What is granted to whom doesn't say who they are."""
    lifetime: float = 3600
    """Seconds for which the registry believes the tokens that are issued."""
    field_name: str = "token"
    """Azure's registry answers ``access_token``."""
    faults: list[int] = field(default_factory=list)
    """Statuses of the next answers, in turn."""
    asked: list[tuple[str | None, tuple[str, ...]]] = field(default_factory=list)
    """Who asked, by name, and for which scopes."""
    issued: list[str] = field(default_factory=list)
    _authority: trustme.CA = field(default_factory=trustme.CA, repr=False)
    _signer: trustme.LeafCert = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._signer = self._authority.issue_cert("tokens.example")

    @property
    def certificate(self) -> bytes:
        """What a registry's ``rootcertbundle`` holds."""
        return self._authority.cert_pem.bytes()

    def token(self, subject: str, scopes: Sequence[str], granted: frozenset[str]) -> str:
        """A signed token for what of ``scopes`` is granted (JWT, ES256)."""
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        now = time.time()
        pem = self._signer.cert_chain_pems[0].bytes().decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": ["".join(pem.strip().splitlines()[1:-1])]}
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "iat": int(now),
            "nbf": int(now) - 5,
            "exp": int(now + self.lifetime) - LEEWAY,
            "jti": secrets.token_hex(8),
            "access": [_access(scope, granted) for scope in scopes],
        }
        text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        key: Any = load_pem_private_key(self._signer.private_key_pem.bytes(), None)
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        r, s = decode_dss_signature(key.sign(text.encode(), ECDSA(SHA256())))
        return f"{text}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def answer(
        self, form: Mapping[str, Sequence[str]], authorization: str | None
    ) -> tuple[int, Mapping[str, object]]:
        """Status and document for a request with these parameters."""
        scopes = tuple(each for value in form.get("scope", ()) for each in value.split())
        who, granted = self._who(form, authorization)
        self.asked.append((who, scopes))
        if self.faults:
            return self.faults.pop(0), {"errors": []}
        if granted is None or form.get("service") != [SERVICE]:
            return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        token = self.token(who or "", scopes, granted)
        self.issued.append(token)
        return 200, {self.field_name: token, "expires_in": 300}

    def _who(
        self, form: Mapping[str, Sequence[str]], authorization: str | None
    ) -> tuple[str | None, frozenset[str] | None]:
        """Name and grants; no grants at all for whom it doesn't believe."""
        if identity := "".join(form.get("refresh_token", ())):
            name = self.identities.get(identity, "")
            return (name, self.users[name][1]) if name else (None, None)
        if authorization is None:
            return None, self.anonymous
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        known = self.users.get(name)
        return name, known[1] if known and known[0] == password else None


def _access(scope: str, granted: frozenset[str]) -> dict[str, object]:
    kind, name, actions = re.fullmatch(r"([a-z]+):(.+):([a-z,*]+)", scope).groups()  # type: ignore[union-attr]
    return {"type": kind, "name": name, "actions": sorted(set(actions.split(",")) & granted)}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def serve(state: TokenServer | None = None) -> Iterator[TokenServer]:
    """Runs the server on a free port of loopback until the end of the context."""
    tokens = state or TokenServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._say(parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._say(parse_qs(body.decode()))

        def _say(self, form: Mapping[str, Sequence[str]]) -> None:
            status, document = tokens.answer(form, self.headers.get("Authorization"))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tokens.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
