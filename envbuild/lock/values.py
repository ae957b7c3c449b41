"""What the values of a lock may be. A lock comes from elsewhere: its names reach file names, command lines,
Dockerfiles and configuration files, so what is none of what it says to be is refused on reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from envbuild.errors import LockError, UsageError
from envbuild.lock.model import (
    CondaPin,
    ContextBase,
    DebianBase,
    ImageBase,
    Lock,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonPin,
    RuntimeSettings,
)
from envbuild.oci.reference import Reference, is_local
from envbuild.specs.git import parse_git_address
from envbuild.specs.model import STANDALONE, ActivationScripts, Bytecode, Clashes, EnvironmentType, Runtime
from envbuild.specs.problems import Refused

_MAX_ID = 0xFFFFFFFE

_DEBIAN = {
    "name": re.compile(r"[a-z0-9][a-z0-9+.-]*"),
    "version": re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*"),
    "architecture": re.compile(r"[a-z0-9][a-z0-9-]*"),
    "archive": re.compile(r"[a-z0-9][a-z0-9.-]*"),
    "file": re.compile(r"[A-Za-z0-9_.+:~%/-]+"),
}
_CONDA = {
    "name": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    "version": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.!+-]*"),
    "build": re.compile(r"[A-Za-z0-9_.+-]*"),
    "subdir": re.compile(r"[a-z0-9][a-z0-9_-]*"),
    "md5": re.compile(r"(?:[0-9a-f]{32})?"),
}
_PIP = {
    "name": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "version": re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*"),
}
_GIT = {name: re.compile(r"[0-9a-f]{40}") for name in ("commit", "tree")}
_MAVEN = {
    "group": re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"),
    "artifact": re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"),
    "version": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"),
    "file": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*"),
}
_PYTHON = {
    "version": re.compile(r"[0-9]+(?:\.[0-9]+)+[A-Za-z0-9.+]*"),
    "provider": re.compile(r"debian|image|conda|standalone"),
    # It stands in RUN lines and on command lines.
    "executable": re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.+@,=:~%-]+)+"),
}
_FILE = re.compile(r"[^\s-]\S*")
_ARCHIVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+~-]*\.tar\.gz")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|file:)\S+")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_GLIBC = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")
_COORDINATE = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.+-]+){2}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EXACT = re.compile(r"[a-z0-9-]+==[A-Za-z0-9.!+_-]+")
_REQUIRED = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+(?: --hash=sha256:[0-9a-f]{64})+")


def check_values(lock: Lock) -> None:
    """Returns if every value is one that a lock of ours can have. Raises ``LockError`` with its key path."""
    for name, platforms in (
        ("platforms", lock.platforms),
        ("toolchain", lock.toolchain),
        ("installer", lock.installer),
    ):
        for pins in platforms:
            _check_platform(pins, f"{name}.{pins.platform}")
    _check_runtime(lock.runtime)
    _check_type(lock)
    for number, channel in enumerate(lock.channels):
        _check(_URL, channel, f"channels[{number}]", "the address of a channel")
    if lock.as_of is not None:
        _check(_DATE, lock.as_of, "as_of", "a date")
    _check_printable((text for pair in lock.engines for text in pair), "engines")


def _check_platform(lock: PlatformLock, where: str) -> None:
    base = lock.base
    if isinstance(base, DebianBase):
        _check(_SUITE, base.suite, f"{where}.base.debian", "the name of a Debian release")
        _check(_GLIBC, base.glibc, f"{where}.base.glibc", "a version")
        for pin in base.packages:
            _check_fields(_DEBIAN, pin, f"{where}.base: {pin.name!r}")
    elif isinstance(base, ImageBase):
        _check_image(base, f"{where}.base.image")
    else:
        _check_printable([base.dockerfile], f"{where}.base.context.dockerfile")
        for image in base.images:
            _check_reference(image.reference, f"{where}.base.context.images")
    if lock.python is not None:
        _check_python(lock.python, f"{where}.python")
    for conda in lock.conda:
        _check_conda(conda, f"{where}.conda: {conda.name!r}")
    for pip in lock.pip:
        _check_pip(pip, f"{where}.pip: {pip.name!r}")
    for jar in lock.maven:
        _check_jar(jar, f"{where}.maven: {jar.name!r}")


def _check_python(pin: PythonPin, where: str) -> None:
    _check_fields(_PYTHON, pin, where)
    build = pin.build
    if (build is None) != (pin.provider != "standalone"):
        raise LockError(f"{where}.build: a standalone python has one, and no other")
    if build is None:
        return
    if build.version != pin.version or pin.executable != f"{STANDALONE}/bin/python{pin.short}":
        raise LockError(f"{where}.build: it isn't of python {pin.version} at {pin.executable}")
    _check(_URL, build.url, f"{where}.build.url", "an address")
    _check(_ARCHIVE, build.file, f"{where}.build.url", "an address that ends with an archive's name")


def _check_image(base: ImageBase, where: str) -> None:
    if base.glibc is not None:
        _check(_GLIBC, base.glibc, f"{where}.glibc", "a version")
    if is_local(base.reference):
        _check_printable([base.reference], f"{where}.reference")
        return
    _check_reference(base.reference, f"{where}.reference")


def _check_reference(reference: str, where: str) -> None:
    try:
        parsed = Reference.parse(reference)
    except UsageError as error:
        raise LockError(f"{where}: {error.message}") from error
    if parsed.digest is not None or reference not in (parsed.tagged, parsed.name):
        raise LockError(f"{where}: {reference!r} isn't the full name of an image")


def _check_conda(pin: CondaPin, where: str) -> None:
    _check_fields(_CONDA, pin, where)
    _check(_FILE, pin.file, f"{where}.url", "an address that ends with a file name")
    _check(_URL, pin.url, f"{where}.url", "an address")
    # The channel, match specs and paths reach JSON documents alone.
    texts = (
        *pin.depends,
        *pin.constrains,
        pin.channel,
        pin.noarch or "",
        pin.python_site_packages_path or "",
    )
    _check_printable(texts, where)
    for distribution in pin.distributions:
        _check(_EXACT, distribution, f"{where}.distributions", "an exact version")


def _check_pip(pin: PipPin, where: str) -> None:
    _check_fields(_PIP, pin, where)
    _check(_FILE, pin.file, f"{where}.file", "a file name")
    if pin.url is not None:
        _check(_URL, pin.url, f"{where}.url", "an address")
    _check_printable(pin.via, f"{where}.via")
    if pin.git is not None:
        _check_fields(_GIT, pin.git, f"{where}.git")
        try:
            parse_git_address(pin.url or "")
        except Refused as refused:
            raise LockError(f"{where}.url: {refused.what}") from refused
    if pin.sdist is not None:
        _check(_FILE, pin.sdist.file, f"{where}.sdist.file", "a file name")
        for require in pin.sdist.requires:
            _check(_REQUIRED, require, f"{where}.sdist.requires", "an exact version with its hash")


def _check_jar(pin: MavenPin, where: str) -> None:
    _check_fields(_MAVEN, pin, where)


def _check_runtime(runtime: RuntimeSettings) -> None:
    for name, value in runtime.environment_variables:
        _check(_VARIABLE, name, "runtime.environment_variables", "the name of a variable")
        if "\0" in value:
            raise LockError(f"runtime.environment_variables.{name}: holds a NUL character")
    user = _USER.fullmatch(runtime.user)
    # Only an image that is taken as it is has a user that isn't said here.
    own = runtime.type == EnvironmentType.USER_MANAGED.value
    if (runtime.user or not own) and (user is None or max(int(user[1]), int(user[2])) > _MAX_ID):
        raise LockError(f"runtime.user: {runtime.user!r} isn't uid:gid in numbers")
    for port in runtime.ports:
        if not 1 <= port <= 0xFFFF:
            raise LockError(f"runtime.ports: {port} isn't a port")
    if runtime.type not in {known.value for known in EnvironmentType}:
        raise LockError(f"runtime.type: {runtime.type!r} isn't a type of environment")
    if runtime.runtime not in {known.value for known in Runtime}:
        raise LockError(f"runtime.runtime: {runtime.runtime!r} isn't a runtime")
    if runtime.activation not in {known.value for known in ActivationScripts}:
        raise LockError(f"runtime.activation: {runtime.activation!r} isn't known")
    if runtime.clashes not in {known.value for known in Clashes}:
        raise LockError(f"runtime.clashes: {runtime.clashes!r} isn't known")
    if runtime.bytecode not in {known.value for known in Bytecode}:
        raise LockError(f"runtime.bytecode: {runtime.bytecode!r} isn't known")
    for package in runtime.spark_packages:
        _check(_COORDINATE, package, "runtime.spark_packages", "group:artifact:version")
    for repository in runtime.spark_repositories:
        _check(_URL, repository, "runtime.spark_repositories", "an address")
        if "," in repository:
            raise LockError(
                f"runtime.spark_repositories: {repository!r} has a comma, which divides addresses"
            )


def _check_type(lock: Lock) -> None:
    """Sees that a type has the bases it can have."""
    own = lock.runtime.type == EnvironmentType.USER_MANAGED.value
    for pins in lock.platforms:
        where = f"platforms.{pins.platform}"
        if isinstance(pins.base, ContextBase) and not own:
            raise LockError(f"{where}.base: a build context is of a user-managed environment only")
        if isinstance(pins.base, DebianBase) and own:
            raise LockError(f"{where}.base: a user-managed environment has an image or a build context")
        if own and (pins.conda or pins.pip or pins.maven):
            raise LockError(f"{where}: nothing is installed in a user-managed environment")
    for tools in (*lock.toolchain, *lock.installer):
        if isinstance(tools.base, ContextBase):
            raise LockError(f"{tools.platform}: a build context brings no tools")


def _check_fields(patterns: dict[str, re.Pattern[str]], pin: object, where: str) -> None:
    for field, pattern in patterns.items():
        value = getattr(pin, field)
        if pattern.fullmatch(value) is None:
            raise LockError(f"{where}: {value[:200]!r} isn't a {field} of its kind")


def _check(pattern: re.Pattern[str], value: str, where: str, kind: str) -> None:
    if pattern.fullmatch(value) is None or not value.isprintable():
        raise LockError(f"{where}: {value[:200]!r} isn't {kind}")


def _check_printable(texts: Iterable[str], where: str) -> None:
    for text in texts:
        if not text.isprintable():
            raise LockError(f"{where}: {text[:200]!r} holds a control character")
