"""Debian's Java in an image: which release counts, and the links update-alternatives would make to it."""

from __future__ import annotations

import re

from envbuild.lock.model import DebianBase, DebianPin

_JRE = re.compile(r"openjdk-([0-9]+)-jre-headless")

_JRE_TOOLS = ("java", "jpackage", "keytool", "rmiregistry")
_JDK_TOOLS = (
    *("jar", "jarsigner", "javac", "javadoc", "javap", "jcmd", "jdb", "jdeprscan", "jdeps", "jfr", "jhsdb"),
    *("jimage", "jinfo", "jlink", "jmap", "jmod", "jps", "jrunscript", "jshell", "jstack", "jstat", "jstatd"),
    "serialver",
)
"""jre_tools and jdk_hl_tools of the maintainer scripts of openjdk-17 and openjdk-21; the latter also has
jwebserver."""
_JWEBSERVER = 18


def debian_java_home(base: DebianBase) -> str | None:
    """The absolute home of the newest Java runtime of ``base``; None where it has none.

    The newest is what update-alternatives chooses: Debian's priorities rise with the release."""
    found = _newest(base)
    return f"/{_home(*found)}" if found else None


def java_links(base: DebianBase) -> dict[str, str]:
    """Paths below ``usr/bin`` to the tools of the newest Java runtime, and of its JDK where that is there."""
    found = _newest(base)
    if found is None:
        return {}
    release, pin = found
    tools = list(_JRE_TOOLS)
    if any(package.name == f"openjdk-{release}-jdk-headless" for package in base.packages):
        tools += _JDK_TOOLS
        if release >= _JWEBSERVER:
            tools.append("jwebserver")
    above = "../" + _home(release, pin).removeprefix("usr/")
    return {
        "usr/bin/jexec": f"{above}/lib/jexec",
        **{f"usr/bin/{tool}": f"{above}/bin/{tool}" for tool in tools},
    }


def _newest(base: DebianBase) -> tuple[int, DebianPin] | None:
    found = [(int(match[1]), pin) for pin in base.packages if (match := _JRE.fullmatch(pin.name))]
    return max(found, key=lambda each: each[0]) if found else None


def _home(release: int, pin: DebianPin) -> str:
    return f"usr/lib/jvm/java-{release}-openjdk-{pin.architecture}"
