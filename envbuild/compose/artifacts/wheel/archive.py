"""Wheels as the files that an index has.

uv keeps only what wheels hold. It says where each file of a version lies, with this machine's index, proxy
and credential settings; the file is then fetched from there, and is what was pinned or is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from envbuild.compose.artifacts.wheel.index_login import IndexLogins
from envbuild.compose.artifacts.wheel.install import file_names, wheel_pin
from envbuild.errors import BuildError, FetchError, ResolveError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.model import PipPin
from envbuild.lock.pip.command import (
    clean,
    expand,
    find_uv,
    index_options,
    own_project,
    python_options,
    secrets,
    uv_environment,
)
from envbuild.lock.pip.pylock import Resolved, load_pylock
from envbuild.lock.pip.runner import Completed, Runner, SubprocessRunner
from envbuild.oci.digest import digest_file
from envbuild.plan.model import Artifact
from envbuild.store.content import Store

_LOG = logging.getLogger(__name__)
_ANY_PYTHON = "3.99"
"""What uv is told for wheels that any later python loads: newer than every python they may ask for."""
_READERS = 4


class WheelArchives:
    """Brings wheels. ``options``, ``env`` and ``address`` are those of a ``WheelSource``.

    ``build_wheel`` gives the file of a pin that envbuild builds itself. ``offline``: only what is in the
    store, and what it can build from there."""

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        *,
        env: Mapping[str, str],
        options: Sequence[str] = (),
        address: Callable[[str], str] = str,
        build_wheel: Callable[[PipPin], Path] | None = None,
        offline: bool = False,
        runner: Runner | None = None,
        executable: str | None = None,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._env = env
        self._options = index_options(options, env)
        self._secrets = secrets(options, env)
        self._address = address
        self._build_wheel = build_wheel
        self._offline = offline
        self._runner = runner or SubprocessRunner()
        self._executable = executable

    def archives(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        """See ``Archives``. Nobody is asked for what the store has."""
        pins = {pin.sha256: pin for pin in map(wheel_pin, artifacts)}
        with ThreadPoolExecutor(_READERS) as pool:
            stored = dict(zip(pins, pool.map(self._store.verified_artifact, pins), strict=True))
        found = {sha256: path for sha256, path in stored.items() if path is not None}
        missing = [pin for sha256, pin in pins.items() if sha256 not in found]
        for pin in missing:
            if pin.sdist is not None:
                found[pin.sha256] = self._built(pin)
        missing = [pin for pin in missing if pin.sdist is None]
        if missing:
            found.update(self._fetch(missing))
        return {sha256: found[sha256] for sha256 in pins}

    def _built(self, pin: PipPin) -> Path:
        if self._build_wheel is None:
            raise BuildError(f"{pin.file} is no file of an index: it has to be built, which nobody can here")
        path = self._build_wheel(pin)
        if digest_file(path) != f"sha256:{pin.sha256}":
            raise BuildError(
                f"{pin.file} was built, but isn't what is pinned",
                hint=f"lock again: envbuild lock --upgrade-package {pin.name}",
            )
        return path

    def _fetch(self, pins: Sequence[PipPin]) -> dict[str, Path]:
        if self._offline:
            return self._fetcher.files([_download(pin) for pin in pins])
        stated = {pin.sha256: self._address(expand(pin.url, self._env)) for pin in pins if pin.url}
        indexed = [pin for pin in pins if not pin.url]
        # Where uv remembers the index's pages from a lock or a build, asking again only takes time.
        known = self._ask(indexed, remembered=True)
        if len(known) < len(indexed):
            return self._download(pins, {**stated, **self._asked(indexed)})
        try:
            return self._download(pins, {**stated, **known})
        except FetchError as error:
            # An index may have moved its files since, or sign addresses for a time.
            moved = self._moved(indexed, known)
            if moved is None:
                raise
            _LOG.info("%s; asking the index again", error.message)
        return self._download(pins, {**stated, **moved})

    def _moved(self, pins: Sequence[PipPin], known: Mapping[str, str]) -> dict[str, str] | None:
        """The addresses as the index has them now; None where they are those ``known``, or it is silent."""
        try:
            asked = self._asked(pins)
        except FetchError:
            return None
        return None if asked == known else asked

    def _asked(self, pins: Sequence[PipPin]) -> dict[str, str]:
        """Addresses from the index itself, of all pins. Raises ``FetchError``."""
        found = self._ask(pins, remembered=False)
        lost = [pin for pin in pins if pin.sha256 not in found]
        if lost:
            raise FetchError(
                "\n".join(
                    f"can't get {pin.file}: the index lists no file of {pin.name} {pin.version} with the "
                    "SHA-256 that is pinned"
                    for pin in lost
                ),
                hint="it may have left the index: envbuild lock "
                + " ".join(f"--upgrade-package {pin.name}" for pin in lost)
                + ", or set the index it came from",
            )
        return found

    def _download(self, pins: Sequence[PipPin], addresses: Mapping[str, str]) -> dict[str, Path]:
        logins = IndexLogins(self._env, self._options, self._runner)
        return self._fetcher.files([_download(pin, logins.applied(addresses[pin.sha256])) for pin in pins])

    def _ask(self, pins: Sequence[PipPin], *, remembered: bool) -> dict[str, str]:
        """The address of each pinned file, as far as known. ``remembered``: only to uv itself."""
        found: dict[str, str] = {}
        for python, those in _questions(pins):
            wanted = {pin.sha256 for pin in those}
            with self._store.scratch() as directory:
                answer = self._run(those, python, directory, remembered)
                if answer.status != 0 and not remembered:
                    raise self._failure(answer, those, directory)
                if answer.status != 0:
                    continue
                text = (directory / "pylock.toml").read_text(encoding="utf-8")
            found.update(
                {
                    file.sha256: file.url
                    for each in _resolved(text)
                    for file in each.files
                    if file.url and file.sha256 in wanted
                }
            )
        return found

    def _run(self, pins: Sequence[PipPin], python: str, directory: Path, remembered: bool) -> Completed:
        # Read by uv from a file that nobody else can read: addresses may hold credentials.
        directory.chmod(0o700)
        lines = [*self._options, *(f"{pin.name}=={pin.version}" for pin in pins)]
        (directory / "requirements.in").write_text("\n".join(lines) + "\n", encoding="utf-8")
        argv = [
            self._executable or find_uv(),
            *(
                "pip",
                "compile",
                "requirements.in",
                "--quiet",
                "--no-header",
                "--no-deps",
                "--only-binary",
                ":all:",
            ),
            # Files for all machines: which one was pinned is known by its hash.
            *("--universal", "--python-version", python, *python_options()),
            *("--format", "pylock.toml", "--output-file", "pylock.toml"),
            # A page that uv takes for fresh may be older than the lock.
            "--offline" if remembered else "--refresh",
        ]
        return self._runner.run(argv, env=uv_environment(self._env), cwd=own_project(directory))

    def _failure(self, answer: Completed, pins: Sequence[PipPin], directory: Path) -> FetchError:
        said = clean(answer.stderr, self._secrets).replace(f"{directory}/", "")
        said = re.sub(r"^error: ", "", said) or f"uv ended with status {answer.status}"
        if re.search(r"error sending request|tcp connect|dns error|timed out|Failed to fetch", said):
            hint = "check the network, the proxy and the index (UV_INDEX_URL)"
        else:
            hint = (
                "it may have left the index: envbuild lock --upgrade-package, or set the index it came from"
            )
        return FetchError(f"can't find out where to get {file_names(pins)}: {said}", hint=hint)


def _resolved(text: str) -> tuple[Resolved, ...]:
    try:
        return load_pylock(text)
    except ResolveError as error:
        raise FetchError(error.message, hint=error.hint) from error


def _questions(pins: Sequence[PipPin]) -> Iterator[tuple[str, list[PipPin]]]:
    """The pins that uv can be asked for at once: for one python, and one version of each name."""
    groups: dict[tuple[str, int], list[PipPin]] = {}
    seen: dict[str, int] = {}
    for pin in pins:
        count = seen[pin.name] = seen.get(pin.name, -1) + 1
        groups.setdefault((_python(pin), count), []).append(pin)
    for (python, _), those in groups.items():
        yield python, those


def _python(pin: PipPin) -> str:
    """A version of python that loads the wheel: uv leaves out what no version it is told of can load."""
    try:
        tags = parse_wheel_filename(pin.file)[3]
    except InvalidWheelFilename:
        return _ANY_PYTHON
    exact = []
    for tag in tags:
        match = re.fullmatch(r"cp(\d)(\d+)", tag.interpreter)
        if match is None or tag.abi == "abi3":
            return _ANY_PYTHON
        exact.append((int(match[1]), int(match[2])))
    return "{}.{}".format(*max(exact))


def _download(pin: PipPin, url: str | None = None) -> Download:
    return Download(what=pin.file, urls=(url,) if url else (), sha256=pin.sha256, size=pin.size or None)
