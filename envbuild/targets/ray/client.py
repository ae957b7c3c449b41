"""The dashboard of a Ray cluster over HTTP (Ray Jobs REST API)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from envbuild.lazy import lazy
from envbuild.targets.polling import ServiceRefusal, ServiceUnreachable

if TYPE_CHECKING:
    import httpx
else:
    httpx = lazy("httpx")

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_LARGEST = 64 << 20
"""Bytes of an answer: a job's whole log is one."""
_TEXT = 500
"""Characters of a complaint that are told."""
_FOR_A_MOMENT = (429, 502, 503, 504)


class RayDashboard:
    """A connection. Every method raises ``ServiceUnreachable`` or ``ServiceRefusal``."""

    def __init__(self, address: str, token: str | None) -> None:
        self.address = address
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        # Redirects aren't followed and no .netrc is read: the token goes to the address that was given.
        self._client = httpx.Client(
            base_url=address,
            headers=headers,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def version(self) -> str | None:
        """Of the cluster's Ray."""
        version = self._ask("GET", "/api/version").get("ray_version")
        return version if isinstance(version, str) else None

    def submit(self, body: dict[str, Any]) -> None:
        self._ask("POST", "/api/jobs/", json.dumps(body).encode(), {"Content-Type": "application/json"})

    def job(self, name: str) -> dict[str, Any]:
        return self._ask("GET", f"/api/jobs/{quote(name, safe='')}")

    def logs(self, name: str) -> str:
        """All that the job has printed."""
        text = self._ask("GET", f"/api/jobs/{quote(name, safe='')}/logs").get("logs")
        return text if isinstance(text, str) else ""

    def stop(self, name: str) -> None:
        self._ask("POST", f"/api/jobs/{quote(name, safe='')}/stop")

    def has_package(self, name: str) -> bool:
        try:
            self._ask("GET", f"/api/packages/gcs/{quote(name, safe='')}", plain=True)
        except ServiceRefusal as error:
            if error.status == 404:
                return False
            raise
        return True

    def put_package(self, name: str, content: bytes) -> None:
        self._ask("PUT", f"/api/packages/gcs/{quote(name, safe='')}", content, plain=True)

    def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        plain: bool = False,
    ) -> dict[str, Any]:
        try:
            with self._client.stream(method, path, content=content, headers=headers) as answer:
                data = bytearray()
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > _LARGEST:
                        raise ServiceRefusal(
                            f"the dashboard's answer to {path} is larger than {_LARGEST} bytes",
                            status=answer.status_code,
                        )
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnreachable(
                f"the dashboard {self.address} doesn't answer: {_reason(error)}"
            ) from error
        if status in _FOR_A_MOMENT:
            raise ServiceUnreachable(f"the dashboard {self.address} doesn't answer for now (HTTP {status})")
        if status >= 300:
            raise ServiceRefusal(
                f"the dashboard refuses {method} {path} (HTTP {status}): {_complaint(bytes(data))}",
                status=status,
                hint="see token-env of the target" if status in (401, 403) else None,
            )
        if plain:
            return {}
        try:
            document = json.loads(data)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ServiceRefusal(
                f"what {self.address} answers isn't Ray's: no dashboard is there", status=status
            )
        return document


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_TEXT]


def _complaint(data: bytes) -> str:
    """The last line that says something: Ray answers with a traceback."""
    lines = [line for line in data[-20_000:].decode(errors="replace").splitlines() if line.strip()]
    return "".join(line if line.isprintable() else "?" for line in (lines[-1] if lines else "no reason"))[
        :_TEXT
    ]
