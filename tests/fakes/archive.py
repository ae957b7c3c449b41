"""A small signed Debian archive, made by the tests: pool, dists, security suite, and hand-made packages."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from envbuild.lock.debian.keys import Keyring
from envbuild.lock.debian.mirror import Mirrors
from envbuild.lock.debian.selection import BASE, suite_python
from envbuild.lock.model import DebianPin

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
"""The time the tests' clock shows; archives are dated just before."""

DATE = "Fri, 20 Nov 2026 08:00:00 UTC"


@lru_cache(maxsize=2)
def signing_key(name: str = "archive") -> tuple[object, Keyring]:
    """A key made once a test run, and its public half."""
    import pysequoia

    key = pysequoia.Tsk.generate(user_id=f"{name} <{name}@example.org>")
    return key, Keyring(name=f"the {name} key", data=bytes(key.extract_certificate()))


def signed(text: str, name: str = "archive") -> bytes:
    """``text`` clear-signed by the key ``name``."""
    import pysequoia

    key, _ = signing_key(name)
    return pysequoia.sign(key.signer(), text.encode(), mode=pysequoia.SignatureMode.CLEAR)  # type: ignore[attr-defined]


def tar_bytes(entries: Sequence[tarfile.TarInfo | tuple[str, bytes]]) -> bytes:
    """A tar of ready headers, and of ``(path, content)`` files with mode 0644."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            path, content = entry
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def link(path: str, target: str, *, hard: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    info.linkname = target
    return info


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, uid, gid
    return info


def device(path: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
    return info


def ar_bytes(members: Sequence[tuple[str, bytes]]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members:
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data)
        if len(data) % 2:
            parts.append(b"\n")
    return b"".join(parts)


def compress(data: bytes, suffix: str) -> bytes:
    if suffix == ".xz":
        return lzma.compress(data, preset=0)
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


def deb_bytes(
    name: str,
    version: str = "1.0",
    *,
    architecture: str = "amd64",
    files: Sequence[tarfile.TarInfo | tuple[str, bytes]] = (),
    suffix: str = ".xz",
    md5sums: bytes | None = None,
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """A .deb with these entries, and further control fields."""
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nDescription: made by a test\n"
    )
    control += "".join(f"{key}: {value}\n" for key, value in (fields or {}).items())
    inside: list[tuple[str, bytes]] = [("./control", control.encode())]
    if md5sums is not None:
        inside.append(("./md5sums", md5sums))
    return ar_bytes(
        [
            ("debian-binary", b"2.0\n"),
            (f"control.tar{suffix}", compress(tar_bytes(inside), suffix)),
            (f"data.tar{suffix}", compress(tar_bytes(files), suffix)),
        ]
    )


@dataclass(kw_only=True)
class Deb:
    """A package of the archive. ``fields`` are further control fields (``Depends``…)."""

    name: str
    version: str = "1.0"
    architecture: str = "amd64"
    files: Sequence[tarfile.TarInfo | tuple[str, bytes]] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


class Archive:
    """An archive below ``root``: add packages, then ``write``. Everything may be written again."""

    def __init__(
        self, root: Path, *, suite: str = "trixie", architectures: Sequence[str] = ("amd64",)
    ) -> None:
        self.root = root
        self.suite = suite
        self.architectures = tuple(architectures)
        self.key = "archive"
        self.by_hash = True
        self.release: dict[str, str] = {}
        """Fields of every InRelease that replace the ordinary ones."""
        self._debs: dict[tuple[str, str], list[Deb]] = {}

    @property
    def keyring(self) -> Keyring:
        return signing_key("archive")[1]

    @property
    def mirrors(self) -> Mirrors:
        return Mirrors(main=self.root_url("debian"), security=self.root_url("debian-security"))

    def root_url(self, archive: str) -> str:
        return (self.root / archive).as_uri()

    def add(self, *debs: Deb, suffix: str = "") -> None:
        """Adds to the suite itself, or to ``-updates`` or ``-security``."""
        for deb in debs:
            self._debs.setdefault((suffix, deb.architecture), []).append(deb)

    def clear(self) -> None:
        self._debs.clear()

    def add_base(self) -> None:
        """What every base and its python need, each an almost empty package."""
        release = suite_python(self.suite)
        fields = {
            "libc-bin": {"Depends": "libc6 (>> 2.41), libc6 (<< 2.42)", "Source": "glibc"},
            "mawk": {"Provides": "awk", "Priority": "required"},
        }
        for architecture in self.architectures:
            for name in BASE:
                self.add(Deb(name=name, architecture=architecture, fields=fields.get(name, {})))
            self.add(
                Deb(name="libc6", version="2.41-12", architecture=architecture, fields={"Source": "glibc"}),
                Deb(
                    name="python3",
                    version=f"{release}.5-1",
                    architecture=architecture,
                    fields={"Depends": f"python{release} (>= {release}.5-1~), dpkg | install-info"},
                ),
                Deb(
                    name=f"python{release}",
                    version=f"{release}.5-2",
                    architecture=architecture,
                    fields={"Depends": f"python{release}-minimal (= {release}.5-2), libc6 (>= 2.38)"},
                ),
                Deb(name=f"python{release}-minimal", version=f"{release}.5-2", architecture=architecture),
            )

    def write(self) -> None:
        for suffix, archive in (("", "debian"), ("-updates", "debian"), ("-security", "debian-security")):
            self._write_suite(archive, suffix)

    def pin(self, name: str, *, suffix: str = "") -> DebianPin:
        """The pin of a package that was written."""
        for (where, _), debs in self._debs.items():
            for deb in debs:
                if deb.name == name and where == suffix:
                    archive = "debian-security" if suffix == "-security" else "debian"
                    data = self._bytes(deb)
                    return DebianPin(
                        name=name,
                        version=deb.version,
                        architecture=deb.architecture,
                        archive=archive,
                        file=self._file(deb),
                        size=len(data),
                        sha256=hashlib.sha256(data).hexdigest(),
                    )
        raise KeyError(name)

    def _write_suite(self, archive: str, suffix: str) -> None:
        suite = self.suite + suffix
        folder = self.root / archive / "dists" / suite
        lines = []
        for architecture in self.architectures:
            debs = self._debs.get((suffix, architecture), []) + self._debs.get((suffix, "all"), [])
            text = "\n".join(self._entry(archive, deb) for deb in debs)
            data = compress(text.encode(), ".xz")
            digest = hashlib.sha256(data).hexdigest()
            place = folder / "main" / f"binary-{architecture}"
            (place / "by-hash" / "SHA256").mkdir(parents=True, exist_ok=True)
            (place / "Packages.xz").write_bytes(data)
            if self.by_hash:
                (place / "by-hash" / "SHA256" / digest).write_bytes(data)
            lines.append(f" {digest} {len(data)} main/binary-{architecture}/Packages.xz")
        fields = {
            "Suite": f"stable{suffix}",
            "Codename": suite,
            "Date": DATE,
            "Acquire-By-Hash": "yes" if self.by_hash else "no",
            **self.release,
        }
        text = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
        release = text + "SHA256:\n" + "\n".join(lines) + "\n"
        (folder / "InRelease").write_bytes(signed(release, self.key))

    def _entry(self, archive: str, deb: Deb) -> str:
        data = self._bytes(deb)
        path = self.root / archive / self._file(deb)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        fields = {
            "Package": deb.name,
            "Version": deb.version,
            "Architecture": deb.architecture,
            **deb.fields,
            "Filename": self._file(deb),
            "Size": str(len(data)),
            "SHA256": hashlib.sha256(data).hexdigest(),
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items())

    def _file(self, deb: Deb) -> str:
        version = deb.version.partition(":")[2] or deb.version
        return f"pool/main/{deb.name[0]}/{deb.name}/{deb.name}_{version}_{deb.architecture}.deb"

    def _bytes(self, deb: Deb) -> bytes:
        return deb_bytes(
            deb.name,
            deb.version,
            architecture=deb.architecture,
            files=deb.files,
            suffix=".gz",
            fields=deb.fields,
        )
