"""Licences: what is certain is an SPDX expression, all else stays the package's own words."""

from __future__ import annotations

import pytest

from envbuild.attest.base import Licence
from envbuild.attest.licence import of_conda, of_debian, of_distribution

MIT = "License :: OSI Approved :: MIT License"
BSD = "License :: OSI Approved :: BSD License"
APACHE = "License :: OSI Approved :: Apache Software License"
PARENT = "License :: OSI Approved"


@pytest.mark.parametrize(
    ("expression", "words", "classifiers", "found"),
    [
        ("MIT", "", [], Licence(expression="MIT")),
        ("mit or apache-2.0", "BSD", [BSD], Licence(expression="MIT OR Apache-2.0")),
        (
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "",
            [],
            Licence(expression="GPL-2.0-only WITH Classpath-exception-2.0"),
        ),
        ("LicenseRef-Ours", "", [], Licence(expression="LicenseRef-Ours")),
        ("no (expression", "", [], Licence(text="no (expression")),
        ("", "BSD-3-Clause", [BSD], Licence(expression="BSD-3-Clause")),
        ("", "Apache License, Version 2.0", [APACHE], Licence(expression="Apache-2.0")),
        ("", "BSD", [BSD], Licence(text="BSD")),
        ("", "", [PARENT, MIT], Licence(expression="MIT")),
        ("", "", [BSD], Licence(text="BSD License")),
        ("", "", [APACHE], Licence(text="Apache Software License")),
        ("", "", [MIT, APACHE], Licence(text="MIT License, Apache Software License")),
        ("", "", [], Licence()),
        ("", "UNKNOWN\x1b[31m \u202e", [], Licence(text="UNKNOWN [31m")),
        ("", "x" * 600, [], Licence(text="x" * 499 + "…")),
        ("(" * 400, "", [], Licence(text="(" * 400)),
    ],
)
def test_of_a_distribution(expression: str, words: str, classifiers: list[str], found: Licence) -> None:
    assert of_distribution(expression, words, classifiers) == found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("PSF-2.0", Licence(expression="PSF-2.0")),
        ("GPL-3.0-only WITH GCC-exception-3.1", Licence(expression="GPL-3.0-only WITH GCC-exception-3.1")),
        ("GPL-2.0-or-later AND MIT", Licence(expression="GPL-2.0-or-later AND MIT")),
        ("Proprietary (see EULA)", Licence(text="Proprietary (see EULA)")),
        ("", Licence()),
    ],
)
def test_of_a_conda_package(words: str, found: Licence) -> None:
    assert of_conda(words) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["GPL-2+", "Expat"], Licence(expression="GPL-2.0-or-later AND MIT")),
        (
            ["GPL-2", "GPL-3", "LGPL-2.1+"],
            Licence(expression="GPL-2.0-only AND GPL-3.0-only AND LGPL-2.1-or-later"),
        ),
        (
            ["BSD-3-clause or GPL-2+", "zlib"],
            Licence(expression="(BSD-3-Clause OR GPL-2.0-or-later) AND Zlib"),
        ),
        (["GPL-2.0-only"], Licence(expression="GPL-2.0-only")),
        (["GPL-2+", "public-domain"], Licence(text="GPL-2+, public-domain")),
        (["GPL-3+ with Bison exception"], Licence(text="GPL-3+ with Bison exception")),
        (["MPL-1.1 or GPL-2+ and LGPL-2.1+"], Licence(text="MPL-1.1 or GPL-2+ and LGPL-2.1+")),
        (["MIT"], Licence(text="MIT")),
        (["GPL-9"], Licence(text="GPL-9")),
        ([], Licence()),
    ],
)
def test_of_a_debian_package(names: list[str], found: Licence) -> None:
    assert of_debian(names) == found
