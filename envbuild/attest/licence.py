"""What licence a package says it has: an SPDX expression where its words are certain, else its words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from envbuild.attest.base import Licence
from envbuild.lazy import lazy

if TYPE_CHECKING:
    from packaging import licenses as packaging_licenses
else:
    packaging_licenses = lazy("packaging.licenses")

_LONGEST = 500
_CLASSIFIERS = {
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "European Union Public Licence 1.1 (EUPL 1.1)": "EUPL-1.1",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zero-Clause BSD (0BSD)": "0BSD",
    "zlib/libpng License": "Zlib",
}
"""Those that mean one licence. "BSD License" and "Apache Software License" may be several (PEP 639)."""
_WORDS = {
    "2-clause bsd": "BSD-2-Clause",
    "2-clause bsd license": "BSD-2-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd-2-clause license": "BSD-2-Clause",
    "bsd-3-clause license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0": "MPL-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "the mit license": "MIT",
}
"""What packages say instead of an identifier, in lower case."""
_DEBIAN = {
    "0bsd": "0BSD",
    "artistic-2.0": "Artistic-2.0",
    "apache-2.0": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsl-1.0": "BSL-1.0",
    "cc0-1.0": "CC0-1.0",
    "expat": "MIT",
    "isc": "ISC",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "zlib": "Zlib",
}
"""Short names of Debian's copyright-format that aren't, or are, SPDX's; GNU's are computed."""
_GNU = re.compile(r"(?P<name>AGPL|GPL|LGPL|GFDL)-(?P<version>[1-3](?:\.[0-3])?)(?P<later>\+?)", re.IGNORECASE)
_SPDX = re.compile(r"(?:A?GPL-3\.0|L?GPL-2\.0|LGPL-(?:2\.1|3\.0))-(?:only|or-later)")
_SPDX_GNU = frozenset(
    {"GPL-1", "GPL-2", "GPL-3", "LGPL-2", "LGPL-2.1", "LGPL-3", "AGPL-3"} | {"GFDL-1.2", "GFDL-1.3"}
)
_JOINED = re.compile(r"(,?\s+(?:and|or)\s+|,)", re.IGNORECASE)


def of_distribution(expression: str, words: str, classifiers: Iterable[str]) -> Licence:
    """From the fields of a METADATA (PEP 639 §Licenses, and what was before it)."""
    for stated in (expression, words):
        if certain := _expression(stated):
            return Licence(expression=certain)
    names = [classifier.rpartition(" :: ")[2] for classifier in classifiers]
    names = [name for name in dict.fromkeys(names) if name != "OSI Approved"]
    if len(names) == 1 and names[0] in _CLASSIFIERS:
        return Licence(expression=_CLASSIFIERS[names[0]])
    # Where there are several nobody knows whether one may choose.
    return _words(expression or words or ", ".join(names))


def of_conda(words: str) -> Licence:
    """From the field of a conda package, which is an SPDX expression where a recipe is careful."""
    certain = _expression(words)
    return Licence(expression=certain) if certain else _words(words)


def of_debian(names: Iterable[str]) -> Licence:
    """From all short names of a copyright file: each holds for some files of the source package."""
    names = sorted(set(names))
    identifiers = {_debian(name) for name in names}
    if not identifiers:
        return Licence()
    if "" not in identifiers:
        return Licence(expression=" AND ".join(sorted(identifiers)))
    return _words(", ".join(names))


def _expression(words: str) -> str:
    """``words`` as an SPDX expression; empty where they are none for certain."""
    if not words or len(words) > _LONGEST:
        return ""
    try:
        return packaging_licenses.canonicalize_license_expression(words)
    except (packaging_licenses.InvalidLicenseExpression, RecursionError, MemoryError):
        return _WORDS.get(words.strip().lower(), "")


def _debian(name: str) -> str:
    """The SPDX expression of a short name or of several joined by words; empty where it isn't certain."""
    if "," in name or len(_JOINED.split(name)) > 3:
        return ""  # What belongs together isn't clear any more.
    parts = [_debian_one(part) for part in _JOINED.split(name)[::2]]
    if not all(parts):
        return ""
    joined = _JOINED.search(name)
    if joined is None:
        return parts[0]
    return f"({f' {joined[0].strip().upper()} '.join(parts)})"


def _debian_one(name: str) -> str:
    gnu = _GNU.fullmatch(name.strip())
    if _SPDX.fullmatch(name.strip()):
        return name.strip()
    if gnu is None:
        return _DEBIAN.get(name.strip().lower(), "")
    stated = f"{gnu['name'].upper()}-{gnu['version'].removesuffix('.0')}"
    if stated not in _SPDX_GNU:
        return ""
    number = stated if "." in stated else f"{stated}.0"
    return f"{number}-{'or-later' if gnu['later'] else 'only'}"


def _words(text: str) -> Licence:
    """Without what doesn't print, and not longer than anybody reads."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    shown = " ".join(shown.split())
    return Licence(text=f"{shown[: _LONGEST - 1]}…" if len(shown) > _LONGEST else shown)
