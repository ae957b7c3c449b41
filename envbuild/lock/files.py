"""The lock directory: ``envbuild.lock`` and the two files in the formats of their fields.

``envbuild.lock`` is JSON with sorted keys; it names the digests of the other files and closes with one of
its own content, so that an edit by hand or a bad merge is found before anything is built from it. The
reader meets the format number first.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from envbuild.errors import LockError, UsageError
from envbuild.lazy import lazy
from envbuild.lock.model import (
    LOCK_FORMAT,
    Base,
    CondaPin,
    ContextBase,
    DebianBase,
    DebianPin,
    ImageBase,
    Lock,
    MavenPin,
    PipPin,
    PlatformLock,
    PythonBuild,
    PythonPin,
    RuntimeSettings,
    Sdist,
)
from envbuild.lock.record import dump_record, expect_list, expect_object, expect_text, load_record
from envbuild.lock.values import check_values
from envbuild.oci.digest import canonical_digest, digest_bytes, is_diff_id, is_digest
from envbuild.platforms import Platform

if TYPE_CHECKING:
    from envbuild.lock.conda import lockfile as conda_lockfile
    from envbuild.lock.pip import requirements as pip_requirements
else:
    conda_lockfile = lazy("envbuild.lock.conda.lockfile")
    pip_requirements = lazy("envbuild.lock.pip.requirements")

LOCK_FILE = "envbuild.lock"
CONDA_FILE = "conda-lock.yml"
SELF_DESCRIPTION = "usr/share/envbuild"
"""Where an image keeps the lock it was made from."""
_HAND = "take the file back from version control, or make it anew with: envbuild lock --upgrade"
_SIZE_LIMIT = 64 << 20
_MAX_SIZE = 1 << 50
_HEX = re.compile(r"[0-9a-f]{64}")


def requirements_file(platform: Platform) -> str:
    """The file name of a platform's pip pins: ``requirements.linux-64.txt``."""
    return f"requirements.{platform.subdir}.txt"


