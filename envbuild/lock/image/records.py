"""The files of an image that say what is installed, and the few lines of each that count.

Python's metadata, conda's records, dpkg's status, the copyright of Debian packages, jars by their name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from envbuild.specs.importers.conda.prefix import conda_record

DISTRIBUTION = re.compile(
    r"(?:(?P<place>.*)/)?(?P<name>[^/]+)\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)"
)
CONDA = re.compile(r"(?:.*/)?conda-meta/(?P<name>[^/]+)-(?P<version>[^/-]+)-(?P<build>[^/-]+)\.json")
NOTE = re.compile(r"(?P<place>(?:.*/)?[^/]+\.dist-info)/(?P<kind>INSTALLER|direct_url\.json)")
STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
STATES = "var/lib/apt/extended_states"
RELEASES = ("etc/os-release", "usr/lib/os-release")
COPYRIGHT = re.compile(r"usr/share/doc/(?P<name>[^/]+)/copyright")
DOCUMENTATION = re.compile(r"usr/share/doc/(?P<name>[^/]+)")
_NAMES = frozenset({"METADATA", "PKG-INFO", "INSTALLER", "direct_url.json", "os-release"})
_LINES = 64
"""Licences that are kept of one copyright file, and classifiers of a distribution."""
_LONGEST = 500
"""Characters of a licence in a package's own words."""


def kind_of(path: str) -> str | None:
    """What a file of this path says; None where it says nothing of packages. Called for every file."""
    name = path.rpartition("/")[2]
    if name in _NAMES or name.endswith(".egg-info"):
        if DISTRIBUTION.fullmatch(path):
            return "distribution"
        if NOTE.fullmatch(path):
            return "note"
        return "release" if path in RELEASES else None
    if name.endswith(".json"):
        return "conda" if CONDA.fullmatch(path) else None
    if name.endswith(".jar"):
        return "jar"
    if path.startswith("var/lib/"):
        return "status" if STATUS.fullmatch(path) else "states" if path == STATES else None
    return "copyright" if name == "copyright" and COPYRIGHT.fullmatch(path) else None


def essence(kind: str, text: str) -> str:
    """What counts of a file of this kind, which begins with ``text``. Never raises."""
    if kind == "conda":
        return _conda(text)
    if kind in ("note", "release"):
        return text.strip()
    if kind == "states":
        states = (dict(fields(paragraph)) for paragraph in text.split("\n\n"))
        return " ".join(state.get("Package", "") for state in states if state.get("Auto-Installed") == "1")
    if kind == "status":
        return json.dumps(list(_status(text)))
    if kind == "copyright":
        return "\n".join(_copyright(text))
    return json.dumps(_distribution(text))


def fields(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of the first paragraph, in order; a value of several lines keeps them."""
    key, value = "", ""
    for line in text.splitlines():
        if not line.strip():
            break
        if line[0].isspace():
            value += "\n" + line.strip()
            continue
        if key:
            yield key, value
        key, colon, value = line.partition(":")
        key, value = (key, value.strip()) if colon else ("", "")
    if key:
        yield key, value


def _distribution(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    requires: list[str] = []
    classifiers: list[str] = []
    for key, value in fields(text):
        if key == "Requires-Dist":
            requires.append(value)
        elif key == "Classifier" and value.startswith("License :: "):
            classifiers.append(value)
        elif key in ("Name", "Version", "License", "License-Expression"):
            headers.setdefault(key, value)
    lines = [line for line in headers.get("License", "").splitlines() if any(map(str.isalpha, line))]
    # A whole licence's text says in its first line which one it is, or whose; a classifier says more.
    words = lines[0] if len(lines) == 1 or (lines and not classifiers) else ""
    stated = {
        "name": headers.get("Name", ""),
        "version": headers.get("Version", ""),
        "requires": "\n".join(requires),
        "classifiers": "\n".join(classifiers[:_LINES]),
        "license": words.strip()[:_LONGEST],
        "license_expression": headers.get("License-Expression", "")[:_LONGEST],
    }
    return {key: value for key, value in stated.items() if value}


def _status(text: str) -> Iterator[dict[str, str]]:
    for paragraph in text.split("\n\n"):
        entry: dict[str, str] = {}
        for key, value in fields(paragraph):
            entry.setdefault(key, value)
        name, version = entry.get("Package"), entry.get("Version")
        # A file of status.d has no state: it is there, so it is installed.
        if name and version and entry.get("Status", "installed").split()[-1:] == ["installed"]:
            needed = [entry[key] for key in ("Pre-Depends", "Depends") if entry.get(key)]
            yield {
                "name": name,
                "version": version,
                "priority": "required" if entry.get("Essential") == "yes" else entry.get("Priority", ""),
                "architecture": entry.get("Architecture", ""),
                "depends": ", ".join(needed).replace("\n", " "),
                "provides": entry.get("Provides", "").replace("\n", " "),
            }


def _conda(text: str) -> str:
    """What conda noted, as JSON; nothing where it can't be read: the file's name says enough then."""
    try:
        record = conda_record(text)
    except ValueError:
        return "{}"
    details = {
        "url": record.url,
        "subdir": record.subdir,
        "sha256": record.sha256,
        "md5": record.md5,
        "build": record.build,
        "license": record.license[:_LONGEST],
        "size": record.size,
    }
    lists = {"owned": "\n".join(record.owned), "depends": "\n".join(record.depends)}
    return json.dumps({**details, **lists})


def _copyright(text: str) -> list[str]:
    """The short names of all licences in a copyright file of Debian's copyright-format; none of others."""
    if not text.startswith("Format:"):
        return []
    names = {line[len("License:") :].strip() for line in text.splitlines() if line.startswith("License:")}
    return sorted(name for name in names if name and len(name) <= _LONGEST)[:_LINES]
