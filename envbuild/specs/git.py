"""Git addresses as pip writes them: ``git+https://host/repository.git@revision#subdirectory=path``.

A credential never stands in one; ``${VAR}`` may stand in its place and is kept as text.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from envbuild.redact import redact
from envbuild.specs.fields import VARIABLE, refuse_credential
from envbuild.specs.problems import Refused

GIT_PREFIX = "git+"
SCHEMES = ("https", "http", "ssh", "file")
"""The protocols that a repository may be fetched by; ``git:`` proves nothing about who answers."""

_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@=,-]*", re.ASCII)
_SHORT = re.compile(r"([\w.-]+@[\w.-]+):(?!//)(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GitAddress:
    """A revision of a repository. ``str()`` of it is the address as a spec and a lock hold it."""

    url: str
    """What git fetches from, without ``git+``."""
    revision: str | None = None
    """A branch, a tag or a commit; None: the repository's own default branch."""
    subdirectory: str = ""
    """Where in the tree the project lies."""

    @property
    def commit(self) -> str | None:
        """The revision where it is a whole commit name, which never moves."""
        return self.revision if self.revision and _COMMIT.fullmatch(self.revision) else None

    @property
    def repository(self) -> str:
        """The repository's own name: the end of its path without ``.git``."""
        return unquote(urlsplit(self.url).path).rstrip("/").rpartition("/")[2].removesuffix(".git")

    def at(self, commit: str) -> GitAddress:
        """The same place at ``commit``."""
        return GitAddress(url=self.url, revision=commit, subdirectory=self.subdirectory)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        fragment = f"#subdirectory={self.subdirectory}" if self.subdirectory else ""
        return f"{GIT_PREFIX}{self.url}{revision}{fragment}"


def git_address(url: str, *, revision: object = None, subdirectory: object = None) -> str:
    """The address that a table of parts means (``git``, ``rev``, ``subdirectory``), still to be checked;
    ``url`` may be in ssh's short form (``git@HOST:PATH``)."""
    if short := _SHORT.fullmatch(url):
        url = f"ssh://{short[1]}/{short[2]}"
    at = f"@{revision}" if revision else ""
    return f"{GIT_PREFIX}{url}{at}" + (f"#subdirectory={subdirectory}" if subdirectory else "")


def subdirectory_of(url: str | None) -> str:
    """The directory of a source tree that an address of it names by ``#subdirectory=``; ``""``: the tree."""
    fragment = url.partition("#")[2] if url else ""
    kept = "&".join(part for part in fragment.split("&") if part.startswith("subdirectory="))
    return _fragment(kept, redact(url or ""))[0]


def parse_git_address(text: str) -> tuple[GitAddress, str]:
    """The address that ``text`` writes, and the distribution that its ``#egg=`` names (``""`` for none).

    Raises :class:`Refused`: another protocol, a credential, a revision or a directory that can't be one."""
    shown = redact(text)
    place, _, fragment = text.removeprefix(GIT_PREFIX).partition("#")
    scheme, colon, rest = place.partition("://")
    if not text.startswith(GIT_PREFIX) or not colon or scheme not in SCHEMES:
        raise Refused(
            f"{shown!r}: a repository is fetched by {', '.join(f'git+{name}' for name in SCHEMES)}",
            "write it as git+https://… or git+ssh://git@HOST/PATH",
        )
    if re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise Refused(f"{shown!r} has a space, a backslash or a control character")
    host, slash, path = rest.partition("/")
    path, at, revision = path.rpartition("@") if "@" in path else (path, "", "")
    if not path.strip("/") or (scheme != "file" and not host) or host.startswith("-"):
        raise Refused(f"{shown!r} names no repository")
    if scheme == "file" and host not in ("", "localhost"):
        raise Refused(f"{shown!r} names a directory of another host", "write git+file:///PATH")
    if scheme == "ssh" and not re.fullmatch(r"[^:]+(?::[0-9]+)?", host.rpartition("@")[2]):
        raise Refused(f"{shown!r} names no host", "write it as git+ssh://git@HOST/PATH, with a slash")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "@{" in revision):
        raise Refused(f"{shown!r}: {revision!r} is no branch, tag or commit")
    url = f"{scheme}://{host}{slash}{path}"
    _refuse_credential(url, scheme, host)
    subdirectory, egg = _fragment(fragment, shown)
    return GitAddress(url=url, revision=revision or None, subdirectory=subdirectory), egg


def _refuse_credential(url: str, scheme: str, host: str) -> None:
    """Raises :class:`Refused`. A user alone is no secret of ssh's, and ``git`` is none anywhere."""
    user, _, name = host.rpartition("@")
    if ":" not in user and (scheme == "ssh" or user == "git") and not VARIABLE.search(user):
        host = name
    query = url.partition("?")[2]
    # Without the path, where a team called "t" would look like the token of a conda channel.
    refuse_credential(f"{scheme}://{host}" + (f"/?{query}" if query else ""))


def _fragment(fragment: str, shown: str) -> tuple[str, str]:
    """The subdirectory and the egg of an address's ``fragment``."""
    subdirectory, egg = "", ""
    for part in fragment.split("&") if fragment else ():
        key, _, value = part.partition("=")
        if key == "subdirectory":
            subdirectory = posixpath.normpath(unquote(value)) if value else ""
            if value and (subdirectory.startswith(("/", "..")) or not re.fullmatch(r"[\w./+-]+", value)):
                raise Refused(f"{shown!r}: {value!r} is no directory of a repository")
            subdirectory = "" if subdirectory == "." else subdirectory
        elif key == "egg":
            egg = unquote(value)
        else:
            raise Refused(f"{shown!r}: {key!r} means nothing in a git address", "known: subdirectory, egg")
    return subdirectory, egg
