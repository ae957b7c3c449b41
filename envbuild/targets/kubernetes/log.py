"""A pod's log over broken connections: every line once, in order.

The API gives a log from a time on, in whole seconds at best, and stamps each line with its time to the
nanosecond. So a log is asked for from a little earlier, and what was seen is left out.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d)) ", re.ASCII)
_LONGEST_STAMP = 64

Stamp = tuple[datetime, int]
"""Time in whole seconds, UTC, and nanoseconds."""


class LogPosition:
    """How far a log was read. ``begin`` begins a connection, ``take`` gives what is new in it."""

    def __init__(self) -> None:
        self._last: Stamp | None = None
        """Of the last line that was begun."""
        self._seen = 0
        """Lines with that stamp, the last one included."""
        self._open: int | None = None
        """Bytes that were given of the last line; None: all of it."""
        self.begin()

    @property
    def time(self) -> datetime | None:
        """The last line's, in whole seconds; None: there was none."""
        return self._last[0] if self._last is not None else None

    def begin(self) -> None:
        """A connection begins, which may repeat what was read."""
        self._head = b""
        self._at_start = True
        self._repeated = self._last is not None
        self._again = 0
        self._foreign = False
        """Whether the line isn't the program's: what a node says in place of a log has no stamp."""
        self._skip = False
        self._drop = 0

    def take(self, data: bytes) -> bytes:
        """What ``data``, the next bytes of this connection, holds that no other has given; without stamps."""
        new = bytearray()
        data, self._head = self._head + data, b""
        while data:
            if self._at_start:
                match = _STAMP.match(data)
                stamp = _stamp(match) if match is not None else None
                if match is None and b"\n" not in data[:_LONGEST_STAMP] and len(data) < _LONGEST_STAMP:
                    self._head = data
                    break
                self._at_start = False
                self._begin_line(stamp)
                data = data[match.end() :] if match is not None and stamp is not None else data
            line, newline, data = data.partition(b"\n")
            self._add_piece(line + newline, new)
            if newline:
                self._at_start = True
                if not self._skip and not self._foreign:
                    self._open = None
        return bytes(new)

    def rest(self) -> bytes:
        """What was kept back at the end of a connection that brought the log's own end."""
        rest, self._head = self._head, b""
        return rest

    def _begin_line(self, stamp: Stamp | None) -> None:
        self._foreign, self._skip, self._drop = stamp is None, False, 0
        if stamp is None:
            return
        if self._repeated and self._last is not None:
            if stamp == self._last:
                self._again += 1
            known = stamp < self._last or (stamp == self._last and self._again <= self._seen)
            if known and stamp == self._last and self._again == self._seen and self._open is not None:
                self._repeated, self._drop = False, self._open
                return
            if known:
                self._skip = True
                return
            self._repeated = False
        self._seen = self._seen + 1 if stamp == self._last else 1
        self._last, self._open = stamp, 0

    def _add_piece(self, piece: bytes, new: bytearray) -> None:
        if self._skip:
            return
        dropped = min(self._drop, len(piece))
        self._drop -= dropped
        new += piece[dropped:]
        if self._open is not None and not self._foreign:
            self._open += len(piece) - dropped


def _stamp(match: re.Match[bytes]) -> Stamp | None:
    moment, fraction, sign, hours, minutes = (
        group.decode() if group is not None else "" for group in match.groups()
    )
    try:
        time = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            time = time - offset if sign == "+" else time + offset
    except (ValueError, OverflowError):
        return None
    return time, int(fraction.ljust(9, "0")) if fraction else 0
