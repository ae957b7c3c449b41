"""Maven repositories: which of them has a module, its POM, and its jars, checked and kept in the store."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from envbuild.errors import BuildError, FetchError, ResolveError
from envbuild.http.address import shown
from envbuild.http.base import Download, Fetcher, FilesError
from envbuild.lock.maven.coordinate import Coordinate
from envbuild.lock.maven.pom import LARGEST, Pom, read_pom
from envbuild.store.content import Store, commit_file

MODULES = 5_000
"""POMs that one resolution may read."""
_CHECKSUM = 1 << 12
_JAR = 2 << 30
"""Bytes a jar may have; one without a SHA-256 beside it is read into memory."""
_PARALLEL = 8


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Jar:
    """A file to be had: what it is of, its path below a repository's root."""

    coordinate: Coordinate
    file: str


def address(root: str, file: str) -> str:
    """Where ``file`` is below the repository ``root``."""
    return f"{root.rstrip('/')}/{quote(file, safe='/+~')}"


class Repositories:
    """The repositories of one resolution, asked in their order: the first that has a module's POM is the one
    its jars are taken from, as Ivy's chain of resolvers does. One that can't be reached is an error, because
    a later one might answer differently. Thread safe."""

    def __init__(self, fetcher: Fetcher, store: Store, roots: Sequence[str], *, offline: bool) -> None:
        self._fetcher = fetcher
        self._store = store
        self._roots = tuple(dict.fromkeys(root.rstrip("/") for root in roots))
        self._offline = offline
        self._poms: dict[Coordinate, Pom] = {}
        self._homes: dict[Coordinate, str] = {}
        self._lock = threading.Lock()

    def pom(self, coordinate: Coordinate) -> Pom:
        """The module's POM, read once. Raises ``ResolveError``: no repository has it, one doesn't answer."""
        with self._lock:
            known = self._poms.get(coordinate)
            if known is None and len(self._poms) == MODULES:
                raise ResolveError(f"{coordinate}: more than {MODULES} modules are needed")
        if known is not None:
            return known
        file = coordinate.file("pom")
        for root in self._roots:
            data = self._read_file(root, file, LARGEST, coordinate)
            if data is None:
                continue
            self._verify(root, file, data, coordinate)
            pom = read_pom(data, shown(address(root, file)))
            with self._lock:
                self._homes[coordinate] = root
                self._poms[coordinate] = pom
            return pom
        hint = "check the coordinates, or add the repository that has it to spark.repositories"
        if self._offline:
            hint = "run once without --offline, so that it is kept"
        raise ResolveError(f"{coordinate} is in none of the Maven repositories {self._shown()}", hint=hint)

    def jars(self, jars: Sequence[Jar]) -> dict[Jar, tuple[str, int]]:
        """The SHA-256 (bare hex) and size in bytes of every jar, each now in the store.

        A jar's checksum is the repository's ``.sha256``, else its ``.sha1``; one of them must be there."""
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="maven") as pool:
            stated = dict(zip(jars, pool.map(self._sha256, jars), strict=True))
            plain = [jar for jar in jars if stated[jar] is None]
            known = {jar: sha256 for jar, sha256 in stated.items() if sha256 is not None}
            known |= dict(zip(plain, pool.map(self._by_sha1, plain), strict=True))
        self._fetch_jars([jar for jar in jars if jar not in plain], known)
        return {jar: (known[jar], self._store.artifact(known[jar]).stat().st_size) for jar in jars}

    def _fetch_jars(self, jars: Sequence[Jar], known: dict[Jar, str]) -> None:
        downloads = [
            Download(
                what=jar.file.rpartition("/")[2],
                urls=(address(self._homes[jar.coordinate], jar.file),),
                sha256=known[jar],
            )
            for jar in jars
        ]
        try:
            self._fetcher.files(downloads, stage="resolve")
        except FetchError as error:
            raise ResolveError(
                f"can't get the jars of Spark's packages: {error.message}", hint=error.hint
            ) from error

    def _sha256(self, jar: Jar) -> str | None:
        return self._checksum(jar.coordinate, self._homes[jar.coordinate], jar.file, "sha256", 64)

    def _by_sha1(self, jar: Jar) -> str:
        root = self._homes[jar.coordinate]
        sha1 = self._checksum(jar.coordinate, root, jar.file, "sha1", 40)
        if sha1 is None:
            raise ResolveError(
                f"{shown(address(root, jar.file))} has neither a .sha256 nor a .sha1 beside it",
                hint="a jar whose repository vouches for nothing isn't locked",
            )
        data = self._read_file(root, jar.file, _JAR, jar.coordinate, keep=False)
        if data is None:
            raise ResolveError(f"{jar.coordinate} has no jar at {shown(address(root, jar.file))}")
        _matches("sha1", data, sha1, shown(address(root, jar.file)))
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            with self._store.scratch() as scratch:
                part = scratch / "jar"
                part.write_bytes(data)
                commit_file(part, self._store.artifact(sha256))
        except (OSError, BuildError) as error:
            raise ResolveError(
                f"can't keep {jar.file} in {self._store.root}: {error}",
                hint="free some space, or set ENVBUILD_CACHE_DIR to another disk",
            ) from error
        return sha256

    def _verify(self, root: str, file: str, data: bytes, coordinate: Coordinate) -> None:
        """Compares a POM with the checksum beside it, where there is one."""
        for name, length in (("sha256", 64), ("sha1", 40)):
            stated = self._checksum(coordinate, root, file, name, length)
            if stated is not None:
                _matches(name, data, stated, shown(address(root, file)))
                return

    def _checksum(self, coordinate: Coordinate, root: str, file: str, name: str, length: int) -> str | None:
        data = self._read_file(root, f"{file}.{name}", _CHECKSUM, coordinate)
        if data is None:
            return None
        # Some tools write the file's name behind the checksum, some before it.
        match = re.search(
            rf"(?<![0-9a-fA-F])[0-9a-fA-F]{{{length}}}(?![0-9a-fA-F])", data.decode("ascii", "replace")
        )
        if match is None:
            raise ResolveError(f"{shown(address(root, file))}.{name} holds no checksum")
        return match[0].lower()

    def _read_file(
        self, root: str, file: str, limit: int, coordinate: Coordinate, *, keep: bool = True
    ) -> bytes | None:
        """A file's bytes; None where the repository doesn't have it or, offline, where it was never read."""
        try:
            return self._fetcher.read(address(root, file), limit=limit, cache=keep)
        except FilesError as error:
            if all(failure.gone for failure in error.failures):
                return None
            raise self._unreachable(coordinate, error) from error
        except FetchError as error:
            if self._offline:
                return None
            raise self._unreachable(coordinate, error) from error

    def _unreachable(self, coordinate: Coordinate, error: FetchError) -> ResolveError:
        return ResolveError(
            f"{coordinate} can't be looked for in the Maven repositories {self._shown()}: {error.message}",
            hint="set ENVBUILD_MAVEN_REPOSITORY to a mirror that this machine reaches, or let Spark fetch "
            "its packages when it starts: precache_packages: false",
        )

    def _shown(self) -> str:
        return ", ".join(map(shown, self._roots))


def _matches(name: str, data: bytes, stated: str, where: str) -> None:
    digest = hashlib.new(name, data, usedforsecurity=False).hexdigest()
    if digest != stated:
        raise ResolveError(
            f"{where}: its {name.upper()} is {digest}, but the repository says {stated}",
            hint="the file was replaced or damaged on its way; nothing of it was kept",
        )
