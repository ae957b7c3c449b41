"""Own downloads reach an index as pip is set up to: its CA, its client certificate, its proxy, its hosts."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from envbuild.compose.artifacts.wheel.files import WheelFiles
from envbuild.compose.artifacts.wheel.index import IndexLogins, PackageIndexes
from envbuild.errors import FetchError
from envbuild.http.connection import Trust
from envbuild.http.fetcher import HttpFetcher
from envbuild.lock.base import PipRequest, PipTarget
from envbuild.lock.pip.uv import UvResolver
from envbuild.plan.model import Artifact
from envbuild.platforms import LINUX_AMD64
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.specs.model import Origin, PipRequirement, PipSpec
from envbuild.store.content import Store
from tests.fakes.fault_proxy import Tunnel, tunnel
from tests.fakes.wheelhouse import Wheel

DEMO = Wheel(name="demo")
TARGET = PipTarget(platform=LINUX_AMD64, python="3.13.5", glibc="2.41")
INDEX = "https://index.test/simple"


@dataclass
class Company:
    """An index that wants a client certificate, and another host with its files, behind a proxy that wants a
    login. Neither name is known to this machine: who comes there came through the proxy."""

    root: Path
    way: Tunnel
    shown: dict[str, set[bool]] = field(default_factory=dict)
    """Of each host, whether it was shown a certificate."""

    @property
    def proxy(self) -> str:
        return f"http://me:s3cret@{self.way.host}"

    def fetch(self, options: Sequence[str] = (), **variables: str) -> dict[str, bytes]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy"):
            kept.pop(name, None)
        env = {
            **kept,
            "HOME": str(self.root),
            "XDG_CONFIG_DIRS": str(self.root),
            "UV_CACHE_DIR": str(self.root / "uv"),
            "UV_HTTP_RETRIES": "0",
            "UV_NO_CONFIG": "1",
            **variables,
        }
        spec = PipSpec(
            requirements=(PipRequirement(text="demo", origin=Origin(file="r.in")),), options=tuple(options)
        )
        (pin,) = UvResolver(env=env).resolve(PipRequest(spec=spec, target=TARGET))
        self.shown.clear()
        store = Store(self.root / "store")
        with HttpFetcher(
            store,
            offline=False,
            settings=Settings(cache_dir=store.root),
            progress=Silent(),
            environ=env,
            sleep=lambda _: None,
        ) as fetcher:
            files = WheelFiles(store, fetcher, PackageIndexes(env=env, options=tuple(options)))
            return {name: path.read_bytes() for name, path in files.fetch_files([Artifact.of(pin)]).items()}


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("me@company.test").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "me.pem")
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("index.test", "files.test").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    page = tmp_path / "site" / "simple" / "demo"
    page.mkdir(parents=True)
    (tmp_path / "site" / DEMO.file).write_bytes(DEMO.data())
    digest = hashlib.sha256(DEMO.data()).hexdigest()
    address = f"https://files.test/{DEMO.file}"
    (page / "index.html").write_text(f'<a href="{address}#sha256={digest}">{DEMO.file}</a>')
    shown: dict[str, set[bool]] = {}

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers["Host"]
            named = bool(self.connection.getpeercert())
            shown.setdefault(host, set()).add(named)
            if host == "index.test" and not named:
                self.send_error(403)
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "site"))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        with tunnel(f"127.0.0.1:{server.server_address[1]}") as way:
            yield Company(tmp_path, way, shown)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("place", ["variables", "file"])
def test_pips_ca_certificate_and_proxy_count(company: Company, place: str) -> None:
    root = company.root
    named = {
        "cert": root / "ca.pem",
        "client-cert": root / "me.pem",
        "proxy": company.proxy,
        "index-url": INDEX,
    }
    if place == "file":
        config = root / "pip.conf"
        config.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in named.items()))
        variables = {"PIP_CONFIG_FILE": str(config)}
    else:
        variables = {f"PIP_{key.upper().replace('-', '_')}": str(value) for key, value in named.items()}
        variables["PIP_CONFIG_FILE"] = os.devnull
    assert list(company.fetch(**variables).values()) == [DEMO.data()]
    # The certificate is for the index, not for whoever it names.
    assert company.shown["files.test"] == {False}
    assert ("files.test:443", "Basic bWU6czNjcmV0") in company.way.asked


def test_a_file_on_the_index_itself_is_shown_the_certificate(company: Company) -> None:
    page = company.root / "site" / "simple" / "demo" / "index.html"
    page.write_text(page.read_text().replace("files.test", "index.test"))
    variables = {"PIP_CERT": f"{company.root}/ca.pem", "PIP_CLIENT_CERT": f"{company.root}/me.pem"}
    variables |= {"PIP_PROXY": company.proxy, "PIP_CONFIG_FILE": os.devnull}
    answer = company.fetch([f"--index-url {INDEX}"], **variables)
    assert list(answer.values()) == [DEMO.data()]
    assert company.shown == {"index.test": {True}}


@pytest.mark.parametrize("place", ["pip", "line"])
def test_a_trusted_host_is_taken_without_its_ca_and_no_other(company: Company, place: str) -> None:
    variables = {"PIP_CLIENT_CERT": f"{company.root}/me.pem", "PIP_PROXY": company.proxy}
    variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": INDEX}
    options: Sequence[str] = ()
    if place == "pip":
        variables["PIP_TRUSTED_HOST"] = "index.test files.test"
    else:
        variables["PIP_TRUSTED_HOST"] = ""
        options = ("--trusted-host index.test", "--trusted-host files.test")
    assert list(company.fetch(options, **variables).values()) == [DEMO.data()]
    (company.root / "store").rename(company.root / "before")
    with pytest.raises(FetchError, match=r"files\.test/.*: its TLS certificate is not trusted"):
        company.fetch(["--trusted-host index.test"], **{**variables, "PIP_TRUSTED_HOST": ""})


def test_a_certificate_that_cannot_be_used_is_named_and_nothing_secret_is(
    company: Company, caplog: pytest.LogCaptureFixture
) -> None:
    page = company.root / "site" / "simple" / "demo" / "index.html"
    page.write_text(page.read_text().replace("files.test", "index.test"))
    variables = {"PIP_CERT": f"{company.root}/ca.pem", "PIP_CLIENT_CERT": f"{company.root}/me.pem"}
    variables |= {"PIP_PROXY": company.proxy, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": INDEX}
    indexes = PackageIndexes(env={**variables, "PIP_CLIENT_CERT": f"{company.root}/gone.pem"})
    access = IndexLogins(indexes).host_access()
    assert "s3cret" not in repr(access)
    with pytest.raises(FetchError) as raised, caplog.at_level(logging.DEBUG):
        Trust(None, {}, access=access).context("index.test")
    assert raised.value.message == (
        f"the client certificate {company.root}/gone.pem can't be used: No such file or directory"
    )
    assert "s3cret" not in caplog.text
