"""Authorization per registry and scope: challenges answered, tokens fetched once and renewed.

Distribution's token authentication: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from envbuild.errors import FetchError
from envbuild.http.connection import Response
from envbuild.http.policy import is_loopback
from envbuild.registry.auth import RegistryCredentials, RegistryLogin
from envbuild.registry.errors import ERROR_LIMIT, complaints, refusal

TOKEN_LIMIT = 1 << 20
"""Bytes of an answer of a token server."""
_SCOPES = 16
_CHALLENGE = re.compile(r"(?:^|[\s,])(basic|bearer|[a-z]+)\s+(?=[a-z_-]+\s*=)", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

Ask = Callable[[str, str, Mapping[str, str], bytes | None], tuple[Response, bytes | None]]
"""Method, address, headers, body to the answer and its body, which is None where it is too long."""
Scopes = tuple[str, ...]
"""``repository:NAME:ACTION,…``, what a request needs."""


def scopes(repository: str, actions: str, mounted: Iterable[str] = ()) -> Scopes:
    """The scope for ``actions`` on a repository, and for reading those that blobs are ``mounted`` from."""
    return (f"repository:{repository}:{actions}", *(f"repository:{source}:pull" for source in mounted))


class Tokens:
    """The values of ``Authorization`` headers. Thread safe: a token that four uploads want is fetched once.

    A credential goes to its registry and to the token server that this registry names, nowhere else.
    """

    def __init__(self, credentials: RegistryCredentials) -> None:
        self._credentials = credentials
        self._lock = threading.RLock()
        self._values: dict[tuple[str, Scopes], str] = {}
        self._challenges: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._found: dict[tuple[str, str], RegistryLogin | None] = {}

    def credential(self, registry: str, repository: str) -> RegistryLogin | None:
        """The user's credential; helpers are asked once."""
        with self._lock:
            key = (registry, repository)
            if key not in self._found:
                self._found[key] = self._credentials.find(registry, repository)
            return self._found[key]

    def logged_in(self, registry: str, repository: str) -> bool:
        """Whether a credential was found when one was asked for."""
        with self._lock:
            return self._found.get((registry, repository)) is not None

    def secrets(self) -> tuple[str, ...]:
        """Everything that no message may hold."""
        with self._lock:
            secrets = [value.partition(" ")[2] for value in self._values.values()]
            for credential in self._found.values():
                if credential is not None:
                    secrets += [credential.password, credential.identity_token]
            return tuple(filter(None, secrets))

    def header(self, registry: str, repository: str, wanted: Scopes, ask: Ask, what: str) -> str | None:
        """The header for a request, None where the registry hasn't asked for one yet."""
        with self._lock:
            value = self._values.get((registry, wanted))
            if value is None and registry in self._challenges:
                value = self._answer(registry, repository, wanted, ask, what)
            return value

    def renewed(
        self,
        registry: str,
        repository: str,
        wanted: Scopes,
        challenge: str,
        used: str | None,
        ask: Ask,
        what: str,
    ) -> str:
        """A header that answers ``challenge``, which a request with the header ``used`` got."""
        with self._lock:
            value = self._values.get((registry, wanted))
            if value is not None and value != used:
                return value  # Another thread was faster.
            self._challenges[registry] = parse_challenge(challenge, f"{what}: {registry}")
            return self._answer(registry, repository, wanted, ask, what)

    def _answer(self, registry: str, repository: str, wanted: Scopes, ask: Ask, what: str) -> str:
        scheme, parameters = self._challenges[registry]
        credential = self.credential(registry, repository)
        if scheme == "basic":
            if credential is None or not credential.username:
                raise refusal(401, what, registry, logged_in=False)
            value = credential.basic
        else:
            value = f"Bearer {_token(parameters, wanted, credential, ask, what, registry, self.secrets())}"
        self._values[registry, wanted] = value
        return value


def parse_challenge(text: str, who: str) -> tuple[str, Mapping[str, str]]:
    """Scheme (``bearer`` before ``basic``, where there are both) and parameters of ``WWW-Authenticate``."""
    text = text[:8192]
    starts = list(_CHALLENGE.finditer(text))
    challenges: dict[str, dict[str, str]] = {}
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        parameters = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
            for name, quoted, bare in _PARAMETER.findall(text[start.end() : end])
        }
        challenges.setdefault(start[1].lower(), parameters)
    if text.strip().lower() == "basic":
        challenges["basic"] = {}
    for scheme in ("bearer", "basic"):
        if scheme in challenges:
            return scheme, challenges[scheme]
    name = text.split(None, 1)[0] if text.split() else ""
    raise FetchError(f"{who} asks for an unknown authentication {name[:20]!r}")


def merged(wanted: Scopes, stated: str) -> Scopes:
    """``wanted`` and what a challenge states besides, the actions of one resource in one scope."""
    actions: dict[str, list[str]] = {}
    for scope in (*wanted, *stated.split()[:_SCOPES]):
        resource, colon, names = scope.rpartition(":")
        if colon and len(scope) < 1024 and scope.isprintable():
            known = actions.setdefault(resource, [])
            known += [part for part in names.split(",") if part not in known]
    return tuple(f"{resource}:{','.join(names)}" for resource, names in actions.items())


def _token(
    parameters: Mapping[str, str],
    wanted: Scopes,
    credential: RegistryLogin | None,
    ask: Ask,
    what: str,
    registry: str,
    secrets: tuple[str, ...],
) -> str:
    address = parameters.get("realm", "")
    try:
        realm = urlsplit(address)
        host = realm.hostname or ""
    except ValueError:
        realm, host = urlsplit(""), ""
    own = is_loopback(urlsplit(f"//{registry}").hostname or "")
    if not host or (realm.scheme != "https" and not (realm.scheme == "http" and own and is_loopback(host))):
        raise FetchError(f"{what}: {registry} names a token server that isn't reached over HTTPS")
    # The scope of the challenge is for the request that got it; ours may differ, and another repository's
    # actions may be called otherwise than the specification says.
    asked = merged(wanted, parameters.get("scope", ""))
    service = parameters.get("service")
    headers = {"Accept": "application/json"}
    bare = realm._replace(netloc=realm.netloc.rpartition("@")[2], fragment="")
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credential.identity_token,
            "client_id": "envbuild",
            "scope": " ".join(asked),
            **({"service": service} if service else {}),
        }
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer, body = ask("POST", bare.geturl(), headers, urlencode(form).encode())
    else:
        query = [*parse_qsl(realm.query), *(("scope", scope) for scope in asked)]
        query += [("service", service)] if service else []
        if credential is not None:
            headers["Authorization"] = credential.basic
        answer, body = ask("GET", bare._replace(query=urlencode(query)).geturl(), headers, None)
    if answer.status != 200:
        said = complaints(body[:ERROR_LIMIT] if body else None, (*secrets,))
        raise refusal(answer.status, what, registry, said, logged_in=credential is not None)
    if body is None:
        raise FetchError(f"{what}: the token server {host} sent too much")
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise FetchError(f"{what}: the token server {host} gave no token")
    return token
