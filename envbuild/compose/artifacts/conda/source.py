"""Conda packages as entries of an image: linked into the prefix by the conda specification.

``conda list -p``, micromamba and rattler understand the prefix: every package has its record in
``conda-meta``. Where conda would run a package's own scripts while linking, the package is refused
before work begins. Byte code isn't in the records: the composer adds it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from envbuild.compose.artifacts.conda.archive import (
    PackageMember,
    UnpackedPackage,
    refusal,
    unpack,
)
from envbuild.compose.artifacts.conda.metadata import (
    EntryPoint,
    PackagePath,
    read_entry_points,
    read_index,
    read_paths,
)
from envbuild.compose.artifacts.conda.prefix import replace_in_file, replace_prefix, short_shebang
from envbuild.compose.base import ComposeContext, Entry, EntryKind, SourceTarget
from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download, Fetcher, RangeReader
from envbuild.lock.conda.listing import PackageListing, SkippingRangeReader, foresee_listing, read_listing
from envbuild.lock.conda.records import channel_record
from envbuild.lock.model import CondaPin, PythonPin
from envbuild.plan.model import Artifact
from envbuild.specs.model import PREFIX
from envbuild.store.content import Store

_BYTE_CODE = re.compile(r"(?:(.*)/)?__pycache__/([^/]+?)\.[a-z]+-?[0-9]+(?:\.opt-[0-9a-z]+)?\.pyc")
_REQUESTS = 16
"""Small requests at once."""
_NEEDS_ENGINE = "--engine buildx or docker runs it while the image is built; or pin a build without a script"
_OUTDATED = "no engine runs a pre-link script: pin a build without one"
_TEMPLATE = """# -*- coding: utf-8 -*-
import re
import sys

from {module} import {imported}

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit({function}())
"""


@dataclass(frozen=True, slots=True)
class _LinkedFile:
    """A file of the image (path relative to the prefix) and where it came from."""

    path: str
    member: PackageMember
    stated: PackagePath


def open_source(context: ComposeContext, target: SourceTarget) -> AbstractContextManager[CondaSource]:
    return nullcontext(
        CondaSource(context.store, context.fetcher(), python=target.python, drop_bytecode=target.bytecode)
    )


def open_files(context: ComposeContext, target: SourceTarget) -> CondaFiles:
    return CondaFiles(context.fetcher())


class CondaFiles:
    """Conda packages as files. What a package would run when it is linked is no matter here."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def fetch_files(self, artifacts: Sequence[Artifact]) -> dict[str, Path]:
        return self._fetcher.files([_download(_pin(artifact)) for artifact in artifacts])


