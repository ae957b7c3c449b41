"""Byte code made by the image's own interpreter, without a daemon and without root.

The interpreter is started in the unpacked root file system (``unshare --map-root-user --root``) with a
small worker on its command line; sources go in and ``.pyc`` files come out through pipes, so nothing is
mounted and nothing is written. The results are ``checked-hash`` files (PEP 552), which hold no time and
notice a source that was patched, or ``unchecked-hash`` ones where the spec says so.

Equal bytes every time need a fresh interpreter for each call, a fixed environment and sorted input:
``marshal`` marks objects by their reference counts (cpython#98819), which anything run before would change.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from envbuild.errors import BuildError
from envbuild.lock.model import PythonPin

BYTECODE_FORMAT = 2
"""Raised whenever the worker would give other bytes for the same source and interpreter."""
_PATIENCE = 120.0
"""Seconds that any one file may take, however small, on a busy machine."""
_SLOWEST = 20_000
"""Bytes of source a second that even a slow machine compiles; a busy desktop reaches 2,000,000."""
_LARGEST = 512 << 20
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
_SKIPPED = 0xFFFFFFFF

_WORKER = r"""
import sys
sys.path[:] = [p for p in sys.path if p]
import gc, importlib.util, marshal, struct
gc.disable()
i, o = sys.stdin.buffer, sys.stdout.buffer
v = sys.implementation
hello = ("%s %d.%d.%d %s" % ((v.name,) + sys.version_info[:3] + (v.cache_tag,))).encode()
o.write(struct.pack(">I", len(hello)) + hello)
o.flush()
head = importlib.util.MAGIC_NUMBER + struct.pack("<I", int(sys.argv[1]))
while True:
    sizes = i.read(8)
    if len(sizes) != 8:
        break
    n, m = struct.unpack(">II", sizes)
    name = i.read(n).decode("utf-8", "surrogateescape")
    source = i.read(m)
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
        data = head + importlib.util.source_hash(source) + marshal.dumps(code)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        o.write(struct.pack(">I", 0xFFFFFFFF))
    else:
        o.write(struct.pack(">I", len(data)))
        o.write(data)
        del code, data
    o.flush()
    del name, source
"""


_CHECKED, _UNCHECKED = 3, 1
"""The flags of a hash-based pyc: whether an import compares the source's hash (PEP 552)."""


def bytecode_identity(version: str, *, checked: bool = True) -> str:
    """What byte code depends on besides the source and its path."""
    return f"cpython-{version}/{'checked' if checked else 'unchecked'}-hash-{BYTECODE_FORMAT}"


