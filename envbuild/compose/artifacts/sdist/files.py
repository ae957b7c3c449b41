"""Source distributions as files: where an index has them is asked of uv, which runs none of their code for
it, and the bytes are checked against their pin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from envbuild.compose.artifacts.wheel.index import IndexLogins, PackageIndexes
from envbuild.errors import BuildError, FetchError, ResolveError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.base import PipTarget
from envbuild.lock.git.repository import GitRepositories
from envbuild.lock.model import GitCommit, PipPin
from envbuild.lock.pip.command import uv_platform
from envbuild.lock.pip.pylock import load_pylock
from envbuild.specs.git import parse_git_address
from envbuild.store.content import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class SdistFiles:
    """Fetches sdists."""

    store: Store
    fetcher: Callable[[], Fetcher]
    indexes: PackageIndexes

    def fetch(self, pin: PipPin, target: PipTarget) -> Path:
        """The file of the sdist ``pin``, whole, in the store. Raises ``BuildError``."""
        stored = self.store.verified_artifact(pin.sha256)
        if stored is not None:
            return stored
        if pin.git is not None:
            return self._fetch_commit(pin, pin.git)
        if self.indexes.offline:
            raise BuildError(
                f"{pin.file} isn't in the store, and this is offline",
                hint="run once without --offline, so that it is kept",
            )
        logins = IndexLogins(self.indexes)
        download = Download(
            what=pin.file,
            urls=(logins.add_login(self.indexes.address(pin) or self._look_up(pin, target)),),
            sha256=pin.sha256,
            size=pin.size or None,
            access=logins.host_access(),
        )
        try:
            return self.fetcher().files([download])[pin.sha256]
        except FetchError as error:
            raise BuildError(error.message, hint=error.hint) from error

    def _fetch_commit(self, pin: PipPin, git: GitCommit) -> Path:
        """The archive of a commit's tree, packed as it was when it was locked."""
        repositories = GitRepositories(store=self.store, env=self.indexes.env, offline=self.indexes.offline)
        try:
            archive = repositories.fetch(pin.name, parse_git_address(pin.url or "")[0], git.commit)
        except ResolveError as error:
            raise BuildError(error.message, hint=error.hint) from error
        if (archive.tree, archive.sha256) != (git.tree, pin.sha256):
            raise BuildError(
                f"{pin.file}: the tree of commit {git.commit} is {archive.tree} (SHA-256 {archive.sha256}), "
                f"locked is {git.tree} ({pin.sha256})",
                hint=f"the repository isn't the one that was locked: check {pin.url}",
            )
        return self.store.artifact(archive.sha256)

    def _look_up(self, pin: PipPin, target: PipTarget) -> str:
        """The file's address at the index."""
        with self.store.scratch() as scratch:
            answer = self.indexes.compile_pins(
                [pin],
                [
                    *("--python-version", target.python),
                    *("--python-platform", uv_platform(target.platform, target.glibc)),
                    *("--prerelease", "allow"),
                ],
                scratch,
            )
            if answer.status != 0:
                reason = self.indexes.explanation(answer.stderr, scratch)
                raise BuildError(
                    f"{pin.file}: uv can't say where it is: {reason}",
                    hint="check the network, the proxy and the index (UV_INDEX_URL)",
                )
            packages = load_pylock((scratch / "pylock.toml").read_text(encoding="utf-8"))
        for file in (file for package in packages for file in package.files):
            if file.sha256 == pin.sha256 and file.url:
                return file.url
        raise BuildError(
            f"{pin.file}: no index has this file any more",
            hint="set the index it came from (UV_INDEX_URL, --index-url), or lock again",
        )