class CondaSource:
    """An :class:`envbuild.compose.base.ArtifactSource` for conda packages.

    ``python`` is the image's interpreter, for ``noarch: python`` packages; ``site_packages`` its
    directory relative to the prefix where it isn't the usual one. ``drop_bytecode``: byte code that
    packages ship beside its source is left out, because the composer makes its own (theirs holds the
    time of a file that isn't in the image, so python would not use it).
    """

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        *,
        python: PythonPin | None = None,
        site_packages: str | None = None,
        prefix: PurePosixPath = PREFIX,
        drop_bytecode: bool = True,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._python = python
        self._site_packages = site_packages
        self._prefix = prefix
        self._drop_bytecode = drop_bytecode

    def fetch(self, artifacts: Sequence[Artifact]) -> None:
        """Downloads all of them, then refuses those that would run code, all in one ``BuildError``."""
        pins = [_pin(artifact) for artifact in artifacts]
        _refuse_unusual_python(pins)
        try:
            files = self._fetcher.files([_download(pin) for pin in pins])
        except FetchError as error:
            raise BuildError(error.message, hint=error.hint) from error
        with ThreadPoolExecutor(max_workers=2) as pool:
            listings = list(pool.map(read_listing, pins, (files[pin.sha256] for pin in pins)))
        _refuse_scripts(pins, [listing.link_script for listing in listings])

    def foresee(self, artifacts: Sequence[Artifact]) -> None:
        """Raises the same ``BuildError`` before any download, as far as small requests can tell."""
        pins = [_pin(artifact) for artifact in artifacts]
        _refuse_unusual_python(pins)
        listings = self._foresee(pins)
        _refuse_scripts(pins, [listing.link_script if listing else None for listing in listings])

    def activating(self, artifacts: Sequence[Artifact]) -> list[Artifact]:
        """See ``ActivatingSource``."""
        listings = dict(
            zip(artifacts, self._foresee([_pin(artifact) for artifact in artifacts]), strict=True)
        )
        unknown = [artifact for artifact, listing in listings.items() if listing is None]
        files = CondaFiles(self._fetcher).fetch_files(unknown)
        for artifact in unknown:
            listings[artifact] = read_listing(_pin(artifact), files[artifact.sha256])
        return [artifact for artifact, listing in listings.items() if listing and listing.activates]

    def _foresee(self, pins: Sequence[CondaPin]) -> list[PackageListing | None]:
        fetcher = self._fetcher
        reach = SkippingRangeReader(fetcher) if isinstance(fetcher, RangeReader) else None
        with ThreadPoolExecutor(max_workers=_REQUESTS) as pool:
            stored = [self._store.artifact(pin.sha256) for pin in pins]
            return list(pool.map(partial(foresee_listing, ranges=reach), pins, stored))

    def entries(self, artifact: Artifact) -> Iterator[Entry]:
        """The package's files below the prefix and its record in ``conda-meta``, sorted by path.

        A function of the archive, the pin, the prefix and the python. Scratch space is freed when the
        iterator ends."""
        pin = _pin(artifact)
        archive = self._store.artifact(pin.sha256)
        label = f"conda package {pin.name} {pin.version}"
        if not archive.is_file():
            raise BuildError(f"{label} was not fetched", hint="run the build again")
        with self._store.scratch() as scratch:
            package = unpack(archive, pin.file, scratch, label)
            yield from self._link_package(pin, package, scratch)

    def _link_package(self, pin: CondaPin, package: UnpackedPackage, scratch: Path) -> Iterator[Entry]:
        index = read_index(package)
        for key, wanted in (("name", pin.name), ("version", pin.version), ("build", pin.build)):
            if str(index.get(key)) != wanted:
                raise BuildError(
                    f"{package.label}: its metadata says {key} {index.get(key)!r}, the lock {wanted!r}",
                    hint="the lock was edited or the channel is wrong: lock again",
                )
        noarch = str(index.get("noarch") or "")
        linked = self._place_paths(package, noarch)
        entries = [
            self._replace_prefix(file, scratch, number)
            for number, file in enumerate(linked)
            if _is_prefixed(file)
        ]
        contents = {path: (content, size, sha256) for path, content, size, sha256 in entries}
        scripts = {}
        if noarch == "python":
            for point in read_entry_points(package):
                scripts[f"bin/{point.command}"] = self._entry_point_script(point)
        paths = {file.path for file in linked}
        both = sorted(paths & set(scripts))
        if both:
            raise refusal(package.label, f"{', '.join(both)} is a file and an entry point")
        record = _record(pin, index, linked, contents, scripts)
        record_path = f"conda-meta/{pin.name}-{pin.version}-{pin.build}.json"
        if record_path in paths:
            raise refusal(package.label, f"it brings its own {record_path}")
        root = str(self._prefix).lstrip("/")
        members: dict[str, _LinkedFile | bytes] = {file.path: file for file in linked}
        members.update(scripts)
        members[record_path] = record
        for path in sorted(members, key=lambda path: f"{root}/{path}".encode()):
            file = members[path]
            if isinstance(file, bytes):
                mode = 0o755 if path in scripts else 0o644
                yield Entry(path=f"{root}/{path}", content=file, mode=mode)
                continue
            mode = 0o755 if file.member.executable else 0o644
            match file.member.kind:
                case EntryKind.SYMLINK:
                    yield Entry(
                        path=f"{root}/{path}", kind=EntryKind.SYMLINK, mode=0o777, target=file.member.target
                    )
                case EntryKind.DIRECTORY:
                    yield Entry(path=f"{root}/{path}", kind=EntryKind.DIRECTORY, mode=0o755)
                case EntryKind.FILE:
                    content = contents[path][0] if path in contents else file.member.content()
                    yield Entry(path=f"{root}/{path}", content=content, mode=mode)

    def _place_paths(self, package: UnpackedPackage, noarch: str) -> list[_LinkedFile]:
        """The package's files at their places below the prefix, sorted, no place twice."""
        linked: dict[str, _LinkedFile] = {}
        paths = read_paths(package)
        sources = {stated.path for stated in paths}
        for stated in paths:
            if self._drop_bytecode and _source_of(stated.path) in sources:
                continue
            path = self._placed_path(stated.path, package.label) if noarch == "python" else stated.path
            if path in linked:
                raise refusal(package.label, f"two of its files go to {path}")
            if path.startswith("conda-meta/") and path.endswith(".json"):
                raise refusal(package.label, f"it brings a package record, {path}")
            member = package.members.get(stated.path, PackageMember(kind=EntryKind.DIRECTORY))
            linked[path] = _LinkedFile(path, member, stated)
        return [linked[path] for path in sorted(linked)]

    def _placed_path(self, path: str, label: str) -> str:
        top, _, rest = path.partition("/")
        if top == "site-packages":
            if self._python is None:
                raise BuildError(f"{label} is a python package, but the image has no python")
            directory = self._site_packages or f"lib/python{self._python.short}/site-packages"
            return f"{directory}/{rest}"
        return f"bin/{rest}" if top == "python-scripts" else path

    def _replace_prefix(
        self, file: _LinkedFile, scratch: Path, number: int
    ) -> tuple[str, bytes | Path, int, str]:
        placeholder, mode, prefix = file.stated.placeholder or "", file.stated.mode, str(self._prefix)
        content = file.member.content()
        if isinstance(content, bytes):
            data = b"".join(replace_prefix(content, placeholder, prefix, mode, file.path))
            return file.path, data, len(data), hashlib.sha256(data).hexdigest()
        sink = scratch / f"prefixed-{number}"
        size, sha256 = replace_in_file(content, sink, placeholder, prefix, mode, file.path)
        return file.path, sink, size, sha256

    def _entry_point_script(self, point: EntryPoint) -> bytes:
        if self._python is None:
            raise BuildError(f"entry point {point.command}: the image has no python")
        text = _TEMPLATE.format(
            module=point.module, imported=point.function.split(".")[0], function=point.function
        )
        return short_shebang(f"#!{self._prefix}/bin/python{self._python.short}\n{text}".encode())


