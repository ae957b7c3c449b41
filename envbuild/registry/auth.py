"""Credentials for registries, from where Docker and Podman keep them. Never in a message or a repr."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envbuild.errors import ResolveError

_log = logging.getLogger(__name__)

_DOCKER_HUB = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryLogin:
    """A user's name and password, or an identity token that stands for both."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class RegistryCredentials:
    """Looks credentials up per registry and repository.

    In this order: Docker's ``config.json`` in ``DOCKER_CONFIG`` or ``~/.docker`` (a helper of
    ``credHelpers``, ``credsStore``, then ``auths``), and the ``auth.json`` of Podman and skopeo
    (``REGISTRY_AUTH_FILE``, ``$XDG_RUNTIME_DIR/containers``, ``~/.config/containers``). A file that a
    variable names goes before Docker's default one.
    """

    def __init__(self, environ: Mapping[str, str], *, home: Path | None = None) -> None:
        self._environ = environ
        home = home or Path(environ.get("HOME") or "/")
        docker = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home / ".docker"
        self._files = [docker / "config.json"]
        if environ.get("REGISTRY_AUTH_FILE"):
            place = 1 if environ.get("DOCKER_CONFIG") else 0
            self._files.insert(place, Path(environ["REGISTRY_AUTH_FILE"]))
        if environ.get("XDG_RUNTIME_DIR"):
            self._files.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
        config = Path(environ["XDG_CONFIG_HOME"]) if environ.get("XDG_CONFIG_HOME") else home / ".config"
        self._files.append(config / "containers" / "auth.json")

    def find(self, registry: str, repository: str = "") -> RegistryLogin | None:
        """The credential for ``registry``, or None for anonymous access.

        Raises ``ResolveError`` for a file that can't be read as one, or a helper that fails."""
        for file in self._files:
            registry_login = self._from_file(file, registry, repository)
            if registry_login is not None:
                return registry_login
        return None

    def _from_file(self, file: Path, registry: str, repository: str) -> RegistryLogin | None:
        try:
            text = file.read_bytes()
        except OSError:
            return None
        try:
            document = json.loads(text)
            if not isinstance(document, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            # The parser's message may quote the text, and with it a password.
            raise ResolveError(f"{file} is not valid JSON", hint="mend it, or log in again") from error
        keys = _keys(registry, repository)
        helpers = _mapping(document.get("credHelpers"))
        for key in keys:
            if isinstance(helper := helpers.get(key), str):
                return self._from_helper(helper, key)
        if isinstance(store := document.get("credsStore"), str) and store:
            for key in keys if registry != "docker.io" else (_DOCKER_HUB,):
                if (registry_login := self._from_helper(store, key)) is not None:
                    return registry_login
        auths = _mapping(document.get("auths"))
        for key in keys:
            if (
                isinstance(entry := auths.get(key), dict)
                and (registry_login := _decode(entry, file, key)) is not None
            ):
                return registry_login
        return None

    def _from_helper(self, name: str, server: str) -> RegistryLogin | None:
        if not _HELPER.fullmatch(name):
            raise ResolveError(f"{name!r} is no name of a credential helper")
        program = f"docker-credential-{name}"
        try:
            done = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                timeout=_HELPER_SECONDS,
                env=dict(self._environ),
                check=False,
            )
        except FileNotFoundError as error:
            raise ResolveError(
                f"the credential helper {program} is not installed",
                hint="install it, or remove it from docker's config.json",
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ResolveError(f"the credential helper {program} failed: {type(error).__name__}") from error
        if done.returncode != 0:
            # The protocol says "not found" in words only; anything else is as good as anonymous access,
            # and the registry will say if that isn't enough.
            _log.debug("%s has nothing for %s (status %d)", program, server, done.returncode)
            return None
        try:
            answer = json.loads(done.stdout)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise ResolveError(f"the credential helper {program} gave no valid answer") from None
        if username == "<token>":
            return RegistryLogin(identity_token=secret)
        return RegistryLogin(username=username, password=secret)


def _keys(registry: str, repository: str) -> tuple[str, ...]:
    """Names an entry may have, the closest first: Podman's have paths, Docker's Hub has a URL."""
    keys = []
    parts = repository.split("/") if repository else []
    keys += ["/".join((registry, *parts[:count])) for count in range(len(parts), 0, -1)]
    if registry == "docker.io":
        keys += [_DOCKER_HUB, "docker.io", "index.docker.io", "registry-1.docker.io"]
    else:
        keys += [registry, f"https://{registry}", f"https://{registry}/", f"http://{registry}"]
        keys += [f"https://{registry}/v1/", f"https://{registry}/v2/"]
    return tuple(keys)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _decode(entry: Mapping[str, Any], file: Path, key: str) -> RegistryLogin | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return RegistryLogin(identity_token=token)
    if isinstance(entry.get("username"), str) and isinstance(entry.get("password"), str):
        return RegistryLogin(username=entry["username"], password=entry["password"])
    auth = entry.get("auth")
    if not isinstance(auth, str) or not auth:
        return None
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ResolveError(f"{file}: the entry for {key} is damaged", hint="log in again") from None
    return RegistryLogin(username=username, password=password.rstrip("\0"))
