"""Fetches commits with the machine's git, which runs nothing but the transfer itself.

Of this user's configuration git reads none: no hook, filter, helper or rewritten address counts. Submodules
are fetched as repositories of their own. Only the protocols of ``specs.git`` are spoken, nothing is ever
asked at a terminal, and what a repository holds is only read as objects, never checked out. Credentials are
netrc's, the ssh agent's, or those of ``${VAR}`` in an address, which no command line shows.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from envbuild.errors import ResolveError, suggestion
from envbuild.lock.git.archive import TreeEntry, TreeFiles, parse_tree, write_archive
from envbuild.lock.pip.command import expand, secrets
from envbuild.redact import clean, redact, safe_text
from envbuild.specs.git import GIT_PREFIX, SCHEMES, GitAddress, parse_git_address
from envbuild.specs.problems import Refused
from envbuild.store.content import Store, commit_file

_SUBMODULES = 100
"""Repositories of one requirement, itself included."""
_DEPTH = 64
"""Directories that a submodule may lie below."""
_SCP = re.compile(r"([A-Za-z0-9._-]+@[A-Za-z0-9.-]+):(?!//)([^:]+)")
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
        with self.store.scratch() as scratch, ExitStack() as stack:
            checkouts: list[_Checkout] = []
            self._check_out(checkouts, address, commit, scratch)
            repository, commit = checkouts[0].repository, checkouts[0].commit
            tree = repository.run("rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()
            top, part = f"{name}-{commit[:12]}", scratch / "part"
            trees = (checkout.open(stack) for checkout in checkouts)
            sha256, size = write_archive(trees, part, top=top, what=str(address))
            commit_file(part, self.store.artifact(sha256))
        return GitArchive(commit=commit, tree=tree, file=f"{top}.tar.gz", size=size, sha256=sha256)

    def _check_out(
        self,
        checkouts: list[_Checkout],
        address: GitAddress,
        commit: str | None,
        scratch: Path,
        below: str = "",
    ) -> None:
        """Adds the repository at ``address`` and, behind it, its submodules and theirs: a tree names their
        commits, so that nothing of them can move."""
        if len(checkouts) == _SUBMODULES or below.count("/") > _DEPTH:
            raise ResolveError(f"{checkouts[0].repository.address}: it has submodules without end")
        directory = scratch / f"git-{len(checkouts)}"
        repository = _Repository(address=address, directory=directory, env=self.env, patience=self.patience)
        repository.create()
        commit = repository.fetch(commit or address.commit or repository.find_commit())
        listing = repository.run("ls-tree", "-r", "-z", "--full-tree", commit)
        entries = parse_tree(listing, str(address), below=below)
        files = [entry for entry in entries if not entry.submodule]
        checkouts.append(_Checkout(repository=repository, commit=commit, entries=files))
        submodules = [entry for entry in entries if entry.submodule]
        addresses = repository.submodules(commit) if submodules else {}
        for entry in submodules:
            path = entry.path.removeprefix(below)
            if path not in addresses:
                raise ResolveError(f"{address}: no address is stated for the submodule {path!r}")
            inner = submodule_address(address, addresses[path])
            self._check_out(checkouts, inner, entry.object, scratch, f"{entry.path}/")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checkout:
    """A commit that was fetched, and its files."""

    repository: _Repository
    commit: str
    entries: Sequence[TreeEntry]

    def open(self, stack: ExitStack) -> TreeFiles:
        process = stack.enter_context(self.repository.objects([entry.object for entry in self.entries]))
        assert process.stdout is not None
        return self.entries, process.stdout


def submodule_address(parent: GitAddress, url: str) -> GitAddress:
    """Where a submodule of the repository ``parent`` is, by the ``url`` of ``.gitmodules``: relative to it,
    or of its own. A server's repository can't name one of this machine. Raises ``ResolveError``."""
    if url.startswith(("./", "../")):
        parts = urlsplit(parent.url)
        path = posixpath.normpath(posixpath.join(parts.path, url))
        url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    elif match := _SCP.fullmatch(url):
        url = f"ssh://{match[1]}/{match[2].lstrip('/')}"
    elif url.startswith("/"):
        url = f"file://{url}"
    shown = redact(url)
    if urlsplit(url).scheme == "file" and urlsplit(parent.url).scheme != "file":
        raise ResolveError(f"{parent}: its submodule {shown!r} would be a directory of this machine")
    try:
        return parse_git_address(f"{GIT_PREFIX}{url}")[0]
    except Refused as refused:
        raise ResolveError(f"{parent}: its submodule: {refused.what}", hint=refused.remedy) from refused


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

    def submodules(self, commit: str) -> dict[str, str]:
        """Path to address of each submodule that the commit's ``.gitmodules`` states."""
        known = self._git(
            *("config", "-z", f"--blob={commit}:.gitmodules", "--no-includes"),
            *("--get-regexp", r"^submodule\..*\.(path|url)$"),
        )
        stated: dict[str, dict[str, str]] = {}
        for item in filter(None, known.stdout.decode("utf-8", "surrogateescape").split("\0")):
            key, _, value = item.partition("\n")
            name, _, field = key.rpartition(".")
            stated.setdefault(name, {})[field] = value
        return {fields["path"]: fields["url"] for fields in stated.values() if {"path", "url"} <= set(fields)}

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