class RootfsCompiler:
    """A ``ByteCompiler`` that runs ``executable`` (absolute, in the image) of the tree ``rootfs``.

    ``version`` is the full one that is pinned; an interpreter that says otherwise is refused."""

    def __init__(
        self,
        rootfs: Path,
        executable: str,
        version: str,
        *,
        checked: bool = True,
        patience: float = _PATIENCE,
        unshare: str = "unshare",
    ) -> None:
        self.identity = bytecode_identity(version, checked=checked)
        self._flags = _CHECKED if checked else _UNCHECKED
        self._version = version
        self._patience = patience
        # Nothing is mounted, so the loader can't read in /proc where a program looks for libraries beside it.
        self._env = {**_ENVIRONMENT, "LD_ORIGIN_PATH": str(PurePosixPath(executable).parent)}
        self._argv = [unshare, "--map-root-user", f"--root={rootfs}", executable]

    def compile(self, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """See ``ByteCompiler``. Holds one file at a time. Raises ``BuildError`` if the interpreter can't
        start, crashes, hangs, or answers anything but byte code."""
        with tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    [*self._argv, "-S", "-s", "-B", "-W", "ignore", "-c", _WORKER, str(self._flags)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=self._env,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise BuildError(
                    f"can't start {self._argv[0]} to compile byte code: {error.strerror}",
                    hint="install util-linux, or lock with --no-bytecode",
                ) from error

            def complaint() -> str:
                stderr.seek(0)
                return stderr.read(20_000).decode("utf-8", "replace").strip()[-1500:]

            try:
                channel = _WorkerChannel(process, self._patience, complaint)
                tag = _check_version(channel, self._version)
                previous = ""
                for path, source in files:
                    if path <= previous:
                        raise ValueError(f"{path} comes after {previous}: byte code needs sorted sources")
                    previous = path
                    code = channel.compile_source(path, source)
                    if code is not None:
                        yield pyc_path(path, tag), code
                channel.end()
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        # Nothing is buffered: all reads and writes go to the descriptors themselves.
                        pipe.close()


class RootfsCompilers:
    """Makes compilers for the native engine."""

    def identity(self, python: PythonPin, *, checked: bool) -> str:
        return bytecode_identity(python.version, checked=checked)

    def __call__(self, python: PythonPin, rootfs: Path, *, checked: bool) -> RootfsCompiler:
        return RootfsCompiler(rootfs, python.executable, python.version, checked=checked)


def pyc_path(source: str, cache_tag: str) -> str:
    """Where the byte code of ``/a/b.py`` lies: ``/a/__pycache__/b.cpython-313.pyc``."""
    path = PurePosixPath(source)
    return str(path.parent / "__pycache__" / f"{path.stem}.{cache_tag}.pyc")


def _check_version(channel: _WorkerChannel, version: str) -> str:
    """The interpreter's cache tag, once it has said that it is the one that is pinned."""
    words = channel.read_frame("its start", 0, limit=200)
    parts = (words or b"").decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not parts[2].isascii() or "/" in parts[2]:
        raise channel.invalid_answer("its start")
    if parts[0] != "cpython" or parts[1] != version:
        raise BuildError(
            f"the image's interpreter says it is {parts[0]} {parts[1]}, the lock says cpython {version}",
            hint="lock again: envbuild lock --upgrade",
        )
    return parts[2]


class _WorkerChannel:
    """One question at a time to the worker, never waiting for longer than the size of it warrants."""

    def __init__(
        self, process: subprocess.Popen[bytes], patience: float, complaint: Callable[[], str]
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._in = process.stdin.fileno()
        self._out = process.stdout.fileno()
        self._patience = patience
        self._complaint = complaint
        os.set_blocking(self._in, False)

    def compile_source(self, path: str, source: bytes) -> bytes | None:
        """The file's byte code; None where it isn't valid Python."""
        name = path.encode("utf-8", "surrogateescape")
        deadline = self._deadline(len(source))
        self._write(struct.pack(">II", len(name), len(source)) + name, path, deadline)
        self._write(source, path, deadline)
        answer = self.read_frame(path, len(source), limit=_LARGEST)
        if answer is not None and len(answer) < 16:
            raise self.invalid_answer(path)
        return answer

    def read_frame(self, subject: str, size: int, *, limit: int) -> bytes | None:
        deadline = self._deadline(size)
        (length,) = struct.unpack(">I", self._read(4, subject, deadline))
        if length == _SKIPPED:
            return None
        if length > limit:
            raise self.invalid_answer(subject)
        return self._read(length, subject, deadline)

    def end(self) -> None:
        """Waits for the worker to end by itself, with nothing left to say."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._wait(self._out, False, "its end", self._deadline(0))
        if os.read(self._out, 1):
            raise self.invalid_answer("its end")

    def invalid_answer(self, subject: str) -> BuildError:
        return BuildError(
            "the image's interpreter answered something that isn't byte code for "
            f"{subject}{self._explanation()}",
            hint="is its standard library intact? else lock with --no-bytecode",
        )

    def _deadline(self, size: int) -> float:
        return time.monotonic() + self._patience + size / _SLOWEST

    def _write(self, data: bytes, subject: str, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._in, True, subject, deadline)
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._crash_error(subject) from error

    def _read(self, length: int, subject: str, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            self._wait(self._out, False, subject, deadline)
            part = os.read(self._out, min(length - len(parts), 1 << 20))
            if not part:
                raise self._crash_error(subject)
            parts += part
        return bytes(parts)

    def _wait(self, descriptor: int, writing: bool, subject: str, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise BuildError(
                f"the image's interpreter did not answer in time for {subject}{self._explanation()}",
                hint="try again on a machine that is less busy, or lock with --no-bytecode",
            )

    def _crash_error(self, subject: str) -> BuildError:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return self.invalid_answer(subject)
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        explanation = self._explanation()
        if "unshare" in explanation:
            hint = (
                "user namespaces seem to be forbidden on this machine (sysctl "
                "kernel.unprivileged_userns_clone, "
                "kernel.apparmor_restrict_unprivileged_userns); allow them, or lock with --no-bytecode"
            )
        else:
            hint = "lock with --no-bytecode if the image's python can't run on this machine"
        return BuildError(f"the image's interpreter {how} at {subject}{explanation}", hint=hint)

    def _explanation(self) -> str:
        text = self._complaint()
        return f": {text}" if text else ""
