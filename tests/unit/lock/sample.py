"""A lock of two platforms, for tests."""

from __future__ import annotations

from envbuild.lock.model import (
    CondaPin,
    DebianBase,
    DebianPin,
    ImageBase,
    Lock,
    PipPin,
    PlatformLock,
    PythonBuild,
    PythonPin,
    RuntimeSettings,
)
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
LIBC = DebianPin(
    name="libc6",
    version="2.41-12",
    architecture="amd64",
    archive="debian",
    file="pool/main/g/glibc/libc6_2.41-12_amd64.deb",
    size=2800000,
    sha256=ONE,
)
TZDATA = DebianPin(
    name="tzdata",
    version="2026a-1",
    architecture="all",
    archive="debian-security",
    file="pool/main/t/tzdata/tzdata_2026a-1_all.deb",
    size=250000,
    sha256=TWO,
)
IDNA = PipPin(
    name="idna",
    version="3.10",
    file="idna-3.10-py3-none-any.whl",
    size=70442,
    sha256=ONE,
    via=("-r requirements.in",),
)
SIX = PipPin(name="six", version="1.17.0", file="six-1.17.0-py2.py3-none-any.whl", size=11050, sha256=TWO)
ZLIB = CondaPin(
    name="zlib",
    version="1.3.1",
    build="h0_0",
    subdir="linux-aarch64",
    url="https://conda.example/forge/linux-aarch64/zlib-1.3.1-h0_0.conda",
    size=90000,
    sha256=THREE,
    md5="0" * 32,
    depends=("__glibc >=2.17",),
    channel="https://conda.example/forge",
)
BASE = DebianBase(suite="trixie", packages=(LIBC, TZDATA), glibc="2.41")
PYTHON = PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13")
STANDALONE = PythonPin(
    version="3.10.13",
    provider="standalone",
    executable="/opt/python/bin/python3.10",
    build=PythonBuild(
        version="3.10.13",
        url="https://python.example/20260101/cpython-3.10.13%2B20260101-x86_64-unknown-linux-gnu-install_only.tar.gz",
        size=30000000,
        sha256="6" * 64,
    ),
)
AMD64 = PlatformLock(
    platform=LINUX_AMD64,
    base=BASE,
    python=PYTHON,
    pip=(IDNA, SIX),
)
ARM64 = PlatformLock(
    platform=LINUX_ARM64,
    base=ImageBase(
        reference="docker.io/library/debian:trixie-slim",
        digest=f"sha256:{ONE}",
        index_digest=f"sha256:{TWO}",
        glibc="2.41",
        layers=1,
        diff_ids=(f"sha256:{THREE}",),
    ),
    python=None,
    conda=(ZLIB,),
)
LOCK = Lock(
    definition=f"sha256:{THREE}",
    platforms=(AMD64, ARM64),
    runtime=RuntimeSettings(environment_variables=(("A", "1"), ("B", "two")), ports=(5001,)),
    channels=("https://conda.example/forge",),
    as_of="2026-11-01",
    engines=(("rattler", "0.28"), ("uv", "0.9.9")),
)
