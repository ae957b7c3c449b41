"""Credentials of registries, token servers, helpers and proxies appear in nothing that is written or said."""

from __future__ import annotations

import base64
import json
import os
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from tests.fakes import registry_server, token_server
from tests.fakes.archive import Deb
from tests.fakes.fault_proxy import Fault, FaultProxy, Tunnel, proxy, tunnel
from tests.fakes.registry_server import WRITER, RegistryServer, needs_registry
from tests.fakes.token_server import TokenServer
from tests.fakes.wheelhouse import Wheel
from tests.integration.driver import Ended, Machine, a_world, demo
from tests.integration.registry import docker_config

pytestmark = [needs_registry()]

NAME = "registry.example"
HELPED = ("helped", "pw-of-helper-5a")
IDENTITY = "identity-token-3e"
PROXY = ("mole", "pw-of-proxy-8b")
SIGNING = "pw-of-signing-4c"


@dataclass(kw_only=True)
class Site:
    """A machine that knows three registries, each by a secret of another kind."""

    machine: Machine
    secure: RegistryServer
    """TLS and a password of docker's config, reached as ``NAME`` through a proxy with a password."""
    tokened: RegistryServer
    helped: FaultProxy
    """The way to ``tokened`` with what a credential helper says."""
    identified: FaultProxy
    """The way to ``tokened`` with an identity token."""
    tokens: TokenServer
    tunnel: Tunnel
    places: tuple[Path, ...] = ()
    checked: set[tuple[Path, int, int]] = field(default_factory=set)
    """Path, time and size of the files in which there was nothing."""

    def secrets(self) -> list[str]:
        passwords = [WRITER, HELPED, PROXY]
        found = [password for _, password in passwords] + [IDENTITY, SIGNING, *self.tokens.issued]
        found += [base64.b64encode(":".join(password).encode()).decode() for password in passwords]
        return found + [urllib.parse.quote(each, safe="") for each in found]

    def run(self, status: int, *arguments: str) -> Ended:
        """Runs the command, which must end so, and looks through all that it said and wrote."""
        done = self.machine.run(*arguments)
        assert done.status == status, done.stderr
        said = done.stdout + done.stderr
        secrets = self.secrets()
        assert [secret for secret in secrets if secret in said] == []
        forms = [secret.encode() for secret in secrets]
        for path in (path for place in self.places for path in place.rglob("*")):
            assert [secret for secret in secrets if secret in str(path)] == []
            if path.is_file() and not path.is_symlink():
                state = (path, path.stat().st_mtime_ns, path.stat().st_size)
                if state not in self.checked:
                    data = _unpacked(path.read_bytes())
                    assert [form for form in forms if form in data] == [], path
                    self.checked.add(state)
        return done


def _unpacked(data: bytes) -> bytes:
    """``data``, and what is packed in it, as far as it came."""
    found, rest = data, data
    while rest[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        found += member.decompress(rest)
        rest = member.unused_data
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    wheel = Wheel(name="alpha", files={"alpha/data.bin": bytes(range(256)) * 400})
    machine = a_world(tmp_path, [wheel], [Deb(name="tool", files=[("./usr/share/tool", b"1")])]).machine
    machine.write("envbuild.yaml", demo("alpha", packages=["tool"]))
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    tls = (tmp_path / "cert.pem", tmp_path / "key.pem")
    tls[0].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(tls[1]))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    rights = frozenset({"pull", "push"})
    state = TokenServer(users={HELPED[0]: (HELPED[1], rights)}, identities={IDENTITY: HELPED[0]})
    with (
        token_server.serve(state) as tokens,
        registry_server.serve(tmp_path / "secure", tls=tls, htpasswd=True) as secure,
        registry_server.serve(tmp_path / "tokened", tokens=tokens) as tokened,
        proxy(tokened.host) as helped,
        proxy(tokened.host) as identified,
        tunnel(secure.host) as led,
    ):
        config = docker_config(machine.home, {NAME: WRITER}, credHelpers={helped.host: "tests"})
        document = json.loads(config.read_text())
        document["auths"][identified.host] = {"identitytoken": IDENTITY}
        config.write_text(json.dumps(document))
        helper = tmp_path / "bin" / "docker-credential-tests"
        helper.parent.mkdir()
        answer = json.dumps({"Username": HELPED[0], "Secret": HELPED[1]})
        helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
        helper.chmod(0o755)
        machine.env.update(
            PATH=f"{helper.parent}:{os.environ['PATH']}",
            SSL_CERT_FILE=str(tmp_path / "ca.pem"),
            HTTPS_PROXY=f"http://{':'.join(PROXY)}@{led.host}",
        )
        yield Site(
            machine=machine,
            secure=secure,
            tokened=tokened,
            helped=helped,
            identified=identified,
            tokens=tokens,
            tunnel=led,
            places=(
                machine.project,
                machine.cache,
                machine.home / ".local",
                secure.storage,
                tokened.storage,
            ),
        )


