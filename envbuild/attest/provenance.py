"""Where an image comes from: an in-toto statement with SLSA's provenance (both v1), made of the image alone.

It holds no time, no host and no number of a run, so the same image gives the same bytes wherever it is pushed
from, and whoever composes the image anew can compare. ``https://slsa.dev/spec/v1.0/provenance``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from envbuild.attest import purl
from envbuild.attest.base import AttachedDocument
from envbuild.errors import BuildError, LockError
from envbuild.lock.files import LOCK_FILE, parse_lock
from envbuild.lock.image.embedded import embedded_files
from envbuild.lock.model import CondaPin, ContextBase, DebianBase, ImageBase, PlatformLock
from envbuild.oci.digest import canonical_json, digest_bytes
from envbuild.oci.image import Image
from envbuild.oci.manifest import IN_TOTO, OCI_LAYER_ZSTD, ConfigDocument
from envbuild.oci.reference import is_local
from envbuild.store.content import Store
from envbuild.store.images import read_config

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://envbuild.dev/image/v1"
"""What the parameters mean: those of ``_parameters``. It changes when they do."""
BUILDER = "https://envbuild.dev/builder/v1"


def provenance(image: Image, store: Store) -> AttachedDocument:
    """The provenance of ``image``, whose blobs are in the store.

    Without a lock inside (an image that is taken as it is), it names what the labels say. Raises
    ``BuildError``."""
    config = read_config(image, store)
    dependencies = [_resource("lock", image.lock_digest)] if image.lock_digest else []
    if files := _lock_files(image, store):
        dependencies += _of_lock(files)
    elif base := config.labels.get("org.opencontainers.image.base.digest"):
        dependencies.append(_image(config.labels.get("org.opencontainers.image.base.name", ""), base))
    statement = {
        "_type": STATEMENT,
        "subject": [{"digest": _hex(image.digest)}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(image, config),
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }
    return AttachedDocument(
        name="provenance.json",
        media_type=IN_TOTO,
        artifact_type=IN_TOTO,
        content=canonical_json(statement),
    )


def _parameters(image: Image, config: ConfigDocument) -> dict[str, object]:
    zstd = any(layer.media_type == OCI_LAYER_ZSTD for layer in image.layers)
    return {
        "definition": image.definition_digest,
        "lock": image.lock_digest,
        "level": image.level,
        "platform": str(image.platform),
        "compression": "zstd" if zstd else "gzip",
        "layers": len(image.layers),
        "created": config.created,
    }


def _lock_files(image: Image, store: Store) -> Mapping[str, bytes]:
    try:
        return embedded_files(image, store)
    except LockError as error:
        raise BuildError(error.message, hint=error.hint) from error


def _of_lock(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    """The lock's files, its base, and every artifact it pins, in this order; each part sorted."""
    resources = [_resource(name, digest_bytes(content)) for name, content in sorted(files.items())]
    try:
        lock, _ = parse_lock(files[LOCK_FILE])
    except LockError:
        # Of a newer envbuild, say: its files are named all the same.
        return resources
    for pins in lock.platforms:
        if isinstance(pins.base, ImageBase):
            resources.append(_image(pins.base.reference, pins.base.digest))
    # The same tag of several platforms is one index, most often.
    named = {pin for pins in lock.platforms if isinstance(pins.base, ContextBase) for pin in pins.base.images}
    resources += [_image(pin.reference, pin.digest) for pin in sorted(named)]
    artifacts = {artifact for pins in lock.platforms for artifact in _artifacts(pins)}
    resources += [
        {"name": name, "uri": uri, "digest": {"sha256": sha256}} for uri, name, sha256 in sorted(artifacts)
    ]
    return resources


def _artifacts(pins: PlatformLock) -> Iterator[tuple[str, str, str]]:
    """Package URL, file and SHA-256 (bare hex) of each; of an sdist, too, that a wheel was built from."""
    if isinstance(pins.base, DebianBase):
        for deb in pins.base.packages:
            uri = purl.debian(deb.name, deb.version, architecture=deb.architecture, release={})
            yield uri, deb.file.rpartition("/")[2], deb.sha256
    if pins.python is not None and (build := pins.python.build) is not None:
        yield purl.python(build.version), build.file, build.sha256
    for package in pins.conda:
        yield _conda(package), package.file, package.sha256
    for wheel in pins.pip:
        uri = purl.pypi(wheel.name, wheel.version, wheel)
        yield uri, wheel.file, wheel.sha256
        if wheel.sdist is not None:
            yield uri, wheel.sdist.file, wheel.sdist.sha256
    for jar in pins.maven:
        yield purl.maven(jar.group, jar.artifact, jar.version), jar.file.rpartition("/")[2], jar.sha256


def _conda(pin: CondaPin) -> str:
    return purl.conda(
        pin.name,
        pin.version,
        build=pin.build,
        channel=purl.channel_of(pin.url),
        subdir=pin.subdir,
        file=pin.file,
    )


def _image(reference: str, digest: str) -> dict[str, object]:
    """The base. The name of a local one would be a path of the machine that locked it."""
    if is_local(reference) or not reference:
        return _resource("base", digest)
    name = reference.rpartition("/")[2].partition(":")[0]
    address = reference[: len(reference) - len(reference.rpartition("/")[2])] + name
    return {
        "uri": f"pkg:oci/{_quoted(name)}@{_quoted(digest)}?repository_url={_quoted(address)}",
        "digest": _hex(digest),
    }


def _resource(name: str, digest: str) -> dict[str, object]:
    return {"name": name, "digest": _hex(digest)}


def _hex(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _quoted(text: str) -> str:
    return quote(text, safe="")