def _refuse_scripts(pins: Sequence[CondaPin], reasons: Sequence[str | None]) -> None:
    refused = [
        f"conda package {pin.name} {pin.version} can't be composed: {reason}"
        for pin, reason in zip(pins, reasons, strict=True)
        if reason
    ]
    if refused:
        outdated = any("pre-link" in reason for reason in reasons if reason)
        raise BuildError("\n".join(refused), hint=_OUTDATED if outdated else _NEEDS_ENGINE)


def _refuse_unusual_python(pins: Sequence[CondaPin]) -> None:
    """Raises for a python that keeps packages elsewhere than usual, where wheels and byte code don't go."""
    for pin in pins:
        usual = f"lib/python{'.'.join(pin.version.split('.')[:2])}/site-packages"
        if pin.name == "python" and pin.python_site_packages_path not in (None, usual):
            raise BuildError(
                f"conda package python {pin.version} {pin.build} keeps packages in "
                f"{pin.python_site_packages_path}, which this version can't compose",
                hint="ask for the usual build: add python-gil to the conda dependencies, then lock again",
            )


def _is_prefixed(file: _LinkedFile) -> bool:
    return file.stated.placeholder is not None and file.member.kind is EntryKind.FILE


def _source_of(path: str) -> str | None:
    """The source that a file of byte code stands beside; None for any other file."""
    match = _BYTE_CODE.fullmatch(path)
    if match is None:
        return None
    directory, stem = match.groups()
    return f"{directory}/{stem}.py" if directory else f"{stem}.py"


def _download(pin: CondaPin) -> Download:
    return Download(
        what=f"conda package {pin.name} {pin.version}",
        urls=(pin.url,),
        sha256=pin.sha256,
        size=pin.size or None,
    )


def _pin(artifact: Artifact) -> CondaPin:
    if not isinstance(artifact.pin, CondaPin):
        raise BuildError(f"{artifact.name} is planned as a conda package but has no pin of one")
    return artifact.pin


def _record(
    pin: CondaPin,
    index: dict[str, Any],
    linked: Sequence[_LinkedFile],
    contents: dict[str, tuple[bytes | Path, int, str]],
    scripts: dict[str, bytes],
) -> bytes:
    """The package's ``conda-meta`` record (a ``PrefixRecord``): sorted keys, no path of this machine."""
    paths: list[dict[str, Any]] = []
    for file in linked:
        path: dict[str, Any] = {"_path": file.path}
        if file.member.kind is EntryKind.SYMLINK:
            path["path_type"] = "softlink"
        elif file.member.kind is EntryKind.DIRECTORY:
            path["path_type"] = "directory"
        else:
            path |= {"path_type": "hardlink", "sha256": file.member.sha256, "size_in_bytes": file.member.size}
            path["sha256_in_prefix"] = file.member.sha256
            if file.path in contents:
                path["file_mode"] = file.stated.mode
                path["prefix_placeholder"] = file.stated.placeholder
                path["sha256_in_prefix"] = contents[file.path][2]
        if file.stated.no_link:
            path["no_link"] = True
        paths.append(path)
    for name, content in sorted(scripts.items()):
        sha256 = hashlib.sha256(content).hexdigest()
        paths.append(
            {
                "_path": name,
                "path_type": "unix_python_entry_point",
                "sha256_in_prefix": sha256,
                "size_in_bytes": len(content),
            }
        )
    paths.sort(key=lambda path: str(path["_path"]))
    record = channel_record(pin) | {
        "arch": index.get("arch"),
        "extracted_package_dir": "",
        "files": [path["_path"] for path in paths],
        "license": index.get("license"),
        "link": {"source": "", "type": 1},
        "noarch": index.get("noarch"),
        "package_tarball_full_path": "",
        "paths_data": {"paths": paths, "paths_version": 1},
        "platform": index.get("platform"),
        "requested_spec": "",
    }
    kept = {key: value for key, value in record.items() if value is not None}
    return (json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