def signing_key(path: Path) -> str:
    """A new key in a file, under the password ``SIGNING``."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    encryption = BestAvailableEncryption(SIGNING.encode())
    path.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    )
    return str(path)


def test_planted_secrets_appear_nowhere(site: Site) -> None:
    site.machine.env["ENVBUILD_SIGN_PASSWORD"] = SIGNING
    key = signing_key(site.machine.root / "key.pem.signing")
    repositories = (f"{NAME}/app", f"{site.helped.host}/app", f"{site.identified.host}/other")
    for repository in repositories:
        done = site.run(0, "build", "-vv", "--debug", "--push", repository, "--sign-key", key)
        assert done.reference.startswith(repository)
        tag = done.reference.partition("@")[0]
        site.run(0, "pull", "-vv", "--debug", tag, "--cache-dir", str(site.machine.project / "pulled"))
    assert min(len(site.secure.blobs()), len(site.tokened.blobs())) >= 5
    source = done.reference.partition("@")[0]
    site.run(0, "copy", "-vv", "--debug", source, f"{NAME}/copied:1")
    site.run(0, "push", "-vv", "--debug", source, f"{site.helped.host}/pushed:1")
    # All of them were needed.
    given = {authorization for _, authorization in site.tunnel.asked}
    assert given == {"Basic " + base64.b64encode(":".join(PROXY).encode()).decode()}
    assert len(site.tokens.issued) >= 2
    assert len(site.checked) > 100


def test_planted_secrets_appear_in_no_failure(site: Site) -> None:
    """The registry busy, refusing, away; other passwords than those it knows; a proxy that is away."""
    reference = site.run(0, "build", "-vv", "--push", f"{site.helped.host}/app").reference
    tag = reference.partition("@")[0]
    loud = ("-vv", "--debug")
    copy = ("copy", *loud, tag, f"{site.identified.host}/copied:1")
    pulled = ("pull", *loud, tag, "--cache-dir", str(site.machine.project / "pulled"))
    build = ("build", *loud, "--push", f"{site.identified.host}/failed")
    for kind, command in (("status", copy), ("status", build), ("cut in request", copy)):
        site.identified.break_next(Fault(kind=kind, method="PUT", status=403, times=None))
        site.run(7, *command)
    for kind in ("status", "corrupt answer"):
        site.helped.break_next(Fault(kind=kind, method="GET", path="/blobs/", status=400, times=None))
        site.run(6, *pulled)
    site.helped.break_next()
    site.tokens.faults = [400] * 1000
    site.run(6, *pulled)
    site.tokens.faults = []
    site.tokens.users[HELPED[0]] = ("another", frozenset())
    site.run(6, *pulled)
    site.run(7, "build", *loud, "--push", f"{site.helped.host}/refused")
    site.machine.env["HTTPS_PROXY"] = f"http://{':'.join(PROXY)}@127.0.0.1:9"
    site.run(7, "build", *loud, "--push", f"{NAME}/app")
    docker_config(site.machine.home, {NAME: (WRITER[0], PROXY[1])})
    site.machine.env["HTTPS_PROXY"] = f"http://{':'.join(PROXY)}@{site.tunnel.host}"
    site.run(7, "build", *loud, "--push", f"{NAME}/app")
