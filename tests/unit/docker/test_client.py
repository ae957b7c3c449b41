"""Whom a client of a Docker engine trusts."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from envbuild.docker.client import NoEngine, connect


class Version(BaseHTTPRequestHandler):
    """An engine that knows its version only."""

    def do_GET(self) -> None:
        assert self.path == "/version"
        body = json.dumps({"ApiVersion": "1.44"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_engines_own_ca_counts_whatever_requests_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = HTTPServer(("127.0.0.1", 0), Version)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
        monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "other.pem"))
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        environ = {
            "DOCKER_HOST": f"tcp://127.0.0.1:{server.server_port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(tmp_path),
        }
        client = connect(environ)
        assert not isinstance(client, NoEngine)
        assert client.api.api_version == "1.44"
        client.close()
        (tmp_path / "other.pem").replace(tmp_path / "ca.pem")
        refused = connect(environ)
        assert isinstance(refused, NoEngine)
        assert "certificate" in refused.reason
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
