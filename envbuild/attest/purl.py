"""Package URLs (package-url specification): the names under which scanners know packages.

None of them says where a package was fetched, as an index or a channel may be a company's own; but what is
built from a repository is known by its commit there."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from envbuild.lock.model import PipPin
from envbuild.redact import clean


def pypi(name: str, version: str, pin: PipPin | None = None) -> str:
    """Of a Python distribution, whose name is normalised; with its repository where ``pin`` has one."""
    url = clean(pin.exact_url or "") if pin is not None and pin.git is not None else ""
    return _purl("pypi", "", name, version, {"vcs_url": url})


def conda(name: str, version: str, *, build: str, channel: str, subdir: str, file: str) -> str:
    """Of a conda package; ``channel`` is a name, ``file`` its archive's."""
    kind = "conda" if file.endswith(".conda") else "tar.bz2" if file.endswith(".tar.bz2") else ""
    return _purl(
        "conda", "", name, version, {"build": build, "channel": channel, "subdir": subdir, "type": kind}
    )


def debian(name: str, version: str, *, architecture: str, release: Mapping[str, str]) -> str:
    """Of a Debian package, or of a distribution's that is made of such; ``release`` is its os-release."""
    namespace = release.get("ID", "debian").lower()
    number = release.get("VERSION_ID", "")
    return _purl(
        "deb",
        namespace,
        name,
        version,
        {"arch": architecture, "distro": f"{namespace}-{number}" if number else ""},
    )


def maven(group: str, artifact: str, version: str) -> str:
    """Of a jar."""
    return _purl("maven", group, artifact, version)


def python(version: str) -> str:
    """Of an interpreter that no package brought."""
    return _purl("generic", "", "python", version)


def channel_of(url: str) -> str:
    """The name of the channel that a conda package's ``url`` is of: the path's last part, or with its label,
    without token or host. Empty where it isn't known."""
    try:
        parts = [part for part in urlsplit(url).path.split("/") if part]
    except ValueError:
        return ""
    # The package's own file and its subdir come last; a token leads, as conda writes it.
    parts = parts[:-2]
    if parts[:1] == ["t"]:
        parts = parts[2:]
    if len(parts) > 2 and parts[-2] == "label":
        return "/".join(parts[-3:])
    return parts[-1] if parts else ""


def _purl(
    kind: str, namespace: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None
) -> str:
    place = f"{_quoted(namespace)}/" if namespace else ""
    pairs = [f"{key}={_quoted(value)}" for key, value in sorted((qualifiers or {}).items()) if value]
    ending = "?" + "&".join(pairs) if pairs else ""
    return f"pkg:{kind}/{place}{_quoted(name)}@{_quoted(version)}{ending}"


def _quoted(text: str) -> str:
    """Colons stay as they are, as the specification says; bytes that are no text become a mark."""
    return quote(text, safe=":", errors="replace")
