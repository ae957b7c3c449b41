"""The files of a Debian base that no package holds: what maintainer scripts make where it matters."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from envbuild.errors import BuildError
from envbuild.lock.model import DebianBase, DebianPin, PythonPin
from envbuild.plan.model import GeneratedFile
from envbuild.specs.model import PREFIX

_USERS = """\
root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:*:2:2:bin:/bin:/usr/sbin/nologin
sys:*:3:3:sys:/dev:/usr/sbin/nologin
sync:*:4:65534:sync:/bin:/bin/sync
games:*:5:60:games:/usr/games:/usr/sbin/nologin
man:*:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:*:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:*:8:8:mail:/var/mail:/usr/sbin/nologin
news:*:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:*:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:*:13:13:proxy:/bin:/usr/sbin/nologin
www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin
backup:*:34:34:backup:/var/backups:/usr/sbin/nologin
list:*:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:*:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:*:42:65534::/nonexistent:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
"""passwd.master of base-passwd 3.6.1 and 3.6.7 (bookworm and trixie have the same)."""

_GROUPS = (
    "root:0 daemon:1 bin:2 sys:3 adm:4 tty:5 disk:6 lp:7 mail:8 news:9 uucp:10 man:12 proxy:13 kmem:15 "
    "dialout:20 fax:21 voice:22 cdrom:24 floppy:25 tape:26 sudo:27 audio:29 dip:30 www-data:33 backup:34 "
    "operator:37 list:38 irc:39 src:40 shadow:42 utmp:43 video:44 sasl:45 plugdev:46 staff:50 games:60 "
    "users:100 nogroup:65534"
)
"""group.master of the same."""

USER_NAME = "env"

_ALTERNATIVES = {
    # The choice update-alternatives makes by priority where one package is there. Later ones win.
    "debianutils": (("usr/bin/which", "which.debianutils"),),
    "mawk": (("usr/bin/awk", "mawk"), ("usr/bin/nawk", "mawk")),
    "gawk": (("usr/bin/awk", "gawk"), ("usr/bin/nawk", "gawk")),
    "libblas3": (("usr/lib/{multiarch}/libblas.so.3", "blas/libblas.so.3"),),
    "liblapack3": (("usr/lib/{multiarch}/liblapack.so.3", "lapack/liblapack.so.3"),),
    "libopenblas0-pthread": (
        ("usr/lib/{multiarch}/libblas.so.3", "openblas-pthread/libblas.so.3"),
        ("usr/lib/{multiarch}/liblapack.so.3", "openblas-pthread/liblapack.so.3"),
        ("usr/lib/{multiarch}/libopenblas.so.0", "openblas-pthread/libopenblas.so.0"),
    ),
}
_JAVA_PREFERENCES = (".system.lock", ".systemRootModFile")
"""Without these Java's system preferences warn that they can't be written."""

_MULTIARCH = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

