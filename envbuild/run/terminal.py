"""The terminal of a command that has a session of its own, relayed to the caller's.

Whatever the command does to its terminal, the caller's takes no input from it: only we read and write
that one.

Where the caller has nothing else to do with his terminal (standard input and output are that) we read it from
the beginning. Else others may want what is typed (``envbuild run … | less``), or we are in the background.
Then the command is in the background of its own terminal: the kernel stops it when it wants to read or to
change that, and it goes on as soon as we may read the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Any

from envbuild.run.launcher import BACKGROUND, FOREGROUND
from envbuild.run.signals import handling, stop

_PIECE = 1 << 16
_PENDING = 1 << 20
"""Bytes; more than the kernel keeps of what was written to a terminal and not read yet."""
_INPUT_FLAGS, _OUTPUT_FLAGS, _LOCAL_FLAGS = 0, 1, 3
"""Their indices among a terminal's attributes."""


def terminal_streams() -> tuple[int, ...]:
    """Those of standard input, output and error that are terminals."""
    return tuple(stream for stream in (0, 1, 2) if os.isatty(stream))


class TerminalRelay:
    """Between the caller's terminal on ``streams`` and the one that the launcher makes for its command.

    ``control`` is the launcher's socket: over it come the new terminal and, as one byte, the signal that the
    command was stopped by; each is answered by who has the terminal then."""

    def __init__(self, streams: Sequence[int], control: socket.socket) -> None:
        self._control = control
        self._source = streams[0]
        self._sink = next(stream for stream in (1, 2, 0) if stream in streams)
        self._alone = 0 in streams and 1 in streams
        self._output_is_ours = 1 in streams
        self._master: int | None = None
        self._original: list[Any] | None = None
        """The attributes of the caller's terminal as it was in the foreground first."""
        self._before: list[Any] | None = None
        """The attributes of the caller's terminal while we read it, to be put back."""
        self._incoming = b""
        self._outgoing = b""
        self._return = b""

    def run(self) -> None:
        """Returns when the launcher has ended and all that the command wrote is written."""
        with (
            handling(self._resize, signal.SIGWINCH),
            handling(self._handle_continue, signal.SIGCONT),
        ):
            try:
                if self._receive_terminal():
                    while self._relay_once():
                        pass
                    self._drain_output()
            finally:
                self._restore_terminal()
                self._hang_up()

    def _receive_terminal(self) -> bool:
        """Whether the launcher came as far as to make the terminal."""
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not message:
            return False
        self._master = descriptors[0]
        os.set_inheritable(self._master, False)
        os.set_blocking(self._master, False)
        self._resize()
        foreground = self._in_foreground()
        if foreground:
            # In the background they are a shell's, which edits its next line.
            self._copy_attributes()
        self._send_answer(self._alone and foreground)
        return True

    def _relay_once(self) -> bool:
        """Moves what can be moved, after waiting for that; False where the launcher has ended."""
        wanted = {self._control.fileno(): select.POLLIN}
        if self._outgoing:
            wanted[self._sink] = select.POLLOUT
        if self._master is not None:
            reads = 0 if self._outgoing else select.POLLIN
            if reads or self._incoming:
                wanted[self._master] = reads | (select.POLLOUT if self._incoming else 0)
            if self._before is not None and not self._incoming:
                wanted[self._source] = wanted.get(self._source, 0) | select.POLLIN
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        ready = dict(poll.poll())
        if ready.get(self._sink) and self._outgoing:
            self._write_output()
        if ready.get(self._source, 0) & ~select.POLLOUT and self._before is not None and not self._incoming:
            self._read_keys()
        if self._master is not None and ready.get(self._master):
            self._pass_keys()
            if not self._outgoing:
                self._read_output()
        if ready.get(self._control.fileno()):
            try:
                message = self._control.recv(1)
            except ConnectionResetError:
                return False
            if not message:
                return False
            self._stop_with_command(message[0])
        return True

    # --- from the command ------------------------------------------------------------------------------

    def _read_output(self) -> bool:
        """Whether there was something."""
        if self._master is None:
            return False
        try:
            piece = os.read(self._master, _PIECE)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the other side any more.
            self._hang_up()
            return False
        self._outgoing = self._strip_returns(piece)
        return bool(piece)

    def _write_output(self) -> None:
        try:
            self._outgoing = self._outgoing[os.write(self._sink, self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._outgoing = b""
            if error.errno == errno.EIO:
                self._hang_up()

    def _drain_output(self) -> None:
        """Writes what the command has written so far."""
        written = 0
        while written < _PENDING:
            while self._outgoing:
                poll = select.poll()
                poll.register(self._sink, select.POLLOUT)
                poll.poll()
                self._write_output()
            if not self._read_output():
                break
            written += len(self._outgoing)
        self._outgoing, self._return = self._return, b""
        if self._outgoing:
            self._write_output()

    def _strip_returns(self, piece: bytes) -> bytes:
        """Where both terminals make CR LF of each LF, the first CR is taken away again."""
        piece = self._return + piece
        self._return = b""
        if self._master is None or not (_adds_returns(self._sink) and _adds_returns(self._master)):
            return piece
        if piece.endswith(b"\r"):
            piece, self._return = piece[:-1], b"\r"
        return piece.replace(b"\r\n", b"\n")

    # --- to the command --------------------------------------------------------------------------------

    def _read_keys(self) -> None:
        try:
            self._incoming = os.read(self._source, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._incoming = b""
        if not self._incoming:
            self._hang_up()

    def _pass_keys(self) -> None:
        if self._master is None or not self._incoming:
            return
        try:
            self._incoming = self._incoming[os.write(self._master, self._incoming) :]
        except BlockingIOError:
            pass
        except OSError:
            self._incoming = b""

    def _hang_up(self) -> None:
        """Takes the command's terminal away, as the caller's is gone: the kernel tells it by SIGHUP."""
        if self._master is not None:
            os.close(self._master)
            self._master = None
            self._incoming = b""

    # --- who has the caller's terminal -----------------------------------------------------------------

    def _in_foreground(self) -> bool:
        """Whether we may read the caller's terminal and change how it works."""
        try:
            return os.tcgetpgrp(self._source) == os.getpgrp()
        except OSError:
            return True  # It isn't the terminal of our session: nothing keeps us from it.

    def _take_terminal(self) -> None:
        """Reads keys as they are typed, from now on; the command's terminal says what they mean."""
        try:
            if self._original is None:
                self._copy_attributes()
            before = termios.tcgetattr(self._source)
            if not self._alone and not before[_LOCAL_FLAGS] & termios.ICANON:
                # Another one of us has it raw (``envbuild run … | envbuild run …``), and may end before.
                before = self._original or before
            tty.setraw(self._source, termios.TCSANOW)
            if not self._output_is_ours:
                # Who gets our standard output may write to the terminal.
                attributes = termios.tcgetattr(self._source)
                attributes[_OUTPUT_FLAGS] = before[_OUTPUT_FLAGS]
                termios.tcsetattr(self._source, termios.TCSANOW, attributes)
        except termios.error:
            self._hang_up()
            return
        if self._before is None:
            self._before = before

    def _restore_terminal(self) -> None:
        if self._before is not None:
            # A shell that has put us into the background has its own attributes there.
            if self._in_foreground():
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self._source, termios.TCSANOW, self._before)
            self._before = None

    def _stop_with_command(self, number: int) -> None:
        """Stops with the command, so that the caller's shell gets his terminal back and may continue us."""
        asks = number in (signal.SIGTTIN, signal.SIGTTOU)
        had = self._before is not None
        self._drain_output()  # As the caller's terminal is now.
        if not (asks and self._in_foreground()):
            self._restore_terminal()
            # What would stop us for good stops us as Ctrl-Z does: not where nobody could continue us.
            continued = stop(signal.SIGTSTP if number == signal.SIGSTOP else number, group=True)
            if asks and not continued:
                self._hang_up()  # It will never be ours.
        self._send_answer(self._in_foreground() and (asks or had or self._alone))

    def _send_answer(self, foreground: bool) -> None:
        if foreground and self._master is not None:
            self._take_terminal()
        with contextlib.suppress(OSError):
            self._control.send(FOREGROUND if foreground else BACKGROUND)

    # --- what changes about it -------------------------------------------------------------------------

    def _handle_continue(self, number: int, frame: FrameType | None) -> None:
        """Whoever stopped us may have changed the terminal, whatever the signal was."""
        if self._before is not None and self._in_foreground():
            self._take_terminal()
        self._resize()

    def _resize(self, number: int = 0, frame: FrameType | None = None) -> None:
        if self._master is not None:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(self._sink, termios.TIOCGWINSZ, bytes(8))
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _copy_attributes(self) -> None:
        if self._master is None:
            return
        with contextlib.suppress(termios.error):
            self._original = termios.tcgetattr(self._source)
            attributes = list(self._original)
            if not self._alone:
                # What is of now may be of another program: less, or one of us.
                attributes[_INPUT_FLAGS] |= termios.ICRNL | termios.IXON
                attributes[_OUTPUT_FLAGS] |= termios.OPOST | termios.ONLCR
                attributes[_LOCAL_FLAGS] |= termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN
            termios.tcsetattr(self._master, termios.TCSANOW, attributes)


def _adds_returns(terminal: int) -> bool:
    try:
        flags: int = termios.tcgetattr(terminal)[_OUTPUT_FLAGS]
    except termios.error:
        return False
    return flags & (termios.OPOST | termios.ONLCR) == termios.OPOST | termios.ONLCR
