"""Runs a command over an unpacked image in a user namespace of Linux: no daemon, no root."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from envbuild.errors import RunError
from envbuild.oci.image import Image
from envbuild.platforms import Platform, runs_linux
from envbuild.progress import Progress
from envbuild.run import launcher
from envbuild.run.command import WORKDIR, Command, Mount, argv, environment, image_config, numeric_user
from envbuild.run.rootfs import held_rootfs
from envbuild.run.signals import forwarding, stopping
from envbuild.run.terminal import TerminalRelay, terminal_streams
from envbuild.store.content import Store

_REMEDY = (
    "allow user namespaces (sysctl user.max_user_namespaces=15000; on Debian kernels also "
    "kernel.unprivileged_userns_clone=1; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), "
    "or use a Docker engine"
)


class UsernsRunner:
    """The command's own view: a copy-on-write overlay of the unpacked image, or, where the kernel has no
    overlay for users, the image read-only with fresh ``/tmp``, ``/home`` and ``/root``.

    The caller appears inside as the image's numeric user, or as root where it names none."""

    name = "userns"

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress

    def available(self) -> str | None:
        if not runs_linux():
            return f"user namespaces are a feature of Linux, and this is {platform.system()}"
        for file, setting in (
            ("/proc/sys/user/max_user_namespaces", "user.max_user_namespaces"),
            ("/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone"),
        ):
            try:
                value = Path(file).read_text().strip()
            except OSError:
                continue
            if value == "0" and not (setting.startswith("kernel.") and os.geteuid() == 0):
                return f"this kernel's settings forbid user namespaces ({setting} is 0)"
        if not Path("/proc/self/ns/user").exists():
            return "this kernel has no user namespaces"
        return None

    def run(self, command: Command) -> int:
        self._refuse_unable(command.image)
        with self._rootfs(command.image) as rootfs, self._store.scratch() as scratch:
            request = {**self._request(command, rootfs), "stage": str(scratch.resolve())}
            streams = terminal_streams()
            if streams:
                return _run_on_terminal(request, streams)
            launched = _launch(request, _Descriptors())
            send = launched.process.send_signal
            with forwarding(send), stopping(send):
                return launched.wait()

    def launch(self, command: Command, stage: Path, output: int) -> LaunchedCommand:
        """Starts the command and doesn't wait: it has no input, and what it prints goes to the descriptor
        ``output``. ``stage`` is an empty directory that outlasts it. It ends when the calling thread does.
        What it runs in is held until ``close``."""
        self._refuse_unable(command.image)
        with ExitStack() as stack:
            rootfs = stack.enter_context(self._rootfs(command.image))
            request = {**self._request(command, rootfs), "stage": str(stage.resolve())}
            launched = _launch(request, _Descriptors(input=subprocess.DEVNULL, output=output, error=output))
            launched.resources = stack.pop_all()
        return launched

    def _rootfs(self, image: Image) -> AbstractContextManager[Path]:
        return held_rootfs(image, self._store, self._progress)

    def _refuse_unable(self, image: Image) -> None:
        """Raises ``RunError`` where this can't run here."""
        reason = self.available()
        if reason is not None:
            raise RunError(reason, hint=_REMEDY)
        if image.platform != Platform.host():
            raise RunError(
                f"the image is for {image.platform}, this machine runs {Platform.host()}",
                hint="choose --platform, or a Docker engine that emulates it",
            )

    def _request(self, command: Command, rootfs: Path) -> dict[str, Any]:
        config = image_config(command.image, self._store)
        uid, gid = numeric_user(config)
        mounts = list(command.mounts)
        directory = str(config.get("WorkingDir") or "/")
        if command.workdir is not None:
            mounts.insert(0, Mount(source=command.workdir, target=WORKDIR))
            directory = str(WORKDIR)
        return {
            "rootfs": str(rootfs.resolve()),
            "uid": uid,
            "gid": gid,
            "network": command.network,
            "command": argv(config, command),
            "env": environment(config, command),
            "directory": directory,
            "mounts": [
                {
                    "source": str(mount.source.resolve()),
                    "target": str(mount.target),
                    "read_only": mount.read_only,
                }
                for mount in mounts
            ],
        }


class LaunchedCommand:
    """A command under way. ``process`` is its launcher, which passes signals on."""

    def __init__(self, process: subprocess.Popen[bytes], report: IO[bytes], feeder: threading.Thread) -> None:
        self.process = process
        self.resources = ExitStack()
        """What it needs until ``close``."""
        self._report = report
        self._feeder = feeder

    def wait(self) -> int:
        """The command's exit status (128 + n where signal n ended it). Raises ``RunError`` where it couldn't
        be started."""
        status = self.process.wait()
        self._feeder.join()
        message = ""
        if not self._report.closed:
            with self._report:
                if status == launcher.NOT_STARTED:
                    message = self._report.read().decode(errors="replace")
        if message:
            raise RunError(f"the command can't be started in a user namespace: {message}", hint=_REMEDY)
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        """Lets go of what nobody waited for; the command must have ended."""
        self._report.close()
        self.resources.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Descriptors:
    """What a launcher gets. Its standard streams as ``subprocess`` takes them, None: the caller's."""

    input: int | None = None
    output: int | None = None
    error: int | None = None
    more: tuple[int, ...] = ()


def _run_on_terminal(request: Mapping[str, Any], streams: Sequence[int]) -> int:
    """The exit status of a command that gets a terminal in the place of the caller's on ``streams``."""
    control, launchers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control:
        with launchers:
            descriptor = launchers.fileno()
            standard = [subprocess.DEVNULL if stream in streams else None for stream in range(3)]
            launched = _launch(
                {**request, "terminal": {"streams": list(streams), "control": descriptor}},
                _Descriptors(input=standard[0], output=standard[1], error=standard[2], more=(descriptor,)),
            )
        with forwarding(launched.process.send_signal, signal.SIGTSTP):
            try:
                TerminalRelay(streams, control).run()
            except BaseException:
                launched.process.kill()
                launched.process.wait()
                launched.close()
                raise
            return launched.wait()


def _launch(request: Mapping[str, Any], descriptors: _Descriptors) -> LaunchedCommand:
    """Starts a launcher in a session of its own: what is typed on a terminal signals only us."""
    request_read, request_write = os.pipe()
    report_read, report_write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", launcher.__file__, str(request_read), str(report_write)],
            pass_fds=(request_read, report_write, *descriptors.more),
            stdin=descriptors.input,
            stdout=descriptors.output,
            stderr=descriptors.error,
            start_new_session=True,
        )
    except OSError as error:
        for descriptor in (request_read, request_write, report_read, report_write):
            os.close(descriptor)
        raise RunError(f"can't start {sys.executable}: {error.strerror}") from error
    os.close(request_read)
    os.close(report_write)
    feeder = threading.Thread(
        target=_feed_request, args=(os.fdopen(request_write, "wb"), json.dumps(request)), daemon=True
    )
    feeder.start()
    return LaunchedCommand(process, os.fdopen(report_read, "rb"), feeder)


def _feed_request(pipe: IO[bytes], text: str) -> None:
    try:
        with pipe:
            pipe.write(text.encode())
    except BrokenPipeError:
        pass  # The launcher ended at once; its status says why.
