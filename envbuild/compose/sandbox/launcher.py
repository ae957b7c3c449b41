"""Starts a program with nothing but a read-only root file system and the directories it is given: no network,
no other process, no file of this machine, no privilege. A program itself.

It is run as ``python -I -S launcher.py REQUEST REPORT`` (a JSON object, and a descriptor) and imports
only the standard library: the kernel lets only a process with a single thread make a user namespace, and
envbuild has several. Three processes stand in a row: this one; ``init``, the first of the new process
namespace, at whose end the kernel ends all others in it; and the program. When this one ends, all do.

Status 125 with a message on REPORT means that the program was never started.
"""

# Paths are handed to system calls as they are.
# ruff: noqa: PTH102

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NOT_STARTED = 125

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MS_NOATIME, _MS_NODIRATIME = 1024, 2048
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYSTEM_CALLS = {"x86_64": {"pivot_root": 155, "keyctl": 250}, "aarch64": {"pivot_root": 41, "keyctl": 219}}
_USER = 1000
"""Who the program is inside: not root, so that starting it takes all privileges over the namespaces away."""
_TEMPORARY = "size=1g,mode=0755"
_PROCESSES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class _SandboxFailure(Exception):
    """Why the program can't be started."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: the program's, or ``NOT_STARTED`` after a message on the report descriptor."""
    request, report_fd = json.loads(arguments[0]), int(arguments[1])
    os.set_inheritable(report_fd, False)
    # Whoever ends this process, in whichever way, ends all of them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return _guarded(report_fd, lambda: _launch(request, report_fd))


def _guarded(report_fd: int, work: Any) -> int:
    try:
        return int(work())
    except _SandboxFailure as failure:
        message = str(failure)
    except OSError as error:
        message = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    except BaseException as error:  # noqa: BLE001 - the last place before the process ends
        message = repr(error)
    os.write(report_fd, message.encode())
    return NOT_STARTED


def _launch(request: Mapping[str, Any], report_fd: int) -> int:
    uid, gid = os.getuid(), os.getgid()
    _call(
        "making namespaces",
        _libc.unshare(
            _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWNET
        ),
    )
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{_USER} {gid} 1")
    Path("/proc/self/uid_map").write_text(f"{_USER} {uid} 1")
    init = os.fork()
    if init == 0:
        os._exit(_guarded(report_fd, lambda: _init(request, report_fd)))
    return _wait(init)


def _init(request: Mapping[str, Any], report_fd: int) -> int:
    """The first process of the new process namespace."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.sethostname(b"envbuild", 8)
    with contextlib.suppress(OSError):
        # No namespaces within these: they would give the program privileges over something again.
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _mount_all(request)
    child = os.fork()
    if child == 0:
        os._exit(_guarded(report_fd, lambda: _exec(request)))
    return _wait(child)


def _wait(child: int) -> int:
    """Waits until ``child`` ends, and for orphans on the way; its status as a shell says it."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _exec(request: Mapping[str, Any]) -> int:
    """Becomes the program; returns only where that fails."""
    os.setsid()
    # The keys of the caller's session are no business of the program.
    _system_call("keyctl", ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_void_p(None))
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, _PROCESSES),
        (resource.RLIMIT_FSIZE, int(request["file_limit"])),
        (resource.RLIMIT_DATA, int(request["memory_limit"])),
    ):
        _, most = resource.getrlimit(kind)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, limit))
    os.umask(0o022)
    _call("giving up privileges", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    os.chdir("/tmp")
    command: list[str] = request["command"]
    try:
        os.execve(command[0], command, request["env"])
    except OSError as error:
        raise _SandboxFailure(f"{command[0]} can't be started: {error.strerror}") from error


def _mount_all(request: Mapping[str, Any]) -> None:
    stage = request["stage"]
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Everything is put together on a tmpfs that only these processes ever see.
    _mount("tmpfs", stage, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    new = f"{stage}/root"
    os.mkdir(new)
    _bind(request["rootfs"], new, read_only=True)
    for name in ("dev", "proc", "tmp"):
        if Path(f"{new}/{name}").is_symlink():
            raise _SandboxFailure(f"/{name} of the interpreter's root file system is a link")
    _devices(f"{new}/dev")
    _processes(f"{new}/proc")
    _mount("tmpfs", f"{new}/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, _TEMPORARY)
    for mount in request["mounts"]:
        target = f"{new}/tmp/{mount['name']}"
        os.mkdir(target)
        if mount["source"] is not None:
            _bind(mount["source"], target, read_only=mount["read_only"])
    os.chdir(new)
    _call("entering the root file system", _system_call("pivot_root", b".", b"."))
    _call("leaving the old root file system", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def _processes(target: str) -> None:
    """``/proc`` of the new namespace alone, read-only: root's own files in there are settings of the whole
    machine, and where root runs this, the program owns them. Without its settings where the kernel can
    (5.8). The host's own ``/proc`` is never shown, so where the kernel refuses a new one there is none."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if any(_mount_call("proc", target, "proc", flags, options) == 0 for options in ("subset=pid", "")):
        _mount("none", target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | flags)


def _devices(target: str) -> None:
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NOEXEC, "size=64k,mode=0755")
    for name in ("null", "zero", "full", "random", "urandom"):
        Path(f"{target}/{name}").touch()
        # Read-only is no matter to a device's content, but to its mode, which root's program could change.
        _bind(f"/dev/{name}", f"{target}/{name}", read_only=True, devices=True)
    for name, destination in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        Path(f"{target}/{name}").symlink_to(f"/proc/self/{destination}")
    os.mkdir(f"{target}/shm")
    _mount("tmpfs", f"{target}/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64m,mode=1777")


def _bind(source: str, target: str, *, read_only: bool, devices: bool = False) -> None:
    _mount(source, target, None, _MS_BIND | _MS_REC)
    # The kernel wants the flags that the source is mounted with to be kept.
    kept = os.statvfs(target).f_flag & (_MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME | _MS_RDONLY)
    flags = kept | _MS_NOSUID | (0 if devices else _MS_NODEV) | (_MS_RDONLY if read_only else 0)
    _mount("none", target, None, _MS_BIND | _MS_REMOUNT | flags)


def _system_call(name: str, *arguments: object) -> int:
    """A system call that the C library has no function for."""
    number = _SYSTEM_CALLS.get(os.uname().machine, {}).get(name)
    if number is None:
        raise _SandboxFailure(f"this isn't known to work on {os.uname().machine} yet")
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return result


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call(
        f"mounting {os.path.basename(source)} on {os.path.basename(target)}",  # noqa: PTH119
        _mount_call(source, target, kind, flags, options),
    )


def _mount_call(source: str, target: str, kind: str | None, flags: int, options: str) -> int:
    result: int = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(options) if options else None,
    )
    return result


def _call(action: str, result: int) -> None:
    if result != 0:
        raise _SandboxFailure(f"{action} failed: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
