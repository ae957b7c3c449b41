"""When a request is tried again, and after how long: one policy for downloads and for registries."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_WAIT = 30.0
"""Seconds; a server's Retry-After beyond this is not waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often, and how patiently. ``first_wait`` is in seconds and doubles with every try."""

    tries: int = 3
    first_wait: float = 0.5

    def wait(self, failed: int, asked: float | None = None) -> float | None:
        """Seconds to wait once ``failed`` tries have failed, or None where those were enough. ``asked`` is
        what the server asked for."""
        if failed >= self.tries:
            return None
        return self.first_wait * 2 ** (failed - 1) if asked is None else asked


def is_busy(status: int) -> bool:
    """Whether the same request may succeed later: a time-out, too many requests, a failing server."""
    return status in (408, 429) or status >= 500


def retry_after(text: str | None) -> float | None:
    """The seconds of a ``Retry-After`` header, at the most ``LONGEST_WAIT``; None for none or a date."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(float(text), LONGEST_WAIT)