_DIRECTORIES = (
    ("etc/opt", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/etc", 0o755),
    ("usr/local/include", 0o755),
    ("usr/local/lib", 0o755),
    ("usr/local/sbin", 0o755),
    ("usr/local/share", 0o755),
    ("usr/local/src", 0o755),
    ("var/opt", 0o755),
)


def home_directory(user: str) -> str:
    """The absolute home directory of ``uid:gid`` in a Debian base."""
    uid, _ = _numbers(user)
    for line in _USERS.splitlines():
        fields = line.split(":")
        if int(fields[2]) == uid:
            return fields[5]
    return f"/home/{USER_NAME}"


def user_name(user: str) -> str:
    """What ``uid:gid`` is called in a Debian base."""
    uid, _ = _numbers(user)
    fields = (line.split(":") for line in _USERS.splitlines())
    return next((field[0] for field in fields if int(field[2]) == uid), USER_NAME)


def system_files(base: DebianBase, user: str) -> tuple[GeneratedFile, ...]:
    """Users and groups, usrmerge links, run-time directories and alternatives of ``base``, sorted by path.

    ``user`` is ``uid:gid``; it is called ``env`` unless Debian already has a name for it. Raises
    ``BuildError`` for a user that isn't two numbers."""
    uid, gid = _numbers(user)
    architectures = {pin.architecture for pin in base.packages} - {"all"}
    multiarch = next(
        (_MULTIARCH[architecture] for architecture in sorted(architectures) if architecture in _MULTIARCH), ""
    )
    generated_files = [
        GeneratedFile(path="etc/group", content=_groups(gid).encode()),
        GeneratedFile(path="etc/passwd", content=_users(uid, gid).encode()),
        GeneratedFile(path="etc/localtime", target="/usr/share/zoneinfo/Etc/UTC"),
        GeneratedFile(path="etc/timezone", content=b"Etc/UTC\n"),
        GeneratedFile(path="var/lock", target="/run/lock"),
        GeneratedFile(path="var/run", target="/run"),
    ]
    merged = ["bin", "lib", "sbin"]
    if "amd64" in architectures:
        merged.append("lib64")
    generated_files += [GeneratedFile(path=name, target=f"usr/{name}") for name in merged]
    generated_files += [GeneratedFile(path=path, directory=True, mode=mode) for path, mode in _DIRECTORIES]
    if home_directory(user) == f"/home/{USER_NAME}":
        home = f"home/{USER_NAME}"
        generated_files.append(_home_of(home, uid))
    elif uid == 0:
        generated_files.append(GeneratedFile(path="root", directory=True, mode=0o770))
    links = java_links(base)
    names = {pin.name for pin in base.packages}
    for name, pairs in _ALTERNATIVES.items():
        if name in names:
            links.update({path.format(multiarch=multiarch): target for path, target in pairs})
    generated_files += [GeneratedFile(path=path, target=target) for path, target in links.items()]
    if debian_java_home(base):
        generated_files += [
            GeneratedFile(path=f"etc/.java/.systemPrefs/{name}") for name in _JAVA_PREFERENCES
        ]
    return tuple(sorted(generated_files, key=lambda file: file.path))


def _users(uid: int, gid: int) -> str:
    if any(int(line.split(":")[2]) == uid for line in _USERS.splitlines()):
        return _USERS
    return f"{_USERS}{USER_NAME}:*:{uid}:{gid}:{USER_NAME}:/home/{USER_NAME}:/bin/bash\n"


def _groups(gid: int) -> str:
    pairs = [part.split(":") for part in _GROUPS.split()]
    if all(int(number) != gid for _, number in pairs):
        pairs.append([USER_NAME, str(gid)])
    return "".join(f"{name}:*:{number}:\n" for name, number in pairs)


def _numbers(user: str) -> tuple[int, int]:
    uid, colon, gid = user.partition(":")
    if not (uid.isascii() and uid.isdigit()) or (colon and not (gid.isascii() and gid.isdigit())):
        raise BuildError(f"the user {user!r} is not uid:gid", hint="write numbers, such as 1000:1000")
    return int(uid), int(gid or uid)


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
    newest = _newest(base)
    return f"/{_home(*newest)}" if newest else None


def java_links(base: DebianBase) -> dict[str, str]:
    """Paths below ``usr/bin`` to the tools of the newest Java runtime, and of its JDK where that is there."""
    newest = _newest(base)
    if newest is None:
        return {}
    release, pin = newest
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
    runtimes = [(int(match[1]), pin) for pin in base.packages if (match := _JRE.fullmatch(pin.name))]
    return max(runtimes, key=lambda pair: pair[0]) if runtimes else None


def _home(release: int, pin: DebianPin) -> str:
    return f"usr/lib/jvm/java-{release}-openjdk-{pin.architecture}"


_PREFIX = str(PREFIX).lstrip("/")


def history_file(prefix: PurePosixPath = PREFIX) -> GeneratedFile:
    """``conda-meta/history``: by it conda knows a directory for an environment. Always the same."""
    return GeneratedFile(
        path=f"{str(prefix).lstrip('/')}/conda-meta/history",
        content=b"# Composed by envbuild; the packages are recorded beside this file.\n",
    )


def home_files(user: str) -> tuple[GeneratedFile, ...]:
    """The home of ``uid:gid`` on a base that is an image, owned by it and usable by group 0; a Debian base
    has its own."""
    home = home_directory(user).lstrip("/")
    if home != f"home/{USER_NAME}":
        return ()
    return (_home_of(home, _numbers(user)[0]),)


def _home_of(path: str, uid: int) -> GeneratedFile:
    """A home directory that ``uid`` owns and group 0 may use as well: platforms that choose a uid of their
    own (OpenShift, ``runAsUser``) give it that group."""
    return GeneratedFile(path=path, directory=True, mode=0o775, uid=uid)


def prefix_files(python: PythonPin | None, *, conda: bool) -> tuple[GeneratedFile, ...]:
    """What makes ``/opt/env`` an environment: a virtual environment over the base's python (PEP 405), or a
    conda prefix with its history. Sorted by path."""
    if conda:
        return (history_file(),)
    if python is None:
        return ()
    home = PurePosixPath(python.executable).parent
    settings = (
        f"home = {home}\n"
        "include-system-site-packages = false\n"
        f"version = {python.version}\n"
        f"executable = {python.executable}\n"
    )
    return (
        GeneratedFile(path=f"{_PREFIX}/bin/python", target=python.executable),
        GeneratedFile(path=f"{_PREFIX}/bin/python3", target="python"),
        GeneratedFile(path=f"{_PREFIX}/bin/python{python.short}", target="python"),
        GeneratedFile(path=f"{_PREFIX}/lib64", target="lib"),
        GeneratedFile(path=f"{_PREFIX}/pyvenv.cfg", content=settings.encode()),
    )
