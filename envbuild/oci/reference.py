"""Names of images: ``name[:tag][@digest]``, with Docker's defaults filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from envbuild.errors import UsageError
from envbuild.oci.digest import is_digest

DEFAULT_REGISTRY = "docker.io"

LOCAL_FORMS = ("oci:", "oci-archive:", "docker-archive:")
"""How references to an image on this machine begin; a path follows."""

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_DIGEST_LIKE = re.compile(r"(?:sha[0-9]+:[^@/]*)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


def is_local(text: str) -> bool:
    """Whether an image's name means a layout or an archive of this machine, not one of a registry."""
    return text.startswith(LOCAL_FORMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A fully qualified image name. At least one of ``tag`` and ``digest`` is set."""

    registry: str
    """Host and optional port: ``docker.io``, ``localhost:5000``."""
    repository: str
    """``library/debian``."""
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Registry and repository: ``docker.io/library/debian``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The name as Docker shows it, without tag and digest: ``debian``."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        return self.repository.removeprefix("library/")

    @property
    def tagged(self) -> str:
        """The name with its tag, without the digest: what a lock records as ``reference``."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @property
    def target(self) -> str:
        """What a manifest is asked for by: the digest where there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        return f"{self.tagged}@{self.digest}" if self.digest else self.tagged

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference written as ``text``. A first part counts as a registry where it has a dot or a
        colon or is ``localhost`` (distribution/reference); without tag and digest, the tag is ``latest``.
        Raises ``UsageError`` that says which part is wrong."""
        if "?" in text:
            raise _wrong(text, "a name has no query", "NAME[:TAG][@sha256:…]")
        rest, at, digest = text.strip().partition("@")
        if at and not _DIGEST_LIKE.fullmatch(digest):
            raise _wrong(text, "a name has no login and no @ but before a digest", "NAME[:TAG][@sha256:…]")
        if at and not is_digest(digest):
            raise _wrong(text, f"{digest!r} is no sha256 digest", "sha256: and 64 hexadecimal digits")
        first, slash, remainder = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, path = first, remainder
        else:
            registry, path = DEFAULT_REGISTRY, rest
        if registry in ("index.docker.io", "registry-1.docker.io"):
            registry = DEFAULT_REGISTRY
        repository, colon, tag = path.partition(":")
        if not _REGISTRY.fullmatch(registry):
            raise _wrong(text, f"{registry!r} is no registry host", "host[:port]")
        if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
            repository = f"library/{repository}"
        if not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
            raise _wrong(
                text, f"{repository!r} is no repository name", "lower-case letters, digits and single . _ - /"
            )
        if colon and not _TAG.fullmatch(tag):
            raise _wrong(text, f"{tag!r} is no tag", "at the most 128 letters, digits, . _ -")
        return cls(
            registry=registry.lower(),
            repository=repository,
            tag=tag if colon else (None if at else "latest"),
            digest=digest if at else None,
        )


def is_tag(name: object) -> bool:
    """Whether ``name`` is one that a tag may have."""
    return isinstance(name, str) and _TAG.fullmatch(name) is not None


def without_login(text: str) -> str:
    """What may be shown of what should be a reference: nothing that stands before a host, and no query."""
    name, _, query = text.partition("?")
    name, at, last = name.rpartition("@")
    if at and _DIGEST_LIKE.fullmatch(last):
        name, last = without_login(name), f"@{last}"
    elif at:
        name, last = "****", f"@{last}"
    return f"{name}{last}?****" if query else f"{name}{last}"


def _wrong(text: str, why: str, form: str) -> UsageError:
    return UsageError(
        f"not an image reference: {without_login(text)!r}: {why}", hint=f"expected there: {form}"
    )
