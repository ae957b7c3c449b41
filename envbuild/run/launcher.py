"""Starts a command in namespaces of its own. A program: reads one JSON object from a descriptor,
then becomes the parent of the command and ends with its status.

It is run as ``python -I -S launcher.py REQUEST REPORT`` (two descriptors) and imports the standard library
only: the kernel lets only a process with a single thread make a user namespace, and envbuild has several.

Three processes stand in a row: this one, which passes signals on; ``init``, the first of the new process
namespace, at whose end the kernel ends all others in it; and the command.

``init`` leads a session of its own, so that no terminal of the caller controls it or the command. Where the
request has a ``terminal``, the session gets a new one: its other side goes to the caller over the socket
``control``, and takes the place of the standard ``streams`` that are the caller's terminal. On that socket
``init`` then asks, at first and whenever the command was stopped, whether the command has the terminal.

Where root starts it, the command is the machine's root to the files of ``/proc``, ``/sys`` and ``/dev``,
whatever user it appears as. So the settings among them are read-only, what tells of the machine's memory is
masked, and neither ``init`` nor the command keeps the privileges that could undo that.
Status 125 with a message on REPORT means that the command was never started.
"""

# Paths are handed to system calls as they are.
# ruff: noqa: PTH102, PTH103, PTH108, PTH110
# ruff: noqa: PTH112, PTH113, PTH114, PTH115, PTH116, PTH120, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import signal
import socket
import stat
import struct
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NOT_STARTED = 125

