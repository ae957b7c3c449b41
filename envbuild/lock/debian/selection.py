"""What a base has in it before anybody asks for more, and what it does without.

The base is an image's, not a machine's: nothing in it installs packages, starts services or asks questions,
and no maintainer script ever runs. So it has a usable shell, time zones, CA certificates and the C and C++
run-time libraries, and none of the packages that only maintainer scripts call.
"""

from __future__ import annotations

from envbuild.errors import ResolveError
from envbuild.lock.debian.version import upstream
from envbuild.lock.model import DebianBase, DebianPin, PythonPin

BASE = (
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "libgcc-s1",
    "libgomp1",
    "libstdc++6",
    "mawk",
    "ncurses-base",
    "netbase",
    "sed",
    "tar",
    "tzdata",
)
"""In every base. libgomp1 because wheels of machine-learning packages expect it from the system."""

LEFT_OUT = frozenset(
    {
        "adduser",
        "cdebconf",
        "debconf",
        "debconf-2.0",
        "dpkg",
        "init-system-helpers",
        "install-info",
        "ucf",
        "update-inetd",
    }
)
"""Dependencies that are taken for satisfied, as only maintainer scripts call these packages (perl-base
stays out with them). One that a spec asks for by name is installed like any other."""

_PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}

_GLIBCS = {"bookworm": "2.36", "trixie": "2.41"}

SUITES = tuple(sorted(_PYTHONS))

_EXTRA_PYTHON = {
    # Debian splits distutils and lib2to3 out of 3.11's standard library; 3.13 has neither.
    "bookworm": ("python3-distutils",),
}

_RUNS_PYTHON = frozenset(
    {
        "base-files",
        "libbz2-1.0",
        "libc6",
        "libcrypt1",
        "libexpat1",
        "libffi8",
        "libgcc-s1",
        "liblzma5",
        "libssl3",
        "libssl3t64",
        "libuuid1",
        "libzstd1",
        "zlib1g",
    }
)


def suite_python(suite: str) -> str:
    """The python release of a suite: ``3.13`` of trixie. Raises ``ResolveError`` for an unknown suite."""
    try:
        return _PYTHONS[suite]
    except KeyError:
        raise ResolveError(
            f"Debian {suite!r} is not known", hint=f"known suites: {', '.join(SUITES)}"
        ) from None


def suite_glibc(suite: str) -> str | None:
    """The suite's glibc, which never changes within a release; None for a suite that isn't known."""
    return _GLIBCS.get(suite)


def python_packages(suite: str) -> tuple[str, ...]:
    """What brings the whole standard library, without IDLE, Tk, tests and ensurepip."""
    return ("python3", *_EXTRA_PYTHON.get(suite, ()))


def python_pin(suite: str, packages: tuple[DebianPin, ...]) -> PythonPin | None:
    """The interpreter among ``packages``, or None."""
    release = suite_python(suite)
    interpreter = next((pin for pin in packages if pin.name == f"python{release}-minimal"), None)
    if interpreter is None:
        return None
    return PythonPin(
        version=upstream(interpreter.version), provider="debian", executable=f"/usr/bin/python{release}"
    )


def python_closure(base: DebianBase, python: PythonPin) -> tuple[DebianPin, ...]:
    """The pins of ``base`` that are enough to start its interpreter and compile byte code."""
    own = f"python{python.short}"
    return tuple(
        pin
        for pin in base.packages
        if pin.name in _RUNS_PYTHON or pin.name.startswith((own, f"lib{own}", "python3-minimal"))
    )
