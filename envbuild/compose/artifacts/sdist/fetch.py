"""Brings source distributions to this machine: where an index has them is asked of uv, which runs none of
their code for it, and the bytes are checked against their pin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envbuild.compose.artifacts.wheel.index_login import IndexLogins
from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download, Fetcher
from envbuild.lock.base import PipTarget
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
    uv_platform,
)
from envbuild.lock.pip.runner import Runner, SubprocessRunner
from envbuild.store.content import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class SdistFiles:
    """Gets sdists. ``options`` are those of the spec (``--index-url``…), ``env`` the environment of this
    process; ``address`` makes the address a pin states an absolute one."""

    store: Store
    fetcher: Callable[[], Fetcher]
    env: Mapping[str, str]
    options: Sequence[str] = ()
    address: Callable[[str], str] = str
    offline: bool = False
    runner: Runner = field(default_factory=SubprocessRunner)

    def path(self, pin: PipPin, target: PipTarget) -> Path:
        """The file of the sdist ``pin``, whole, in the store. Raises ``BuildError``."""
        there = self.store.verified_artifact(pin.sha256)
        if there is not None:
            return there
        if self.offline:
            raise BuildError(
                f"{pin.file} isn't in the store, and this is offline",
                hint="run once without --offline, so that it is kept",
            )
        url = self.address(expand(pin.url, self.env)) if pin.url else self._find(pin, target)
        url = IndexLogins(self.env, self.indexes, self.runner).applied(url)
        download = Download(what=pin.file, urls=(url,), sha256=pin.sha256, size=pin.size or None)
        try:
            return self.fetcher().files([download])[pin.sha256]
        except FetchError as error:
            raise BuildError(error.message, hint=error.hint) from error

    def _find(self, pin: PipPin, target: PipTarget) -> str:
        """The file's address at the index."""
        from envbuild.lock.pip.pylock import load_pylock

        with self.store.scratch() as scratch:
            # In a directory that only this user can read: addresses may hold credentials.
            lines = [*self.indexes, f"{pin.name}=={pin.version}"]
            (scratch / "requirements.in").write_text("\n".join(lines) + "\n", encoding="utf-8")
            argv = [
                *(find_uv(), "pip", "compile", "requirements.in", "--quiet", "--no-header"),
                *python_options(),
                *("--python-version", target.python),
                *("--python-platform", uv_platform(target.platform, target.glibc)),
                # Without dependencies uv needs no metadata, for which it would run the sdist's own code.
                *("--no-deps", "--prerelease", "allow", "--format", "pylock.toml", "-o", "pylock.toml"),
            ]
            answer = self.runner.run(argv, env=uv_environment(self.env), cwd=own_project(scratch))
            if answer.status != 0:
                said = clean(answer.stderr, secrets(self.options, self.env)).replace(f"{scratch}/", "")
                raise BuildError(
                    f"{pin.file}: uv can't say where it is: {said}",
                    hint="check the network, the proxy and the index (UV_INDEX_URL)",
                )
            found = load_pylock((scratch / "pylock.toml").read_text(encoding="utf-8"))
        files = [file for package in found for file in package.files if file.sha256 == pin.sha256]
        if not files or not files[0].url:
            raise BuildError(
                f"{pin.file}: no index has this file any more",
                hint="set the index it came from (UV_INDEX_URL, --index-url), or lock again",
            )
        return files[0].url

    @property
    def indexes(self) -> tuple[str, ...]:
        """The spec's options that say where to look."""
        return index_options(self.options, self.env)