_HOSTNAME = "envbuild"
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MS_NOATIME, _MS_NODIRATIME = 1024, 2048
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYSTEM_CALLS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "keyctl": 250},
    "aarch64": {"pivot_root": 41, "capset": 91, "keyctl": 219},
}
_CAPABILITIES_VERSION = 0x20080522
_KEPT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 19, 31)
"""What an image's root may do inside: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
net_bind_service, net_raw, sys_chroot, sys_ptrace (debuggers), setfcap. What engines leave, about: nothing
that mounts."""
_NULL = os.makedev(1, 3)
_UNREADABLE_PROC = (
    *("acpi", "asound", "interrupts", "kcore", "keys", "key-users"),
    *("latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"),
)
"""Masked in ``/proc`` besides what only its owner may read, as engines do."""
_UNREADABLE_SYS = (
    *("firmware", "kernel/debug", "kernel/tracing", "kernel/security", "fs/bpf", "fs/pstore"),
    "devices/virtual/powercap",
)
_OF_KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
"""What a terminal sends for keys, and that to a whole group of processes."""
_PASSED_ON = (
    *_OF_KEYS,
    *(signal.SIGCONT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
)
_AWAITED = (*_PASSED_ON, signal.SIGCHLD, signal.SIGWINCH)
_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430
FOREGROUND, BACKGROUND = b"F", b"B"
"""What the caller answers: the command may read its terminal; it is stopped when it tries to."""

_libc = ctypes.CDLL(None, use_errno=True)


class _LaunchFailure(Exception):
    """Why the command can't be started."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: the command's, or ``NOT_STARTED`` after a message on the report descriptor."""
    request_fd, report_fd = int(arguments[0]), int(arguments[1])
    with os.fdopen(request_fd, "rb") as file:
        request = json.loads(file.read())
    os.set_inheritable(report_fd, False)
    # None is lost before there is a command to pass it on to. Waiting for them keeps their order, which
    # handlers don't: a SIGTSTP and the SIGCONT after it mustn't be exchanged.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        return _launch(request, report_fd)
    except _LaunchFailure as failure:
        _report(report_fd, str(failure))
    except OSError as error:
        _report(report_fd, f"{error.strerror}: {error.filename}" if error.filename else str(error))
    return NOT_STARTED


def _report(descriptor: int, message: str) -> None:
    os.write(descriptor, message.encode())


def _launch(request: Mapping[str, Any], report_fd: int) -> int:
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWUTS
    if not request["network"]:
        flags |= _CLONE_NEWNET
    _call("making namespaces", _libc.unshare(flags))
    # Whoever is the root of this machine outside stays it inside, in all namespaces made in there too.
    nested = uid != 0
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{request['gid']} {gid} 1")
    Path("/proc/self/uid_map").write_text(f"{request['uid']} {uid} 1")
    init = os.fork()
    if init == 0:
        os._exit(_guarded(report_fd, lambda: _init(request, report_fd, nested=nested)))
    return _wait(init, lambda number: os.kill(init, number))


def _guarded(report_fd: int, work: Any) -> int:
    try:
        return int(work())
    except _LaunchFailure as failure:
        _report(report_fd, str(failure))
    except OSError as error:
        _report(report_fd, f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except BaseException as error:  # noqa: BLE001 - the last place before the process ends
        _report(report_fd, repr(error))
    return NOT_STARTED


def _init(request: Mapping[str, Any], report_fd: int, *, nested: bool) -> int:
    """The first process of the new process namespace."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.sethostname(_HOSTNAME.encode(), len(_HOSTNAME))
    if not nested:
        # A user namespace within this one would have all privileges over what it mounts, control groups too.
        with contextlib.suppress(OSError):
            Path("/proc/sys/user/max_user_namespaces").write_text("0")
    if not request["network"]:
        _loopback()
    os.setsid()
    terminal = _mount_all(request)
    _give_up_privileges()
    if terminal is not None:
        terminal.open()
    child = os.fork()
    if child == 0:
        os._exit(_guarded(report_fd, lambda: _exec(request, terminal)))
    with contextlib.suppress(OSError):  # The command does the same, and may have become its program already.
        os.setpgid(child, child)
    return _wait_for_command(child, terminal)


def _give_up_privileges() -> None:
    """Leaves this process and all it starts nothing that could undo a mount, nor reach what is outside."""
    # The environment and the memory of this process are the caller's.
    _call("hiding the launcher", _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    # Kernels without keys have no such call.
    _system_call("keyctl", ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_void_p(None))
    for number in range(64):
        if number not in _KEPT_CAPABILITIES and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # The kernel knows none from here on.
            _call("giving up privileges", -1)
    kept = sum(1 << number for number in _KEPT_CAPABILITIES)
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    low = struct.pack("=III", kept, kept, 0)
    _call("giving up privileges", _system_call("capset", header, low + bytes(12)))
    _call("giving up privileges", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _loopback() -> None:
    """Brings up the loopback of the new network namespace: programs talk to themselves over it."""
    name_and_flags = struct.pack("16sh22x", b"lo", 1)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        fcntl.ioctl(made, 0x8914, name_and_flags)


class _Terminal:
    """The terminal of the new session, as ``init`` sees it."""

    def __init__(self, request: Mapping[str, Any], devices: str) -> None:
        """Makes it in ``devices``, so that it has a name for the command; else among the machine's."""
        if not os.path.exists(f"{devices}/ptmx"):
            devices = "/dev"
        self._streams: list[int] = request["streams"]
        self._control = socket.socket(fileno=request["control"])
        self._control.set_inheritable(False)
        self._master = os.open(f"{devices}/ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(self._master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", fcntl.ioctl(self._master, _TIOCGPTN, bytes(4)))[0]
        self._slave = os.open(f"{devices}/pts/{number}", os.O_RDWR | os.O_NOCTTY)
        self._owner: int | None = None
        """The group of processes that has the terminal while the command is in the foreground."""
        self._foreground = False

    def open(self) -> None:
        """Makes it the session's and the standard streams, and waits for the caller to have set it up."""
        fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
        for stream in self._streams:
            os.dup2(self._slave, stream)
        socket.send_fds(self._control, [b"T"], [self._master])
        os.close(self._master)
        # This process gives the terminal to others while it isn't the one that has it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._foreground = self._control.recv(1) == FOREGROUND

    def enter(self) -> None:
        """For the command: a group of processes of its own, which has the terminal where it may."""
        os.setpgid(0, 0)
        if self._foreground:
            os.tcsetpgrp(self._slave, os.getpid())

    def ask(self, command: int, stopped_by: int) -> None:
        """Tells the caller of the stopped ``command``, and lets it go on as the caller says."""
        if stopped_by in (signal.SIGTTIN, signal.SIGTTOU):
            self._owner = command
        elif self._foreground:
            with contextlib.suppress(OSError):
                self._owner = os.tcgetpgrp(self._slave)
        with contextlib.suppress(OSError):
            self._control.send(bytes([stopped_by]))
            self._foreground = self._control.recv(1) == FOREGROUND
        # Where the terminal is gone there is nothing to have.
        with contextlib.suppress(OSError):
            os.tcsetpgrp(self._slave, self._owner or command if self._foreground else os.getpgrp())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command, signal.SIGCONT)


def _wait_for_command(command: int, terminal: _Terminal | None) -> int:
    """For ``init``: the exit status of ``command``, whose keys are those of all of its group."""

    def send(number: int) -> None:
        if number in (*_OF_KEYS, signal.SIGCONT, signal.SIGWINCH):
            os.killpg(command, number)
        else:
            os.kill(command, number)

    if terminal is None:
        return _wait(command, send)
    return _wait(command, send, lambda number: terminal.ask(command, number))


def _wait(child: int, send: Callable[[int], None], stopped: Callable[[int], None] | None = None) -> int:
    """Passes signals on and reaps all processes until ``child`` ends; its status as a shell says it.
    ``stopped`` is called with the signal that stopped it."""
    options = os.WNOHANG if stopped is None else os.WNOHANG | os.WUNTRACED
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                send(number)
            continue
        process = -1
        while process != 0:
            process, status = os.waitpid(-1, options)
            if process != child:
                continue
            if stopped is not None and os.WIFSTOPPED(status):
                stopped(os.WSTOPSIG(status))
            else:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _exec(request: Mapping[str, Any], terminal: _Terminal | None) -> int:
    """Becomes the command; returns only where that fails."""
    if terminal is None:
        os.setpgid(0, 0)
    else:
        terminal.enter()
    for number in (*_PASSED_ON, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    _own_null()
    env: dict[str, str] = request["env"]
    command: list[str] = request["command"]
    directory = request["directory"]
    try:
        os.chdir(directory)
    except OSError as error:
        raise _LaunchFailure(
            f"the working directory {directory} can't be entered: {error.strerror}"
        ) from error
    # A command that can't be found ends with 127 and one that can't be executed with 126, as in a shell.
    try:
        os.execvpe(command[0], command, env)
    except FileNotFoundError:
        os.write(2, f"envbuild: {command[0]}: not found in the image\n".encode())
        return 127
    except OSError as error:
        os.write(2, f"envbuild: {command[0]}: {error.strerror}\n".encode())
        return 126


def _own_null() -> None:
    """Opens ``/dev/null`` anew where a standard stream is the host's, whose mode could be changed by it."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            stated = os.fstat(descriptor)
            if stat.S_ISCHR(stated.st_mode) and stated.st_rdev == _NULL:
                own = os.open("/dev/null", os.O_RDWR)
                os.dup2(own, descriptor)
                os.close(own)


def _mount_all(request: Mapping[str, Any]) -> _Terminal | None:
    """Enters the root file system; the terminal of its devices, where the request wants one."""
    root, stage = request["rootfs"], request["stage"]
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Everything is put together on a tmpfs that only these processes ever see.
    _mount("tmpfs", stage, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{stage}/{name}")
    new = f"{stage}/root"
    writable = _overlay(root, stage, new)
    if not writable:
        _bind(root, new, read_only=True)
    _devices(f"{new}/dev")
    terminal = _Terminal(request["terminal"], f"{new}/dev") if request.get("terminal") else None
    _proc(f"{new}/proc", writable)
    _sys(f"{new}/sys")
    for name, mode in (("tmp", "1777"), ("run", "0755")):
        _fresh(f"{new}/{name}", mode, writable)
    if not writable:
        for name in ("var/tmp", "home", "root"):
            if os.path.isdir(f"{new}/{name}"):
                _mount("tmpfs", f"{new}/{name}", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    if request["network"]:
        _host_file("etc/resolv.conf", os.path.realpath("/etc/resolv.conf"), new, writable)
        _host_file("etc/hosts", _hosts(stage), new, writable)
    for mount in request["mounts"]:
        target = _inside(new, mount["target"])
        _mount_point(target, directory=os.path.isdir(mount["source"]))
        _bind(mount["source"], target, read_only=mount["read_only"])
    os.chdir(new)
    _call("entering the root file system", _system_call("pivot_root", b".", b"."))
    _call("leaving the old root file system", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    return terminal


def _system_call(name: str, *arguments: object) -> int:
    """A system call that the C library has no function for."""
    number = _SYSTEM_CALLS.get(os.uname().machine, {}).get(name)
    if number is None:
        raise _LaunchFailure(f"no user namespaces on {os.uname().machine} yet")
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return result


def _overlay(lower: str, stage: str, target: str) -> bool:
    """Whether a writable layer could be put over the image (Linux 5.11 and a file system that allows it)."""
    escaped = lower.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
    for extra in (",userxattr", ""):
        options = f"lowerdir={escaped},upperdir={stage}/upper,workdir={stage}/work{extra}"
        if _try_mount("overlay", target, "overlay", _MS_NOSUID | _MS_NODEV, options):
            return True
    return False


def _devices(target: str) -> None:
    _mount_point(target, directory=True)
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID, "mode=0755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        if os.path.exists(f"/dev/{name}"):
            Path(f"{target}/{name}").touch()
            if _try_bind(f"/dev/{name}", f"{target}/{name}"):
                # Read-only is no matter to what a device is given, but to its mode and its owner.
                _make_read_only(f"{target}/{name}")
    for name, destination in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{destination}", f"{target}/{name}")
    os.mkdir(f"{target}/shm")
    _mount("tmpfs", f"{target}/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    os.mkdir(f"{target}/pts")
    options = "newinstance,ptmxmode=0666,mode=0620"
    if _try_mount("devpts", f"{target}/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, options):
        os.symlink("pts/ptmx", f"{target}/ptmx")


def _proc(target: str, writable: bool) -> None:
    if writable:
        _mount_point(target, directory=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if not _try_mount("proc", target, "proc", flags):
        # Within a container whose own /proc is masked the kernel refuses a new one; its own still serves, but
        # there are processes of others in it.
        if not _try_bind("/proc", target, recursive=True):
            return
        _make_read_only(target)
    for name in os.listdir(target):
        path = f"{target}/{name}"
        if name.isdigit() or os.path.islink(path):
            continue  # A process, or a link to one's own.
        mode = os.stat(path).st_mode
        if name in _UNREADABLE_PROC or mode & 0o404 == 0o400:
            _mask(path)
        else:
            # Also what can't be written to: its mode can be changed, and that in all of the machine's /proc.
            _bind(path, path, read_only=True)


def _sys(target: str) -> None:
    """The machine's devices, read-only, with its control groups below: programs size themselves by those."""
    if _try_bind("/sys", target, recursive=True):
        _make_read_only(target)
        for name in _UNREADABLE_SYS:
            if os.path.isdir(f"{target}/{name}"):
                _mask(f"{target}/{name}")


def _mask(path: str) -> None:
    """Puts nothing in the place of ``path``."""
    if os.path.isdir(path):
        _mount("tmpfs", path, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0555")
    else:
        _bind("/dev/null", path, read_only=True)


def _fresh(target: str, mode: str, writable: bool) -> None:
    if os.path.islink(target):
        return
    if writable:
        _mount_point(target, directory=True)
    if os.path.isdir(target):
        _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode={mode}")


def _hosts(stage: str) -> str:
    """The path of this machine's hosts with our own name added: Java programs look that up."""
    hosts = ""
    with contextlib.suppress(OSError):
        hosts = Path("/etc/hosts").read_text(errors="surrogateescape").rstrip("\n") + "\n"
    path = Path(f"{stage}/hosts")
    path.write_text(f"{hosts}127.0.1.1\t{_HOSTNAME}\n", errors="surrogateescape")
    path.chmod(0o644)
    return str(path)


def _host_file(name: str, source: str, new: str, writable: bool) -> None:
    """Gives the image this machine's name resolution, as every engine does."""
    if not os.path.isfile(source):
        return
    target = f"{new}/{name}"
    try:
        if os.path.islink(target) and writable:
            os.unlink(target)
        if writable:
            _mount_point(_inside(new, f"/{name}"), directory=False)
    except OSError:
        return
    if os.path.isfile(target) and not os.path.islink(target) and _try_bind(source, target):
        _make_read_only(target)


def _inside(root: str, path: str) -> str:
    """``path`` of the image as a path of this one, links followed within ``root``."""
    here = root
    todo = [part for part in reversed(path.split("/")) if part]
    followed = 0
    while todo:
        part = todo.pop()
        if part in (".", ""):
            continue
        if part == "..":
            here = here if here == root else os.path.dirname(here)
            continue
        step = f"{here}/{part}"
        if os.path.islink(step):
            followed += 1
            if followed > 40:
                raise _LaunchFailure(f"{path}: too many symbolic links")
            link = os.readlink(step)
            here = root if link.startswith("/") else here
            todo.extend(reversed(link.split("/")))
            continue
        here = step
    return here


def _mount_point(target: str, *, directory: bool) -> None:
    try:
        if directory:
            os.makedirs(target, exist_ok=True)
        elif not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            Path(target).touch()
    except OSError as error:
        raise _LaunchFailure(
            f"the image has no {target.split('/root', 1)[-1]} to mount on, and none can be made here:"
            f" {error.strerror}"
        ) from error


def _bind(source: str, target: str, *, read_only: bool = False) -> None:
    _mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        _make_read_only(target)


def _make_read_only(target: str) -> None:
    """Remounts what is mounted on ``target`` and below it."""
    # The kernel wants the flags that the source is mounted with to be kept.
    kept = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME
    for path in (target, *_mounted_below(target)):
        try:
            flags = os.statvfs(path).f_flag & kept
        except (PermissionError, FileNotFoundError):
            if path == target:
                raise
            continue  # Hidden, or in a directory that the user can't enter: the command can't either.
        _mount("none", path, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | flags)


def _mounted_below(target: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        escaped = line.split(b" ")[4]
        path = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), escaped))
        if path.startswith(f"{target}/"):
            yield path


def _try_bind(source: str, target: str, *, recursive: bool = False) -> bool:
    return os.path.exists(target) and _try_mount(
        source, target, None, _MS_BIND | (_MS_REC if recursive else 0)
    )


def _try_mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> bool:
    return _mount_call(source, target, kind, flags, options) == 0


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call(f"mounting {source} on {target}", _mount_call(source, target, kind, flags, options))


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
        raise _LaunchFailure(f"{action} failed: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
