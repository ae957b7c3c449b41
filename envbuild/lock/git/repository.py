"""Fetches commits with the machine's git, which runs nothing but the transfer itself.

Of this user's configuration git reads none: no hook, filter, helper, submodule or rewritten address counts.
Only the protocols of ``specs.git`` are spoken, nothing is ever asked at a terminal, and what a repository
holds is only read as objects, never checked out. Credentials are netrc's, the ssh agent's, or those of
``${VAR}`` in an address, which no command line shows.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuild.errors import ResolveError, suggestion
from envbuild.lock.git.archive import parse_tree, write_archive
from envbuild.lock.pip.command import expand, secrets
from envbuild.redact import clean, safe_text
from envbuild.specs.git import SCHEMES, GitAddress
from envbuild.store.content import Store, commit_file

PATIENCE = 1800.0
"""Seconds that git may take for one step."""
_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|SSH_AUTH_SOCK|GIT_SSH|GIT_SSH_COMMAND|GIT_SSL_CAINFO|GIT_SSL_CAPATH"
    r"|(?:HTTPS?|ALL|NO)_PROXY|LD_LIBRARY_PATH",
    re.IGNORECASE,
)
_CONFIGURATION = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("maintenance.auto", "false"),
    ("transfer.bundleURI", "false"),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,39}")
_OUTPUT_LIMIT = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class GitArchive:
    """The tree of ``commit`` as a source archive, an artifact of the store by its SHA-256."""

    commit: str
    tree: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GitRepositories:
    """Repositories as this machine reaches them. ``env`` is the environment of this process."""

    store: Store
    env: Mapping[str, str]
    offline: bool = False
    patience: float = PATIENCE

    def fetch(self, name: str, address: GitAddress, commit: str | None = None) -> GitArchive:
        """The archive of the distribution ``name`` at ``address``, in the store; at ``commit`` where that is
        known already. Raises ``ResolveError`` with git's own reason."""
        if self.offline:
            raise ResolveError(
                f"{name}: {address} isn't in the store, and this is offline",
                hint="run once without --offline, so that it is kept",
            )
        with self.store.scratch() as scratch:
            repository = _Repository(
                address=address, directory=scratch / "git", env=self.env, patience=self.patience
            )
            repository.create()
            commit = repository.fetch(commit or address.commit or repository.find_commit())
            tree = repository.run("rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()
            entries = parse_tree(repository.run("ls-tree", "-r", "-z", "--full-tree", commit), str(address))
            file, part = f"{name}-{commit[:12]}.tar.gz", scratch / "part"
            with repository.objects([entry.object for entry in entries]) as process:
                assert process.stdout is not None
                sha256, size = write_archive(
                    entries, process.stdout, part, top=f"{name}-{commit[:12]}", what=str(address)
                )
            commit_file(part, self.store.artifact(sha256))
        return GitArchive(commit=commit, tree=tree, file=file, size=size, sha256=sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Repository:
    """A bare repository of ours that one commit is fetched into."""

    address: GitAddress
    directory: Path
    env: Mapping[str, str]
    patience: float

    def create(self) -> None:
        self.directory.mkdir(mode=0o700)
        self.run("init", "--quiet", "--bare", "--template=")

    def find_commit(self) -> str:
        """The commit that the address's revision names now: a branch before a tag, as pip has it; or a name
        that only a full fetch can explain, an abbreviated commit."""
        revision = self.address.revision
        listing = self.run("ls-remote", "--quiet", "origin").decode("utf-8", "replace")
        commits = {
            name: commit
            for commit, tab, name in (line.partition("\t") for line in listing.splitlines())
            if tab and _COMMIT.fullmatch(commit)
        }
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", revision)
        for name in names if revision else ("HEAD",):
            if name in commits:
                return commits[name]
        if revision and _ABBREVIATED.fullmatch(revision):
            return revision
        known = [re.sub(r"^refs/(?:heads|tags)/|\^\{\}$", "", name) for name in commits]
        raise ResolveError(
            f"{self.address}: it has no branch, tag or commit {revision!r}"
            if revision
            else f"{self.address}: it has no default branch",
            hint=(suggestion(revision, known) if revision else "") or "name a branch, a tag or a commit",
        )

    def fetch(self, commit: str) -> str:
        """Brings ``commit`` (or the one that it abbreviates), and returns its whole name."""
        whole = _COMMIT.fullmatch(commit) is not None
        # Not every server gives a single commit, and a plain directory of files (dumb HTTP) never does.
        if not (whole and self._has(commit, self._git("fetch", *_QUIET, "--depth=1", "origin", commit))):
            self.run(*("fetch", *_QUIET, "origin"), "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        verified = self._git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
        text = verified.stdout.decode("ascii", "replace").strip()
        if verified.returncode != 0 or not _COMMIT.fullmatch(text):
            raise ResolveError(
                f"{self.address}: the repository has no commit {commit} that a branch or a tag leads to",
                hint="it may have been rewritten since: lock again with --upgrade-package",
            )
        return text

    def objects(self, names: Sequence[str]) -> subprocess.Popen[bytes]:
        """A process that writes the objects ``names``, each with its header."""
        asked = self.directory / "asked"
        asked.write_text("".join(f"{name}\n" for name in names))
        with asked.open("rb") as stdin:
            return subprocess.Popen(
                [self._executable, "cat-file", "--batch"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self.directory,
                env=self._environment,
            )

    def run(self, *arguments: str) -> bytes:
        """What git answers. Raises ``ResolveError``."""
        completed = self._git(*arguments)
        if completed.returncode != 0 or len(completed.stdout) > _OUTPUT_LIMIT:
            raise self._failure(completed.stderr.decode("utf-8", "replace"))
        return completed.stdout

    def _has(self, commit: str, fetched: subprocess.CompletedProcess[bytes]) -> bool:
        return fetched.returncode == 0 and self._git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self._executable, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=self.directory,
                env=self._environment,
                timeout=self.patience,
                # Without a terminal ssh can't ask for a passphrase either.
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ResolveError(
                f"{self.address}: git did not end within {self.patience:g} seconds",
                hint="check the network, or give a wheel of it by address",
            ) from error

    @property
    def _executable(self) -> str:
        path = shutil.which("git", path=self.env.get("PATH"))
        if path is None:
            raise ResolveError(f"{self.address}: git isn't installed", hint="install git, or name a wheel")
        return path

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in self.env.items() if _KEPT.fullmatch(name)}
        # In variables, as an address may hold a credential by now, and everyone sees a command line.
        settings = (*_CONFIGURATION, ("remote.origin.url", expand(self.address.url, self.env)))
        numbered = {f"GIT_CONFIG_KEY_{n}": name for n, (name, _) in enumerate(settings)}
        numbered |= {f"GIT_CONFIG_VALUE_{n}": value for n, (_, value) in enumerate(settings)}
        certificates = self.env.get("GIT_SSL_CAINFO") or self.env.get("SSL_CERT_FILE")
        return {
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=30",
            **({"GIT_SSL_CAINFO": certificates} if certificates else {}),
            **kept,
            **numbered,
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ALLOW_PROTOCOL": ":".join(SCHEMES),
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_DIR": str(self.directory),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C",
        }

    def _failure(self, stderr: str) -> ResolveError:
        hidden = secrets([self.address.url], self.env)
        lines = [safe_text(line, hidden) for line in stderr.splitlines()]
        reason = clean("; ".join(line for line in lines if line)) or "git says nothing"
        if re.search(
            r"could not read|Authentication failed|Permission denied|error: 403|prompts disabled", reason
        ):
            hint = (
                "it asks who you are: keep the login in netrc, write ${VAR} in the address, or use "
                "git+ssh:// with an agent that holds the key; nothing is asked here"
            )
        elif re.search(
            r"resolve host|connect|timed out|unreachable|unable to access|closed by remote|reset by peer",
            reason,
        ):
            hint = "check the network, the proxy and the address"
        elif "dubious ownership" in reason:
            hint = "the repository's directory belongs to another user"
        else:
            hint = "check the address, and that the repository is there"
        return ResolveError(f"{self.address}: git: {reason}", hint=hint)


_QUIET = ("--quiet", "--no-tags", "--no-recurse-submodules")
