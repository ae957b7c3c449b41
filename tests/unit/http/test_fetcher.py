"""Files and documents over HTTP(S) and from file: addresses."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from envbuild.errors import FetchError
from envbuild.http import fetcher as http_module
from envbuild.http.address import shown
from envbuild.http.base import Download, FilesError
from envbuild.http.fetcher import HttpFetcher
from envbuild.progress import Silent
from envbuild.settings import Settings
from envbuild.store.content import Store

BODY = b"the bytes of a file\n" * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """A server on loopback whose answers a test writes: path to a function of the request's headers and
    the number of the request to status, headers, body. A body longer than its Content-Length is cut off."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Mapping[str, str], int], tuple[int, dict[str, str], bytes]]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self.scheme = "http"
        self.phrase: str | None = None

    def url(self, path: str, host: str = "127.0.0.1", user: str = "") -> str:
        return f"{self.scheme}://{user}{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def always(
        self, path: str, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.answers[path] = lambda _h, _n: (status, headers or {}, body)


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            number = server.paths().count(self.path)
            server.requests.append((self.path, headers))
            missing: tuple[int, dict[str, str], bytes] = (404, {}, b"")
            answer = server.answers.get(self.path)
            status, extra, body = answer(headers, number) if answer else missing
            self.send_response(status, server.phrase)
            for name, value in {"Content-Length": str(len(body)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    listener = Quiet(("127.0.0.1", 0), Handler)
    if context is not None:
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        server.scheme = "https"
    server.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


class Fetching:
    def __init__(self, root: Path) -> None:
        self.store = Store(root / "store")
        self.waits: list[float] = []
        self.made: list[HttpFetcher] = []

    def __call__(
        self, *, offline: bool = False, environ: Mapping[str, str] | None = None, ca: Path | None = None
    ) -> HttpFetcher:
        fetcher = HttpFetcher(
            self.store,
            offline=offline,
            settings=Settings(cache_dir=self.store.root, ca_bundle=ca),
            progress=Silent(),
            sleep=self.waits.append,
            environ=environ or {"HOME": "/nonexistent"},
        )
        self.made.append(fetcher)
        return fetcher


@pytest.fixture
def fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetching]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Fetching(tmp_path)
    yield made
    for fetcher in made.made:
        fetcher.close()


def wanting(*urls: str, sha256: str = SHA256, size: int | None = len(BODY)) -> Download:
    return Download(what="a file", urls=urls, sha256=sha256, size=size)


def test_a_file_comes_once_and_then_from_the_store(server: Server, fetching: Fetching) -> None:
    server.always("/f", 200, body=BODY)
    fetcher = fetching()
    first = fetcher.files([wanting(server.url("/f")), wanting(server.url("/f"))])
    assert first == {SHA256: fetching.store.artifact(SHA256)}
    assert first[SHA256].read_bytes() == BODY
    assert fetcher.files([wanting(server.url("/f"))]) == first
    assert server.paths() == ["/f"]
    assert fetching(offline=True).files([wanting(server.url("/f"))]) == first
    first[SHA256].write_bytes(b"damaged")
    assert fetcher.files([wanting(server.url("/f"))])[SHA256].read_bytes() == BODY
    assert server.paths() == ["/f", "/f"]


def test_a_file_address_is_checked_like_any_other(tmp_path: Path, fetching: Fetching) -> None:
    path = tmp_path / "with space"
    path.write_bytes(BODY)
    assert fetching().files([wanting(path.as_uri())])[SHA256].read_bytes() == BODY
    with pytest.raises(FilesError, match="no such file") as caught:
        fetching().files([wanting((tmp_path / "none").as_uri(), sha256="0" * 64)])
    assert caught.value.failures[0].gone


def test_addresses_are_tried_in_order(server: Server, fetching: Fetching) -> None:
    server.always("/b", 200, body=b"wrong")
    server.always("/c", 200, body=BODY)
    urls = [server.url(path) for path in ("/a", "/b", "/c", "/d")]
    assert fetching().files([wanting(*urls)])[SHA256].read_bytes() == BODY
    assert server.paths() == ["/a", "/b", "/b", "/b", "/c"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_three_times(server: Server, fetching: Fetching, status: int) -> None:
    server.answers["/f"] = lambda _h, n: (200, {}, BODY) if n == 2 else (status, {}, b"")
    assert fetching().files([wanting(server.url("/f"))])[SHA256].is_file()
    assert fetching.waits == [0.5, 1.0]
    server.always("/g", status)
    with pytest.raises(FilesError) as caught:
        fetching().files([wanting(server.url("/g"), sha256="1" * 64)])
    assert caught.value.message.startswith(f"can't get a file from {server.url('/g')}: HTTP {status} ")
    assert caught.value.message.endswith(" (3 tries)")
    assert not caught.value.failures[0].gone


def test_a_server_may_say_how_long_to_wait(server: Server, fetching: Fetching) -> None:
    server.answers["/f"] = lambda _h, n: (200, {}, BODY) if n else (429, {"Retry-After": "7"}, b"")
    fetching().files([wanting(server.url("/f"))])
    assert fetching.waits == [7.0]


def test_a_truncated_download_is_tried_again_and_leaves_nothing(server: Server, fetching: Fetching) -> None:
    server.always("/f", 200, {"Content-Length": str(len(BODY))}, BODY[:500])
    with pytest.raises(FilesError, match="the connection ended before the answer did") as caught:
        fetching().files([wanting(server.url("/f"))])
    assert "(3 tries)" in caught.value.message
    assert not (fetching.store.root / "artifacts").exists()
    assert list((fetching.store.root / "scratch").iterdir()) == []


def test_wrong_bytes_are_refused_by_hash_and_by_size(server: Server, fetching: Fetching) -> None:
    other = BODY[:-1] + b"?"
    server.always("/f", 200, body=other)
    server.always("/long", 200, body=BODY + b"more")
    with pytest.raises(FilesError) as caught:
        fetching().files([wanting(server.url("/f")), wanting(server.url("/long"), sha256="2" * 64)])
    assert caught.value.message.splitlines() == [
        f"can't get a file from {server.url('/f')}: its SHA-256 is {hashlib.sha256(other).hexdigest()}, "
        f"but {SHA256} is pinned",
        f"can't get a file from {server.url('/long')}: more than the {len(BODY)} bytes that are pinned",
    ]
    assert server.paths().count("/f") == 1


def test_all_files_that_are_gone_are_named_together(server: Server, fetching: Fetching) -> None:
    downloads = [wanting(server.url(f"/{n}"), sha256=f"{n}" * 64) for n in range(4)]
    with pytest.raises(FilesError) as caught:
        fetching().files(downloads)
    assert [failure.gone for failure in caught.value.failures] == [True] * 4
    assert caught.value.message.count("HTTP 404 Not Found") == 4


def test_no_credential_is_ever_shown(
    server: Server, fetching: Fetching, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = "/t/tk-secret1/f?key=secret2"
    server.always(path, 500)
    with pytest.raises(FilesError) as caught:
        fetching().files([wanting(server.url(path, user="me:secret3@"))])
    assert f"{server.url('/t/***/f')}: HTTP 500" in caught.value.message
    own = [record.getMessage() for record in caplog.records if record.name.startswith("envbuild")]
    assert own
    assert "secret" not in caught.value.message + "".join(own)
    expected = "Basic " + base64.b64encode(b"me:secret3").decode()
    assert server.requests[0][1]["authorization"] == expected


def test_netrc_credentials_go_to_their_host_only(server: Server, fetching: Fetching, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pw\n")
    server.always("/f", 302, {"Location": server.url("/g", host="localhost")})
    server.always("/g", 200, body=BODY)
    fetching(environ={"NETRC": str(netrc)}).files([wanting(server.url("/f"))])
    assert [headers.get("authorization") for _, headers in server.requests] == ["Basic bWU6cHc=", None]


def test_credentials_in_an_address_are_dropped_on_the_way_to_another_host(
    server: Server, fetching: Fetching
) -> None:
    server.always("/f", 302, {"Location": "/same"})
    server.always("/same", 302, {"Location": server.url("/other", host="localhost")})
    server.always("/other", 200, body=BODY)
    fetching().files([wanting(server.url("/f", user="me:pw@"))])
    assert [("authorization" in headers) for _, headers in server.requests] == [True, True, False]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad"])
def test_a_redirect_stays_on_http(server: Server, fetching: Fetching, target: str) -> None:
    server.always("/f", 302, {"Location": target})
    with pytest.raises(FilesError, match="redirected"):
        fetching().files([wanting(server.url("/f"))])


def test_a_loop_of_redirects_ends(server: Server, fetching: Fetching) -> None:
    server.always("/f", 302, {"Location": "/f"})
    with pytest.raises(FilesError, match="more than 10 redirects"):
        fetching().files([wanting(server.url("/f"))])


def test_tls_is_checked_against_the_ca_bundle_and_never_left(
    server: Server, fetching: Fetching, tmp_path: Path
) -> None:
    import trustme

    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as secure:
        secure.always("/f", 200, body=BODY)
        secure.always("/down", 302, {"Location": server.url("/f")})
        with pytest.raises(FilesError, match="its TLS certificate is not trusted") as caught:
            fetching().files([wanting(secure.url("/f"))])
        assert caught.value.hint == "set SSL_CERT_FILE to your organisation's CA bundle"
        for fetcher in (
            fetching(ca=bundle),
            fetching(environ={"SSL_CERT_FILE": str(bundle)}),
            fetching(environ={"REQUESTS_CA_BUNDLE": str(bundle)}),
        ):
            assert fetcher.read(secure.url("/f"), limit=1 << 20) == BODY
        with pytest.raises(FilesError, match="redirected from https to http:"):
            fetching(ca=bundle).files([wanting(secure.url("/down"))])
    assert server.requests == []


def test_tls_that_ends_early_is_tried_again(fetching: Fetching) -> None:
    met: list[bytes] = []

    def hang_up() -> None:
        for _ in range(3):
            connection, _address = listener.accept()
            with connection:
                met.append(connection.recv(1 << 16)[:1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(FilesError, match=r"\(3 tries\)") as caught:
            fetching().read(f"https://127.0.0.1:{listener.getsockname()[1]}/f", limit=1)
        thread.join()
    assert met == [b"\x16"] * 3
    assert "check the network" in str(caught.value.hint)


def test_a_document_is_revalidated_and_kept_for_offline(server: Server, fetching: Fetching) -> None:
    def answer(headers: Mapping[str, str], number: int) -> tuple[int, dict[str, str], bytes]:
        if headers.get("if-none-match") == '"one"':
            return 304, {}, b""
        return 200, {"ETag": '"one"', "Last-Modified": "Fri, 20 Nov 2026 08:00:00 GMT"}, b"document"

    server.answers["/d"] = answer
    url = server.url("/d")
    assert [fetching().read(url, limit=100, cache=True) for _ in range(2)] == [b"document"] * 2
    assert server.requests[1][1]["if-modified-since"] == "Fri, 20 Nov 2026 08:00:00 GMT"
    assert fetching(offline=True).read(url, limit=100, cache=True) == b"document"
    assert len(server.requests) == 2
    with pytest.raises(FetchError, match=r"offline, and .* was never read before"):
        fetching(offline=True).read(server.url("/e"), limit=100, cache=True)
    (kept,) = (fetching.store.root / "metadata/http").iterdir()
    kept.write_bytes(kept.read_bytes() + b"!")
    assert fetching().read(url, limit=100, cache=True) == b"document"
    assert "if-none-match" not in server.requests[2][1]


def test_a_document_over_its_limit_is_refused(server: Server, fetching: Fetching) -> None:
    server.always("/d", 200, body=BODY)
    with pytest.raises(FetchError, match="more than the 1000 bytes it may have"):
        fetching().read(server.url("/d"), limit=1000)


def test_offline_names_what_is_missing(fetching: Fetching) -> None:
    with pytest.raises(FilesError, match="can't get a file from the store: not there, and this is offline"):
        fetching(offline=True).files([wanting("http://127.0.0.1:9/f")])


def test_an_unreachable_host_ends_the_whole_after_its_tries(fetching: Fetching) -> None:
    downloads = [wanting("http://127.0.0.1:9/f", sha256=f"{n:064x}") for n in range(200)]
    with pytest.raises(FilesError) as caught:
        fetching().files(downloads)
    assert 1 <= len(caught.value.failures) < 200
    assert "check the network" in str(caught.value.hint)


def test_a_full_disk_is_said_and_leaves_nothing(
    server: Server, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.always("/f", 200, body=BODY)

    class Full:
        """hashlib's place is where the error is raised: a real full disk can't be made without root."""

        def __getattr__(self, name: str) -> object:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(http_module, "hashlib", Full())
    with pytest.raises(FetchError, match=r"can't write to .*: No space left on device") as caught:
        fetching().files([wanting(server.url("/f"))])
    assert caught.value.hint == "free some space, or set ENVBUILD_CACHE_DIR to another disk"
    assert list((fetching.store.root / "scratch").iterdir()) == []


def test_a_proxy_is_asked_for_what_is_not_this_machine(server: Server, fetching: Fetching) -> None:
    server.always("http://outer.example/a%20b?c=%22&d=%7B", 200, body=BODY)
    server.always("/f", 200, body=BODY)
    fetcher = fetching(environ={"HOME": "/nonexistent", "HTTP_PROXY": server.url("", user="me:pw@")})
    assert fetcher.read('http://outer.example/a b?c="&d=%7B#part', limit=1 << 20) == BODY
    assert fetcher.read(server.url("/f"), limit=1 << 20) == BODY
    assert server.paths() == ["http://outer.example/a%20b?c=%22&d=%7B", "/f"]
    logins = [headers.get("proxy-authorization") for _, headers in server.requests]
    assert logins == ["Basic " + base64.b64encode(b"me:pw").decode(), None]


def test_an_address_is_asked_for_whole(server: Server, fetching: Fetching) -> None:
    server.always("/a;b=c?d=e;f", 200, body=BODY)
    server.always("/?x=1", 200, body=BODY)
    fetcher = fetching()
    assert fetcher.read(server.url("/a;b=c?d=e;f"), limit=1 << 20) == BODY
    assert fetcher.read(server.url("?x=1"), limit=1 << 20) == BODY
    assert {headers["host"] for _, headers in server.requests} == {f"127.0.0.1:{server.port}"}


def test_an_address_of_ipv6_or_of_the_usual_port_is_named_as_it_should(
    server: Server, fetching: Fetching
) -> None:
    server.always("http://2001:db8::1:8080/f", 200, body=BODY)
    server.always("http://outer.example/f", 200, body=BODY)
    fetcher = fetching(environ={"HOME": "/nonexistent", "http_proxy": server.url("", user="me:p%C3%A9@")})
    for address in ("http://[2001:db8::1]:8080/f", "http://outer.example:80/f"):
        assert fetcher.read(address, limit=1 << 20) == BODY
    assert [headers["host"] for _, headers in server.requests] == ["[2001:db8::1]:8080", "outer.example"]
    login = base64.b64encode("me:p\u00e9".encode()).decode()
    assert {headers["proxy-authorization"] for _, headers in server.requests} == {f"Basic {login}"}


def test_a_redirect_may_have_a_name_of_another_script(server: Server, fetching: Fetching) -> None:
    server.always("/f", 302, {"Location": "/\u00e9 b".encode().decode("latin-1")})
    server.always("/%C3%A9%20b", 200, body=BODY)
    assert fetching().read(server.url("/f"), limit=1 << 20) == BODY


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999/g", "http://127.0.0.1:x/g", "http://[::1/g"])
def test_an_address_that_is_none_ends_in_an_error(server: Server, fetching: Fetching, address: str) -> None:
    server.always("/f", 302, {"Location": address})
    for start in (address, server.url("/f")):
        with pytest.raises(FilesError, match=r"address|can't be read") as caught:
            fetching().read(start, limit=1)
        assert "tries" not in caught.value.message


def test_the_server_says_why_it_refuses(server: Server, fetching: Fetching) -> None:
    """As mirrors of organisations do, which keep packages back."""
    server.answers["/f"] = lambda _h, _n: (403, {}, b"")
    server.phrase = "Held back for review"
    with pytest.raises(FilesError, match=r"HTTP 403 Held back for review$"):
        fetching().read(server.url("/f"), limit=1)


def test_a_proxy_of_another_kind_is_refused(fetching: Fetching) -> None:
    fetcher = fetching(environ={"HOME": "/nonexistent", "ALL_PROXY": "socks5://127.0.0.1:1"})
    with pytest.raises(FetchError, match="the proxy settings can't be used") as caught:
        fetcher.read("https://outer.example/f", limit=1)
    assert caught.value.hint == "look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; http(s):// proxies work"


def test_a_name_of_another_script_is_written_in_ascii(server: Server, fetching: Fetching) -> None:
    server.always("http://xn--bcher-kva.example/%C3%A9", 200, body=BODY)
    fetcher = fetching(environ={"HOME": "/nonexistent", "HTTP_PROXY": server.url("")})
    assert fetcher.read("http://b\u00fccher.example/\u00e9", limit=1 << 20) == BODY
    with pytest.raises(FilesError, match="not a usable address"):
        fetcher.read("http://outer .example/f", limit=1)


def test_what_people_see_of_an_address() -> None:
    assert shown("https://u:p@h:8/a/t/x/b?q=1#f") == "https://h:8/a/t/***/b"
    assert shown("https://h/debian/pool/main/t/tar/tar.deb") == "https://h/debian/pool/main/t/tar/tar.deb"
    assert shown("file:///a b") == "file:///a b"
    assert shown("http://[") == "an address that can't be read"