def dump_lock(lock: Lock) -> dict[str, bytes]:
    """The lock's files, name to bytes: equal locks give equal bytes, however they were put together."""
    files: dict[str, bytes] = {}
    conda = {pins.platform: pins.conda for pins in lock.platforms if pins.conda}
    if conda:
        files[CONDA_FILE] = conda_lockfile.dump_conda_lock(lock.channels, conda).encode()
    for pins in lock.platforms:
        if pins.pip:
            files[requirements_file(pins.platform)] = pip_requirements.dump_requirements(pins.pip).encode()
    body: dict[str, Any] = {
        "format": LOCK_FORMAT,
        "definition": lock.definition,
        "bytecode": lock.bytecode,
        "files": {name: digest_bytes(data) for name, data in files.items()},
        "platforms": {str(pins.platform): _dump_platform(pins) for pins in lock.platforms},
        "runtime": {
            # What equals its default is left out, but for these three.
            **dump_record(lock.runtime),
            "environment_variables": dict(lock.runtime.environment_variables),
            "user": lock.runtime.user,
            "ports": sorted(lock.runtime.ports),
        },
    }
    if lock.channels:
        body["channels"] = list(lock.channels)
    if lock.as_of:
        body["as_of"] = lock.as_of
    if lock.as_of_kept:
        body["as_of_kept"] = True
    if lock.toolchain:
        body["toolchain"] = {str(pins.platform): _dump_platform(pins) for pins in lock.toolchain}
    if lock.installer:
        body["installer"] = {str(pins.platform): _dump_platform(pins) for pins in lock.installer}
    if lock.engines:
        body["engines"] = dict(lock.engines)
    body["integrity"] = _integrity(body)
    files[LOCK_FILE] = (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return files


def write_lock(directory: Path, lock: Lock) -> bool:
    """Writes the files of ``lock``; False where they already say so.

    All of them are written beside the old ones before the first takes its place, ``envbuild.lock`` last: a
    full disk or an interruption leaves the old lock as it was."""
    files = dump_lock(lock)
    parts: dict[Path, Path] = {}
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in sorted(files, key=lambda name: (name == LOCK_FILE, name)):
            path = directory / name
            if path.is_file() and path.read_bytes() == files[name]:
                continue
            # A name of its own: two commands may write the same lock at once.
            part = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
            parts[part] = path
            with part.open("xb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
        changed = bool(parts)
        for part, path in parts.items():
            part.replace(path)
        for stale in [*directory.glob("requirements.*.txt"), directory / CONDA_FILE]:
            if stale.name not in files and stale.is_file():
                stale.unlink()
                changed = True
    except BaseException as error:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):
                directory.rmdir()
        if isinstance(error, OSError):
            raise LockError(
                f"can't write the lock in {directory}: {error.strerror}",
                hint="check the directory's permissions and the space on its disk, or name another with "
                "--lock-dir",
            ) from error
        raise
    return changed


def read_lock(directory: Path) -> Lock | None:
    """The lock in ``directory``, None where there is none.

    Raises ``LockError``: a newer format, damage, an edit by hand, a file that is missing."""
    path = directory / LOCK_FILE
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _SIZE_LIMIT:
            raise LockError(f"{path}: larger than any lock")
        data = path.read_bytes()
    except OSError as error:
        raise LockError(f"can't read {path}: {error.strerror}") from error
    lock, files = parse_lock(data, str(path))
    for name, digest in files.items():
        beside = directory / name
        if not beside.is_file():
            raise LockError(f"{beside} is missing, though {LOCK_FILE} names it", hint=_HAND)
        if digest_bytes(beside.read_bytes()) != digest:
            raise LockError(f"{beside} was changed after the lock was made", hint=_HAND)
    return lock


def parse_lock(data: bytes, where: str = LOCK_FILE) -> tuple[Lock, Mapping[str, str]]:
    """The lock that ``data`` describes, and the digests of the files beside it. Raises ``LockError``."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LockError(f"{where}: not a lock: {error}", hint=_HAND) from error
    if not isinstance(body, dict):
        raise LockError(f"{where}: not a lock: no object", hint=_HAND)
    number = body.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise LockError(f"{where}: no format number", hint=_HAND)
    if number > LOCK_FORMAT:
        raise LockError(
            f"{where}: lock format {number} is newer than {LOCK_FORMAT}, the newest this envbuild reads",
            hint="upgrade envbuild",
        )
    stated = body.pop("integrity", None)
    try:
        actual = _integrity(body)
    except TypeError as error:
        raise LockError(f"{where}: {error}", hint=_HAND) from error
    if stated != actual:
        raise LockError(f"{where} was changed after it was made", hint=_HAND)
    try:
        lock = _load_body(body)
        check_values(lock)
        return lock, _load_files(body)
    except LockError as error:
        raise LockError(f"{where}: {error.message}", hint=error.hint or _HAND) from error


def _integrity(body: Mapping[str, Any]) -> str:
    return canonical_digest("lock-file", LOCK_FORMAT, body)


def _dump_platform(lock: PlatformLock) -> dict[str, Any]:
    record: dict[str, Any] = {"base": _dump_base(lock.base)}
    if lock.python:
        record["python"] = dump_record(lock.python)
    if lock.conda:
        record["conda"] = [dump_record(pin) for pin in sorted(lock.conda)]
    if lock.pip:
        record["pip"] = [dump_record(pin) for pin in sorted(lock.pip)]
    if lock.maven:
        record["maven"] = [dump_record(pin) for pin in sorted(lock.maven)]
    return record


def _dump_base(base: Base) -> dict[str, Any]:
    if isinstance(base, DebianBase):
        return {
            "debian": base.suite,
            "glibc": base.glibc,
            "packages": [dump_record(pin) for pin in sorted(base.packages)],
        }
    return {"image" if isinstance(base, ImageBase) else "context": dump_record(base)}


def _load_files(body: Mapping[str, Any]) -> dict[str, str]:
    files = expect_object(body.get("files", {}), "files")
    for name, digest in files.items():
        if PurePosixPath(name).name != name or not isinstance(digest, str) or not is_digest(digest):
            raise LockError(f"files: {name!r} isn't a file name with its digest")
    return files


def _load_body(body: Mapping[str, Any]) -> Lock:
    known = {
        "format", "definition", "bytecode", "files", "platforms", "runtime", "channels", "as_of",
        "as_of_kept", "toolchain", "installer", "engines",
    }  # fmt: skip
    unknown = sorted(set(body) - known)
    if unknown:
        raise LockError(f"unknown key {unknown[0]!r}")
    definition = expect_text(body.get("definition"), "definition")
    if not is_digest(definition):
        raise LockError("definition: must be a digest")
    bytecode = body.get("bytecode")
    if not isinstance(bytecode, bool):
        raise LockError("bytecode: must be true or false")
    platforms = _load_platforms(body.get("platforms"), "platforms")
    if not platforms:
        raise LockError("platforms: none")
    as_of, as_of_kept = body.get("as_of"), body.get("as_of_kept", False)
    if as_of_kept not in (True, False) or (as_of_kept and as_of is None):
        raise LockError("as_of_kept: must be true, beside an as_of")
    engines = expect_object(body.get("engines", {}), "engines")
    return Lock(
        definition=definition,
        bytecode=bytecode,
        platforms=platforms,
        runtime=_load_runtime(body.get("runtime", {})),
        channels=tuple(
            expect_text(entry, f"channels[{n}]")
            for n, entry in enumerate(expect_list(body.get("channels", []), "channels"))
        ),
        as_of=None if as_of is None else expect_text(as_of, "as_of"),
        as_of_kept=as_of_kept,
        toolchain=_load_platforms(body.get("toolchain", {}), "toolchain"),
        installer=_load_platforms(body.get("installer", {}), "installer"),
        engines=tuple(
            sorted((name, expect_text(engine, f"engines.{name}")) for name, engine in engines.items())
        ),
    )


def _load_runtime(value: object) -> RuntimeSettings:
    record = dict(expect_object(value, "runtime"))
    variables = expect_object(record.pop("environment_variables", {}), "runtime.environment_variables")
    plain = load_record(RuntimeSettings, record, "runtime")
    return replace(
        plain,
        environment_variables=tuple(
            sorted(
                (name, expect_text(variable, f"runtime.environment_variables.{name}"))
                for name, variable in variables.items()
            )
        ),
    )


def _load_platforms(value: object, where: str) -> tuple[PlatformLock, ...]:
    platform_locks = []
    for name, entry in expect_object(value, where).items():
        try:
            platform = Platform.parse(name)
        except UsageError as error:
            raise LockError(f"{where}: {error.message}", hint=error.hint) from error
        platform_locks.append(
            _load_platform(platform, expect_object(entry, f"{where}.{name}"), f"{where}.{name}")
        )
    return tuple(sorted(platform_locks, key=lambda lock: lock.platform))


def _load_platform(platform: Platform, record: dict[str, Any], where: str) -> PlatformLock:
    unknown = sorted(set(record) - {"base", "python", "conda", "pip", "maven"})
    if unknown:
        raise LockError(f"{where}: unknown key {unknown[0]!r}")
    python = record.get("python")
    conda = tuple(
        load_record(CondaPin, entry, f"{where}.conda[{n}]")
        for n, entry in enumerate(expect_list(record.get("conda", []), f"{where}.conda"))
    )
    pip = tuple(
        load_record(PipPin, entry, f"{where}.pip[{n}]")
        for n, entry in enumerate(expect_list(record.get("pip", []), f"{where}.pip"))
    )
    maven = tuple(
        load_record(MavenPin, entry, f"{where}.maven[{n}]")
        for n, entry in enumerate(expect_list(record.get("maven", []), f"{where}.maven"))
    )
    interpreter = None if python is None else load_record(PythonPin, python, f"{where}.python")
    build = (interpreter.build,) if interpreter and interpreter.build else ()
    sdists = (pin.sdist for pin in pip if pin.sdist)
    pins: tuple[PythonBuild | CondaPin | PipPin | Sdist, ...] = (*build, *conda, *pip, *sdists)
    for pin in pins:
        _check_file(pin.file, pin.sha256, pin.size, f"{where}: {pin.file!r}")
    for jar in maven:
        _check_pool_file(jar.file, jar.sha256, jar.size, f"{where}: {jar.name!r}")
    return PlatformLock(
        platform=platform,
        base=_load_base(expect_object(record.get("base"), f"{where}.base"), f"{where}.base"),
        python=interpreter,
        conda=tuple(sorted(conda)),
        pip=tuple(sorted(pip)),
        maven=tuple(sorted(maven)),
    )


def _load_base(record: dict[str, Any], where: str) -> Base:
    if set(record) == {"image"}:
        image = load_record(ImageBase, record["image"], f"{where}.image")
        for digest in (image.digest, *((image.index_digest,) if image.index_digest else ())):
            if not is_digest(digest):
                raise LockError(f"{where}.image: {digest!r} isn't a digest")
        for diff_id in image.diff_ids:
            if not is_diff_id(diff_id):
                raise LockError(f"{where}.image: {diff_id!r} isn't a digest")
        return image
    if set(record) == {"context"}:
        context = load_record(ContextBase, record["context"], f"{where}.context")
        if not is_digest(context.digest):
            raise LockError(f"{where}.context: {context.digest!r} isn't a digest")
        if _leaves(context.dockerfile):
            raise LockError(f"{where}.context: {context.dockerfile!r} leaves the context")
        for image_pin in context.images:
            if not is_digest(image_pin.digest):
                raise LockError(f"{where}.context.images: {image_pin.digest!r} isn't a digest")
        return replace(context, images=tuple(sorted(context.images)))
    if set(record) != {"debian", "glibc", "packages"}:
        raise LockError(f"{where}: must hold image, or context, or debian, glibc and packages")
    packages = tuple(
        load_record(DebianPin, entry, f"{where}.packages[{n}]")
        for n, entry in enumerate(expect_list(record["packages"], f"{where}.packages"))
    )
    for pin in packages:
        _check_pool_file(pin.file, pin.sha256, pin.size, f"{where}: {pin.name!r}")
    return DebianBase(
        suite=expect_text(record["debian"], f"{where}.debian"),
        glibc=expect_text(record["glibc"], f"{where}.glibc"),
        packages=tuple(sorted(packages)),
    )


def _leaves(path: str) -> bool:
    """Whether a relative path could name something outside the directory it is relative to."""
    return not path or path.startswith("/") or "\\" in path or ".." in PurePosixPath(path).parts


def _check_pool_file(path: str, sha256: str, size: int, where: str) -> None:
    _check_file(PurePosixPath(path).name, sha256, size, where)
    if _leaves(path):
        raise LockError(f"{where}: {path!r} leaves the archive")


def _check_file(name: str, sha256: str, size: int, where: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise LockError(f"{where}: {name!r} isn't a file name")
    if not _HEX.fullmatch(sha256):
        raise LockError(f"{where}: {sha256!r} isn't a SHA-256 in hex")
    if not 0 <= size <= _MAX_SIZE:
        raise LockError(f"{where}: {size} is no size of a file")
